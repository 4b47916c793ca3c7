package snapshot

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mallee/blob"
	"mallee/blob/mem"
	"mallee/cloud"
)

func TestRandomWritesAgainstAPlainDisk(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			randomWrites(t, seed)
		})
	}
}

// randomWrites does the same to a writer and to bytes in memory, with the
// program ending now and then, and compares.
func randomWrites(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	blobs, dir := mem.New(), t.TempDir()
	s := openStore(t, blobs, dir)
	old := noise(seed, 5*BlockSize+512)
	clear(old[BlockSize : 2*BlockSize])
	parent := keep(t, s, "parent", old, nil)

	size := 70*BlockSize + 1024
	want := make([]byte, size)
	copy(want, old)
	w := write(t, s, "child", int64(size), &parent)
	for range 150 {
		offset, length := r.IntN(size/512)*512, (1+r.IntN(8))*512
		switch r.IntN(6) {
		case 0:
			offset, length = offset/BlockSize*BlockSize, BlockSize*(1+r.IntN(3))
		case 1:
			length = 3*BlockSize/2 + 100
		case 2:
			must(t, w.Close())
			if r.IntN(2) == 0 {
				s = openStore(t, blobs, dir)
			}
			w = write(t, s, "child", int64(size), &parent)
		case 3:
			must(t, w.Flush(t.Context()))
		}
		part := want[offset:min(offset+length, size)]
		if r.IntN(5) == 0 {
			clear(part)
			must(t, w.Zero(t.Context(), int64(offset), int64(len(part))))
			continue
		}
		copy(part, noise(r.Uint64(), len(part)))
		must(t, w.WriteAt(t.Context(), part, int64(offset)))
	}
	got := make([]byte, size)
	must(t, w.ReadAt(t.Context(), got, 0))
	if !bytes.Equal(got, want) {
		t.Error("the open writer reads other bytes")
	}
	c := commit(t, w)
	if !bytes.Equal(content(t, s, c), want) {
		t.Error("the content has other bytes")
	}
	if keep(t, s, "again", want, nil) != c {
		t.Error("the same bytes written at once are another content")
	}
	checkExtents(t, s, c, want)
}

// checkExtents walks the extents: all holes must be zero, and all that isn't
// must be listed.
func checkExtents(t *testing.T, s *Store, c cloud.Content, want []byte) {
	t.Helper()
	r, err := s.Read(t.Context(), c)
	must(t, err)
	there := map[int64]bool{}
	for b, err := range r.Blocks(t.Context(), 0) {
		must(t, err)
		there[b.Index] = true
	}
	for offset := int64(0); offset < r.Size(); {
		length, hole := r.Extent(t.Context(), offset)
		if length <= 0 || hole == there[offset/BlockSize] {
			t.Fatalf("Extent(%d) = %d, %t; listed: %t", offset, length, hole, there[offset/BlockSize])
		}
		end := min(offset+length, r.Size())
		if hole && !bytes.Equal(want[offset:end], make([]byte, end-offset)) {
			t.Fatalf("Extent(%d) = %d, a hole over data", offset, length)
		}
		offset = end
	}
}

func TestSharedBlocksAreStoredOnce(t *testing.T) {
	s, blobs := newStore(t)
	data := bytes.Repeat(noise(1, BlockSize), 20)
	first := keep(t, s, "a", data, nil)
	if n := blobs.puts.Load(); n != 3 {
		t.Errorf("%d puts for twenty equal blocks, want one, a page and a manifest", n)
	}
	copy(data[7*BlockSize:], noise(2, BlockSize))
	w := write(t, s, "b", first.Size, &first)
	must(t, w.WriteAt(t.Context(), data[7*BlockSize:8*BlockSize], 7*BlockSize))
	if w.Done() != BlockSize {
		t.Errorf("Done = %d after one block", w.Done())
	}
	second := commit(t, w)
	if n := blobs.puts.Load(); n != 6 {
		t.Errorf("%d puts after a change of one block, want 6", n)
	}
	if !bytes.Equal(content(t, s, second), data) {
		t.Error("other bytes")
	}
	var changes []Change
	for c, err := range s.Diff(t.Context(), first, second, 0) {
		must(t, err)
		changes = append(changes, c)
	}
	if len(changes) != 1 || changes[0].Index != 7 || changes[0].Second != sha256.Sum256(data[7*BlockSize:8*BlockSize]) {
		t.Errorf("changes: %v", changes)
	}
}

