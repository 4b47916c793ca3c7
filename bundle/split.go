package bundle

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"fmt"
	"hash"
)

// splitter encrypts what is written to it and cuts the ciphertext into parts.
type splitter struct {
	ctx      context.Context // of the Write call that this belongs to
	sink     Sink
	prefix   string
	partSize int64

	mode    cipher.BlockMode
	pending []byte // plaintext short of a block
	scratch []byte // ciphertext

	part  PartWriter // nil between parts
	room  int64      // what still fits into it
	sum   hash.Hash
	parts []Part
	total int64
}

func newSplitter(ctx context.Context, o *Options, sink Sink) (*splitter, error) {
	block, err := aes.NewCipher(o.EncKey)
	if err != nil {
		return nil, err
	}
	return &splitter{
		ctx: ctx, sink: sink, prefix: o.Prefix, partSize: o.PartSize,
		mode: cipher.NewCBCEncrypter(block, o.EncIV), scratch: make([]byte, 0, bufferSize), sum: sha1.New(),
	}, nil
}

// write encrypts all whole blocks of what is there so far.
func (s *splitter) write(p []byte) error {
	for len(p) > 0 {
		have := append(append(s.scratch[:0], s.pending...), p[:min(len(p), bufferSize-aes.BlockSize)]...)
		p = p[len(have)-len(s.pending):]
		whole := len(have) / aes.BlockSize * aes.BlockSize
		s.pending = append(s.pending[:0], have[whole:]...)
		s.mode.CryptBlocks(have[:whole], have[:whole])
		if err := s.cut(have[:whole]); err != nil {
			return err
		}
	}
	return nil
}

// finish pads the last block and closes the last part. Where the ciphertext ends with a full part no empty one
// follows, as euca2ools would have it; readers can't tell the difference.
func (s *splitter) finish() error {
	pad := aes.BlockSize - len(s.pending)
	for range pad {
		s.pending = append(s.pending, byte(pad))
	}
	s.mode.CryptBlocks(s.pending, s.pending)
	if err := s.cut(s.pending); err != nil {
		return err
	}
	if s.part != nil {
		return s.endPart()
	}
	return nil
}

// cut distributes ciphertext over parts, opening each with its first byte.
func (s *splitter) cut(p []byte) error {
	for len(p) > 0 {
		if s.part == nil {
			if err := s.startPart(); err != nil {
				return err
			}
		}
		n := min(int64(len(p)), s.room)
		if _, err := s.part.Write(p[:n]); err != nil {
			return fmt.Errorf("write %s: %w", PartName(s.prefix, len(s.parts)), err)
		}
		s.sum.Write(p[:n])
		p, s.room, s.total = p[n:], s.room-n, s.total+n
		if s.room == 0 {
			if err := s.endPart(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *splitter) startPart() error {
	if err := s.ctx.Err(); err != nil {
		return context.Cause(s.ctx)
	}
	if limit := partLimit(s.prefix); len(s.parts) >= limit {
		return fmt.Errorf("more than the %d parts of %d bytes that fit a manifest: choose a larger part size", limit, s.partSize)
	}
	name := PartName(s.prefix, len(s.parts))
	part, err := s.sink(s.ctx, name)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	s.part, s.room = part, s.partSize
	s.sum.Reset()
	return nil
}

func (s *splitter) endPart() error {
	part := Part{Index: len(s.parts), Name: PartName(s.prefix, len(s.parts)), Digest: [sha1.Size]byte(s.sum.Sum(nil))}
	closing := s.part
	s.part = nil
	if err := closing.Close(); err != nil {
		return fmt.Errorf("close %s: %w", part.Name, err)
	}
	s.parts = append(s.parts, part)
	return nil
}

// abort gives up the part that is open, if any.
func (s *splitter) abort(err error) {
	if s.part != nil {
		_ = s.part.CloseWithError(err) // the cause is what the caller hears of
		s.part = nil
	}
}
