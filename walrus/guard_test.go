package walrus

import (
	"path/filepath"
	"strings"
	"testing"
)

// A key that passes is a name below its bucket's folder and out of staging.
func FuzzKey(f *testing.F) {
	for _, key := range []string{"a/b", "../a", "a/../../b", ".sgwtmp/x", "./.sgwtmp/x", "a/./b/", "\x00", "..", "a/..", "//", "ä b"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if key == "" || checkKey(key) != nil {
			return
		}
		name := filepath.Join("/store/bucket", key)
		if !strings.HasPrefix(name, "/store/bucket/") || strings.HasPrefix(name+"/", "/store/bucket/.sgwtmp/") {
			t.Errorf("key %q is the file %s", key, name)
		}
		if len(key) > longestKey || strings.ContainsRune(key, 0) {
			t.Errorf("key %q passed", key)
		}
	})
}

// Only Eucalyptus's paths are ours by their beginning, and what is left of one
// is a path.
func FuzzPrefix(f *testing.F) {
	for _, path := range []string{"/services/Walrus/x", "/services/objectstorage", "/services/objectstorage//", "/", ""} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		rest, ours := stripPrefix(path)
		whole := rest == path || strings.HasSuffix(path, rest) || rest == "/"
		if !whole || ours && rest[0] != '/' || !ours && rest != path {
			t.Errorf("path %q becomes %q (%v)", path, rest, ours)
		}
	})
}
