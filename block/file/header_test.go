package file

import (
	"bytes"
	"testing"
)

// image lays the pieces out as the file would hold them.
func image(base string, size int64) []byte {
	pieces, length := layout(base, size)
	out := make([]byte, length)
	for _, p := range pieces {
		copy(out[p.offset:], p.bytes)
	}
	return out
}

func TestHeaderRoundTrip(t *testing.T) {
	for _, test := range []struct {
		base string
		size int64
	}{
		{"", 512}, {"/b", 512}, {"/a/long/path/with spaces, commas and ünïcode.raw", 5 << 30}, {"/b", maxSize},
	} {
		base, size, err := decodeHeader(bytes.NewReader(image(test.base, test.size)))
		if err != nil || base != test.base || size != test.size {
			t.Errorf("%q, %d: reads back as %q, %d, %v", test.base, test.size, base, size, err)
		}
	}
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(image("/base.raw", 5<<30)[:4096])
	f.Add(image("", 512)[:200])
	f.Add([]byte("QFI\xfb"))
	f.Fuzz(func(t *testing.T, data []byte) {
		base, size, err := decodeHeader(bytes.NewReader(data))
		if err == nil && (len(base) > maxBackingName || size < 0 || size > maxSize) {
			t.Errorf("%d bytes of name, size %d", len(base), size)
		}
	})
}
