package blob_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"mallee/blob"
)

func TestCheckKey(t *testing.T) {
	for _, key := range []string{"a", "a/b", "sha256/0a1B-_.x", strings.Repeat("a", 250)} {
		if err := blob.CheckKey(key); err != nil {
			t.Error(err)
		}
	}
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", ".hidden", "a b", "ä", "a\x00", "a\\b", "a~",
		strings.Repeat("a", 251), strings.Repeat("a/", 256) + "a",
	} {
		if err := blob.CheckKey(key); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("CheckKey(%q) = %v, want an error that is fs.ErrInvalid", key, err)
		}
	}
}
