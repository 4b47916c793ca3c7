package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	copyBuffer = 1 << 20
	copyGrain  = 4096 // bytes; what a file system allocates
)

var zeros [copyGrain]byte

// copySparse copies size bytes to off of a destination that reads as zeros there, and writes
// only blocks that have something in them. Holes of a source file aren't even read.
func copySparse(dst io.WriterAt, off int64, src io.ReaderAt, size int64) error {
	buf := make([]byte, copyBuffer)
	for at := int64(0); at < size; {
		at = min(nextData(src, at), size)
		n := min(size-at, copyBuffer)
		if got, err := src.ReadAt(buf[:n], at); int64(got) < n {
			return fmt.Errorf("reading %d bytes at %d: %w", n, at, err)
		}
		if err := writeBlocks(dst, off+at, buf[:n]); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// writeBlocks writes each run of blocks that aren't all zero.
func writeBlocks(dst io.WriterAt, off int64, b []byte) error {
	for len(b) > 0 {
		skip, run := 0, 0
		for skip < len(b) && isZero(b[skip:min(skip+copyGrain, len(b))]) {
			skip = min(skip+copyGrain, len(b))
		}
		for run = skip; run < len(b) && !isZero(b[run:min(run+copyGrain, len(b))]); {
			run = min(run+copyGrain, len(b))
		}
		if run > skip {
			if _, err := dst.WriteAt(b[skip:run], off+int64(skip)); err != nil {
				return err
			}
		}
		b, off = b[run:], off+int64(run)
	}
	return nil
}

func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// nextData is the position of the next byte that isn't in a hole. Anything but a file on a
// file system that knows its holes has none.
func nextData(src io.ReaderAt, at int64) int64 {
	f, ok := src.(*os.File)
	if !ok {
		return at
	}
	next, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		info, err := f.Stat()
		if err != nil {
			return at
		}
		return max(at, info.Size()) // nothing but a hole up to the end
	}
	if err != nil || next < at {
		return at
	}
	return next
}
