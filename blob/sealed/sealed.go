// Package sealed wraps a blob store so that what lies in it is encrypted: who has
// the store's disk, or bucket, but not the key learns how many blobs there are,
// their keys and their sizes, and can change none without being noticed.
//
// A blob is stored as a nonce (12 bytes, random) and AES-256-GCM of its bytes, with
// its key as additional data, so that no blob passes for another. GCM opens a
// blob only whole, so blobs are held in memory while they are put and read, and are
// bounded. Keys that are digests tell who knows a blob's bytes that they are there.
//
// A random nonce of 96 bits is good for some 2^32 blobs under a key; those of a
// petabyte of snapshots are half of that.
package sealed

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"mallee/blob"
)

const (
	// KeySize is the length of a store's key in bytes.
	KeySize = 32
	// MaxBlob is the length of a blob at most, in bytes.
	MaxBlob = 16 << 20

	overhead = 12 + 16 // nonce and tag, in bytes
)

// Store is a sealed blob store; New makes one.
type Store struct {
	inner blob.Store
	aead  cipher.AEAD
	rand  io.Reader
}

var _ blob.Store = (*Store)(nil)

// New seals what is put into a store with a key, with nonces from rand, which is
// crypto/rand.Reader but in tests.
func New(inner blob.Store, key []byte, rand io.Reader) (*Store, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("the key of a sealed blob store has %d bytes, want %d", len(key), KeySize)
	}
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("sealing a blob store: %w", err)
	}
	aead, err := cipher.NewGCM(c)
	if err != nil {
		return nil, fmt.Errorf("sealing a blob store: %w", err)
	}
	return &Store{inner, aead, rand}, nil
}

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, r io.Reader) error {
	data, err := whole(r)
	if err == nil && len(data) > MaxBlob {
		err = fmt.Errorf("more than %d bytes: %w", MaxBlob, fs.ErrInvalid)
	}
	var sealed []byte
	if err == nil {
		sealed, err = s.seal(key, data)
	}
	if err != nil {
		return fmt.Errorf("put blob %s: %w", key, err)
	}
	err = s.inner.Put(ctx, key, bytes.NewReader(sealed))
	if errors.Is(err, blob.ErrConflict) {
		return s.putAgain(ctx, key, data, err)
	}
	return err
}

// whole reads r to its end, or past MaxBlob: into memory of its size, where it says
// that. Memory that grows bit by bit is moved so often that it takes longer than
// hashing.
func whole(r io.Reader) ([]byte, error) {
	size := bytes.MinRead
	if sized, ok := r.(interface{ Len() int }); ok {
		size = min(sized.Len(), MaxBlob)
	}
	data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead)) // it wants room to see the end
	_, err := data.ReadFrom(io.LimitReader(r, MaxBlob+1))
	return data.Bytes(), err
}

func (s *Store) seal(key string, data []byte) ([]byte, error) {
	out := make([]byte, s.aead.NonceSize(), len(data)+overhead)
	if _, err := io.ReadFull(s.rand, out); err != nil {
		return nil, err
	}
	return s.aead.Seal(out, out, data, []byte(key)), nil
}

// putAgain finds out whether a blob that is there has the same bytes under another
// nonce. If so it is put as it is, since its first writer may not have made it
// durable yet.
func (s *Store) putAgain(ctx context.Context, key string, data []byte, conflict error) error {
	sealed, err := s.fetch(ctx, key)
	if err != nil {
		return err
	}
	old, err := s.open(key, sealed)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, data) {
		return conflict
	}
	return s.inner.Put(ctx, key, bytes.NewReader(sealed))
}

// fetchBytes is how much is read of a blob before more memory is had for it.
const fetchBytes = 32 << 10

// fetch a blob as it lies there.
func (s *Store) fetch(ctx context.Context, key string) ([]byte, error) {
	r, err := s.inner.Get(ctx, key, 0, MaxBlob+overhead+1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	sealed := bytes.NewBuffer(make([]byte, 0, fetchBytes))
	if _, err := sealed.ReadFrom(r); err != nil {
		return nil, fmt.Errorf("get blob %s: %w", key, err)
	}
	return sealed.Bytes(), nil
}

// open checks and decrypts what fetch found.
func (s *Store) open(key string, sealed []byte) ([]byte, error) {
	if len(sealed) < overhead || len(sealed) > MaxBlob+overhead {
		return nil, fmt.Errorf("get blob %s: %w: it has %d bytes, which is no sealed blob", key, blob.ErrDamaged, len(sealed))
	}
	nonce := sealed[:s.aead.NonceSize()]
	data, err := s.aead.Open(nil, nonce, sealed[len(nonce):], []byte(key))
	if err != nil {
		return nil, fmt.Errorf("get blob %s: %w, or sealed with another key: %w", key, blob.ErrDamaged, err)
	}
	return data, nil
}

// Get implements blob.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if offset < 0 {
		return nil, fmt.Errorf("get blob %s from %d: %w", key, offset, fs.ErrInvalid)
	}
	sealed, err := s.fetch(ctx, key)
	if err != nil {
		return nil, err
	}
	data, err := s.open(key, sealed)
	if err != nil {
		return nil, err
	}
	data = data[min(offset, int64(len(data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Has implements blob.Store.
func (s *Store) Has(ctx context.Context, key string) (bool, error) { return s.inner.Has(ctx, key) }

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, key string) error { return s.inner.Delete(ctx, key) }

// List implements blob.Store.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for info, err := range s.inner.List(ctx, prefix) {
			info.Size = max(info.Size-overhead, 0)
			if !yield(info, err) {
				return
			}
		}
	}
}
