package image

import (
	"bytes"
	"io"
	"unicode/utf16"
)

// VHD, by Microsoft's "Virtual Hard Disk Image Format Specification" 1.0. All numbers are big-endian. A disk of
// fixed size is raw with a footer; a dynamic one has a copy of the footer at the beginning, then a header and
// the block allocation table.

const (
	vhdCookie  = "conectix"
	vhdDynamic = "cxsparse"

	vhdKindFixed        = 2
	vhdKindDynamic      = 3
	vhdKindDifferencing = 4

	vhdMaxTable = 16 << 20 // bytes of the block allocation table: 2 TiB in blocks of 512 KiB
)

func examineVHD(r io.ReaderAt, size int64, limits Limits) (driver, error) {
	footer, err := vhdFooter(r, size)
	if err != nil {
		return driver{}, err
	}
	virtual, kind := be.Uint64(footer[48:]), be.Uint32(footer[60:])
	switch {
	case !vhdSum(footer, 64):
		return driver{}, refuse("the VHD image's footer has a wrong checksum")
	case virtual%sector != 0:
		return driver{}, refuse("the VHD image says that its disk has %d bytes, which aren't whole sectors", virtual)
	}
	if err := limits.fits("VHD image", virtual); err != nil {
		return driver{}, err
	}
	switch kind {
	case vhdKindFixed:
		err = vhdFixed(r, size, virtual)
	case vhdKindDynamic, vhdKindDifferencing:
		err = vhdSparse(r, size, be.Uint64(footer[16:]), virtual, kind)
	default:
		err = refuse("the VHD image is of type %d; 2 (fixed) and 3 (dynamic) are taken", kind)
	}
	// QEMU would otherwise compute the size from cylinders, heads and sectors for what some programs made.
	return driver{name: "vpc", virtual: int64(virtual), options: map[string]any{"force_size_calc": "current_size"}}, err
}

// vhdFooter is the one by which QEMU goes: that at the beginning, or else the one at the end.
func vhdFooter(r io.ReaderAt, size int64) ([]byte, error) {
	b, err := part(r, size, "VHD footer", 0, sector)
	if err == nil && string(b[:8]) != vhdCookie {
		b, err = part(r, size, "VHD footer", uint64(size-sector), sector)
	}
	if err == nil && string(b[:8]) != vhdCookie {
		err = refuse("the VHD image is cut off: it has no footer")
	}
	return b, err
}

// vhdSum verifies the complement of the sum of all bytes but the sum's own four at off.
func vhdSum(b []byte, off int) bool {
	var sum uint32
	for i, c := range b {
		if i < off || i >= off+4 {
			sum += uint32(c)
		}
	}
	return ^sum == be.Uint32(b[off:])
}

func vhdFixed(r io.ReaderAt, size int64, virtual uint64) error {
	// With a footer in front QEMU would take the footer for the disk's first sector, or fail.
	if b, err := part(r, size, "VHD image", 0, 8); err != nil || string(b) == vhdCookie {
		return refuse("the VHD image lies: it says that it is of fixed size, and has a footer in front")
	}
	if virtual > uint64(size-sector) {
		return refuse("the VHD image is cut off: its disk has %d bytes, the file %d", virtual, size)
	}
	return nil
}

func vhdSparse(r io.ReaderAt, size int64, at, virtual uint64, kind uint32) error {
	h, err := part(r, size, "VHD header", at, 1024)
	if err != nil {
		return err
	}
	if string(h[:8]) != vhdDynamic || !vhdSum(h, 36) {
		return refuse("the VHD image's header at %d is no header, or has a wrong checksum", at)
	}
	if kind == vhdKindDifferencing || !bytes.Equal(h[40:56], make([]byte, 16)) {
		return refuse("the VHD image is the child of another one, %q, which isn't read: merge the two", utf16Text(h[64:576], be.Uint16))
	}
	table, entries, block := be.Uint64(h[16:]), uint64(be.Uint32(h[28:])), uint64(be.Uint32(h[32:]))
	switch {
	case block < sector || block > 256<<20 || block&(block-1) != 0:
		return refuse("the VHD image says that its blocks have %d bytes; a power of two up to 256 MiB is possible", block)
	case entries*block < virtual:
		return refuse("the VHD image lies: %d blocks of %d bytes are less than its disk of %d", entries, block, virtual)
	case entries*4 > vhdMaxTable:
		return refuse("the VHD image says that its table has %d entries; %d are possible", entries, vhdMaxTable/4)
	case !within(table, entries*4, size):
		return refuse("the VHD image is cut off or lies: its table of %d bytes at %d isn't in the file of %d", entries*4, table, size)
	}
	return vhdBlocks(r, table, entries, uint64(size))
}

// vhdBlocks looks whether the blocks are in the file. QEMU reads zeros where they aren't.
func vhdBlocks(r io.ReaderAt, table, entries, size uint64) error {
	return eachEntry(r, table, entries, 4, func(e []byte) error {
		if at := uint64(be.Uint32(e)); at != 1<<32-1 && (at+1)*sector > size {
			return refuse("the VHD image is cut off or lies: a block at sector %d isn't in the file of %d bytes", at, size)
		}
		return nil
	})
}

// utf16Text is a name in UTF-16 up to its end or a NUL.
func utf16Text(b []byte, order func([]byte) uint16) string {
	var units []uint16
	for ; len(b) >= 2 && order(b) != 0; b = b[2:] {
		units = append(units, order(b))
	}
	return printable([]byte(string(utf16.Decode(units))))
}
