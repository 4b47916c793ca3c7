package dir_test

import (
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
