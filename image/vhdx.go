package image

import (
	"hash/crc32"
	"io"
)

// VHDX, by Microsoft's MS-VHDX. All numbers are little-endian. The first MiB has the file's identifier, two headers and
// two copies of the region table, which says where the metadata and the block allocation table are.

const (
	vhdxSignature  = "vhdxfile"
	vhdxHeaders    = 64 << 10  // two, this far apart
	vhdxRegions    = 192 << 10 // two as well
	vhdxMaxRegions = 2047
	vhdxMaxItems   = 2047
	vhdxMaxTable   = 64 << 20 // bytes of the block allocation table: 16 TiB in blocks of 2 MiB
)

// GUIDs as they lie in the file.
const (
	vhdxBAT        = "\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08"
	vhdxMetadata   = "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e"
	vhdxParameters = "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b"
	vhdxDiskSize   = "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8"
	vhdxLogical    = "\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f"
	vhdxParent     = "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c"
)

// vhdxPart is where something is.
type vhdxPart struct {
	off    uint64
	length uint32
}

func examineVHDX(r io.ReaderAt, size int64, limits Limits) (driver, error) {
	if err := vhdxHeader(r, size); err != nil {
		return driver{}, err
	}
	regions, err := vhdxTable(r, size)
	if err != nil {
		return driver{}, err
	}
	items, err := vhdxItems(r, size, regions[vhdxMetadata])
	if err != nil {
		return driver{}, err
	}
	virtual, err := vhdxSize(r, size, items, limits)
	if err != nil {
		return driver{}, err
	}
	return driver{name: "vhdx", virtual: int64(virtual.disk)}, virtual.blocks(r, size, regions[vhdxBAT])
}

// vhdxHeader wants one header that is whole.
func vhdxHeader(r io.ReaderAt, size int64) error {
	whole := false
	for i := range uint64(2) {
		b, err := part(r, size, "VHDX header", vhdxHeaders*(i+1), 4096)
		if err != nil {
			return err
		}
		whole = whole || string(b[:4]) == "head" && vhdxSum(b)
	}
	if !whole {
		return refuse("the VHDX image has no header with a right checksum")
	}
	return nil
}

// vhdxSum verifies the CRC-32C at 4, which is taken with zeros in its own place. It may write on b.
func vhdxSum(b []byte) bool {
	want := le.Uint32(b[4:])
	clear(b[4:8])
	got := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	le.PutUint32(b[4:], want)
	return got == want
}

// vhdxTable reads the region table. QEMU goes by the first copy, whatever is in the second.
func vhdxTable(r io.ReaderAt, size int64) (map[string]vhdxPart, error) {
	b, err := part(r, size, "VHDX region table", vhdxRegions, 64<<10)
	if err != nil {
		return nil, err
	}
	n := le.Uint32(b[8:])
	if string(b[:4]) != "regi" || !vhdxSum(b) || n > vhdxMaxRegions {
		return nil, refuse("the VHDX image's region table is none, or has a wrong checksum")
	}
	regions := map[string]vhdxPart{}
	for e := b[16:]; n > 0; n, e = n-1, e[32:] {
		p := vhdxPart{le.Uint64(e[16:]), le.Uint32(e[24:])}
		if !within(p.off, uint64(p.length), size) {
			return nil, refuse("the VHDX image is cut off or lies: a region of %d bytes at %d isn't in the file of %d", p.length, p.off, size)
		}
		regions[string(e[:16])] = p
	}
	for _, need := range []string{vhdxBAT, vhdxMetadata} {
		if regions[need].length == 0 {
			return nil, refuse("the VHDX image lacks its block allocation table or its metadata")
		}
	}
	return regions, nil
}

// vhdxItems reads the metadata's own table.
func vhdxItems(r io.ReaderAt, size int64, region vhdxPart) (map[string]vhdxPart, error) {
	b, err := part(r, size, "VHDX metadata", region.off, 64<<10)
	if err != nil {
		return nil, err
	}
	n := int(le.Uint16(b[10:]))
	if string(b[:8]) != "metadata" || n > vhdxMaxItems {
		return nil, refuse("the VHDX image's metadata is none")
	}
	items := map[string]vhdxPart{}
	for e := b[32:]; n > 0; n, e = n-1, e[32:] {
		p := vhdxPart{uint64(le.Uint32(e[16:])), le.Uint32(e[20:])}
		if !within(p.off, uint64(p.length), int64(region.length)) {
			return nil, refuse("the VHDX image lies: metadata of %d bytes at %d isn't in its region of %d", p.length, p.off, region.length)
		}
		p.off += region.off
		items[string(e[:16])] = p
	}
	return items, nil
}

