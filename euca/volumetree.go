package euca

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mallee/image"
)

// volumeTree is a folder's files on their way into a file system of their own.
// mke2fs makes it, and debugfs fills it by a script, so that nobody has to be root
// or to mount anything.
type volumeTree struct {
	root string // absolute
	kind string // ext2, ext3 or ext4
	size int64  // of the file system, in bytes
	id   string // its UUID
	keep func(path string, d fs.DirEntry) bool

	entries []volumeEntry // parents before what is in them
	blocks  int64         // bytes that they take
}

// volumeEntry is one file, folder, link or device.
type volumeEntry struct {
	path string // in the file system, with a slash before it
	from string // the host's file
	stat unix.Stat_t
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// walk finds what is to be copied.
func (v *volumeTree) walk(ctx context.Context) error {
	err := filepath.WalkDir(v.root, func(from string, d fs.DirEntry, err error) error {
		below, _ := filepath.Rel(v.root, from) // it is below
		at := path.Join("/", below)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case at != "/" && (at == "/lost+found" || !v.keep(at, d)):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case errors.Is(err, fs.ErrNotExist):
			return nil // it was there a moment ago
		case err != nil:
			return err
		}
		return v.add(at, from)
	})
	if err != nil {
		return fmt.Errorf("read the files below %s: %w", v.root, err)
	}
	if v.blocks > v.size-v.size/20 {
		return fmt.Errorf("the files below %s take %d MiB, and the image has %d: choose a larger one by -s, or leave some out by -e", v.root, v.blocks>>20, v.size>>20)
	}
	return nil
}

func (v *volumeTree) add(at, from string) error {
	e := volumeEntry{path: at, from: from}
	if err := unix.Lstat(from, &e.stat); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("%s: %w", from, err)
	}
	if e.stat.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return nil // nobody listens on it in an image
	}
	if strings.ContainsAny(at, "\n\x00") {
		return fmt.Errorf("%q has a name of several lines, which debugfs can't write: leave it out by -e", from)
	}
	v.entries = append(v.entries, e)
	v.blocks += e.stat.Blocks * 512
	return nil
}

// replace a file of the tree by another of the host's. The one that was there
// becomes NAME.bak.
func (v *volumeTree) replace(at, from string) error {
	at = "/" + at
	i := slices.IndexFunc(v.entries, func(e volumeEntry) bool { return e.path == at })
	if i >= 0 {
		v.entries[i].path += ".bak"
	}
	for dir := path.Dir(at); dir != "/"; dir = path.Dir(dir) {
		if !slices.ContainsFunc(v.entries, func(e volumeEntry) bool { return e.path == dir }) {
			e := volumeEntry{path: dir}
			e.stat.Mode = unix.S_IFDIR | 0o755
			v.entries = append(v.entries, e)
		}
	}
	e := volumeEntry{path: at, from: from}
	if err := unix.Stat(from, &e.stat); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	e.stat.Mode, e.stat.Uid, e.stat.Gid, e.stat.Nlink = unix.S_IFREG|0o644, 0, 0, 1
	v.entries = append(v.entries, e)
	return nil
}

