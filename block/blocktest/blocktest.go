// Package blocktest is what every block.Disks has to pass.
package blocktest

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"mallee/block"
)

// MiB is the unit of the sizes here.
const MiB = 1 << 20

// A Store is the disks under test, and what a guest could do to them.
type Store struct {
	// Open opens the store as a new program would, with what an earlier one left.
	Open func(t *testing.T) block.Disks
	// Base makes an immutable base that begins with content, and returns its path.
	Base func(t *testing.T, content []byte) string
	// Write and Read are a guest's: whole sectors, written and read at a byte offset.
	Write func(t *testing.T, d block.Disk, at block.Attachment, offset int64, data []byte)
	Read  func(t *testing.T, d block.Disk, at block.Attachment, offset int64, length int) []byte
	// Source serves an export that begins with content, for as long as the test runs.
	Source func(t *testing.T, content []byte) block.Source
	// Fill is a hypervisor's: it copies into the disk what it stands on.
	Fill func(t *testing.T, d block.Disk, at block.Attachment)
}

// Run tests the stores that make returns, a fresh one each time.
func Run(t *testing.T, make func(t *testing.T) Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Store)
	}{
		{"EnsureTwiceKeepsContents", ensureTwice},
		{"AnotherProgramFindsTheDisks", anotherProgram},
		{"WritesReachNeitherBaseNorOthers", isolation},
		{"AnEmptyDiskReadsZero", empty},
		{"ADiskIsLargerThanItsBase", larger},
		{"AnotherWishIsRefused", anotherWish},
		{"BadWishesLeaveNothing", badWishes},
		{"RemoveTwice", removeTwice},
		{"ARemovedNameBeginsAnew", removedName},
		{"ListIsSorted", list},
		{"UsageFollowsWrites", usage},
		{"ManyAtOnce", many},
		{"ACancelledEnsureLeavesNothing", cancelled},
		{"ADiskGrows", grows},
		{"ADiskStartsFromASource", fromSource},
		{"AnEncryptedDisk", encrypted},
		{"AnEncryptedDiskStartsFromASource", encryptedSource},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, make(t)) })
	}
}

// pattern is a sector's worth of bytes.
func pattern(b byte) []byte { return bytes.Repeat([]byte{b}, 4096) }

func ensure(t *testing.T, s block.Disks, d block.Disk) block.Attachment {
	t.Helper()
	at, err := s.Ensure(t.Context(), d)
	if err != nil {
		t.Fatalf("Ensure(%+v): %v", d, err)
	}
	if (at.Path == "") == (at.RBD.Image == "") || at.Format != "qcow2" && at.Format != "raw" {
		t.Fatalf("Ensure(%+v) = %+v, want a path or an image, and a format", d, at)
	}
	return at
}

func names(t *testing.T, s block.Disks) []string {
	t.Helper()
	names, err := s.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return names
}

// expect reads one pattern's length at an offset.
func expect(t *testing.T, s Store, d block.Disk, at block.Attachment, offset int64, want []byte) {
	t.Helper()
	if got := s.Read(t, d, at, offset, len(want)); !bytes.Equal(got, want) {
		t.Errorf("disk %s at %d: begins with %x, want %x", d.Name, offset, got[:8], want[:8])
	}
}

func ensureTwice(t *testing.T, s Store) {
	disks := s.Open(t)
	d := block.Disk{Name: "i-1-root", Base: s.Base(t, pattern('b')), Size: 8 * MiB}
	at := ensure(t, disks, d)
	s.Write(t, d, at, 4096, pattern('w'))
	if again := ensure(t, disks, d); !reflect.DeepEqual(again, at) {
		t.Errorf("the second Ensure says %+v, the first said %+v", again, at)
	}
	expect(t, s, d, at, 0, pattern('b'))
	expect(t, s, d, at, 4096, pattern('w'))
}

func anotherProgram(t *testing.T, s Store) {
	d := block.Disk{Name: "i-1-root", Base: s.Base(t, pattern('b')), Size: 8 * MiB}
	at := ensure(t, s.Open(t), d)
	s.Write(t, d, at, 0, pattern('w'))

	disks := s.Open(t)
	if got := names(t, disks); !slices.Equal(got, []string{"i-1-root"}) {
		t.Errorf("List = %q, want the disk of the program before", got)
	}
	expect(t, s, d, ensure(t, disks, d), 0, pattern('w'))
}

