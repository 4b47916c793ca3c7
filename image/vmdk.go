package image

import (
	"bytes"
	"io"
	"strconv"
	"strings"
)

// VMDK, by VMware's "Virtual Disk Format 5.0": a sparse extent with a text, the descriptor, inside. All
// numbers are little-endian, and count sectors where nothing else is said.

const (
	vmdkCompressed = 1 << 16 // flag: grains are compressed
	vmdkMarkers    = 1 << 17 // flag: a stream, with markers between its parts

	vmdkGDAtEnd       = 1<<64 - 1       // the grain directory's place is in the footer
	vmdkMaxDescriptor = 1 << 20         // bytes
	vmdkRead          = 20 * sector     // bytes of a descriptor that QEMU looks at, whatever the header says
	vmdkMaxGTEs       = 512             // entries of a grain table; QEMU's own limit
	vmdkMaxDirectory  = 32 << 20        // bytes of the grain directory
	vmdkFooter        = 2 * sector      // a stream's footer, before the last marker
	vmdkMagicSparse   = "KDMV"          //
	vmdkMagicText     = "# Disk Descri" // a descriptor in a file of its own
)

type vmdk struct {
	version, flags        uint32
	capacity, grain       uint64
	descriptor, described uint64 // where the descriptor is, and its length
	gtes                  uint32
	directory             uint64
	compression           uint16
}

func readVMDK(r io.ReaderAt, size int64, off uint64) (h vmdk, err error) {
	b, err := part(r, size, "VMDK header", off, sector)
	if err != nil {
		return h, err
	}
	if string(b[:4]) != vmdkMagicSparse {
		return h, refuse("there is no VMDK header at %d", off)
	}
	return vmdk{version: le.Uint32(b[4:]), flags: le.Uint32(b[8:]), capacity: le.Uint64(b[12:]), grain: le.Uint64(b[20:]), descriptor: le.Uint64(b[28:]),
		described: le.Uint64(b[36:]), gtes: le.Uint32(b[44:]), directory: le.Uint64(b[56:]), compression: le.Uint16(b[77:])}, nil
}

func examineVMDK(r io.ReaderAt, size int64, limits Limits) (driver, error) {
	magic, err := part(r, size, "VMDK image", 0, min(int(size), len(vmdkMagicText)))
	if err != nil {
		return driver{}, err
	}
	switch {
	case string(magic) == vmdkMagicText:
		return driver{}, refuseDescriptor(r, size)
	case !strings.HasPrefix(string(magic), vmdkMagicSparse):
		return driver{}, refuse("the VMDK image is of a kind of ESX (%q) that isn't taken: export it as OVA, or as streamOptimized", printable(magic[:min(4, len(magic))]))
	}
	h, err := readVMDK(r, size, 0)
	if err != nil {
		return driver{}, err
	}
	if h.directory == vmdkGDAtEnd {
		// The footer repeats the header with the directory's place; QEMU goes by it alone.
		if size < 3*sector+sector {
			return driver{}, refuse("the VMDK image is cut off: it is a stream without a footer")
		}
		if h, err = readVMDK(r, size, uint64(size-vmdkFooter)); err != nil {
			return driver{}, refuse("the VMDK image is cut off or lies: it is a stream without a footer")
		}
	}
	if err := h.plausible(size, limits); err != nil {
		return driver{}, err
	}
	if err := h.contained(r, size); err != nil {
		return driver{}, err
	}
	return driver{name: "vmdk", virtual: int64(h.capacity * sector), options: map[string]any{"backing": nil}}, h.grains(r, size)
}

func (h vmdk) plausible(size int64, limits Limits) error {
	if h.capacity > 1<<50 {
		return refuse("the VMDK image says that its disk has %d sectors", h.capacity)
	}
	// A capacity of 0 makes QEMU go by the descriptor and what it names.
	if err := limits.fits("VMDK image", h.capacity*sector); err != nil {
		return err
	}
	switch {
	case h.version < 1 || h.version > 3:
		return refuse("the image is of version %d of VMDK; 1 to 3 are taken", h.version)
	case h.compression > 1 || h.flags&vmdkCompressed != 0 && h.compression == 0:
		return refuse("the VMDK image is compressed in a way (%d) that nobody knows", h.compression)
	case h.grain == 0 || h.grain&(h.grain-1) != 0 || h.grain > 1<<13:
		return refuse("the VMDK image says that its grains have %d sectors; a power of two up to 8192 is possible", h.grain)
	case h.gtes == 0 || h.gtes > vmdkMaxGTEs:
		return refuse("the VMDK image says that its grain tables have %d entries; 1 to %d are possible", h.gtes, vmdkMaxGTEs)
	}
	directory := h.tables() * 4
	switch {
	case directory > vmdkMaxDirectory:
		return refuse("the VMDK image needs a grain directory of %d bytes; %d are possible", directory, vmdkMaxDirectory)
	case h.directory > 1<<50 || !within(h.directory*sector, directory, size):
		return refuse("the VMDK image is cut off or lies: its grain directory of %d bytes at sector %d isn't in the file of %d", directory, h.directory, size)
	}
	return nil
}

