package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The configuration that mke2fs runs with instead of the host's /etc/mke2fs.conf.
const (
	mkfsConfigName = "mke2fs.conf"
	mkfsConfig     = `[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384
[fs_types]
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
	}
	small = {
	}
`
)

// tinyID is the tiny root file system's UUID. It is the same in every image, for repeatable bytes,
// so nothing may look for a root by it: a copy attached as a volume has it too.
const tinyID = "6d616c6c-6565-4000-8000-74696e790001"

// An extFS describes an ext4 file system to be made.
type extFS struct {
	label   string
	id      string // UUID, also the hash seed
	size    int64  // bytes
	journal int    // MiB
	files   tree
}

// write makes the file system in a new sparse file. mke2fs copies the tree's content, but from
// an ordinary user's files: debugfs then gives everything to root, and sets the permissions and the
// inode change time, which no user can choose and mke2fs 1.47.0 copies too.
func (e extFS) write(ctx context.Context, t tools, scratch, file string) error {
	source, err := os.MkdirTemp(scratch, "ext-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(source)
	if err := e.files.write(source); err != nil {
		return err
	}
	if err := createSparse(file, e.size); err != nil {
		return err
	}
	_, err = t.run(ctx, nil, "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-J", "size="+strconv.Itoa(e.journal),
		"-L", e.label, "-U", e.id, "-E", "root_owner=0:0,hash_seed="+e.id, "-d", source, file)
	if err != nil {
		return err
	}
	return e.own(ctx, t, scratch, file)
}

// own runs one debugfs over a script that mends every inode.
func (e extFS) own(ctx context.Context, t tools, scratch, file string) error {
	script := filepath.Join(scratch, "debugfs.txt")
	attributes, err := e.attributes(scratch)
	if err != nil {
		return err
	}
	if err := os.WriteFile(script, []byte(e.ownership()+attributes), 0o600); err != nil {
		return err
	}
	defer os.Remove(script)
	msg, err := t.run(ctx, nil, "debugfs", "-w", "-f", script, file)
	if err != nil {
		return err
	}
	for line := range strings.Lines(msg) {
		// debugfs ends with status 0 whatever happened; only its greeting is no complaint.
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "debugfs 1.") {
			return fmt.Errorf("debugfs on %s: %s", file, line)
		}
	}
	return nil
}

func (e extFS) ownership() string {
	var b strings.Builder
	set := func(name, field, value string) { fmt.Fprintf(&b, "sif \"/%s\" %s %s\n", name, field, value) }
	for _, name := range append([]string{"", "lost+found"}, e.files.names()...) {
		n := e.files[name]
		if n == nil {
			n = &node{}
		} else {
			set(name, "mode", "0"+strconv.FormatUint(uint64(unixMode(n.mode)), 8))
		}
		set(name, "uid", strconv.Itoa(n.uid))
		set(name, "gid", strconv.Itoa(n.gid))
		at := "@" + strconv.FormatInt(n.changed().Unix(), 10)
		for _, field := range []string{"atime", "ctime", "mtime"} {
			set(name, field, at)
		}
	}
	return b.String()
}

// attributes is the part of the script that sets extended attributes, whose values it takes from files.
func (e extFS) attributes(scratch string) (string, error) {
	var b strings.Builder
	for _, name := range e.files.names() {
		attrs := e.files[name].attrs
		for _, key := range slices.Sorted(maps.Keys(attrs)) {
			f, err := os.CreateTemp(scratch, "attribute-")
			if err != nil {
				return "", err
			}
			_, err = f.WriteString(attrs[key])
			if err = errors.Join(err, f.Close()); err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "ea_set -f %s \"/%s\" %s\n", f.Name(), name, key)
		}
	}
	return b.String(), nil
}

// createSparse makes a new file of that size without a written byte.
func createSparse(file string, size int64) error {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return fmt.Errorf("giving %s its size of %d bytes: %w", file, size, err)
	}
	return f.Close()
}
