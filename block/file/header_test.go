package file

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"mallee/block"
)

// fresh lays the pieces out as the file would hold them.
func fresh(d block.Disk) []byte {
	pieces, length, err := layout(d, rand.NewChaCha8([32]byte{}))
	if err != nil {
		panic(err)
	}
	out := make([]byte, length)
	for _, p := range pieces {
		copy(out[p.offset:], p.bytes)
	}
	return out
}

func TestHeaderRoundTrip(t *testing.T) {
	for _, d := range []block.Disk{
		{Size: 512},
		{Base: "/b", Size: 512},
		{Base: "/a/long/path/with spaces, commas and ünïcode.raw", Size: 5 << 30},
		{Base: "/b", Size: maxSize},
		{Size: 1 << 30, Key: make([]byte, block.KeySize)},
		{Source: block.Source{Socket: "/run/a b&c", Export: "snap-1/x", Size: 1 << 20}, Size: 1 << 30},
	} {
		i, err := decodeHeader(bytes.NewReader(fresh(d)))
		if err != nil || i.size() != d.Size || i.encrypted() != (d.Key != nil) {
			t.Errorf("%+v: reads back as %+v, %v", d, i, err)
		}
		source, ok := i.source()
		if source != d.Source || ok != (d.Source != block.Source{}) || !ok && i.base != d.Base {
			t.Errorf("%+v: stands on %q, %+v", d, i.base, source)
		}
	}
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(fresh(block.Disk{Base: "/base.raw", Size: 5 << 30})[:4096])
	f.Add(fresh(block.Disk{Source: block.Source{Socket: "/s", Export: "e", Size: 1}, Size: 5 << 30})[:4096])
	f.Add(fresh(block.Disk{Size: 512})[:200])
	f.Add([]byte("QFI\xfb"))
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := decodeHeader(bytes.NewReader(data))
		if err == nil && (len(i.base) > maxBackingName || i.size() < 0 || i.size() > maxSize) {
			t.Errorf("%d bytes of name, size %d", len(i.base), i.size())
		}
	})
}

func FuzzDecodeBitmaps(f *testing.F) {
	entry := append(make([]byte, bitmapEntry), "m1\x00\x00\x00\x00\x00\x00"...)
	entry[15], entry[19] = bitmapInUse, 2
	f.Add(append(entry, entry...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if names, err := decodeBitmaps(data); err == nil && len(names)*bitmapEntry > len(data) {
			t.Errorf("%d names in %d bytes", len(names), len(data))
		}
	})
}
