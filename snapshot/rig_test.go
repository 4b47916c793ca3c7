package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"mallee/blob"
	"mallee/blob/mem"
	"mallee/cloud"
	"mallee/nbd"
)

var (
	_ nbd.Export = (*Reader)(nil)
	_ nbd.Export = (*Writer)(nil)
)

const MiB = 1 << 20

// faulty is a blob store that fails when it is told to.
type faulty struct {
	blob.Store
	broken atomic.Bool
	puts   atomic.Int64
}

var errBroken = errors.New("the object store is away")

func (f *faulty) Put(ctx context.Context, key string, r io.Reader) error {
	if f.broken.Load() {
		return errBroken
	}
	f.puts.Add(1)
	return f.Store.Put(ctx, key, r)
}

func (f *faulty) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if f.broken.Load() {
		return nil, errBroken
	}
	return f.Store.Get(ctx, key, offset, length)
}

func newStore(t *testing.T) (*Store, *faulty) {
	t.Helper()
	blobs := &faulty{Store: mem.New()}
	return openStore(t, blobs, t.TempDir()), blobs
}

func openStore(t *testing.T, blobs blob.Store, dir string) *Store {
	t.Helper()
	s, err := Open(blobs, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func write(t *testing.T, s *Store, name string, size int64, parent *cloud.Content) *Writer {
	t.Helper()
	w, err := s.Write(t.Context(), name, size, parent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func commit(t *testing.T, w *Writer) cloud.Content {
	t.Helper()
	c, err := w.Commit(t.Context())
	must(t, err)
	return c
}

// keep commits a writer of the given bytes and removes it.
func keep(t *testing.T, s *Store, name string, data []byte, parent *cloud.Content) cloud.Content {
	t.Helper()
	w := write(t, s, name, int64(len(data)), parent)
	must(t, w.WriteAt(t.Context(), data, 0))
	c := commit(t, w)
	must(t, w.Remove())
	return c
}

func content(t *testing.T, s *Store, c cloud.Content) []byte {
	t.Helper()
	r, err := s.Read(t.Context(), c)
	must(t, err)
	data := make([]byte, r.Size())
	must(t, r.ReadAt(t.Context(), data, 0))
	return data
}

func noise(seed uint64, length int) []byte {
	out := make([]byte, length)
	rand.NewChaCha8([32]byte(fmt.Appendf(nil, "%032x", seed))).Read(out)
	return out
}

func liveOf(contents ...cloud.Content) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, c := range contents {
			if !yield(c.Manifest, nil) {
				return
			}
		}
	}
}
