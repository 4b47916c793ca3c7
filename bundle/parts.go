package bundle

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Opener opens one part for reading. It must return when the context ends, and what it returns must end a blocked Read when it
// is closed or the context ends, as files, pipes and HTTP bodies do: Unpack waits for both. The body is closed exactly once.
type Opener func(ctx context.Context, part Part) (io.ReadCloser, error)

// drainLimit is how many bytes of a part are still read, for its digest's sake, after what it holds was found to be broken.
const drainLimit = 64 << 20

// source is the first stage of Unpack: it reads the parts one after another, verifies each, and passes their bytes on as
// they come. So bytes of a part travel before its digest is known; that is why nothing is final until Unpack returns nil.
type source struct {
	manifest *Manifest
	open     Opener
	out      *stream

	left    int64 // of bundled_size, before the current part
	first   int64 // length of part 0, once it is verified
	stopped bool  // the next stage has left; read on without passing on
	scratch []byte
}

// opening is a part being opened ahead of its turn.
type opening chan struct {
	body io.ReadCloser
	err  error
}

func (s *source) prefetch(ctx context.Context, index int) opening {
	if index >= len(s.manifest.Parts) {
		return nil
	}
	ahead := make(opening, 1)
	go func() {
		body, err := s.open(ctx, s.manifest.Parts[index])
		ahead <- struct {
			body io.ReadCloser
			err  error
		}{body, err}
	}()
	return ahead
}

// run reads all parts. The next one is opened while the current one is read.
func (s *source) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.left = s.manifest.BundledSize
	ahead := s.prefetch(ctx, 0)
	for i, part := range s.manifest.Parts {
		current := <-ahead
		if current.err != nil {
			return partError(part, fmt.Errorf("open: %w", current.err))
		}
		ahead = s.prefetch(ctx, i+1)
		if err := s.part(ctx, part, current.body); err != nil || s.stopped {
			cancel()
			ahead.abandon()
			return partError(part, err)
		}
	}
	if s.left != 0 {
		return fmt.Errorf("%w: %d, not %d", ErrBundledSize, s.manifest.BundledSize-s.left, s.manifest.BundledSize)
	}
	return nil
}

// partError names the part, but for errors that aren't its fault.
func partError(part Part, err error) error {
	if err == nil || errors.Is(err, errGone) {
		return nil
	}
	return &PartError{Index: part.Index, Name: part.Name, Err: err}
}

// abandon closes what an opening yields that nobody wants any more; its context has ended. A nil opening is none.
func (o opening) abandon() {
	if o == nil {
		return
	}
	if got := <-o; got.err == nil {
		got.body.Close()
	}
}

// part passes one part on and verifies it. Closing the body is how a blocked read ends when the context does.
func (s *source) part(ctx context.Context, part Part, body io.ReadCloser) error {
	closeBody := sync.OnceValue(body.Close)
	defer closeBody()
	defer context.AfterFunc(ctx, func() { closeBody() })()

	sum, got, drained := sha1.New(), int64(0), 0
	for {
		buf, err := s.buffer(ctx)
		if err != nil {
			return err
		}
		n, err := fill(body, buf)
		sum.Write(buf[:n])
		got += int64(n)
		if got > s.left {
			return fmt.Errorf("%w: all parts together have %d bytes", ErrLongPart, s.manifest.BundledSize)
		}
		if drained += n; s.stopped && drained > drainLimit {
			return errGone
		}
		if !s.stopped {
			drained = 0
			s.out.send(buf[:n])
		}
		if errors.Is(err, io.EOF) {
			return s.verify(part, [sha1.Size]byte(sum.Sum(nil)), got)
		}
		if err != nil {
			return fmt.Errorf("read after %d bytes: %w", got, err)
		}
	}
}

// buffer is where the next bytes go: to the next stage, or nowhere once that has left.
func (s *source) buffer(ctx context.Context) ([]byte, error) {
	if !s.stopped {
		buf, err := s.out.buffer(ctx)
		if !errors.Is(err, errGone) {
			return buf, err
		}
		s.stopped, s.scratch = true, make([]byte, bufferSize)
	}
	return s.scratch, context.Cause(ctx)
}

// verify compares digests. Which length a part should have is known only by inference, so the length explains a wrong digest
// and never accuses a right one.
func (s *source) verify(part Part, sum [sha1.Size]byte, got int64) error {
	least, most := s.lengths(part.Index)
	switch {
	case sum == part.Digest:
		s.left -= got
		if part.Index == 0 {
			s.first = got
		}
		return nil
	case got < least:
		return fmt.Errorf("%w: %d bytes, not %d", ErrShortPart, got, least)
	case got > most:
		return fmt.Errorf("%w: %d bytes, not %d", ErrLongPart, got, most)
	}
	return fmt.Errorf("%w: SHA-1 of its %d bytes is %x, not %x", ErrPartDigest, got, sum, part.Digest)
}

// lengths infers how long a part may be from how bundles are cut: all parts alike but the last, which isn't longer, most often
// of DefaultPartSize. For part 0 of another size it knows a range only.
func (s *source) lengths(index int) (least, most int64) {
	n, total := int64(len(s.manifest.Parts)), s.manifest.BundledSize
	switch {
	case index == int(n)-1:
		return s.left, s.left
	case index > 0:
		return s.first, s.first
	}
	least, most = (total+n-1)/n, total/(n-1)
	if least <= DefaultPartSize && DefaultPartSize <= most {
		return DefaultPartSize, DefaultPartSize
	}
	return least, most
}
