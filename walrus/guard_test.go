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

// Whatever a request says of itself, it is told apart without harm.
func FuzzService(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKI/20261122/us-east-1/s3/aws4_request, SignedHeaders=host", "a=b", "/services/Walrus/x")
	f.Add("", "X-Amz-Credential=AKI%2F20261122%2Fus-east-1%2Fs3%2Faws4_request", "/services/objectstorage")
	f.Fuzz(func(t *testing.T, authorization, query, path string) {
		if service := Service(authorization, query); strings.Contains(service, "/") {
			t.Errorf("service %q of %q, %q", service, authorization, query)
		}
		rest, ours := stripPrefix(path)
		if ours && (rest == "" || rest[0] != '/' || !strings.HasSuffix(path, strings.TrimSuffix(rest, "/"))) || !ours && rest != path {
			t.Errorf("path %q becomes %q (%v)", path, rest, ours)
		}
	})
}
