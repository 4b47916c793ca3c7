package walrus

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

func TestWritesOfTheCloud(t *testing.T) {
	w := start(t, t.TempDir()).Walrus
	ctx := t.Context()
	if err := w.MakeBucket(ctx, annaID, "exports"); err != nil {
		t.Fatal(err)
	}
	if err := w.MakeBucket(ctx, annaID, "exports"); err != nil {
		t.Errorf("one's own bucket again: %v", err)
	}
	if err := w.MakeBucket(ctx, bertID, "exports"); !errors.Is(err, ErrExists) {
		t.Errorf("another's bucket: %v, want ErrExists", err)
	}
	for account, want := range map[string]bool{annaID: true, bertID: false} {
		if got, err := w.Writable(ctx, account, "exports"); err != nil || got != want {
			t.Errorf("Writable by %s: %v, %v; want %v", account, got, err, want)
		}
	}
	if _, err := w.Writable(ctx, annaID, "nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Writable of no bucket: %v", err)
	}
	for _, key := range []string{"a/one", "a/two", "b"} {
		if err := w.Put(ctx, "exports", key, "aws-exec-read", strings.NewReader("bytes"), 5); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := w.Keys(ctx, "exports", "a/", 10); err != nil || !slices.Equal(keys, []string{"a/one", "a/two"}) {
		t.Errorf("Keys: %q, %v", keys, err)
	}
	if may, err := w.Readable(ctx, bertID, "exports", "b"); err != nil || !may {
		t.Errorf("the canned ACL is lost: %v, %v", may, err)
	}
	body, size, err := w.Open(ctx, "exports", "b")
	if err != nil || size != 5 {
		t.Fatalf("Open: %d bytes, %v", size, err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); string(got) != "bytes" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	for _, size := range []int64{4, 6} {
		if err := w.Put(ctx, "exports", "c", "", strings.NewReader("bytes"), size); err == nil {
			t.Errorf("5 bytes were stored as %d", size)
		}
		if _, err := w.Stat(ctx, "exports", "c"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("something of a broken write is there: %v", err)
		}
	}
}
