package image

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockRetry is how often a build asks whether another one has ended. flock can't wait and be
// cancelled at once.
const lockRetry = 100 * time.Millisecond

// lock takes the lock file for this process, waiting for whoever has it. The kernel gives it back
// when the holder dies. The file stays: a lock on a removed file would be a lock on nothing.
func lock(ctx context.Context, file string, wait func()) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(lockRetry)
	defer tick.Stop()
	for first := true; ; first = false {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", file, err)
		}
		if first {
			wait()
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("waiting for another build in %s: %w", file, ctx.Err())
		case <-tick.C:
		}
	}
}