// vhdxGeometry is what decides how long the block allocation table must be, in bytes.
type vhdxGeometry struct{ disk, block, logical uint64 }

func vhdxSize(r io.ReaderAt, size int64, items map[string]vhdxPart, limits Limits) (g vhdxGeometry, err error) {
	var value [3][]byte
	for i, need := range []struct {
		id string
		n  int
	}{{vhdxParameters, 8}, {vhdxDiskSize, 8}, {vhdxLogical, 4}} {
		p, ok := items[need.id]
		if !ok || int(p.length) != need.n {
			return g, refuse("the VHDX image's metadata lacks what every disk has")
		}
		if value[i], err = part(r, size, "VHDX metadata", p.off, need.n); err != nil {
			return g, err
		}
	}
	const hasParent = 2
	if p, child := items[vhdxParent]; child || le.Uint32(value[0][4:])&hasParent != 0 {
		return g, refuse("the VHDX image is the child of another one, %q, which isn't read: merge the two", vhdxParentName(r, size, p))
	}
	g = vhdxGeometry{disk: le.Uint64(value[1]), block: uint64(le.Uint32(value[0])), logical: uint64(le.Uint32(value[2]))}
	switch {
	case g.block < 1<<20 || g.block > 256<<20 || g.block&(g.block-1) != 0:
		return g, refuse("the VHDX image says that its blocks have %d bytes; a power of two from 1 to 256 MiB is possible", g.block)
	case g.logical != 512 && g.logical != 4096 || g.disk%g.logical != 0:
		return g, refuse("the VHDX image says that its disk has %d bytes in sectors of %d", g.disk, g.logical)
	}
	return g, limits.fits("VHDX image", g.disk)
}

// blocks compares the block allocation table with the disk, and its entries with the file: an entry a block, and one
// more after each chunk of them.
func (g vhdxGeometry) blocks(r io.ReaderAt, size int64, table vhdxPart) error {
	chunk := (1 << 23) * g.logical / g.block
	blocks := (g.disk + g.block - 1) / g.block
	need := blocks + (blocks-1)/chunk
	switch {
	case need*8 > vhdxMaxTable:
		return refuse("the VHDX image needs a table of %d bytes; %d are possible", need*8, vhdxMaxTable)
	case need*8 > uint64(table.length):
		return refuse("the VHDX image's table of %d bytes is too short for its disk of %d bytes", table.length, g.disk)
	}
	const present = 6 // states from here on have data
	return eachEntry(r, table.off, need, 8, func(e []byte) error {
		if v := le.Uint64(e); v&7 >= present && v>>20<<20 >= uint64(size) {
			return refuse("the VHDX image is cut off or lies: a block at %d isn't in the file of %d bytes", v>>20<<20, size)
		}
		return nil
	})
}

// vhdxParentName finds a path among a parent locator's values, which are UTF-16; "" where there is none.
func vhdxParentName(r io.ReaderAt, size int64, p vhdxPart) string {
	b, err := part(r, size, "VHDX parent locator", p.off, int(min(p.length, 64<<10)))
	if err != nil || len(b) < 20 {
		return ""
	}
	for n, e := le.Uint16(b[18:]), b[20:]; n > 0 && len(e) >= 12; n, e = n-1, e[12:] {
		key, value := vhdxText(b, le.Uint32(e), le.Uint16(e[8:])), vhdxText(b, le.Uint32(e[4:]), le.Uint16(e[10:]))
		if key == "relative_path" || key == "absolute_win32_path" || key == "volume_path" {
			return value
		}
	}
	return ""
}

func vhdxText(b []byte, off uint32, n uint16) string {
	if !within(uint64(off), uint64(n), int64(len(b))) {
		return ""
	}
	return utf16Text(b[off:off+uint32(n)], le.Uint16)
}
