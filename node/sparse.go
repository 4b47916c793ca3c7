package node

import (
	"bytes"
	"fmt"
	"os"
)

// hole is the unit in bytes in which zeroes are left out of a cached image.
const hole = 4096

var zeroes [hole]byte

// sparseWriter writes a file from its beginning, and leaves holes where an
// aligned block holds only zeroes: images are mostly empty.
type sparseWriter struct {
	f   *os.File
	at  int64
	buf []byte // what is left over from the last write, less than a block
	err error  // the first write to the file that failed: the file is worth nothing
}

func newSparseWriter(f *os.File) *sparseWriter { return &sparseWriter{f: f} }

func (w *sparseWriter) Write(p []byte) (int, error) {
	n := len(p)
	if len(w.buf) > 0 {
		take := min(hole-len(w.buf), len(p))
		w.buf, p = append(w.buf, p[:take]...), p[take:]
		if len(w.buf) < hole {
			return n, nil
		}
		if err := w.blocks(w.buf); err != nil {
			return 0, err
		}
		w.buf = w.buf[:0]
	}
	whole := len(p) &^ (hole - 1)
	if err := w.blocks(p[:whole]); err != nil {
		return 0, err
	}
	w.buf = append(w.buf, p[whole:]...)
	return n, nil
}

// blocks writes whole blocks, as few writes as there are runs of data.
func (w *sparseWriter) blocks(p []byte) error {
	for len(p) > 0 {
		run := 0
		for run < len(p) && !bytes.Equal(p[run:run+hole], zeroes[:]) {
			run += hole
		}
		if run > 0 {
			if err := w.put(p[:run]); err != nil {
				return err
			}
			w.at, p = w.at+int64(run), p[run:]
			continue
		}
		w.at, p = w.at+hole, p[hole:]
	}
	return nil
}

// Skip leaves a hole of n bytes, for a source that knows of its own.
func (w *sparseWriter) Skip(n int64) {
	if len(w.buf) == 0 {
		whole := n &^ (hole - 1)
		w.at, n = w.at+whole, n-whole
	}
	for n > 0 {
		part := min(n, hole)
		w.Write(zeroes[:part]) // blocks of zeroes are not written, and so can't fail
		n -= part
	}
}

// finish writes the rest, and gives the file the size that was promised.
func (w *sparseWriter) finish(size int64) error {
	if got := w.at + int64(len(w.buf)); got != size {
		return fmt.Errorf("the image has %d bytes where %d were registered", got, size)
	}
	if err := w.put(w.buf); err != nil {
		return err
	}
	w.keep(w.f.Truncate(roundUp(size)))
	return w.err
}

func (w *sparseWriter) put(p []byte) error {
	_, err := w.f.WriteAt(p, w.at)
	w.keep(err)
	return w.err
}

func (w *sparseWriter) keep(err error) {
	if w.err == nil && err != nil {
		w.err = fmt.Errorf("write to the image cache: %w", err)
	}
}
