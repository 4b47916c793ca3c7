package image

import (
	"io"
	"strings"
)

// qcow2, by QEMU's docs/interop/qcow2.rst. All numbers are big-endian.

// Incompatible features: what a reader must know of.
const (
	qcowDirty = 1 << iota // reference counts may be wrong, data isn't
	qcowCorrupt
	qcowExternal    // the data is in another file
	qcowCompression // which one is in the header
	qcowSubclusters // entries of the second level are twice as long
	qcowKnown       = 1<<iota - 1
)

// Header extensions.
const (
	extEnd      = 0
	extExternal = 0x44415441 // name of the external data file
	extCrypto   = 0x0537be77 // where the LUKS header is
)

const (
	qcowMaxL1    = 32 << 20 // bytes; QEMU's own limit
	qcowMaxTable = 8 << 20  // bytes of the table of reference counts; QEMU's own limit
)

type qcow2 struct {
	version               uint32
	backing               uint64
	backingLength         uint32
	clusterBits           uint32
	virtual               uint64
	crypt                 uint32
	l1Size                uint32 // entries of 8 bytes
	l1, refcounts         uint64
	refcountClusters      uint32
	snapshots             uint32
	snapshotTable         uint64
	incompatible          uint64
	refcountOrder, length uint32
}

func readQCOW2(r io.ReaderAt, size int64) (h qcow2, err error) {
	b, err := part(r, size, "qcow2 header", 0, 72)
	if err != nil {
		return h, err
	}
	h = qcow2{version: be.Uint32(b[4:]), backing: be.Uint64(b[8:]), backingLength: be.Uint32(b[16:]), clusterBits: be.Uint32(b[20:]),
		virtual: be.Uint64(b[24:]), crypt: be.Uint32(b[32:]), l1Size: be.Uint32(b[36:]), l1: be.Uint64(b[40:]), refcounts: be.Uint64(b[48:]),
		refcountClusters: be.Uint32(b[56:]), snapshots: be.Uint32(b[60:]), snapshotTable: be.Uint64(b[64:]), refcountOrder: 4, length: 72}
	if h.version < 3 {
		return h, nil
	}
	if b, err = part(r, size, "qcow2 header", 72, 32); err != nil {
		return h, err
	}
	h.incompatible, h.refcountOrder, h.length = be.Uint64(b), be.Uint32(b[24:]), be.Uint32(b[28:])
	return h, nil
}

func examineQCOW2(r io.ReaderAt, size int64, limits Limits) (driver, error) {
	h, err := readQCOW2(r, size)
	if err != nil {
		return driver{}, err
	}
	if err := h.plausible(); err != nil {
		return driver{}, err
	}
	if err := h.contained(r, size); err != nil {
		return driver{}, err
	}
	if err := limits.fits("qcow2 image", h.virtual); err != nil {
		return driver{}, err
	}
	if err := h.tables(size); err != nil {
		return driver{}, err
	}
	return driver{name: "qcow2", virtual: int64(h.virtual), options: map[string]any{"backing": nil}}, h.clusters(r, size)
}

// plausible looks at the header alone.
func (h qcow2) plausible() error {
	switch {
	case h.version != 2 && h.version != 3:
		return refuse("the image is of version %d of qcow2; 2 and 3 are taken", h.version)
	case h.clusterBits < 9 || h.clusterBits > 21:
		return refuse("the qcow2 image says that its clusters have 2^%d bytes; 9 to 21 are possible", h.clusterBits)
	case h.version == 3 && (h.length < 104 || h.length > 1<<h.clusterBits || h.length%8 != 0):
		return refuse("the qcow2 image says that its header has %d bytes; at least 104, and one cluster of %d at most, are possible", h.length, 1<<h.clusterBits)
	case h.crypt != 0:
		return refuse("the qcow2 image is encrypted: decrypt it with qemu-img convert")
	case h.incompatible&^uint64(qcowKnown) != 0:
		return refuse("the qcow2 image needs features %#x, which nobody knows", h.incompatible&^uint64(qcowKnown))
	case h.incompatible&qcowCorrupt != 0:
		return refuse("the qcow2 image says itself that it is corrupt: try qemu-img check -r all")
	case h.refcountOrder > 6:
		return refuse("the qcow2 image says that its reference counts have 2^%d bits; 64 is the most", h.refcountOrder)
	}
	return nil
}

