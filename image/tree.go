package image

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// epoch is the time of every file in a built image. It has to be fixed for repeatable bytes, and
// in the past of any guest's clock.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// A tree is a folder in memory: what a package contains, or what an image will. Keys are clean
// slash-separated relative paths.
type tree map[string]*node

// A node is one file of a tree. What isn't said is root's, from the epoch.
type node struct {
	mode  fs.FileMode // type and permission bits
	data  []byte      // a regular file's content; or:
	from  string      // the host's file that has the content; nodes with the same one are hard links
	link  string      // a symbolic link's target
	major uint32      // of a device
	minor uint32

	uid, gid int
	time     time.Time         // when it was last changed; zero is the epoch
	attrs    map[string]string // extended attributes
}

func (t tree) dir(name string, perm fs.FileMode) {
	t.put(name, &node{mode: fs.ModeDir | perm})
}

func (t tree) file(name string, perm fs.FileMode, data []byte) {
	t.put(name, &node{mode: perm, data: data})
}

func (t tree) symlink(name, target string) {
	t.put(name, &node{mode: fs.ModeSymlink | 0o777, link: target})
}

func (t tree) console(name string) {
	t.put(name, &node{mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, major: 5, minor: 1})
}

// put adds a node and the folders above it.
func (t tree) put(name string, n *node) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return
	}
	for up := path.Dir(name); up != "."; up = path.Dir(up) {
		if t[up] == nil {
			t[up] = &node{mode: fs.ModeDir | 0o755}
		}
	}
	t[name] = n
}

// names lists the paths in order, parents before children.
func (t tree) names() []string {
	return slices.Sorted(maps.Keys(t))
}

// follow returns the regular file at name, resolving symbolic links inside the tree.
func (t tree) follow(name string) ([]byte, error) {
	at := name
	for range 16 {
		n, base := t.nearest(at)
		if n == nil {
			return nil, fmt.Errorf("%s (through %s): %w", name, at, fs.ErrNotExist)
		}
		if n.mode&fs.ModeSymlink == 0 {
			if base != at || !n.mode.IsRegular() {
				return nil, fmt.Errorf("%s (through %s): %w", name, at, fs.ErrNotExist)
			}
			return n.data, nil
		}
		target := n.link
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(base), target)
		}
		at = strings.TrimPrefix(path.Join("/", target, strings.TrimPrefix(at, base)), "/")
	}
	return nil, fmt.Errorf("%s: too many levels of symbolic links", name)
}

// nearest returns the node at name, or the symbolic link among its parents that must be resolved first.
func (t tree) nearest(name string) (*node, string) {
	for i, c := range name {
		if c != '/' {
			continue
		}
		if n := t[name[:i]]; n != nil && n.mode&fs.ModeSymlink != 0 {
			return n, name[:i]
		}
	}
	return t[name], name
}

// write makes the tree below the folder dir, which must exist. Devices are left out: they need
// root, and the file systems we build get theirs from devtmpfs. All times are the epoch.
func (t tree) write(dir string) error {
	names := t.names()
	for _, name := range names {
		if err := t[name].write(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	// Last, and children first: writing into a folder touches it.
	for _, name := range slices.Backward(names) {
		n := t[name]
		if n.mode.IsRegular() || n.mode.IsDir() {
			if err := os.Chtimes(filepath.Join(dir, name), n.changed(), n.changed()); err != nil {
				return err
			}
		}
	}
	return os.Chtimes(dir, epoch, epoch)
}

// changed is the time of the node's last change.
func (n *node) changed() time.Time {
	if n.time.IsZero() {
		return epoch
	}
	return n.time
}

func (n *node) write(file string) error {
	switch {
	case n.from != "":
		return os.Link(n.from, file)
	case n.mode.IsDir():
		// Writable for us while it is filled; ext sets the real permissions.
		return os.MkdirAll(file, 0o700)
	case n.mode&fs.ModeSymlink != 0:
		return os.Symlink(n.link, file)
	case n.mode.IsRegular():
		return os.WriteFile(file, n.data, n.mode.Perm()|0o600)
	}
	return nil
}