func TestLargeAndSparse(t *testing.T) {
	s, blobs := newStore(t)
	const size = 16 << 40
	w := write(t, s, "large", size, nil)
	for _, offset := range []int64{0, 5 << 40, size - 512} {
		must(t, w.WriteAt(t.Context(), noise(uint64(offset), 512), offset))
	}
	c := commit(t, w)
	if n := blobs.puts.Load(); n != 7 {
		t.Errorf("%d puts, want three blocks, three pages, a manifest", n)
	}
	r, err := s.Read(t.Context(), c)
	must(t, err)
	got := make([]byte, 512)
	must(t, r.ReadAt(t.Context(), got, size-512))
	if !bytes.Equal(got, noise(size-512, 512)) {
		t.Error("the last sector has other bytes")
	}
	var indexes []int64
	for b, err := range r.Blocks(t.Context(), 1) {
		must(t, err)
		indexes = append(indexes, b.Index)
	}
	if fmt.Sprint(indexes) != fmt.Sprint([]int64{5 << 40 / BlockSize, size/BlockSize - 1}) {
		t.Errorf("blocks from 1 on: %v", indexes)
	}
	grown := write(t, s, "grown", 2*size, &c)
	if got := commit(t, grown); !bytes.Equal(read(t, s, got, size-512, 1024), append(noise(size-512, 512), make([]byte, 512)...)) {
		t.Error("grown: other bytes around its parent's end")
	}
	if _, err := s.Write(t.Context(), "less", size/2, &c); err == nil {
		t.Error("a content smaller than its parent was begun")
	}
}

func read(t *testing.T, s *Store, c cloud.Content, offset int64, length int) []byte {
	t.Helper()
	r, err := s.Read(t.Context(), c)
	must(t, err)
	data := make([]byte, length)
	must(t, r.ReadAt(t.Context(), data, offset))
	return data
}

func TestFullDropsTheParent(t *testing.T) {
	blobs, dir := mem.New(), t.TempDir()
	s := openStore(t, blobs, dir)
	parent := keep(t, s, "a", noise(1, 4*BlockSize), nil)
	w := write(t, s, "b", parent.Size, &parent)
	data := noise(2, BlockSize)
	must(t, w.WriteAt(t.Context(), data, 0))
	must(t, w.Full(t.Context()))
	must(t, w.Close())
	w = write(t, openStore(t, blobs, dir), "b", parent.Size, &parent)
	c := commit(t, w)
	if !bytes.Equal(content(t, s, c), append(data, make([]byte, 3*BlockSize)...)) {
		t.Error("the parent shows through a full copy")
	}
}

func TestAJournalGoesOnAfterCommit(t *testing.T) {
	blobs, dir := mem.New(), t.TempDir()
	s := openStore(t, blobs, dir)
	w := write(t, s, "a", MiB, nil)
	must(t, w.WriteAt(t.Context(), noise(1, 4096), 4096))
	c := commit(t, w)
	if err := w.WriteAt(t.Context(), noise(2, 512), 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("writing after the commit: %v", err)
	}
	must(t, w.Close())
	s = openStore(t, blobs, dir)
	w = write(t, s, "a", MiB, nil)
	if again := commit(t, w); again != c {
		t.Errorf("committed again: %v, want %v", again, c)
	}
	if names, err := s.Journals(); err != nil || len(names) != 1 {
		t.Errorf("journals: %v, %v", names, err)
	}
	must(t, w.Remove())
	must(t, s.RemoveJournal("a"))
	if names, err := s.Journals(); err != nil || len(names) != 0 {
		t.Errorf("journals after Remove: %v, %v", names, err)
	}
}