// tables is how many grain tables the disk needs.
func (h vmdk) tables() uint64 {
	covered := h.grain * uint64(h.gtes)
	return (h.capacity + covered - 1) / covered
}

// grains looks whether the grains are in the file. QEMU reads zeros where they aren't.
func (h vmdk) grains(r io.ReaderAt, size int64) error {
	outside := func(what string, at uint64) error {
		return refuse("the VMDK image is cut off or lies: a %s at sector %d isn't in the file of %d bytes", what, at, size)
	}
	return eachEntry(r, h.directory*sector, h.tables(), 4, func(e []byte) error {
		table := uint64(le.Uint32(e))
		if table == 0 {
			return nil
		}
		if !within(table*sector, uint64(h.gtes)*4, size) {
			return outside("grain table", table)
		}
		return eachEntry(r, table*sector, uint64(h.gtes), 4, func(e []byte) error {
			if grain := uint64(le.Uint32(e)); !within(grain*sector, 1, size) {
				return outside("grain", grain)
			}
			return nil
		})
	})
}

// contained refuses an image whose content is partly in other files, by what its descriptor says.
// QEMU looks at 20 sectors from the second one on, whatever the header says; so do we, and at
// where it says that the descriptor is.
func (h vmdk) contained(r io.ReaderAt, size int64) error {
	if h.descriptor > 1<<50 || h.described > vmdkMaxDescriptor/sector {
		return refuse("the VMDK image says that its descriptor has %d sectors at %d", h.described, h.descriptor)
	}
	if h.descriptor != 0 && !within(h.descriptor*sector, 1, size) {
		return refuse("the VMDK image is cut off or lies: its descriptor at sector %d isn't in the file of %d", h.descriptor, size)
	}
	for _, text := range []struct{ off, n uint64 }{{sector, vmdkRead}, {h.descriptor * sector, max(h.described*sector, vmdkRead)}} {
		b, err := part(r, size, "VMDK descriptor", text.off, int(min(text.n, uint64(size)-text.off)))
		if err != nil {
			return err
		}
		if err := refuseParent(b); err != nil {
			return err
		}
	}
	return nil
}

// refuseParent looks for what makes an image the child of another one.
func refuseParent(text []byte) error {
	if i := bytes.Index(text, []byte("parentFileNameHint")); i >= 0 {
		return refuse("the VMDK image is the child of another one, %q, which isn't read: merge the two, or export it as OVA", vmdkValue(text[i:]))
	}
	if i := bytes.Index(text, []byte("parentCID")); i >= 0 {
		if id, err := strconv.ParseUint(vmdkValue(text[i:]), 16, 64); err != nil || id != 0xffffffff {
			return refuse("the VMDK image is the child of another one (%s), which isn't read: merge the two, or export it as OVA", vmdkValue(text[i:]))
		}
	}
	return nil
}

// vmdkValue is what follows the equals sign on the first line.
func vmdkValue(text []byte) string {
	line, _, _ := bytes.Cut(text[:min(len(text), 1024)], []byte("\n"))
	_, value, _ := bytes.Cut(line, []byte("="))
	return strings.Trim(printable(value), "\" \t\r")
}

// refuseDescriptor says which files a descriptor needs beside it.
func refuseDescriptor(r io.ReaderAt, size int64) error {
	text, err := part(r, size, "VMDK descriptor", 0, int(min(size, vmdkMaxDescriptor)))
	if err != nil {
		return err
	}
	if err := refuseParent(text); err != nil {
		return err
	}
	var names []string
	for line := range bytes.Lines(text) {
		words := strings.Fields(string(line))
		if len(words) < 4 || words[0] != "RW" && words[0] != "RDONLY" && words[0] != "NOACCESS" {
			continue
		}
		_, name, _ := strings.Cut(string(line), "\"")
		name, _, _ = strings.Cut(name, "\"")
		if names = append(names, strconv.Quote(printable([]byte(name)))); len(names) == 4 {
			break
		}
	}
	return refuse("the image is only the descriptor of a VMDK disk, whose data is in other files (%s), which aren't read: convert it where they are, with qemu-img convert -O vmdk -o subformat=streamOptimized",
		strings.Join(names, ", "))
}
