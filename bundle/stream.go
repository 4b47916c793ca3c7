package bundle

import (
	"context"
	"errors"
	"io"
)

const (
	bufferSize  = 256 << 10
	bufferCount = 8 // per stream: 2 MiB between two stages
)

var (
	errGone     = errors.New("the next stage has stopped")
	errUpstream = errors.New("the stage before has failed")
)

// stream hands a fixed set of buffers round between two goroutines: one fills them, one reads them as an io.Reader.
// It is what bounds the memory between two stages of a pipeline, and lets both run at once.
type stream struct {
	full chan []byte   // holds every buffer, so sending never blocks
	free chan []byte   // empty buffers
	gone chan struct{} // closed when the reader has left
	fail bool          // the writer failed; set before full is closed, read after

	current, rest []byte // the reader's: the buffer it is in, and what it hasn't read of it
}

func newStream() *stream {
	s := &stream{
		full: make(chan []byte, bufferCount),
		free: make(chan []byte, bufferCount),
		gone: make(chan struct{}),
	}
	for range bufferCount {
		s.free <- make([]byte, bufferSize)
	}
	return s
}

// buffer waits for an empty buffer. It fails with errGone when nobody reads any more, and with the context's cause.
func (s *stream) buffer(ctx context.Context) ([]byte, error) {
	select {
	case b := <-s.free:
		return b[:bufferSize], nil
	case <-s.gone:
		return nil, errGone
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// send passes on a buffer got from buffer, filled in part or in full.
func (s *stream) send(b []byte) { s.full <- b }

// end says that nothing follows; after a failure the reader gets errUpstream, else io.EOF.
func (s *stream) end(err error) {
	s.fail = err != nil
	close(s.full)
}

// leave says that the reader wants no more.
func (s *stream) leave() { close(s.gone) }

// Read doesn't look at a context: the writer always ends.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.current != nil {
			s.free <- s.current
			s.current = nil
		}
		b, more := <-s.full
		if !more && s.fail {
			return 0, errUpstream
		}
		if !more {
			return 0, io.EOF
		}
		s.current, s.rest = b, b
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// fill reads until the buffer is full or the reader has ended, and returns the reader's own error, io.EOF included.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for idle := 0; n < len(buf) && err == nil; {
		var got int
		got, err = r.Read(buf[n:])
		n += got
		if idle++; got > 0 {
			idle = 0
		}
		if idle > 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}
