// Package blobtest is the conformance suite of blob.Store.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sync/errgroup"

	"mallee/blob"
)

// Run runs the suite; open makes an empty store for each test in it.
func Run(t *testing.T, open func(*testing.T) blob.Store) {
	for name, test := range map[string]func(*testing.T, blob.Store){
		"round trip":       roundTrip,
		"ranges":           ranges,
		"absent":           absent,
		"put again":        putAgain,
		"failed put":       failedPut,
		"cancelled":        cancelled,
		"delete":           remove,
		"read while gone":  readWhileGone,
		"list":             list,
		"bad keys":         badKeys,
		"writers together": writersTogether,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func roundTrip(t *testing.T, s blob.Store) {
	large := strings.Repeat("0123456789abcdef", 100_000)
	for key, body := range map[string]string{"empty": "", "some/path/small": "x", "large": large} {
		put(t, s, key, body)
		want(t, s, key, 0, -1, body)
		if there, err := s.Has(t.Context(), key); !there || err != nil {
			t.Errorf("has %s: %v, %v", key, there, err)
		}
	}
}

func ranges(t *testing.T, s blob.Store) {
	put(t, s, "key", "0123456789")
	for _, r := range []struct {
		offset, length int64
		want           string
	}{{0, 3, "012"}, {3, 4, "3456"}, {8, 5, "89"}, {4, -1, "456789"}, {10, 1, ""}, {11, -1, ""}, {2, 0, ""}} {
		want(t, s, "key", r.offset, r.length, r.want)
	}
	if _, err := s.Get(t.Context(), "key", -1, 1); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("from -1: %v", err)
	}
}

func absent(t *testing.T, s blob.Store) {
	put(t, s, "a/b", "x")
	put(t, s, "c", "x")
	for _, key := range []string{"nothing", "a", "c/below"} {
		if _, err := s.Get(t.Context(), key, 0, -1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("get %s: %v", key, err)
		}
		if there, err := s.Has(t.Context(), key); there || err != nil {
			t.Errorf("has %s: %v, %v", key, there, err)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	want(t, s, "a/b", 0, -1, "x")
}

func putAgain(t *testing.T, s blob.Store) {
	body := strings.Repeat("x", 100_000)
	put(t, s, "key", body)
	put(t, s, "key", body)
	for _, other := range []string{"", "other", body + "x", body[1:], body[1:] + "y"} {
		if err := s.Put(t.Context(), "key", strings.NewReader(other)); !errors.Is(err, blob.ErrConflict) {
			t.Errorf("put of other bytes: %v", err)
		}
	}
	want(t, s, "key", 0, -1, body)
}

func failedPut(t *testing.T, s blob.Store) {
	broken := errors.New("broken")
	source := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken))
	if err := s.Put(t.Context(), "key", source); !errors.Is(err, broken) {
		t.Errorf("put from a broken source: %v", err)
	}
	wantKeys(t, s, "")
}

func cancelled(t *testing.T, s blob.Store) {
	put(t, s, "there", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, errGet := s.Get(ctx, "there", 0, -1)
	_, errHas := s.Has(ctx, "there")
	errs := []error{errGet, errHas, s.Put(ctx, "key", strings.NewReader("x")), s.Delete(ctx, "there")}
	for _, err := range s.List(ctx, "") {
		errs = append(errs, err)
	}
	for i, err := range errs {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d with a cancelled context: %v", i, err)
		}
	}
	wantKeys(t, s, "", "there")
}

func remove(t *testing.T, s blob.Store) {
	put(t, s, "a/b", "x")
	for range 2 {
		if err := s.Delete(t.Context(), "a/b"); err != nil {
			t.Error(err)
		}
	}
	wantKeys(t, s, "")
	put(t, s, "a/b", "another")
	want(t, s, "a/b", 0, -1, "another")
}

func readWhileGone(t *testing.T, s blob.Store) {
	put(t, s, "key", "body")
	r, err := s.Get(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Delete(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "body" || err != nil {
		t.Errorf("read after delete: %q, %v", got, err)
	}
}

func list(t *testing.T, s blob.Store) {
	keys := []string{"a", "a-b", "a/b", "a/c/d", "a0", "b", "b.c"}
	for _, key := range keys {
		put(t, s, key, key)
	}
	wantKeys(t, s, "", keys...)
	wantKeys(t, s, "a", "a", "a-b", "a/b", "a/c/d", "a0")
	wantKeys(t, s, "a/", "a/b", "a/c/d")
	wantKeys(t, s, "a/c/", "a/c/d")
	wantKeys(t, s, "nothing")
	for info, err := range s.List(t.Context(), "") {
		if err != nil || info != (blob.Info{Key: "a", Size: 1}) {
			t.Errorf("first: %+v, %v", info, err)
		}
		break
	}
}

func badKeys(t *testing.T, s blob.Store) {
	for _, key := range []string{"", "../x", "/x", "a//b", ".tmp/x"} {
		_, errGet := s.Get(t.Context(), key, 0, -1)
		_, errHas := s.Has(t.Context(), key)
		for _, err := range []error{errGet, errHas, s.Put(t.Context(), key, strings.NewReader("x")), s.Delete(t.Context(), key)} {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("key %q: %v", key, err)
			}
		}
	}
}

// Of many writers of a key one wins, those with the same bytes too, and readers
// see its blob whole.
func writersTogether(t *testing.T, s blob.Store) {
	g, ctx := errgroup.WithContext(t.Context())
	for i := range 16 {
		body := bytes.Repeat([]byte{byte('a' + i%2)}, 50_000)
		g.Go(func() error {
			err := s.Put(ctx, "one/key", bytes.NewReader(body))
			if err != nil && !errors.Is(err, blob.ErrConflict) {
				return err
			}
			return s.Put(ctx, fmt.Sprintf("own/%d", i), bytes.NewReader(body))
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), "one/key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || len(got) != 50_000 || len(bytes.Trim(got, string(got[:1]))) != 0 {
		t.Errorf("%d bytes, mixed or cut: %v", len(got), err)
	}
}

func put(t *testing.T, s blob.Store, key, body string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(body)); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, s blob.Store, key string, offset, length int64, body string) {
	t.Helper()
	r, err := s.Get(t.Context(), key, offset, length)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); string(got) != body || err != nil {
		t.Errorf("%s from %d, %d long: %.40q (%d bytes), %v; want %.40q (%d bytes)", key, offset, length, got, len(got), err, body, len(body))
	}
}

func wantKeys(t *testing.T, s blob.Store, prefix string, want ...string) {
	t.Helper()
	var got []string
	for info, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("list %q: %q, want %q", prefix, got, want)
	}
}
