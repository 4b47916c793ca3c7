package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// What a guest's folder has, an instance's and a bare one's alike.
const (
	pidFile     = "qemu.pid"
	consoleFile = "console.log"
)

const (
	// Looking costs the processor that is measured: what takes milliseconds is
	// looked for often, what takes seconds every millisecond.
	soon   = 200 * time.Microsecond
	slowly = time.Millisecond

	// guestTime is how long guests may take, many at once on a busy host.
	guestTime = 3 * time.Minute
)

// times of a launch, from its beginning.
type times struct {
	reply   time.Duration // RunInstances has answered; zero for bare ones
	process time.Duration // the last one's QEMU has begun
	byte    time.Duration // the last one's guest has written to its console
}

// await the guests in these folders.
func (t *times) await(ctx context.Context, began time.Time, dirs []string) error {
	ctx, cancel := context.WithTimeout(ctx, guestTime)
	defer cancel()
	if err := written(ctx, soon, dirs, pidFile); err != nil {
		return err
	}
	t.process = time.Since(began)
	if err := written(ctx, slowly, dirs, consoleFile); err != nil {
		return err
	}
	t.byte = time.Since(began)
	return nil
}

// written returns when the file of that name has a byte in every folder.
func written(ctx context.Context, every time.Duration, dirs []string, name string) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		for {
			if info, err := os.Stat(path); err == nil && info.Size() > 0 {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("waiting for the first byte of %s: %w", path, ctx.Err())
			}
		}
	}
	return nil
}

// gone returns when none of the paths is there.
func gone(ctx context.Context, paths []string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, path := range paths {
		for {
			if _, err := os.Lstat(path); os.IsNotExist(err) {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("waiting for the end of %s: %w", path, ctx.Err())
			}
		}
	}
	return nil
}
