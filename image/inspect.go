package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"mallee/cloud"
)

// A Finding is what a file turned out to be. What only unpacking tells is zero.
type Finding struct {
	Path        string
	Size        int64  // bytes of the file
	Compression string // gzip, bzip2, xz, zstd; "" where it is as it is
	Archive     string // tar, ova; "" where it is the image itself
	Format      string // of the image: raw, qcow2, vmdk, vhd, vhdx
	VirtualSize int64  // bytes of the disk, or root file system
	Disks       int    // of an OVA, which may have several; the first is what it boots from

	Virtualization cloud.Virtualization // "" for data that boots in no known way
	Architecture   string               // EC2's name
	BootMode       cloud.BootMode

	Contents Contents // of the disk or root file system

	// Of an archive: the names of the files that are the image. The kernel and ramdisk may be missing.
	Kernel, Ramdisk, Root, Disk string
}

// String says it in words.
func (f Finding) String() string {
	s := f.Format
	if f.Archive != "" {
		s += " in " + f.Archive
	}
	if f.Compression != "" {
		s += ", compressed with " + f.Compression
	}
	switch {
	case f.Kernel != "" && f.Root != "":
		return s + ": a kernel and a root file system"
	case f.Contents.Format != "":
		return s + ": " + f.Contents.describe()
	}
	return s
}

// Machine returns why the file is no machine image, in words for whoever brought it; nil where it is one, or may be.
func (f Finding) Machine() error {
	if f.Contents.Format == "" {
		return nil
	}
	return f.Contents.NotAMachine(f.Virtualization == cloud.Paravirtual)
}

// Inspect finds out what a file is: its format by its bytes, its headers' promises, and, as far as it
// can be seen without unpacking all of it, what is in it. A *BadImageError says why a file isn't taken.
// It reads a compressed archive to its end, to list it; else only some parts. It writes nothing but short-lived files in the folder for temporary ones.
func Inspect(ctx context.Context, path string, limits Limits) (Finding, error) {
	if err := limits.check(); err != nil {
		return Finding{}, err
	}
	f, w, err := openImage(path)
	if err != nil {
		return Finding{}, err
	}
	defer f.Close()
	found, err := inspect(ctx, f, w, limits)
	if err != nil {
		return Finding{}, fmt.Errorf("inspecting %s: %w", filepath.Base(path), err)
	}
	return found, nil
}

// openImage opens a regular file; another kind might never end, or never begin.
func openImage(path string) (*os.File, window, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, window{}, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, window{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = refuse("%s is no file but %s", path, info.Mode().Type())
	}
	if err != nil {
		f.Close()
		return nil, window{}, err
	}
	return f, window{file: path, size: info.Size(), whole: true}, nil
}

func inspect(ctx context.Context, f *os.File, w window, limits Limits) (Finding, error) {
	found := Finding{Path: w.file, Size: w.size}
	info, err := Probe(w.reader(f), w.size)
	if err != nil {
		return found, err
	}
	switch {
	case info.Size == 0:
		return found, refuse("the file is empty")
	case unpackers[info.Format] != nil && !info.Ramdisk:
		return found, found.compressed(ctx, f, w, info.Format, limits)
	case info.Format == "tar":
		return found, found.archive(ctx, f, w, limits)
	}
	return found, found.disk(ctx, f, w, info.Format, limits)
}

// peekHead is how much is looked at of a compressed disk: EFI system partitions begin in there. Bytes.
const peekHead = 8 << 20

// compressed looks at the beginning of what is inside; at all of an archive.
func (found *Finding) compressed(ctx context.Context, f *os.File, w window, format string, limits Limits) error {
	found.Compression = format
	stream, err := w.unpack(ctx, f, format)
	if err != nil {
		return err
	}
	defer stream.Close()
	head := make([]byte, peekHead)
	n, err := io.ReadFull(stream, head)
	switch head = head[:n]; {
	case err != nil && err != io.EOF && err != io.ErrUnexpectedEOF:
		return err
	case n == 0:
		return refuse("the %s file has nothing inside", format)
	}
	inner := probeParts(head, nil, int64(n))
	if inner.Format == "tar" {
		all, err := list(ctx, io.MultiReader(bytes.NewReader(head), stream), limits)
		if err != nil || isOVA(all) {
			found.Archive, found.Format = "ova", "vmdk"
			return err
		}
		return found.choose(all)
	}
	if err := convertible(inner.Format); err != nil {
		return err
	}
	found.Format, found.VirtualSize = inner.Format, inner.VirtualSize
	if inner.Format == "raw" {
		found.VirtualSize = 0 // what there is of it isn't all
		found.Contents, err = LookInside(beginning(head), limits.VirtualSize)
		found.Contents.Size, found.Contents.VirtualSize = int64(n), 0
		found.conclude()
		return err
	}
	return nil
}

