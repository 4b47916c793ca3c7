package qemu

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A guest can write to its console for ever. When the log takes more than
// consoleMost, all but the last consoleKept goes back to the host: the file
// keeps its length, for QEMU goes on appending, and gets a hole. Bytes.
const (
	consoleMost  = 8 << 20
	consoleKept  = 1 << 20
	consoleBlock = 64 << 10 // the largest block of a file system: less than one would be zeroed, not freed
)

// openConsole opens what QEMU has logged of the serial console.
func openConsole(dir string) (io.ReadSeekCloser, error) {
	f, err := os.Open(filepath.Join(dir, consoleName))
	if errors.Is(err, fs.ErrNotExist) {
		return unwritten{strings.NewReader("")}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the console: %w", err)
	}
	begin, err := f.Seek(0, unix.SEEK_DATA) // behind the hole, if any
	if errors.Is(err, unix.ENXIO) {
		begin, err = 0, nil // nothing but a hole or nothing at all
	}
	var end int64
	if err == nil {
		end, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening the console: %w", err)
	}
	return &written{io.NewSectionReader(f, begin, end-begin), f}, nil
}

// written is the console as it was when it was opened.
type written struct {
	*io.SectionReader
	file *os.File
}

func (w *written) Close() error { return w.file.Close() }

// unwritten is the console of a machine that was never started.
type unwritten struct{ io.ReadSeeker }

func (unwritten) Close() error { return nil }

// trimConsole keeps the log from filling the host's disk.
func trimConsole(dir string) error {
	path := filepath.Join(dir, consoleName)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("measuring the console: %w", err)
	}
	if info.Sys().(*syscall.Stat_t).Blocks*512 <= consoleMost {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("trimming the console: %w", err)
	}
	defer f.Close()
	hole := (info.Size() - consoleKept) / consoleBlock * consoleBlock
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, hole); err != nil {
		return fmt.Errorf("trimming the console %s: %w", path, err)
	}
	return nil
}