func isolation(t *testing.T, s Store) {
	disks := s.Open(t)
	base := s.Base(t, pattern('b'))
	one := block.Disk{Name: "one", Base: base, Size: 8 * MiB}
	two := block.Disk{Name: "two", Base: base, Size: 8 * MiB}
	atOne, atTwo := ensure(t, disks, one), ensure(t, disks, two)
	s.Write(t, one, atOne, 0, pattern('1'))
	s.Write(t, two, atTwo, 4096, pattern('2'))

	expect(t, s, one, atOne, 0, pattern('1'))
	expect(t, s, one, atOne, 4096, pattern(0))
	expect(t, s, two, atTwo, 0, pattern('b'))
	expect(t, s, two, atTwo, 4096, pattern('2'))

	three := block.Disk{Name: "three", Base: base, Size: 8 * MiB}
	expect(t, s, three, ensure(t, disks, three), 0, pattern('b'))
}

func empty(t *testing.T, s Store) {
	disks := s.Open(t)
	d := block.Disk{Name: "swap", Size: 4 * MiB}
	at := ensure(t, disks, d)
	expect(t, s, d, at, 0, pattern(0))
	s.Write(t, d, at, 4*MiB-4096, pattern('e'))
	expect(t, s, d, at, 4*MiB-4096, pattern('e'))
}

func larger(t *testing.T, s Store) {
	disks := s.Open(t)
	d := block.Disk{Name: "root", Base: s.Base(t, pattern('b')), Size: 3 << 40}
	at := ensure(t, disks, d)
	expect(t, s, d, at, 0, pattern('b'))
	expect(t, s, d, at, 3<<40-4096, pattern(0))
	s.Write(t, d, at, 3<<40-4096, pattern('l'))
	expect(t, s, d, at, 3<<40-4096, pattern('l'))
}

func anotherWish(t *testing.T, s Store) {
	disks := s.Open(t)
	base := s.Base(t, pattern('b'))
	have := block.Disk{Name: "root", Base: base, Size: 8 * MiB}
	at := ensure(t, disks, have)
	for _, d := range []block.Disk{
		{Name: "root", Base: base, Size: 4 * MiB},
		{Name: "root", Source: s.Source(t, pattern('b')), Size: 8 * MiB},
		{Name: "root", Base: s.Base(t, pattern('c')), Size: 8 * MiB},
		{Name: "root", Size: 8 * MiB},
	} {
		if _, err := disks.Ensure(t.Context(), d); err == nil {
			t.Errorf("Ensure(%+v) succeeds over %+v", d, have)
		}
	}
	expect(t, s, have, at, 0, pattern('b'))
}

func badWishes(t *testing.T, s Store) {
	disks := s.Open(t)
	base := s.Base(t, make([]byte, 2*MiB))
	for name, d := range map[string]block.Disk{
		"no name":              {Base: base, Size: 4 * MiB},
		"a path as name":       {Name: "../x", Base: base, Size: 4 * MiB},
		"a dot as name":        {Name: ".", Base: base, Size: 4 * MiB},
		"a capital":            {Name: "Root", Base: base, Size: 4 * MiB},
		"no size":              {Name: "root", Base: base},
		"a negative size":      {Name: "root", Base: base, Size: -512},
		"half a sector":        {Name: "root", Base: base, Size: 4*MiB + 256},
		"less than its base":   {Name: "root", Base: base, Size: 1 * MiB},
		"a base that is gone":  {Name: "root", Base: base + ".gone", Size: 4 * MiB},
		"a relative base path": {Name: "root", Base: "base.raw", Size: 4 * MiB},
		"a short key":          {Name: "root", Size: 4 * MiB, Key: []byte("short")},
		"a base and a source":  {Name: "root", Base: base, Size: 4 * MiB, Source: block.Source{Socket: "/s", Export: "e", Size: MiB}},
		"a relative socket":    {Name: "root", Size: 4 * MiB, Source: block.Source{Socket: "s", Export: "e", Size: MiB}},
		"a socket too long":    {Name: "root", Size: 4 * MiB, Source: block.Source{Socket: "/" + strings.Repeat("s", 107), Export: "e", Size: MiB}},
		"an empty source":      {Name: "root", Size: 4 * MiB, Source: block.Source{Socket: "/s", Export: "e"}},
		"less than its source": {Name: "root", Size: 4 * MiB, Source: block.Source{Socket: "/s", Export: "e", Size: 5 * MiB}},
	} {
		_, err := disks.Ensure(t.Context(), d)
		if err == nil {
			t.Errorf("%s: Ensure(%+v) succeeds", name, d)
		}
		if full := (*block.NoSpaceError)(nil); errors.As(err, &full) {
			t.Errorf("%s: Ensure(%+v) says that there is no space: %v", name, d, err)
		}
	}
	if got := names(t, disks); len(got) != 0 {
		t.Errorf("List = %q after bad wishes, want none", got)
	}
	if err := disks.Remove(t.Context(), "../x"); err == nil {
		t.Errorf("Remove of a path succeeds")
	}
}

