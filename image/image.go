// Package image knows what is inside an image and how to make one.
//
// # Terms
//
//   - A machine image (EMI) is either HVM, a raw bootable disk, or paravirtual, a bare root
//     file system that runs with a kernel image (EKI) and a ramdisk image (ERI).
//   - A Recipe is an image that Build makes out of the Debian packages which the host's own apt
//     offers: nothing is downloaded from anywhere else, and nobody needs root, a loop device or a
//     mount. `tiny` is HVM, `tiny-pv` is the paravirtual trio, `debian-12` a whole Debian.
//   - An Index is a catalogue: a list of entries, each of which names a recipe or a download. One is
//     shipped; Catalogs keeps those that an administrator adds, signed with minisign.
//   - A layout is the arrangement of an instance's disks: Paravirtual builds Eucalyptus's disk of
//     root, ephemeral and swap partitions, Ephemeral the second disk of an HVM instance.
//   - Probe says what a file is by its bytes, so that a kernel isn't registered as a machine. LookInside
//     says of a raw disk, too, for which firmware and architecture it is.
//   - A Finding is what Inspect says of a file that somebody brings: a disk image (raw, qcow2, VMDK, VHD,
//     VHDX), an OVA, a tar archive of a disk or of kernel, ramdisk and root file system, each perhaps
//     compressed. Prepare makes raw files of it, Export the other formats of a raw disk.
//   - A sandbox is what a program of the host runs in while it reads what somebody brought.
//
// # How an image is built
//
//	apt ──names──▶ packages ──versions──▶ key ──┬─ built already ─▶ Artifacts
//	                                            └─ download ▶ trees ▶ cpio, ext4, MBR ▶ rename
//
// The key is a digest of the recipe, of the guest's files embedded in this program and of every
// package's name, version and checksum. The tools that write the image (mke2fs, debugfs,
// grub-mkimage) come from those packages too and run from the unpacked tree with its own
// libraries; so equal keys mean equal bytes, whatever the host has installed. A Debian system is
// installed by its packages' own scripts, in an emulated machine: see system.go.
//
// # How a file becomes an image
//
//	URL ─ Fetch ─▶ file ─ Inspect ─▶ Finding ─ Prepare ─▶ raw files, sparse
//	                        │                     │
//	     our own reading of the headers;   the same again, then qemu-img
//	     a look at some parts by qemu-img  in a sandbox, told the format
//
// Nobody vouches for the file. Before QEMU sees it, examine reads its headers and tables and refuses
// what leads out of the file (backing files, external data, parents, extents elsewhere), what is larger than the caller's
// Limits, encrypted, or cut off, with a BadImageError in words for its owner. QEMU is then told the format,
// never asked, and is shut in (sandbox.go says how). Archives are read by us alone, and compressed files but for
// xz. Whatever headers say, memory is bounded by constants, and disk by Limits.
//
// # Who writes what
//
// The cache folder belongs to Build. A lock file serialises builds of a recipe, in one process or in many, and
// another what they ask of apt. A build works in a temporary folder and renames it to RECIPE-KEY when all of it is on disk; a
// folder of that name is complete by definition and never changes again. Prepare works in a folder
// prepare-* of the one it is given, and Fetch in FILE.part; what has its name is complete.
//
// # What can go wrong
//
// apt may know no package (Build then fetches package lists into its own folder and tries again),
// may be offline (an earlier build of the same recipe is used, and the progress says so), and the
// disk may be full (the temporary folder is removed). Layouts refuse an image that leaves no room:
// ErrTooLarge. A file that somebody brings may be anything: a *BadImageError is its owner's affair, every
// other error this machine's. Nothing is left of an import that fails; a process that dies half way
// leaves a folder prepare-*, which whoever gave the folder removes with it.
package image

import (
	"errors"
	"fmt"
)

// ErrTooLarge reports an image that doesn't fit on the disk of the instance type.
var ErrTooLarge = errors.New("image is too large for the disk")

// MissingToolError reports a program that isn't there and the Debian package that has it.
type MissingToolError struct {
	Tool    string // the program's name
	Package string // the Debian package that contains it
}

// Error says what to install.
func (e *MissingToolError) Error() string {
	return fmt.Sprintf("%s is not installed: apt-get install %s", e.Tool, e.Package)
}

// Progress receives the steps of a build: what is being done, and how much of it. The total is 0
// where it isn't known, and done equals total when a step ends. It is called from one goroutine.
type Progress func(step string, done, total int64)

// Quiet is the Progress of somebody who doesn't want to know.
func Quiet(string, int64, int64) {}