// beginning is that of a disk whose rest isn't there yet, and reads as zeros.
type beginning []byte

func (b beginning) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, b[min(off, int64(len(b))):])
	clear(p[n:])
	return len(p), nil
}

// convertible refuses what Prepare couldn't make a raw image of.
func convertible(format string) error {
	switch {
	case format == "raw", examiners[format] != nil:
		return nil
	case unpackers[format] != nil:
		return refuse("the file is compressed twice: unpack it once")
	case format == "cpio":
		return refuse("the file is a ramdisk (cpio archive): register it as a ramdisk image")
	}
	_, err := examine(nil, 0, format, DefaultLimits)
	return err
}

// archive looks into a tar archive that isn't compressed.
func (found *Finding) archive(ctx context.Context, f *os.File, w window, limits Limits) error {
	all, err := list(ctx, io.NewSectionReader(f, w.off, w.size), limits)
	if err != nil {
		return err
	}
	if !isOVA(all) {
		return found.choose(all)
	}
	o, err := openOVA(w.reader(f), all)
	if err != nil {
		return err
	}
	found.Archive, found.Disks, found.Disk = "ova", len(o.disks), o.disks[0].name
	inner := w.member(o.disks[0])
	info, err := Probe(inner.reader(f), inner.size)
	if err != nil {
		return err
	}
	if err := convertible(info.Format); err != nil {
		return err
	}
	if err := found.disk(ctx, f, inner, info.Format, limits); err != nil {
		return err
	}
	found.describedBy(o)
	return nil
}

// describedBy takes from a description what the disk itself doesn't tell.
func (found *Finding) describedBy(o *ova) {
	if found.BootMode == "" {
		found.BootMode = o.boot
	}
	if found.Architecture == "" {
		found.Architecture = o.arch
	}
}

// member is the window of an archive's member.
func (w window) member(m member) window {
	return window{file: w.file, off: w.off + m.off, size: m.size}
}

// choose the image among an archive's files.
func (found *Finding) choose(all []member) error {
	c, err := choose(all)
	if err != nil {
		return err
	}
	found.Archive, found.Format = "tar", "raw"
	found.Disk, found.Root, found.Kernel, found.Ramdisk = c.disk, c.root, c.kernel, c.ramdisk
	for _, m := range all {
		switch m.name {
		case c.disk, c.root:
			found.Format, found.Contents.Info = m.info.Format, m.info
			if m.info.Format == "raw" {
				found.VirtualSize = m.size
			}
		}
	}
	found.conclude()
	return nil
}

// disk examines a disk image and looks at what is on the disk.
func (found *Finding) disk(ctx context.Context, f *os.File, w window, format string, limits Limits) error {
	if err := convertible(format); err != nil {
		return err
	}
	d, err := examine(w.reader(f), w.size, format, limits)
	if err != nil {
		return err
	}
	found.Format, found.VirtualSize = format, d.virtual
	var inside io.ReaderAt = w.reader(f)
	if format != "raw" {
		p, err := newPeeker(ctx, d, w, limits)
		if err != nil {
			return err
		}
		defer p.close()
		inside = p
	}
	if found.Contents, err = LookInside(inside, d.virtual); err != nil {
		return err
	}
	found.conclude()
	return nil
}

// conclude how the image boots from what is in it.
func (found *Finding) conclude() {
	c := found.Contents
	found.Architecture, found.BootMode = c.Architecture, c.BootMode
	switch {
	case c.Kernel != "" || c.Format != "raw":
	case c.Partitions != "" || c.BootSector:
		found.Virtualization = cloud.HVM
	case c.FileSystem != "":
		found.Virtualization = cloud.Paravirtual
	}
}
