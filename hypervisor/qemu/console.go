package qemu

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
	return f, nil
}

// unwritten is the console of a machine that was never started.
type unwritten struct{ io.ReadSeeker }

func (unwritten) Close() error { return nil }
