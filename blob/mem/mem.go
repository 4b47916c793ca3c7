// Package mem is a blob store in memory, for tests and simulations. It keeps
// the whole contract but durability.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"mallee/blob"
)

// Store is a blob store in memory; New makes one.
type Store struct {
	mu    sync.RWMutex      // guards blobs
	blobs map[string][]byte // the slices are never written to again
}

var _ blob.Store = (*Store)(nil)

// New makes an empty store.
func New() *Store { return &Store{blobs: map[string][]byte{}} }

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, r io.Reader) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("put blob %s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.blobs[key]; ok {
		if !bytes.Equal(old, data) {
			return fmt.Errorf("put blob %s: %w", key, blob.ErrConflict)
		}
		return nil
	}
	s.blobs[key] = data
	return nil
}

// Get implements blob.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("get blob %s from %d: %w", key, offset, fs.ErrInvalid)
	}
	s.mu.RLock()
	data, ok := s.blobs[key]
	s.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("get blob %s: %w", key, fs.ErrNotExist)
	}
	data = data[min(offset, int64(len(data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Has implements blob.Store.
func (s *Store) Has(ctx context.Context, key string) (bool, error) {
	if err := check(ctx, key); err != nil {
		return false, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.blobs[key]
	return ok, nil
}

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, key)
	return nil
}

// List implements blob.Store.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		s.mu.RLock()
		blobs := maps.Clone(s.blobs)
		s.mu.RUnlock()
		for _, key := range slices.Sorted(maps.Keys(blobs)) {
			if err := ctx.Err(); err != nil {
				yield(blob.Info{}, fmt.Errorf("list blobs: %w", err))
				return
			}
			if strings.HasPrefix(key, prefix) && !yield(blob.Info{Key: key, Size: int64(len(blobs[key]))}, nil) {
				return
			}
		}
	}
}

func check(ctx context.Context, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("blob %s: %w", key, err)
	}
	return nil
}
