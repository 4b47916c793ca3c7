package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// footprint is what the cloud takes now, in bytes: of disk for its instances,
// cached images left out, and of memory for its program.
func (s *subject) footprint() (disk, memory int64, err error) {
	if disk, err = allocated(s.Path("node"), "cache"); err != nil {
		return 0, 0, err
	}
	memory, err = proportional(s.PID())
	return disk, memory, err
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
