// Package block is the seam between a node and its disks: block/file keeps
// them as qcow2 files, block/rbd in Ceph; block/fake holds them in
// memory for simulations. All pass block/blocktest.
//
// A disk is named by its owner, and is either empty or a copy-on-write child
// of an immutable base: a file here, or bytes that an NBD server gives. Whatever
// is written to a disk never reaches its base or another disk. Creating and removing are idempotent, durable when they
// return, and leave nothing half-made: a crash in the middle of Ensure leaves
// either no disk of that name or a whole one.
package block

import (
	"context"
	"encoding/hex"
	"fmt"
	"path/filepath"
)

// Disk is the wish for a disk.
type Disk struct {
	Name   string // unique among the disks of a store: [a-z0-9-]+
	Base   string // absolute path of a raw image that never changes; empty for an empty disk
	Source Source // bytes to start from, instead of Base
	Size   int64  // bytes, a multiple of 512; at least the base's
	Key    []byte // if any, what is written is encrypted with it (LUKS); KeySize bytes
}

// KeySize is the length of a disk's key in bytes.
const KeySize = 32

// Passphrase is the form in which LUKS takes a disk's key: QEMU wants its
// passphrases in UTF-8, which a random key isn't.
func Passphrase(key []byte) string { return hex.EncodeToString(key) }

// Source is an NBD export, read-only, that never changes. It is read until a
// hypervisor has copied all of it into the disk (hypervisor.Stream); a disk that
// stands on its own is no longer one with a source.
type Source struct {
	Socket string // absolute path of a unix socket; empty: no source
	Export string // name
	Size   int64  // bytes
}

// longestSocket is how long a path the kernel takes for a unix socket, in bytes.
const longestSocket = 107

// CheckSource refuses a source that no disk can start from.
func (d Disk) CheckSource() error {
	switch s := d.Source; {
	case d.Base != "":
		return fmt.Errorf("the base %q and the source %q: want one of them", d.Base, s.Export)
	case !filepath.IsAbs(s.Socket) || len(s.Socket) > longestSocket:
		return fmt.Errorf("its source's socket %q: want an absolute path of at most %d bytes", s.Socket, longestSocket)
	case s.Size <= 0 || s.Size > d.Size:
		return fmt.Errorf("its source %q has %d bytes: want at least 1 and no more than the disk's %d", s.Export, s.Size, d.Size)
	}
	return nil
}

// Attachment tells a hypervisor how to open a disk.
type Attachment struct {
	Format string // qcow2 or raw
	Path   string // absolute; empty: it is in Ceph
	RBD    RBD    // where in Ceph
	Source Source // that the disk still stands on
	Key    []byte // of an encrypted disk
}

// RBD is an image of Ceph's, which takes the place of a file.
type RBD struct {
	Conf      string // absolute path of the cluster's ceph.conf
	User      string // without "client."
	Pool      string
	Namespace string // of the pool
	Image     string // empty: none
}

// String is the image as Ceph's own commands name it; empty where there is none.
func (r RBD) String() string {
	if r.Image == "" {
		return ""
	}
	return "rbd:" + r.Pool + "/" + r.Namespace + "/" + r.Image
}

// Disks keeps disks. Methods may be called at once for different names.
type Disks interface {
	// Ensure makes the disk if it is not there and says how to open it. A disk
	// that is there already keeps its contents; one that is there with another
	// base, or larger, is an error, and so is one that is encrypted where d has no
	// key or the other way round. A smaller one grows, for which it must not be
	// open. The source of a disk that is there counts no more: the Attachment says
	// whether it still stands on one.
	Ensure(ctx context.Context, d Disk) (Attachment, error)

	// Remove gives back all that the disk takes. Removing what is not there is
	// no error. The disk must not be open.
	Remove(ctx context.Context, name string) error

	// List names the disks there are, sorted.
	List(ctx context.Context) ([]string, error)

	// Usage is the space in bytes that the disk takes for itself, its base not
	// counted.
	Usage(ctx context.Context, name string) (int64, error)
}

// NoSpaceError tells that the store is full, which a caller may wait out.
type NoSpaceError struct{ Err error }

func (e *NoSpaceError) Error() string { return "no space left on the node's disk: " + e.Err.Error() }
func (e *NoSpaceError) Unwrap() error { return e.Err }
