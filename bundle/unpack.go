package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// Unpack writes the image that a bundle holds to dst. It reads every part through open, verifies, decrypts and unpacks
// as it reads, in three stages that run at once and some megabytes of memory whatever the image's size.
//
// dst is not the image until Unpack has returned nil: bytes are written before the digests that cover them are
// known. So dst should be a temporary file, which the caller deletes after any error. Errors are those
// listed in this package, a context's cause, or what open or dst returned; the outermost cause wins. After Unpack has
// returned, it neither reads nor writes any more.
//
// progress, unless nil, is told how many of the image's bytes were written, from one goroutine at a time.
func Unpack(ctx context.Context, m *Manifest, key, iv []byte, open Opener, dst io.Writer, progress func(done, total int64)) error {
	if err := errors.Join(checkSecret("key", key), checkSecret("IV", iv)); err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	encrypted, unpacked := newStream(), newStream()

	var sourceErr, inflateErr error
	var stages sync.WaitGroup
	stages.Go(func() {
		s := source{manifest: m, open: open, out: encrypted}
		sourceErr = s.run(inner)
		encrypted.end(sourceErr)
	})
	stages.Go(func() {
		inflateErr = inflate(inner, encrypted, key, iv, unpacked)
		encrypted.leave()
		unpacked.end(inflateErr)
	})
	untarErr := newUntar(unpacked, m.Size, &m.Digest, progress).run(dst)
	unpacked.leave()
	stages.Wait()
	return verdict(ctx, sourceErr, inflateErr, untarErr)
}

// verdict picks the error of the first stage that failed by itself.
func verdict(ctx context.Context, stages ...error) error {
	for _, err := range stages {
		switch {
		case err == nil || errors.Is(err, errUpstream) || errors.Is(err, errGone):
			continue
		case ctx.Err() != nil:
			return fmt.Errorf("unpack bundle: %w", context.Cause(ctx))
		}
		return fmt.Errorf("unpack bundle: %w", err)
	}
	return nil
}

// inflate is the stage in the middle: it decrypts and gunzips.
func inflate(ctx context.Context, in io.Reader, key, iv []byte, out *stream) error {
	plain, err := newDecrypter(in, key, iv)
	if err != nil {
		return err
	}
	unzip, err := gzip.NewReader(plain)
	if err != nil {
		return badGzip(err)
	}
	for {
		buf, err := out.buffer(ctx)
		if err != nil {
			return err
		}
		n, err := fill(unzip, buf)
		out.send(buf[:n])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return badGzip(err)
		}
	}
}

// badGzip leaves alone what isn't the gzip stream's fault.
func badGzip(err error) error {
	if errors.Is(err, errUpstream) || errors.Is(err, ErrPadding) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrGzip, err)
}
