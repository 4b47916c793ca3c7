package euca

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// grain is how much of a file is left a hole where it would be all zeros, in bytes.
const grain = 4096

var zeros [grain]byte

// newFile takes a file's name when it is whole, and before that is a hidden one
// beside it. What is zero in it takes no space. A device or pipe is written in place.
type newFile struct {
	f     *os.File
	final string
	place bool  // it is written in place
	at    int64 // how many bytes were written
}

func createFile(final string) (*newFile, error) {
	if info, err := os.Stat(final); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return nil, fmt.Errorf("write %s: it is a folder", final)
		}
		f, err := os.OpenFile(final, os.O_WRONLY, 0)
		return &newFile{f: f, final: final, place: true}, err
	}
	f, err := os.CreateTemp(filepath.Dir(final), ".new-*") // with mode 0600
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", final, err)
	}
	return &newFile{f: f, final: final}, nil
}

func (n *newFile) Write(p []byte) (written int, err error) {
	if n.place {
		return n.f.Write(p)
	}
	for len(p) > 0 && err == nil {
		piece := p[:min(int64(len(p)), grain-n.at%grain)]
		if !bytes.Equal(piece, zeros[:len(piece)]) {
			piece = n.run(p)
			_, err = n.f.WriteAt(piece, n.at)
		}
		n.at += int64(len(piece))
		written += len(piece)
		p = p[len(piece):]
	}
	return written, err
}

// run is the beginning of p up to a whole grain of zeros.
func (n *newFile) run(p []byte) []byte {
	end := int(min(int64(len(p)), grain-n.at%grain))
	for end < len(p) {
		next := min(len(p), end+grain)
		if bytes.Equal(p[end:next], zeros[:next-end]) {
			break
		}
		end = next
	}
	return p[:end]
}

// commit gives the file its name, in place of an older one's.
func (n *newFile) commit() error {
	if n.place {
		return n.f.Close()
	}
	err := n.f.Truncate(n.at)
	if err = errors.Join(err, n.f.Close()); err == nil {
		err = os.Rename(n.f.Name(), n.final)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", n.final, errors.Join(err, ignoreAbsent(os.Remove(n.f.Name()))))
	}
	n.f = nil
	return nil
}

// discard what wasn't committed.
func (n *newFile) discard() {
	if n == nil || n.f == nil {
		return
	}
	_ = n.f.Close() // it may be closed, and nothing better can be done
	if !n.place {
		if err := os.Remove(n.f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return // the next cleaning of the folder finds it by its name
		}
	}
}