// write the file system in a new file. gone is how many files were there when
// the tree was walked, and no more when they were to be copied.
func (v *volumeTree) write(ctx context.Context, file string, progress func(done, total int64)) (gone int, err error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(f.Truncate(v.size), f.Close()); err != nil {
		return 0, err
	}
	args := []string{"-q", "-F", "-t", v.kind, "-m", "1", "-U", v.id, "-E", "root_owner=0:0"}
	if v.size >= 64<<20 {
		args = append(args, "-b", "4096")
	}
	if n := int64(len(v.entries)) * 5 / 4; n > v.size/16384 {
		args = append(args, "-N", strconv.FormatInt(n+64, 10))
	}
	if said, err := e2fsTool(ctx, nil, "mke2fs", append(args, file)...); err != nil {
		return 0, fmt.Errorf("make a file system of %d MiB: %w: %s", v.size>>20, err, said)
	}
	slices.SortStableFunc(v.entries, func(a, b volumeEntry) int { return strings.Compare(a.path, b.path) })
	scratch, err := os.MkdirTemp(filepath.Dir(file), "attributes-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(scratch)
	script, err := v.script(scratch)
	if err != nil {
		return 0, err
	}
	in := &watchedReader{in: strings.NewReader(script), total: int64(len(script)), progress: progress}
	said, err := e2fsTool(ctx, in, "debugfs", "-w", "-f", "-", file)
	if err != nil {
		return 0, fmt.Errorf("fill the file system: %w: %s", err, said)
	}
	return complaints(said)
}

// watchedReader tells how far it is read.
type watchedReader struct {
	in          io.Reader
	done, total int64
	progress    func(done, total int64)
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.in.Read(p)
	w.done += int64(n)
	w.progress(w.done, w.total)
	return n, err
}

// script of debugfs commands that make and describe each entry.
func (v *volumeTree) script(scratch string) (string, error) {
	var b strings.Builder
	do := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	type inode struct{ dev, ino uint64 }
	first, links, cwd := map[inode]string{}, map[string]int{}, "/"
	for _, e := range v.entries {
		at, name := quoted(e.path), quoted(path.Base(e.path))
		if dir := path.Dir(e.path); dir != cwd && e.path != "/" {
			do("cd %s", quoted(dir))
			cwd = dir
		}
		id := inode{e.stat.Dev, e.stat.Ino}
		if other := first[id]; other != "" && e.stat.Nlink > 1 {
			do("ln %s %s", quoted(other), at)
			links[other]++
			continue
		}
		switch e.stat.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			if e.path != "/" {
				do("mkdir %s", at)
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(e.from)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil || strings.Contains(target, "\n") {
				return "", fmt.Errorf("%s: the link can't be copied, leave it out by -e: %w", e.from, errors.Join(err))
			}
			do("symlink %s %s", at, quoted(target))
		case unix.S_IFREG:
			do("write %s %s", quoted(e.from), name)
		case unix.S_IFIFO:
			do("mknod %s p", name)
		case unix.S_IFCHR, unix.S_IFBLK:
			kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[e.stat.Mode&unix.S_IFMT]
			do("mknod %s %s %d %d", name, kind, unix.Major(e.stat.Rdev), unix.Minor(e.stat.Rdev))
		}
		if e.stat.Mode&unix.S_IFMT != unix.S_IFDIR && e.stat.Nlink > 1 {
			first[id], links[e.path] = e.path, 1
		}
		if err := v.describe(do, e, at, scratch); err != nil {
			return "", err
		}
	}
	for of, n := range links {
		do("sif %s links_count %d", quoted(of), n)
	}
	return b.String(), nil
}

// describe an entry: its mode, owner, time and attributes.
func (v *volumeTree) describe(do func(string, ...any), e volumeEntry, at, scratch string) error {
	do("sif %s mode 0%o", at, e.stat.Mode)
	do("sif %s mtime @%d", at, e.stat.Mtim.Sec)
	if e.stat.Uid != 0 {
		do("sif %s uid %d", at, e.stat.Uid)
	}
	if e.stat.Gid != 0 {
		do("sif %s gid %d", at, e.stat.Gid)
	}
	if kind := e.stat.Mode & unix.S_IFMT; e.from == "" || kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil
	}
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(e.from, names)
	if err != nil || n == 0 {
		return nil // a file system without them
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") || strings.ContainsAny(name, "\"\n ") {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(e.from, name, value)
		if err != nil {
			continue
		}
		f, err := os.CreateTemp(scratch, "")
		if err != nil {
			return err
		}
		_, err = f.Write(value[:n])
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		do("ea_set -f %s %s %s", quoted(f.Name()), at, name)
	}
	return nil
}

// quoted for debugfs: a quote is two.
func quoted(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// complaints of debugfs, which ends with status 0 whatever happened. That a file
// is gone is none.
func complaints(said string) (gone int, err error) {
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "debugfs 1."):
		case strings.Contains(line, "No such file or directory while opening"):
			gone++
		case gone > 0 && (strings.Contains(line, "File not found by ext2_lookup") || strings.HasPrefix(line, "write: No such file or directory")):
		default:
			return gone, fmt.Errorf("fill the file system: debugfs says %q; is the image large enough?", line)
		}
	}
	return gone, nil
}

// e2fsTool runs a program of e2fsprogs, and returns the beginning of what it says on standard error.
func e2fsTool(ctx context.Context, in io.Reader, name string, args ...string) (string, error) {
	program, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		program, err = exec.LookPath(filepath.Join(dir, name))
	}
	if err != nil {
		return "", &image.MissingToolError{Tool: name, Package: "e2fsprogs"}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	said := &head{left: 64 << 10}
	cmd.Stdin, cmd.Stderr, cmd.Env = in, said, append(os.Environ(), "LC_ALL=C", "PAGER=cat")
	err = cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return strings.TrimSpace(said.String()), err
}

// head keeps the beginning of what is written.
type head struct {
	bytes.Buffer
	left int
}

func (h *head) Write(p []byte) (int, error) {
	n := min(len(p), h.left)
	h.left -= n
	h.Buffer.Write(p[:n])
	return len(p), nil
}
