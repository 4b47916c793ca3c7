package bundle

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Joined is a bundle without its manifest: all its parts, one after another, and what is known of them.
type Joined struct {
	Parts   io.Reader // a Read that blocks doesn't end with the context
	Key, IV []byte    // 16 bytes each

	Size   int64            // of the image in bytes; 0 is not known, and the tar's header believed
	Digest *[sha1.Size]byte // of the tar; nil is not known, and damage may pass unseen that gzip's checksum doesn't show

	Progress func(done, total int64) // told how many of the image's bytes were written; may be nil
}

// Unpack writes the image to dst, as the function Unpack does and with its errors, and returns its size. dst is not the image
// until it has returned nil.
func (j Joined) Unpack(ctx context.Context, dst io.Writer) (size int64, err error) {
	if err := errors.Join(checkSecret("key", j.Key), checkSecret("IV", j.IV)); err != nil {
		return 0, fmt.Errorf("unpack bundle: %w", err)
	}
	size = unknown
	if j.Size > 0 {
		size = j.Size
	}
	if j.Progress == nil {
		j.Progress = func(int64, int64) {}
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	unpacked := newStream()
	read := &sourceReader{ctx: inner, in: j.Parts}
	var inflateErr error
	var stages sync.WaitGroup
	stages.Go(func() {
		inflateErr = inflate(inner, read, j.Key, j.IV, unpacked)
		unpacked.end(inflateErr)
	})
	untar := newUntar(unpacked, size, j.Digest, j.Progress)
	untarErr := untar.run(dst)
	unpacked.leave()
	stages.Wait()
	return max(untar.size, 0), verdict(ctx, read.err, inflateErr, untarErr)
}

// sourceReader keeps a reader's own failure apart from what the bytes cause, and ends with the context.
type sourceReader struct {
	ctx context.Context
	in  io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	n, err := s.in.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = fmt.Errorf("read parts: %w", err)
		err = errUpstream
	}
	return n, err
}
