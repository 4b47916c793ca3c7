package stamp

import (
	"errors"
	"testing"
)

func TestStamps(t *testing.T) {
	s := Stamp{"vol0123abcd", 7, 1 << 50}
	p := s.Bytes()
	if got, err := Read(p); err != nil || got != s || len(p) != Size {
		t.Errorf("%d bytes say %+v, %v, want %+v", len(p), got, err, s)
	}
	for _, at := range []int{0, 20, 100, Size - 1} {
		torn := s.Bytes()
		torn[at] ^= 1
		if got, err := Read(torn); err == nil {
			t.Errorf("with byte %d changed it says %+v", at, got)
		}
	}
	half := append(s.Bytes()[:Size/2], make([]byte, Size/2)...)
	if got, err := Read(half); err == nil || errors.Is(err, ErrEmpty) {
		t.Errorf("half of it says %+v, %v", got, err)
	}
	if _, err := Read(make([]byte, Size)); !errors.Is(err, ErrEmpty) {
		t.Errorf("zeroes say %v", err)
	}
}

func TestLines(t *testing.T) {
	want := Line{Found, "vol0123abcd", 3, Stamp{"vol89abcdef", 4, 99}}
	for _, text := range []string{want.String(), want.String() + "\r\n", "[ 1.5] =W vol0123" + want.String()} {
		if got, ok := Parse(text); !ok || got != want {
			t.Errorf("%q is %+v, %v", text, got, ok)
		}
	}
	text := want.String()
	for _, bad := range []string{"", "=", text[1:], text[:len(text)-1], text[:9] + "[    2.1] hello" + text[9:]} {
		if got, ok := Parse(bad); ok {
			t.Errorf("%q is %+v", bad, got)
		}
	}
}

// TestPlaces: no block lies in another, and all within a GiB.
func TestPlaces(t *testing.T) {
	last := int64(0)
	for block := range Blocks {
		if at := Offset(block); at < last || at+Size > 1<<30 || at%Size != 0 {
			t.Errorf("block %d lies at %d, the one before ends at %d", block, at, last)
		} else {
			last = at + Size
		}
	}
}
