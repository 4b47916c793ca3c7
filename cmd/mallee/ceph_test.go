package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mallee/euca"
)

// A cloud is never started on another place for volumes than it has them in.
func TestVolumesStayWhereTheyAre(t *testing.T) {
	here := ceph{conf: "/dev/null", pool: "p", user: "admin"}
	for name, test := range map[string]struct {
		file, text string
		told       ceph
		want       string
	}{
		"in Ceph, and not told":       {"ceph.json", `{"pool":"p","namespace":"n"}`, ceph{}, "pool p"},
		"in another pool":             {"ceph.json", `{"pool":"q","namespace":"n"}`, here, "pool q"},
		"in the folder":               {"volumes/vol-1.qcow2", "", here, "volumes"},
		"a memory that is unreadable": {"ceph.json", `{`, here, "ceph.json"},
	} {
		folder := euca.Folder(t.TempDir())
		path := folder.Path("node", test.file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		h := &house{settings: settings{folder: folder, ceph: test.told}}
		if _, err := h.openVolumes(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q in it", name, err, test.want)
		}
	}
}