// contained refuses an image whose content is partly in other files, and says in which.
func (h qcow2) contained(r io.ReaderAt, size int64) error {
	if h.backing != 0 {
		name, err := h.backingName(r, size)
		if err != nil {
			return err
		}
		return refuse("the qcow2 image has a backing file, %q, which isn't read: merge the two with qemu-img convert", name)
	}
	external := h.incompatible&qcowExternal != 0
	name := ""
	for off, n := uint64(h.length), 0; ; n++ {
		if off+8 > 1<<h.clusterBits || !within(off, 8, size) || n > 64 {
			break
		}
		b, err := part(r, size, "qcow2 header extension", off, 8)
		if err != nil {
			return err
		}
		kind, length := be.Uint32(b), be.Uint32(b[4:])
		if kind == extEnd {
			break
		}
		if kind == extCrypto {
			return refuse("the qcow2 image is encrypted: decrypt it with qemu-img convert")
		}
		if uint64(length) > 1<<h.clusterBits-off-8 {
			return refuse("the qcow2 image has a header extension of %d bytes, which ends behind the header's cluster", length)
		}
		if kind == extExternal {
			if external = true; length <= 1024 {
				b, err = part(r, size, "qcow2 header extension", off+8, int(length))
				name = printable(b)
			}
			if err != nil {
				return err
			}
		}
		off += 8 + (uint64(length)+7)&^7
	}
	if external {
		return refuse("the qcow2 image has its data in another file, %q, which isn't read: merge the two with qemu-img convert", name)
	}
	return nil
}

func (h qcow2) backingName(r io.ReaderAt, size int64) (string, error) {
	if h.backingLength == 0 || h.backingLength > 1023 {
		return "", refuse("the qcow2 image has a backing file with a name of %d bytes", h.backingLength)
	}
	b, err := part(r, size, "name of the qcow2 image's backing file", h.backing, int(h.backingLength))
	return printable(b), err
}

// tables of the image must lie inside the file, and suffice for the disk.
func (h qcow2) tables(size int64) error {
	cluster, need := uint64(1)<<h.clusterBits, h.needed()
	for _, t := range []struct {
		name       string
		off, bytes uint64
		most       uint64
	}{
		{"first-level table", h.l1, uint64(h.l1Size) * 8, qcowMaxL1},
		{"table of reference counts", h.refcounts, uint64(h.refcountClusters) * cluster, qcowMaxTable},
		{"table of snapshots", h.snapshotTable, uint64(h.snapshots) * 40, 64 << 20},
	} {
		switch {
		case t.bytes == 0 && t.name == "table of snapshots":
		case t.bytes > t.most:
			return refuse("the qcow2 image says that its %s has %d bytes; %d are possible", t.name, t.bytes, t.most)
		case t.off%cluster != 0 || t.off == 0 || !within(t.off, t.bytes, size):
			return refuse("the qcow2 image is cut off or lies: its %s of %d bytes at %d isn't in the file of %d", t.name, t.bytes, t.off, size)
		}
	}
	if uint64(h.l1Size) < need {
		return refuse("the qcow2 image's first-level table has %d entries; a disk of %d bytes needs %d", h.l1Size, h.virtual, need)
	}
	return nil
}

// entry is the length of an entry of the second level, in bytes.
func (h qcow2) entry() uint64 {
	if h.incompatible&qcowSubclusters != 0 {
		return 16
	}
	return 8
}

// needed is how many entries of the first level the disk needs.
func (h qcow2) needed() uint64 {
	mapped := uint64(1) << h.clusterBits / h.entry() << h.clusterBits // bytes of the disk that one of them stands for
	return (h.virtual + mapped - 1) / mapped
}

// clusters looks whether the clusters with data are in the file. QEMU reads zeros where they aren't. The
// last one may be in part: nobody fills it up.
func (h qcow2) clusters(r io.ReaderAt, size int64) error {
	const offset = 1<<56 - 1<<9 // bits of an entry
	cluster := uint64(1) << h.clusterBits
	outside := func(what string, at uint64) error {
		return refuse("the qcow2 image is cut off or lies: a %s at %d isn't in the file of %d bytes", what, at, size)
	}
	return eachEntry(r, h.l1, h.needed(), 8, func(e []byte) error {
		l2 := be.Uint64(e) & offset
		if l2 == 0 {
			return nil
		}
		if l2%cluster != 0 || !within(l2, cluster, size) {
			return outside("second-level table", l2)
		}
		return eachEntry(r, l2, cluster/h.entry(), int(h.entry()), func(e []byte) error {
			at := be.Uint64(e)
			if at>>62&1 != 0 {
				at &= 1<<(62-(h.clusterBits-8)) - 1 // compressed: the rest is its length
			} else {
				at &= offset
			}
			if !within(at, 1, size) {
				return outside("cluster", at)
			}
			return nil
		})
	})
}

// printable makes a name from a file fit for a message.
func printable(b []byte) string {
	s := strings.ToValidUTF8(string(b), "?")
	s, _, _ = strings.Cut(s, "\x00")
	return s[:min(len(s), 300)]
}
