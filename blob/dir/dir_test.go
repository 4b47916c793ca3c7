package dir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mallee/blob"
	"mallee/blob/blobtest"
	"mallee/blob/dir"
)

func TestStore(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store { return open(t, t.TempDir()) })
}

func open(t *testing.T, root string) *dir.Store {
	t.Helper()
	s, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Opened again, the store holds what was put, and nothing that was half put.
func TestReopen(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if err := s.Put(t.Context(), "a/b", strings.NewReader("kept")); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(root, ".tmp", "put-1")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, root)
	if there, err := s.Has(t.Context(), "a/b"); !there || err != nil {
		t.Errorf("a/b after opening again: %v, %v", there, err)
	}
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Errorf("half a blob is left: %v", err)
	}
	info, err := os.Stat(filepath.Join(root, "a/b~"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
}

// A failed Put leaves no file anywhere.
func TestFailedPutLeavesNothing(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if err := s.Put(t.Context(), "a", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "a", strings.NewReader("y")); err == nil {
		t.Error("other bytes were accepted")
	}
	left, err := os.ReadDir(filepath.Join(root, ".tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left staged: %v, %v", left, err)
	}
}

// A store that is away, as a disk that is not mounted, has lost nothing.
func TestAway(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	s := open(t, root)
	if err := s.Put(t.Context(), "a/b", strings.NewReader("kept")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []bool{false, true} { // the disk's mount point may be there
		if folder {
			if err := os.Mkdir(root, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Get(t.Context(), "a/b", 0, -1); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), root) {
			t.Errorf("without the store, its folder there: %v, a blob: %v", folder, err)
		}
	}
	if err := errors.Join(os.Remove(root), os.Rename(root+".away", root)); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Get(t.Context(), "a/b", 0, -1); err != nil {
		t.Errorf("with the store: %v", err)
	} else {
		r.Close()
	}
	if _, err := s.Get(t.Context(), "a/c", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was never put: %v", err)
	}
}
