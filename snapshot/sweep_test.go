package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"mallee/blob"
	"mallee/blob/mem"
	"mallee/cloud"
)

func sweep(t *testing.T, s *Store, live ...cloud.Content) Swept {
	t.Helper()
	swept, err := s.Sweep(t.Context(), liveOf(live...))
	must(t, err)
	return swept
}

func blobsOf(t *testing.T, blobs blob.Store) int {
	t.Helper()
	n := 0
	for _, err := range blobs.List(t.Context(), "") {
		must(t, err)
		n++
	}
	return n
}

func TestSweepInAnyOrder(t *testing.T) {
	s, blobs := newStore(t)
	shared := noise(1, 3*BlockSize)
	a := keep(t, s, "a", shared, nil)
	b := keep(t, s, "b", append(bytes.Clone(shared), noise(2, BlockSize)...), &a)
	c := keep(t, s, "c", append(noise(3, BlockSize), shared...), nil)
	if got := sweep(t, s, a, b, c); got != (Swept{}) {
		t.Errorf("swept what is live: %+v", got)
	}
	if got := sweep(t, s, b, c); got != (Swept{Manifests: 1, Pages: 1, Bytes: got.Bytes}) {
		t.Errorf("without a: %+v, want its manifest and page", got)
	}
	content(t, s, b)
	if got := sweep(t, s, c); got.Blocks != 1 {
		t.Errorf("without b: %+v, want the block that is its own", got)
	}
	content(t, openStore(t, blobs, t.TempDir()), c)
	sweep(t, s)
	if n := blobsOf(t, blobs); n != 0 {
		t.Errorf("%d blobs are left", n)
	}
}

func TestSweepSparesWriters(t *testing.T) {
	blobs, dir := mem.New(), t.TempDir()
	s := openStore(t, blobs, dir)
	data := noise(1, 4*BlockSize)
	parent := keep(t, s, "parent", data, nil)
	w := write(t, s, "a", parent.Size, &parent)
	must(t, w.WriteAt(t.Context(), noise(2, BlockSize), 0))
	must(t, w.WriteAt(t.Context(), noise(3, 512), BlockSize))
	copy(data, noise(2, BlockSize))
	copy(data[BlockSize:], noise(3, 512))

	sweep(t, s) // the parent is in no record any more
	must(t, w.Close())
	s = openStore(t, blobs, dir)
	sweep(t, s)
	w = write(t, s, "a", parent.Size, &parent)
	c := commit(t, w)
	sweep(t, s)
	must(t, w.Close())
	sweep(t, s)
	if !bytes.Equal(content(t, openStore(t, blobs, dir), c), data) {
		t.Error("other bytes")
	}
	must(t, s.RemoveJournal("a"))
	sweep(t, s)
	if n := blobsOf(t, blobs); n != 0 {
		t.Errorf("%d blobs are left", n)
	}
}

// TestSweepBesideWriters lets writers put again and again what sweeps just
// deleted, or are about to.
func TestSweepBesideWriters(t *testing.T) {
	s, blobs := newStore(t)
	var mu sync.Mutex
	type record struct {
		content cloud.Content
		data    []byte
	}
	live := map[string]record{} // by the writer's name
	seq := func(yield func(string, error) bool) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range live {
			if !yield(r.content.Manifest, nil) {
				return
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	group, _ := errgroup.WithContext(t.Context())
	group.Go(func() error {
		for ctx.Err() == nil {
			if _, err := s.Sweep(t.Context(), seq); err != nil {
				return err
			}
		}
		return nil
	})
	var writers errgroup.Group
	for n := range 4 {
		writers.Go(func() error {
			r := rand.New(rand.NewPCG(uint64(n), 2))
			var parent *cloud.Content
			last := ""
			for i := range 25 {
				data := make([]byte, 4*BlockSize)
				for b := range 4 {
					data[b*BlockSize] = byte(r.IntN(4)) // of a few blocks that come and go
				}
				name := fmt.Sprintf("w-%d-%d", n, i)
				w, c, err := writeAll(t.Context(), s, name, data, parent)
				if err != nil {
					return err
				}
				mu.Lock()
				live[name] = record{c, data}
				delete(live, last)
				mu.Unlock()
				if err := w.Remove(); err != nil {
					return err
				}
				if last, parent = name, &c; i%3 == 0 {
					last, parent = "", nil // this one stays
				}
			}
			return nil
		})
	}
	err := writers.Wait()
	cancel()
	if err := errors.Join(err, group.Wait()); err != nil {
		t.Fatal(err)
	}
	fresh := openStore(t, blobs, t.TempDir())
	for name, r := range live {
		if !bytes.Equal(content(t, fresh, r.content), r.data) {
			t.Errorf("%s has other bytes", name)
		}
	}
}

func writeAll(ctx context.Context, s *Store, name string, data []byte, parent *cloud.Content) (*Writer, cloud.Content, error) {
	w, err := s.Write(ctx, name, int64(len(data)), parent)
	if err != nil {
		return nil, cloud.Content{}, err
	}
	if err := w.WriteAt(ctx, data, 0); err != nil {
		return nil, cloud.Content{}, err
	}
	c, err := w.Commit(ctx)
	return w, c, err
}

func TestSweepStopsWhereItCannotSee(t *testing.T) {
	s, blobs := newStore(t)
	c := keep(t, s, "a", noise(1, BlockSize), nil)
	keep(t, s, "b", noise(2, BlockSize), nil)
	lost := cloud.Content{Manifest: strings.Repeat("ab", 32)}
	fails := func(yield func(string, error) bool) {
		_ = yield(c.Manifest, nil) && yield("", errBroken)
	}
	for name, live := range map[string]iter.Seq2[string, error]{
		"a lost manifest": liveOf(c, lost), "no digest": liveOf(c, cloud.Content{Manifest: "x"}), "records that fail": fails,
	} {
		if got, err := s.Sweep(t.Context(), live); err == nil || got != (Swept{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	spoil(t, blobs, pages, "flip")
	if _, err := s.Sweep(t.Context(), liveOf(c)); err != nil && blobsOf(t, blobs) != 6 {
		t.Errorf("%v, and %d blobs", err, blobsOf(t, blobs))
	}
}

func TestFilter(t *testing.T) {
	f := newFilter(20)
	digest := func(r *rand.Rand) (d Digest) {
		for i := range d {
			d[i] = byte(r.Uint32())
		}
		return d
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 50_000 {
		f.add(digest(r))
	}
	r = rand.New(rand.NewPCG(1, 1))
	for range 50_000 {
		if !f.has(digest(r)) {
			t.Fatal("what was added is not there")
		}
	}
	wrong := 0
	for range 50_000 {
		if f.has(digest(r)) {
			wrong++
		}
	}
	if wrong > 250 { // (1-exp(-4*50000/2^20))^4 is 0.1 %: 50 of them
		t.Errorf("%d of 50000 others are there", wrong)
	}
}
