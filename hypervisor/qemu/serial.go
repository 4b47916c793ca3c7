package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// QEMU lets one client at a time at the serial line. Whoever types holds the
	// line until nothing was typed for so long; then it is the next one's.
	lineIdle = time.Second
	// How often a console's log is looked at, and a held line asked for.
	lookEvery = 50 * time.Millisecond
	// lineLock is held by who types.
	lineLock = "serial.lock"
)

// Serial is a machine's serial console for people who may use its folder, whether
// or not a program of ours runs: QEMU itself keeps the log that all of them read,
// and takes what they type.
type Serial struct{ dir string }

// OpenSerial finds the console of the machine in a folder.
func OpenSerial(dir string) (*Serial, error) {
	if _, err := os.Stat(filepath.Join(dir, consoleName)); err != nil {
		return nil, fmt.Errorf("open the serial console: %w", err)
	}
	return &Serial{dir}, nil
}

// Follow writes to w what the guest has said, from the last tail bytes on, and
// what it says, until ctx ends. It returns nil where the machine is removed.
func (s *Serial) Follow(ctx context.Context, w io.Writer, tail int64) error {
	path := filepath.Join(s.dir, consoleName)
	log, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("follow the serial console: %w", err)
	}
	defer log.Close()
	end, err := log.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = log.Seek(max(0, end-tail), io.SeekStart)
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for err == nil {
		_, gone := os.Stat(path) // before the copy: what was said until then is shown
		if _, err = io.Copy(w, log); err == nil && errors.Is(gone, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return fmt.Errorf("follow the serial console: %w", err)
}

// Type hands to the guest what is typed, until keys is closed or ctx ends. Others
// may type too: in turns, which end with a pause.
func (s *Serial) Type(ctx context.Context, keys <-chan []byte) error {
	for {
		select {
		case first, more := <-keys:
			if !more {
				return nil
			}
			if err := s.turn(ctx, first, keys); err != nil {
				return fmt.Errorf("type at the serial console: %w", err)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// turn at the line, from the first keys to a pause.
func (s *Serial) turn(ctx context.Context, first []byte, keys <-chan []byte) error {
	release, err := s.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	go io.Copy(io.Discard, conn) // Follow shows it; a guest would wait for who doesn't read
	for pressed, more := first, true; more; {
		if _, err := conn.Write(pressed); err != nil {
			return err
		}
		select {
		case pressed, more = <-keys:
		case <-time.After(lineIdle):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	// They were the last: the line is not let go before QEMU has had time to take them.
	select {
	case <-time.After(lineIdle):
	case <-ctx.Done():
	}
	return nil
}

func (s *Serial) dial(ctx context.Context) (net.Conn, error) {
	d, err := openFolder(s.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.dial(ctx, serialName)
}

// hold the line, after whoever has it.
func (s *Serial) hold(ctx context.Context) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, lineLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
}
