package image

import (
	"fmt"
	"io"
	"io/fs"
	"math"
)

// The newc format of cpio, which the kernel unpacks as the first root file system: per file a
// header of a magic and thirteen 8-digit hexadecimal fields, the name, and the content, each
// padded to four bytes (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
const (
	cpioMagic   = "070701"
	cpioTrailer = "TRAILER!!!"
	cpioHeader  = 110 // bytes
)

// writeCPIO writes the tree in order, owned by root, with fixed inode numbers and times, so
// that equal trees are equal bytes.
func writeCPIO(w io.Writer, t tree) error {
	c := cpioWriter{w: w}
	for _, name := range t.names() {
		c.entry(name, t[name])
	}
	c.entry(cpioTrailer, &node{})
	return c.err
}

type cpioWriter struct {
	w     io.Writer
	inode uint32
	err   error // the first error; nothing is written after it
}

func (c *cpioWriter) entry(name string, n *node) {
	data := n.data
	if n.mode&fs.ModeSymlink != 0 {
		data = []byte(n.link)
	}
	if len(data) > math.MaxUint32 {
		c.fail(fmt.Errorf("cpio: %s has %d bytes, more than the format can say", name, len(data)))
		return
	}
	mode, mtime, links := unixMode(n.mode), uint32(epoch.Unix()), 1
	if name == cpioTrailer {
		mode, mtime = 0, 0
	} else {
		c.inode++
	}
	c.print("%s%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", cpioMagic,
		c.inode, mode, 0, 0, links, mtime, len(data), 0, 0, n.major, n.minor, len(name)+1, 0)
	c.print("%s\x00", name)
	c.pad(cpioHeader + len(name) + 1)
	c.print("%s", data)
	c.pad(len(data))
}

func (c *cpioWriter) pad(written int) {
	c.print("%s", "\x00\x00\x00"[:(4-written%4)%4])
}

func (c *cpioWriter) print(format string, args ...any) {
	if c.err == nil {
		_, err := fmt.Fprintf(c.w, format, args...)
		c.fail(err)
	}
}

func (c *cpioWriter) fail(err error) {
	if c.err == nil && err != nil {
		c.err = err
	}
}

// unixMode is the mode as inodes have it.
func unixMode(m fs.FileMode) uint32 {
	perm := uint32(m.Perm())
	for bit, unix := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			perm |= unix
		}
	}
	switch {
	case m.IsDir():
		return perm | 0o040000
	case m&fs.ModeSymlink != 0:
		return perm | 0o120000
	case m&fs.ModeCharDevice != 0:
		return perm | 0o020000
	}
	return perm | 0o100000
}
