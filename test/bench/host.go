package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// disk that the cloud's instances take now, in bytes; cached images are left out.
func (s *subject) disk() (int64, error) { return allocated(s.Path("node"), "cache") }

// calmTime is how long a fresh program is let alone before its memory is measured.
const calmTime = 5 * time.Second

// freshMemory is what the program takes, in bytes, when it has just been started
// anew, has found the instances that run, and has been asked for them.
func (s *subject) freshMemory(ctx context.Context) (int64, error) {
	if err := s.Stop(ctx); err != nil {
		return 0, err
	}
	if err := s.up(ctx); err != nil {
		return 0, err
	}
	if _, err := s.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{}); err != nil {
		return 0, err
	}
	select {
	case <-time.After(calmTime):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return proportional(s.PID())
}

// allocated on disk under root, but for the folder of that name in it.
func allocated(root, but string) (bytes int64, err error) {
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a file that came and went
		}
		if err != nil {
			return err
		}
		if path == filepath.Join(root, but) {
			return fs.SkipDir
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		return nil
	})
	return bytes, err
}

// proportional is the memory of a process, what it shares counted in shares (PSS).
func proportional(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("no Pss in smaps_rollup of %d: %s", pid, text)
}

// load of the host: processes that want to run, on average over a minute.
func load() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	var l float64
	fmt.Sscan(string(text), &l)
	return l
}
