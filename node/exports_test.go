package node

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"testing"

	"mallee/blob/mem"
	"mallee/cloud"
	"mallee/snapshot"
)

func newExports(t *testing.T, dir string, blobs *mem.Store) *Exports {
	t.Helper()
	store, err := snapshot.Open(blobs, filepath.Join(dir, "journals"), snapshot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := NewExports(store, filepath.Join(dir, "nbd"), slog.New(slog.DiscardHandler))
	if err := e.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(e.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return e
}

// read a byte of a content through the server's eyes.
func (e *Exports) byteAt(t *testing.T, c cloud.Content, offset int64) byte {
	t.Helper()
	x, release, err := served{e}.Open(t.Context(), e.Source(c).Export)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	b := make([]byte, 1)
	if err := x.ReadAt(t.Context(), b, offset); err != nil || !x.ReadOnly() {
		t.Fatal(err, x.ReadOnly())
	}
	return b[0]
}

// write a block of one byte repeated to a snapshot's sink, as a hypervisor does.
func (e *Exports) write(t *testing.T, s Sink, block int64, b byte) {
	t.Helper()
	socket, export := s.Address()
	if socket != e.socket {
		t.Errorf("socket %s", socket)
	}
	x, release, err := served{e}.Open(t.Context(), export)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := x.WriteAt(t.Context(), bytes.Repeat([]byte{b}, snapshot.BlockSize), block*snapshot.BlockSize); err != nil {
		t.Fatal(err)
	}
}

const mib = 1 << 20

func TestExports(t *testing.T) {
	ctx, blobs, dir := t.Context(), mem.New(), t.TempDir()
	var first, second, whole cloud.Content
	t.Run("a snapshot is stored", func(t *testing.T) {
		e := newExports(t, dir, blobs)
		s, err := e.Sink(ctx, "snap-00000001", 4*mib, nil)
		if err != nil {
			t.Fatal(err)
		}
		e.write(t, s, 1, 'a')
		if first, err = s.Commit(ctx, true); err != nil || first.Size != 4*mib {
			t.Fatal(first, err)
		}
		if err := errors.Join(s.Close(), e.Discard(ctx, "snap-00000001")); err != nil {
			t.Fatal(err)
		}
		if got := e.byteAt(t, first, snapshot.BlockSize); got != 'a' {
			t.Errorf("it holds %q", got)
		}
	})
	t.Run("the next is begun", func(t *testing.T) {
		e := newExports(t, dir, blobs)
		for _, id := range []cloud.SnapshotID{"snap-00000002", "snap-00000003"} {
			s, err := e.Sink(ctx, id, 4*mib, &first)
			if err != nil {
				t.Fatal(err)
			}
			e.write(t, s, 2, 'b')
		}
	})
	t.Run("and goes on in another program", func(t *testing.T) {
		e := newExports(t, dir, blobs)
		for id, c := range map[cloud.SnapshotID]*cloud.Content{"snap-00000002": &second, "snap-00000003": &whole} {
			s, err := e.Sink(ctx, id, 4*mib, &first)
			if err != nil {
				t.Fatal(err)
			}
			if *c, err = s.Commit(ctx, id == "snap-00000003"); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []struct {
			of       cloud.Content
			one, two byte
		}{{second, 'a', 'b'}, {whole, 0, 'b'}} {
			if one, two := e.byteAt(t, want.of, snapshot.BlockSize), e.byteAt(t, want.of, 2*snapshot.BlockSize); one != want.one || two != want.two {
				t.Errorf("%v holds %q and %q", want.of, one, two)
			}
		}
	})
	t.Run("what isn't there", func(t *testing.T) {
		e := newExports(t, dir, blobs)
		for _, name := range []string{"", "snap-00000009", first.Manifest, first.Manifest + "-4194305", "0123-4194304"} {
			if _, _, err := (served{e}).Open(ctx, name); err == nil {
				t.Errorf("there is an export %q", name)
			} else if name == "snap-00000009" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
}
