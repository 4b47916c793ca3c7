// Package mallee_test holds the house to its plan: who may import whom.
package mallee_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// doors lists, for each room, the rooms that it may enter. A room that is not
// listed fails the test, and so does one that reaches past its door. Tests may
// look anywhere: what they hold against each other is their own affair.
var doors = map[string]string{
	"cmd/mallee": "blob blob/dir blob/sealed block block/file block/rbd bundle cloud controller durable ebs ec2 euca front hypervisor/qemu iam image metadata network/user node peer snapshot state task walrus",

	"front":      "ebs ec2 iam walrus wire wire/sigv4",
	"ec2":        "bundle cloud iam link peer policy state wire",
	"iam":        "cloud durable policy state wire",
	"ebs":        "cloud iam snapshot state wire",
	"walrus":     "durable",
	"controller": "cloud link state",
	"peer":       "wire/sigv4",
	"task":       "bundle cloud durable image link peer snapshot",
	"node":       "block cloud durable hypervisor image link nbd network snapshot",
	"euca":       "bundle cloud durable hypervisor hypervisor/qemu image peer wire/sigv4",

	"state":    "cloud",
	"link":     "cloud",
	"durable":  "",
	"metadata": "cloud network",
	"bundle":   "cloud",
	"image":    "cloud durable",

	"hypervisor":      "block network",
	"hypervisor/qemu": "block hypervisor network",
	"hypervisor/fake": "block hypervisor network",
	"block":           "",
	"block/file":      "block durable nbd",
	"block/fake":      "block",
	"block/rbd":       "block block/file",
	"network":         "",
	"network/user":    "network",
	"network/fake":    "network",
	"blob":            "",
	"nbd":             "",
	"snapshot":        "blob cloud durable",
	"blob/dir":        "blob durable",
	"blob/mem":        "blob",
	"blob/sealed":     "blob",

	"wire":       "",
	"policy":     "",
	"wire/sigv4": "wire",
	"cloud":      "",

	"sim": "block block/fake cloud controller ec2 hypervisor hypervisor/fake iam link network network/fake node state wire",
}

// suites are the seams' conformance suites, which are packages that tests import.
func suite(room string) bool { return strings.HasSuffix(room, "test") }

func TestDoors(t *testing.T) {
	const module = "mallee/"
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (path == "test" || path != "." && strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		room := filepath.ToSlash(filepath.Dir(path))
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || suite(room) {
			return nil
		}
		may, listed := doors[room]
		if !listed {
			t.Errorf("%s: the room %s has no door in the plan", path, room)
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			into, ours := strings.CutPrefix(name, module)
			if ours && !slices.Contains(strings.Fields(may), into) {
				t.Errorf("%s: the room %s may not enter %s", path, room, into)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCloudIsPure keeps I/O out of the nouns: they import the standard library
// only, and nothing of it that touches the world.
func TestCloudIsPure(t *testing.T) {
	files, err := filepath.Glob("cloud/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no files in cloud", err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			name := strings.Trim(i.Path.Value, `"`)
			if strings.Contains(name, ".") || strings.HasPrefix(name, "mallee/") || slices.Contains([]string{"os", "net", "net/http", "os/exec"}, name) {
				t.Errorf("%s imports %s", path, name)
			}
		}
	}
}