func removeTwice(t *testing.T, s Store) {
	disks := s.Open(t)
	ensure(t, disks, block.Disk{Name: "root", Size: 4 * MiB})
	ensure(t, disks, block.Disk{Name: "other", Size: 4 * MiB})
	for range 2 {
		if err := disks.Remove(t.Context(), "root"); err != nil {
			t.Fatalf("Remove: %v", err)
		}
	}
	if got := names(t, disks); !slices.Equal(got, []string{"other"}) {
		t.Errorf("List = %q, want what was not removed", got)
	}
	if _, err := disks.Usage(t.Context(), "root"); err == nil {
		t.Errorf("Usage of a removed disk succeeds")
	}
}

func removedName(t *testing.T, s Store) {
	disks := s.Open(t)
	d := block.Disk{Name: "root", Base: s.Base(t, pattern('b')), Size: 4 * MiB}
	s.Write(t, d, ensure(t, disks, d), 0, pattern('w'))
	if err := disks.Remove(t.Context(), "root"); err != nil {
		t.Fatalf("Remove: %v", err)
	}
	expect(t, s, d, ensure(t, disks, d), 0, pattern('b'))
}

func list(t *testing.T, s Store) {
	disks := s.Open(t)
	want := []string{"a", "a-b", "a0", "i-0000000f-root", "z"}
	for _, name := range []string{"z", "a0", "a-b", "i-0000000f-root", "a"} {
		ensure(t, disks, block.Disk{Name: name, Size: 1 * MiB})
	}
	if got := names(t, disks); !slices.Equal(got, want) {
		t.Errorf("List = %q, want %q", got, want)
	}
}

func usage(t *testing.T, s Store) {
	disks := s.Open(t)
	d := block.Disk{Name: "root", Base: s.Base(t, make([]byte, 4*MiB)), Size: 40 << 30}
	at := ensure(t, disks, d)
	fresh, err := disks.Usage(t.Context(), "root")
	if err != nil {
		t.Fatalf("Usage: %v", err)
	}
	if fresh >= MiB/2 {
		t.Errorf("a fresh disk of 40 GiB on a base of 4 MiB takes %d bytes, want less than half a MiB", fresh)
	}
	s.Write(t, d, at, 0, bytes.Repeat(pattern('w'), 256))
	written, err := disks.Usage(t.Context(), "root")
	if err != nil {
		t.Fatalf("Usage: %v", err)
	}
	if written-fresh < MiB {
		t.Errorf("1 MiB written adds %d bytes to the usage", written-fresh)
	}
}

func many(t *testing.T, s Store) {
	disks := s.Open(t)
	base := s.Base(t, pattern('b'))
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			d := block.Disk{Name: "disk-" + string(rune('a'+i)), Base: base, Size: 8 * MiB}
			if _, err := disks.Ensure(t.Context(), d); err != nil {
				t.Errorf("Ensure(%s): %v", d.Name, err)
			}
			if i%2 == 1 {
				if err := disks.Remove(t.Context(), d.Name); err != nil {
					t.Errorf("Remove(%s): %v", d.Name, err)
				}
			}
		})
	}
	group.Wait()
	if got := names(t, disks); len(got) != 10 {
		t.Errorf("List = %q, want the 10 that were not removed", got)
	}
}

func cancelled(t *testing.T, s Store) {
	disks := s.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := disks.Ensure(ctx, block.Disk{Name: "root", Size: 4 * MiB}); !errors.Is(err, context.Canceled) {
		t.Errorf("Ensure with a cancelled context: %v, want context.Canceled", err)
	}
	if got := names(t, disks); len(got) != 0 {
		t.Errorf("List = %q, want none", got)
	}
}

