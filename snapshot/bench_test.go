package snapshot

import (
	"crypto/rand"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"mallee/blob/dir"
	"mallee/blob/sealed"
)

const benchBlocks = 512 // 256 MiB

var changedMiB = flag.Int64("changed-mib", 1024, "how many MiB of a volume of 100 GiB have changed in BenchmarkSnapshot")

// source is a file of noise, read by blocks as a backup job reads a disk.
func source(b *testing.B) *os.File { return sourceOf(b, benchBlocks) }

func sourceOf(b *testing.B, n int64) *os.File {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "source"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	for i := range n {
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
	eachOf(b, f, benchBlocks, do)
}

func eachOf(b *testing.B, f *os.File, n int64, do func(p []byte, offset int64) error) {
	b.Helper()
	var group errgroup.Group
	group.SetLimit(16)
	for i := range n {
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

// BenchmarkSnapshot stores what has changed of a volume of 100 GiB, sealed and
// durable, and reads and hashes the same, turn by turn; it reports by how many times
// that is faster in each turn.
func BenchmarkSnapshot(b *testing.B) {
	const volume, apart = 100 << 30, 10 // blocks; the changes lie all over the volume
	n := *changedMiB << 20 / BlockSize
	f := sourceOf(b, n)
	var ratios []float64
	for b.Loop() {
		begun := time.Now()
		eachOf(b, f, n, func(p []byte, _ int64) error { sha256.Sum256(p); return nil })
		hashed := time.Since(begun)
		s := sealedStore(b)
		begun = time.Now()
		w, err := s.Write(b.Context(), "a", volume, nil)
		if err != nil {
			b.Fatal(err)
		}
		eachOf(b, f, n, func(p []byte, offset int64) error { return w.WriteAt(b.Context(), p, offset*apart%volume) })
		if _, err := w.Commit(b.Context()); err != nil {
			b.Fatal(err)
		}
		ratios = append(ratios, time.Since(begun).Seconds()/hashed.Seconds())
		if err := w.Remove(); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
	for turn, ratio := range ratios {
		b.ReportMetric(ratio, fmt.Sprintf("stored/hashed#%d", turn))
	}
}

// sealedStore is one as the program has it, in an empty folder.
func sealedStore(b *testing.B) *Store {
	b.Helper()
	root, err := os.MkdirTemp(b.TempDir(), "store")
	if err != nil {
		b.Fatal(err)
	}
	blobs, err := dir.Open(filepath.Join(root, "blobs"))
	if err != nil {
		b.Fatal(err)
	}
	under, err := sealed.New(blobs, make([]byte, sealed.KeySize), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(under, filepath.Join(root, "journals"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	return s
}
