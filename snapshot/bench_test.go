package snapshot

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"mallee/blob/dir"
)

const benchBlocks = 512 // 256 MiB

// source is a file of noise, read by blocks as a backup job reads a disk.
func source(b *testing.B) *os.File {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "source"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	for i := range benchBlocks {
		if _, err := f.Write(noise(uint64(i), BlockSize)); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return f
}

// blocksOf calls do for each block of the source, 16 at a time as QEMU's NBD
// client does.
func blocksOf(b *testing.B, f *os.File, do func(p []byte, offset int64) error) {
	var group errgroup.Group
	group.SetLimit(16)
	for i := range int64(benchBlocks) {
		group.Go(func() error {
			p := make([]byte, BlockSize)
			if _, err := f.ReadAt(p, i*BlockSize); err != nil {
				return err
			}
			return do(p, i*BlockSize)
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkReadAndHash(b *testing.B) {
	f := source(b)
	b.SetBytes(benchBlocks * BlockSize)
	for b.Loop() {
		blocksOf(b, f, func(p []byte, _ int64) error { sha256.Sum256(p); return nil })
	}
}

func BenchmarkStore(b *testing.B) {
	f := source(b)
	b.SetBytes(benchBlocks * BlockSize)
	for n := 0; b.Loop(); n++ {
		blobs, err := dir.Open(filepath.Join(b.TempDir(), fmt.Sprint(n)))
		if err != nil {
			b.Fatal(err)
		}
		s, err := Open(blobs, b.TempDir(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		w, err := s.Write(b.Context(), "a", benchBlocks*BlockSize, nil)
		if err != nil {
			b.Fatal(err)
		}
		blocksOf(b, f, func(p []byte, offset int64) error { return w.WriteAt(b.Context(), p, offset) })
		if _, err := w.Commit(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		w.Remove()
		s.Close()
		b.StartTimer()
	}
}

func BenchmarkRead(b *testing.B) {
	f := source(b)
	blobs, err := dir.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(blobs, b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	w, err := s.Write(b.Context(), "a", benchBlocks*BlockSize, nil)
	if err != nil {
		b.Fatal(err)
	}
	blocksOf(b, f, func(p []byte, offset int64) error { return w.WriteAt(b.Context(), p, offset) })
	c, err := w.Commit(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	w.Close()
	b.SetBytes(benchBlocks * BlockSize)
	p := make([]byte, BlockSize)
	for b.Loop() {
		r, err := s.Read(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		for i := range int64(benchBlocks) {
			if err := r.ReadAt(b.Context(), p, i*BlockSize); err != nil {
				b.Fatal(err)
			}
		}
	}
}
