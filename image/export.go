package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// exports are QEMU's names and options for the formats that a raw disk is written in. force_size keeps a VHD's disk from
// being rounded to whole cylinders.
var exports = map[string][]string{
	"raw":   {"-O", "raw"},
	"qcow2": {"-O", "qcow2", "-c", "-o", "compat=1.1"},
	"vmdk":  {"-O", "vmdk", "-o", "subformat=streamOptimized,adapter_type=lsilogic"},
	"vhd":   {"-O", "vpc", "-o", "subformat=dynamic,force_size=on"},
	"vhdx":  {"-O", "vhdx", "-o", "subformat=dynamic"},
}

// ExportFormats lists what Export takes.
var ExportFormats = []string{"raw", "qcow2", "vmdk", "vhd", "vhdx", "ova"}

// Export writes a raw disk in another format: qcow2 (compressed), vmdk (streamOptimized), vhd and vhdx (dynamic), raw
// (sparse), or ova, for which the machine needs to be described. dst is an empty file; after an error its content is
// worthless. The disk itself is what somebody's guest wrote, and never taken for anything but raw.
func Export(ctx context.Context, dst, src *os.File, format string, m Machine, limits Limits, progress Progress) error {
	if err := limits.check(); err != nil {
		return err
	}
	if err := requireEmpty(dst); err != nil {
		return err
	}
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := limits.fits("image", uint64(info.Size())); err != nil {
		return err
	}
	w := window{file: src.Name(), size: info.Size(), whole: true}
	switch {
	case format == "ova":
		return exportOVA(ctx, dst, src, w, m, limits, progress)
	case exports[format] == nil:
		return fmt.Errorf("exporting as %q: want one of %q", format, ExportFormats)
	case format == "raw":
		return errors.Join(dst.Truncate(w.size), copyRaw(ctx, dst, src, w, progress))
	}
	return exportDisk(ctx, dst.Name(), w, format, limits, progress)
}

// exportDisk has QEMU write a file.
func exportDisk(ctx context.Context, dst string, w window, format string, limits Limits, progress Progress) error {
	if w.size%sector != 0 {
		return refuse("the disk has %d bytes, which aren't whole sectors of %d", w.size, sector)
	}
	from, err := driver{name: "raw"}.source(w, nil)
	if err != nil {
		return err
	}
	args := append([]string{"convert", "-p"}, exports[format]...)
	return qemuImg(ctx, "packing the image as "+format, limits, w.file, dst, progress, append(args, from, outName)...)
}

// exportOVA packs the disk beside dst first: an archive's header says how long a file is.
func exportOVA(ctx context.Context, dst, src *os.File, w window, m Machine, limits Limits, progress Progress) error {
	disk, err := os.CreateTemp(filepath.Dir(dst.Name()), "export-*.vmdk")
	if err != nil {
		return err
	}
	defer os.Remove(disk.Name())
	defer disk.Close()
	if err := exportDisk(ctx, disk.Name(), w, "vmdk", limits, progress); err != nil {
		return err
	}
	// QEMU may have replaced the content, never the file.
	if _, err := disk.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return writeOVA(ctx, dst, disk, w.size, m, progress)
}
