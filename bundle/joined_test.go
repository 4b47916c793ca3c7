package bundle

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// joined is what `cat *.part.*` prints.
func joined(m *Manifest, parts store) []byte {
	var all []byte
	for _, p := range m.Parts {
		all = append(all, parts[p.Name]...)
	}
	return all
}

func TestJoined(t *testing.T) {
	image := testImage(500_000)
	m, _, parts := bundled(t, image, testOptions())
	all, other := joined(m, parts), sha1.Sum(nil)
	whole := Joined{Parts: bytes.NewReader(all), Key: testKey, IV: testIV}
	for _, test := range []struct {
		name string
		with func(j *Joined)
		want error
	}{
		{"with nothing known", func(*Joined) {}, nil},
		{"with all known", func(j *Joined) { j.Size, j.Digest = m.Size, &m.Digest }, nil},
		{"of another size", func(j *Joined) { j.Size = m.Size + 1 }, ErrImageSize},
		{"of another digest", func(j *Joined) { j.Digest = &other }, ErrDigest},
		{"cut short at a block", func(j *Joined) { j.Parts = bytes.NewReader(all[:len(all)-16]) }, ErrPadding},
		{"cut short", func(j *Joined) { j.Parts = bytes.NewReader(all[:len(all)-1]) }, ErrPadding},
		{"empty", func(j *Joined) { j.Parts = bytes.NewReader(nil) }, ErrPadding},
		{"with another key", func(j *Joined) { j.Key = testIV }, ErrPadding},
		{"that can't be read", func(j *Joined) {
			j.Parts = io.MultiReader(bytes.NewReader(all[:1000]), iotest.ErrReader(errBroken))
		}, errBroken},
	} {
		j := whole
		j.Parts = bytes.NewReader(all)
		test.with(&j)
		var out bytes.Buffer
		size, err := j.Unpack(t.Context(), &out)
		if !errors.Is(err, test.want) {
			t.Errorf("a bundle %s: %v", test.name, err)
		}
		if err == nil && (size != m.Size || !bytes.Equal(out.Bytes(), image)) {
			t.Errorf("a bundle %s: %d bytes, %d of them written", test.name, size, out.Len())
		}
	}
}

var errBroken = errors.New("broken")

// A tar that goes on after its one member is stopped, however much is behind it.
func TestJoinedBomb(t *testing.T) {
	header, err := tarHeader("img", 1000)
	if err != nil {
		t.Fatal(err)
	}
	bomb := append(header, make([]byte, 64<<20)...)
	m, parts := sealed(bomb, 1000, 1<<20)
	for _, size := range []int64{0, 1000} {
		var out bytes.Buffer
		_, err := Joined{Parts: bytes.NewReader(joined(m, parts)), Key: testKey, IV: testIV, Size: size}.Unpack(t.Context(), &out)
		if !errors.Is(err, ErrBomb) || out.Len() > 1000 {
			t.Errorf("size %d: %d bytes written, %v", size, out.Len(), err)
		}
	}
}

func TestJoinedCancel(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBroken)
	if _, err := (Joined{Parts: bytes.NewReader(nil), Key: testKey, IV: testIV}).Unpack(ctx, io.Discard); !errors.Is(err, errBroken) {
		t.Error(err)
	}
}