func TestOtherWishesAreRefused(t *testing.T) {
	s, _ := newStore(t)
	parent := keep(t, s, "parent", noise(1, BlockSize), nil)
	other := keep(t, s, "other", noise(2, BlockSize), nil)
	w := write(t, s, "a", MiB, &parent)
	if _, err := s.Write(t.Context(), "a", MiB, &parent); err == nil {
		t.Error("opened twice")
	}
	if err := s.RemoveJournal("a"); err == nil {
		t.Error("the journal of an open writer was removed")
	}
	must(t, w.Close())
	gone := cloud.Content{Manifest: strings.Repeat("cd", 32), Size: 1}
	for name, open := range map[string]func() (*Writer, error){
		"another size":   func() (*Writer, error) { return s.Write(t.Context(), "a", 2*MiB, &parent) },
		"another parent": func() (*Writer, error) { return s.Write(t.Context(), "a", MiB, &other) },
		"a bad name":     func() (*Writer, error) { return s.Write(t.Context(), "../a", MiB, nil) },
		"no size":        func() (*Writer, error) { return s.Write(t.Context(), "b", 0, nil) },
		"a null parent": func() (*Writer, error) {
			return s.Write(t.Context(), "b", MiB, &cloud.Content{Manifest: strings.Repeat("00", 32), Size: 1})
		},
		"a lost parent": func() (*Writer, error) { return s.Write(t.Context(), "b", MiB, &gone) },
		"a parent's lie": func() (*Writer, error) {
			return s.Write(t.Context(), "b", MiB, &cloud.Content{Manifest: parent.Manifest, Size: 1})
		},
	} {
		if _, err := open(); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if names, _ := s.Journals(); len(names) != 1 {
		t.Errorf("journals: %v", names)
	}
	w = write(t, s, "a", MiB, nil)
	if got := commit(t, w); got != keep(t, s, "again", append(noise(1, BlockSize), make([]byte, BlockSize)...), nil) {
		t.Error("opened without a parent, the journal forgot its own")
	}
	w = write(t, s, "b", MiB, nil)
	for _, r := range [][2]int64{{-1, 1}, {MiB, 1}, {0, MiB + 1}, {1 << 62, 1 << 62}} {
		if w.Zero(t.Context(), r[0], r[1]) == nil {
			t.Errorf("zeroed %d, %d", r[0], r[1])
		}
	}
}

func TestDamageIsToldNeverHidden(t *testing.T) {
	for _, folder := range []string{manifests, pages, blocks} {
		for _, damage := range []string{"flip", "cut", "gone", "longer"} {
			t.Run(folder+" "+damage, func(t *testing.T) {
				blobs := mem.New()
				c := keep(t, openStore(t, blobs, t.TempDir()), "a", noise(1, 3*BlockSize), nil)
				name := spoil(t, blobs, folder, damage)
				s := openStore(t, blobs, t.TempDir())
				data := make([]byte, c.Size)
				r, err := s.Read(t.Context(), c)
				if err == nil {
					err = r.ReadAt(t.Context(), data, 0)
				}
				if err == nil || !strings.Contains(err.Error(), name) || !errors.Is(err, cloud.ErrDamaged) {
					t.Errorf("reading: %v, want an error that names %s, and says that it is damaged for good", err, name)
				}
			})
		}
	}
}

// spoil damages one blob of a folder and returns its key.
func spoil(t *testing.T, blobs blob.Store, folder, damage string) string {
	t.Helper()
	for info, err := range blobs.List(t.Context(), folder+"/") {
		must(t, err)
		in, err := blobs.Get(t.Context(), info.Key, 0, -1)
		must(t, err)
		data, err := io.ReadAll(in)
		must(t, err)
		must(t, blobs.Delete(t.Context(), info.Key))
		data = bytes.Clone(data)
		switch damage {
		case "flip":
			data[len(data)/2] ^= 1
		case "cut":
			data = data[:len(data)-1]
		case "longer":
			data = append(data, 0)
		case "gone":
			return info.Key
		}
		must(t, blobs.Put(t.Context(), info.Key, bytes.NewReader(data)))
		return info.Key
	}
	t.Fatal("no blobs")
	return ""
}

func TestTheObjectStoreComesBack(t *testing.T) {
	s, blobs := newStore(t)
	data := noise(1, 2*BlockSize)
	c := keep(t, s, "a", data, nil)
	s = openStore(t, blobs, t.TempDir())
	r, err := s.Read(t.Context(), c)
	must(t, err)
	w := write(t, s, "b", c.Size, &c)
	must(t, w.WriteAt(t.Context(), data[:512], BlockSize+512))
	blobs.broken.Store(true)
	s.cache = newCache(MiB)
	got := make([]byte, len(data))
	if err := r.ReadAt(t.Context(), got, 0); !errors.Is(err, errBroken) || errors.Is(err, cloud.ErrDamaged) {
		t.Errorf("reading: %v", err)
	}
	if err := w.WriteAt(t.Context(), noise(3, BlockSize), 0); !errors.Is(err, errBroken) {
		t.Errorf("writing: %v", err)
	}
	if err := w.Flush(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("flushing: %v", err)
	}
	if _, err := w.Commit(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("committing: %v", err)
	}
	blobs.broken.Store(false)
	must(t, r.ReadAt(t.Context(), got, 0))
	if !bytes.Equal(got, data) {
		t.Error("other bytes when the store is back")
	}
	copy(data[BlockSize+512:], data[:512])
	if !bytes.Equal(content(t, s, commit(t, w)), data) {
		t.Error("what was written before the store went is not there")
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	blobs := mem.New()
	c := keep(t, openStore(t, blobs, t.TempDir()), "a", noise(1, 64*BlockSize), nil)
	s, err := Open(blobs, t.TempDir(), Options{CacheBytes: 8 * MiB})
	must(t, err)
	content(t, s, c)
	must(t, s.Close())
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	if s.cache.used > 8*MiB || s.cache.used < 4*MiB || len(s.cache.entries) != s.cache.recent.Len() {
		t.Errorf("the cache uses %d bytes in %d entries", s.cache.used, len(s.cache.entries))
	}
}

func TestDamagedJournals(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, mem.New(), dir)
	w := write(t, s, "a", MiB, nil)
	must(t, w.Close())
	path := filepath.Join(dir, "a.journal")
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the journal: %v, %v", info.Mode(), err)
	}
	data, err := os.ReadFile(path)
	must(t, err)
	for _, at := range []int{0, 30, 100, 140} {
		bad := bytes.Clone(data)
		bad[at] ^= 1
		must(t, os.WriteFile(path, bad, 0o600))
		if _, err := s.Write(t.Context(), "a", MiB, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("byte %d flipped: %v", at, err)
		}
		if _, err := s.Sweep(t.Context(), liveOf()); err == nil {
			t.Errorf("byte %d flipped: a sweep went past it", at)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, ".new-x"), nil, 0o600))
	openStore(t, mem.New(), dir)
	if _, err := os.Stat(filepath.Join(dir, ".new-x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a journal is left: %v", err)
	}
}

func FuzzManifest(f *testing.F) {
	var list entries
	list = list.append(0, Digest{1}).append(9, Digest{2})
	f.Add(manifest{size: 20 << 30, pages: list}.encode())
	f.Add(encodePage(list))
	f.Add([]byte(manifestMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := decodeManifest(data); err == nil && !bytes.Equal(m.encode(), data) {
			t.Errorf("%q is read, but written as %q", data, m.encode())
		}
		if p, err := decodePage(data); err == nil {
			if !bytes.Equal(encodePage(p), data) {
				t.Errorf("%q is read, but written as %q", data, encodePage(p))
			}
			for i := range p.len() {
				if n, d := p.at(i); p.find(n) != d {
					t.Errorf("number %d is not found", n)
				}
			}
		}
	})
}
