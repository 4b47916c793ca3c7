package image

import (
	"bufio"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxDictionary is how much of what it unpacked a decompressor may have to remember, in bytes: by far more than
// compressors ask for unless told to.
const maxDictionary = 256 << 20

// unpackers are the compressions that are looked through. Each makes a stream out of a
// file's bytes, which is bounded in memory, and not in length.
var unpackers = map[string]func(ctx context.Context, r io.Reader) (io.ReadCloser, error){
	"gzip": func(_ context.Context, r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) },
	"zstd": func(_ context.Context, r io.Reader) (io.ReadCloser, error) {
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxDictionary), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	},
	"bzip2": func(_ context.Context, r io.Reader) (io.ReadCloser, error) {
		return io.NopCloser(bzip2.NewReader(r)), nil
	},
	"xz": unpackXZ,
}

// unpackXZ has the host's xz do it, in a sandbox.
func unpackXZ(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	tool, err := hostTool("xz", "xz-utils")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	out, in := io.Pipe()
	limits := Limits{VirtualSize: 1, Memory: maxDictionary + 256<<20, CPU: DefaultLimits.CPU}
	s := sandbox{tool: tool, args: []string{"-dcq", "--threads=1", fmt.Sprint("--memlimit-decompress=", maxDictionary)},
		limits: limits, stdin: r, stdout: in}
	done := make(chan struct{})
	go func() {
		defer close(done)
		in.CloseWithError(s.run(ctx)) // nil: the end
	}()
	return xzStream{out, cancel, done}, nil
}

// An xzStream ends its program when it is closed.
type xzStream struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

func (x xzStream) Close() error {
	x.cancel()
	x.PipeReader.Close()
	<-x.done
	return nil
}

// unpack opens a compressed window as a stream. Where the stream fails the file is at fault, unless a read
// of the file failed, or ctx ended.
func (w window) unpack(ctx context.Context, f io.ReaderAt, format string) (*unpacked, error) {
	open, ok := unpackers[format]
	if !ok {
		return nil, refuse("the file is compressed with %s, which isn't looked through: gzip, bzip2, xz and zstd are", format)
	}
	u := &unpacked{ctx: ctx, format: format, file: &countingReader{r: bufio.NewReaderSize(io.NewSectionReader(f, w.off, w.size), 1<<20)}}
	var err error
	if u.z, err = open(ctx, u.file); err != nil {
		return nil, u.blame(err)
	}
	return u, nil
}

// unpacked is the inside of a compressed file.
type unpacked struct {
	ctx    context.Context
	format string
	file   *countingReader
	z      io.ReadCloser
}

func (u *unpacked) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, context.Cause(u.ctx)
	}
	n, err := u.z.Read(b)
	if err != nil && err != io.EOF {
		err = u.blame(err)
	}
	return n, err
}

func (u *unpacked) Close() error { return u.z.Close() }

// blame says whose fault an error is.
func (u *unpacked) blame(err error) error {
	var missing *MissingToolError
	var bad *BadImageError
	switch {
	case u.file.err.Load() != nil:
		return fmt.Errorf("reading the %s file: %w", u.format, *u.file.err.Load())
	case u.ctx.Err() != nil, errors.As(err, &missing), errors.As(err, &bad):
		return err
	}
	var said *toolError
	if errors.As(err, &said) && said.exit() == 126 {
		return err
	}
	return refuse("the %s file is damaged or cut off: %v", u.format, err)
}

// countingReader tells how much was read, and which error the file made, if it made one. Another goroutine may
// read than asks.
type countingReader struct {
	r   io.Reader
	n   atomic.Int64
	err atomic.Pointer[error]
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	if err != nil && err != io.EOF {
		c.err.Store(&err)
	}
	return n, err
}

// writeSparse writes a stream into an empty file, and holes where it has zeros. A stream of more than
// limit bytes is refused once that many were written; what has zeros only takes no space up to there.
func writeSparse(dst *os.File, r io.Reader, limit int64, show func(written int64)) (int64, error) {
	buf := make([]byte, copyBuffer)
	for at := int64(0); ; {
		n, err := 0, error(nil)
		for n < len(buf) && err == nil {
			var got int
			got, err = r.Read(buf[n:])
			n += got
		}
		if at+int64(n) > limit {
			return at, refuse("there are more than %d bytes inside, which is the limit", limit)
		}
		if err := writeBlocks(dst, at, buf[:n]); err != nil {
			return at, fmt.Errorf("writing %s: %w", dst.Name(), err)
		}
		at += int64(n)
		show(at)
		if err == io.EOF {
			return at, dst.Truncate(at)
		}
		if err != nil {
			return at, err
		}
	}
}
