package sealed_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"mallee/blob"
	"mallee/blob/blobtest"
	"mallee/blob/dir"
	"mallee/blob/mem"
	"mallee/blob/sealed"
)

func seal(t *testing.T, inner blob.Store, key byte) *sealed.Store {
	t.Helper()
	s, err := sealed.New(inner, bytes.Repeat([]byte{key}, sealed.KeySize), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store { return seal(t, mem.New(), 1) })
}

func TestStoreInAFolder(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store {
		inner, err := dir.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return seal(t, inner, 1)
	})
}

func stored(t *testing.T, s blob.Store, key string) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func put(t *testing.T, s blob.Store, key, body string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(body)); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsReadWithoutTheKey(t *testing.T) {
	inner := mem.New()
	s := seal(t, inner, 1)
	secret := strings.Repeat("secret", 100)
	put(t, s, "a", secret)
	put(t, s, "b", secret)
	a, b := stored(t, inner, "a"), stored(t, inner, "b")
	if bytes.Contains(a, []byte("secret")) || bytes.Equal(a[12:], b[12:]) {
		t.Error("the blobs show, or show that they are equal")
	}
	if _, err := seal(t, inner, 2).Get(t.Context(), "a", 0, -1); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("read with another key: %v", err)
	}
	if _, err := sealed.New(inner, []byte("short"), rand.Reader); err == nil {
		t.Error("a short key was accepted")
	}
}

func TestChangesAreNoticed(t *testing.T) {
	inner := mem.New()
	s := seal(t, inner, 1)
	put(t, s, "a", "body")
	good := stored(t, inner, "a")
	bad := map[string][]byte{"moved": good, "cut": good[:len(good)-1], "empty": nil, "longer": append(bytes.Clone(good), 0)}
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1
		bad["flipped"+string(rune('a'+i))] = flipped
	}
	for name, data := range bad {
		if err := inner.Put(t.Context(), "other", bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), "other", 0, -1); err == nil || !strings.Contains(err.Error(), "other") {
			t.Errorf("%s: %v, want an error that names the blob", name, err)
		}
		if err := inner.Delete(t.Context(), "other"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLongestBlob(t *testing.T) {
	s := seal(t, mem.New(), 1)
	long := strings.Repeat("x", sealed.MaxBlob)
	put(t, s, "a", long)
	if got := stored(t, s, "a"); string(got) != long {
		t.Errorf("%d bytes come back", len(got))
	}
	if err := s.Put(t.Context(), "b", strings.NewReader(long+"x")); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("longer: %v", err)
	}
}

// nowhere takes blobs and keeps none.
type nowhere struct{ blob.Store }

func (nowhere) Put(_ context.Context, _ string, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// TestPutAllocatesOnce: what is sealed is read into memory of its size, and sealed into
// other memory of its size. Whoever takes it bit by bit moves it many times, which
// takes longer than hashing it does.
func TestPutAllocatesOnce(t *testing.T) {
	s := seal(t, nowhere{mem.New()}, 1)
	block := make([]byte, 512<<10)
	result := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if err := s.Put(b.Context(), "a", bytes.NewReader(block)); err != nil {
				b.Fatal(err)
			}
		}
	})
	if most := int64(2*len(block) + 64<<10); result.AllocedBytesPerOp() > most {
		t.Errorf("a block of %d bytes takes %d bytes of memory to seal, want at most %d", len(block), result.AllocedBytesPerOp(), most)
	}
}
