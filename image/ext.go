package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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

// rootID is the root file system's UUID and hash seed. It is the same in every image, for
// repeatable bytes, so nothing may look for a root by it: a copy attached as a volume has it too.
const rootID = "6d616c6c-6565-4000-8000-74696e790001"

// An extFS describes an ext4 file system to be made.
type extFS struct {
	label string
	size  int64 // bytes
	files tree
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
	_, err = t.run(ctx, nil, "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-J", "size=4",
		"-L", e.label, "-U", rootID, "-E", "root_owner=0:0,hash_seed="+rootID, "-d", source, file)
	if err != nil {
		return err
	}
	return e.own(ctx, t, scratch, file)
}

// own runs one debugfs over a script that mends every inode.
func (e extFS) own(ctx context.Context, t tools, scratch, file string) error {
	script := filepath.Join(scratch, "debugfs.txt")
	if err := os.WriteFile(script, []byte(e.ownership()), 0o600); err != nil {
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
	now := "@" + strconv.FormatInt(epoch.Unix(), 10)
	for _, name := range append([]string{"", "lost+found"}, e.files.names()...) {
		if n := e.files[name]; n != nil {
			set(name, "mode", "0"+strconv.FormatUint(uint64(unixMode(n.mode)), 8))
		}
		set(name, "uid", "0")
		set(name, "gid", "0")
		for _, field := range []string{"atime", "ctime", "mtime"} {
			set(name, field, now)
		}
	}
	return b.String()
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
