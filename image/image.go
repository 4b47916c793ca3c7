// Package image knows what is inside an image and how to make one.
//
// # Terms
//
//   - A machine image (EMI) is either HVM, a raw bootable disk, or paravirtual, a bare root
//     file system that runs with a kernel image (EKI) and a ramdisk image (ERI).
//   - The Catalog is the list of images that Build makes out of the Debian packages which the
//     host's own apt offers: nothing is downloaded from anywhere else, and nobody needs root,
//     a loop device or a mount. `tiny` is HVM, `tiny-pv` is the paravirtual trio.
//   - A layout is the arrangement of an instance's disks: Paravirtual builds Eucalyptus's disk of
//     root, ephemeral and swap partitions, Ephemeral the second disk of an HVM instance.
//   - Probe says what a file is by its bytes, so that a kernel isn't registered as a machine.
//
// # How an image is built
//
//	apt ──names──▶ packages ──versions──▶ key ──┬─ built already ─▶ Artifacts
//	                                            └─ download ▶ trees ▶ cpio, ext4, MBR ▶ rename
//
// The key is a digest of the recipe, of the guest's files embedded in this program and of every
// package's name, version and checksum. The tools that write the image (mke2fs, debugfs,
// grub-mkimage) come from those packages too and run from the unpacked tree with its own
// libraries; so equal keys mean equal bytes, whatever the host has installed.
//
// # Who writes what
//
// The cache folder belongs to Build. One lock file serialises builds, in one process or in many. A
// build works in a temporary folder and renames it to RECIPE-KEY when all of it is on disk; a
// folder of that name is complete by definition and never changes again.
//
// # What can go wrong
//
// apt may know no package (Build then fetches package lists into its own folder and tries again),
// may be offline (an earlier build of the same recipe is used, and the progress says so), and the
// disk may be full (the temporary folder is removed). Layouts refuse an image that leaves no room:
// ErrTooLarge.
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