func grows(t *testing.T, s Store) {
	disks := s.Open(t)
	d := block.Disk{Name: "vol", Base: s.Base(t, pattern('b')), Size: 8 * MiB}
	at := ensure(t, disks, d)
	s.Write(t, d, at, 8*MiB-4096, pattern('w'))
	for _, size := range []int64{8*MiB + 512*1024, 3 << 30, 700 << 30} {
		d.Size = size
		if again := ensure(t, disks, d); !reflect.DeepEqual(again, at) {
			t.Errorf("grown to %d it is %+v, was %+v", size, again, at)
		}
		expect(t, s, d, at, 0, pattern('b'))
		expect(t, s, d, at, 8*MiB-4096, pattern('w'))
		expect(t, s, d, at, size-4096, pattern(0))
		s.Write(t, d, at, size-8192, pattern('l'))
		expect(t, s, d, at, size-8192, pattern('l'))
	}
	smaller := d
	smaller.Size = 3 << 30
	if _, err := disks.Ensure(t.Context(), smaller); err == nil {
		t.Error("a disk shrank")
	}
	expect(t, s, d, ensure(t, s.Open(t), d), d.Size-8192, pattern('l'))
}

func fromSource(t *testing.T, s Store) {
	d := block.Disk{Name: "vol", Source: s.Source(t, pattern('s')), Size: 8 * MiB}
	fill(t, s, d)
}

// fill sees a disk from its source to standing on its own.
func fill(t *testing.T, s Store, d block.Disk) {
	t.Helper()
	at := ensure(t, s.Open(t), d)
	if at.Source != d.Source {
		t.Errorf("the disk stands on %+v, want %+v", at.Source, d.Source)
	}
	expect(t, s, d, at, 0, pattern('s'))
	expect(t, s, d, at, d.Source.Size, pattern(0))
	s.Write(t, d, at, 4096, pattern('w'))

	without := d
	without.Source = block.Source{}
	if again := ensure(t, s.Open(t), without); again.Source != d.Source {
		t.Errorf("wished without a source, the disk stands on %+v, want %+v still", again.Source, d.Source)
	}
	other := d
	other.Source, other.Base = block.Source{}, s.Base(t, pattern('b'))
	if _, err := s.Open(t).Ensure(t.Context(), other); err == nil {
		t.Error("a disk on a source is taken for one on a base")
	}
	d.Size *= 2
	at = ensure(t, s.Open(t), d)
	expect(t, s, d, at, 0, pattern('s'))
	s.Fill(t, d, at)
	at = ensure(t, s.Open(t), d)
	if at.Source != (block.Source{}) {
		t.Errorf("filled, the disk stands on %+v", at.Source)
	}
	expect(t, s, d, at, 0, pattern('s'))
	expect(t, s, d, at, 4096, pattern('w'))
	expect(t, s, d, at, d.Size-4096, pattern(0))
}

func encrypted(t *testing.T, s Store) {
	disks := s.Open(t)
	d := block.Disk{Name: "vol", Size: 8 * MiB, Key: bytes.Repeat([]byte{0xfe, 0}, block.KeySize/2)}
	at := ensure(t, disks, d)
	if !bytes.Equal(at.Key, d.Key) {
		t.Errorf("the key to open it is %x, want %x", at.Key, d.Key)
	}
	expect(t, s, d, at, 0, pattern(0))
	s.Write(t, d, at, 0, pattern('w'))
	d.Size = 2 << 30
	at = ensure(t, s.Open(t), d)
	expect(t, s, d, at, 0, pattern('w'))
	expect(t, s, d, at, d.Size-4096, pattern(0))
	plain := d
	plain.Key = nil
	if _, err := disks.Ensure(t.Context(), plain); err == nil {
		t.Error("an encrypted disk is taken for a plain one")
	}
	plain.Name = "plain"
	ensure(t, disks, plain)
	plain.Key = d.Key
	if _, err := disks.Ensure(t.Context(), plain); err == nil {
		t.Error("a plain disk is taken for an encrypted one")
	}
}

func encryptedSource(t *testing.T, s Store) {
	key := bytes.Repeat([]byte{0, 1, 2, 0xff}, block.KeySize/4)
	fill(t, s, block.Disk{Name: "vol", Source: s.Source(t, pattern('s')), Size: 8 * MiB, Key: key})
}
