package file

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"mallee/block"
	"mallee/nbd"
)

// The format is QEMU's docs/interop/qcow2.txt, version 3. Written is the
// smallest image that is whole: a header with the name of the base, and the
// tables that say that nothing but they themselves is allocated.
//
//	cluster 0           header, base's name
//	cluster 1           refcount table, whose first entry is cluster 2
//	cluster 2           refcount block, that counts these clusters
//	cluster 3…          L1 table, all zero: every read goes to the base
//	after it            LUKS header of an encrypted image
const (
	magic         = 0x514649fb // "QFI\xfb"
	version       = 3
	headerLength  = 112
	clusterBits   = 17 // 128 KiB
	clusterSize   = 1 << clusterBits
	refcountOrder = 4 // 16 bits a refcount

	// Subclusters of 4 KiB, so that a small write to a fresh overlay copies 4 KiB
	// from the base and not a cluster. A disk that is to be filled from a source has
	// none: QEMU (7.2) aborts when it fills a cluster that is there in part.
	incompatibleExtendedL2 = 1 << 4
	l2EntrySize            = 16

	cryptLUKS = 2

	extensionEnd           = 0
	extensionBackingFormat = 0xe2792aca
	extensionBitmaps       = 0x23852875
	extensionCrypto        = 0x0537be77
	extensionSourceSize    = 0x4d6c7353 // ours, which QEMU keeps: the length in bytes of a base at an NBD server
	backingFormat          = "raw"

	maxBackingName = 1023     // bytes, the format's limit
	maxSize        = 16 << 40 // bytes, what one cluster of L1 table and one refcount block can begin
)

// header is what an image says of itself, in the order of the format.
type header struct {
	Magic                 uint32
	Version               uint32
	BackingNameOffset     uint64
	BackingNameSize       uint32
	ClusterBits           uint32
	Size                  uint64
	CryptMethod           uint32
	L1Entries             uint32
	L1Offset              uint64
	RefcountTableOffset   uint64
	RefcountTableClusters uint32
	Snapshots             uint32
	SnapshotsOffset       uint64
	Incompatible          uint64
	Compatible            uint64
	Autoclear             uint64
	RefcountOrder         uint32
	HeaderLength          uint32
	CompressionType       uint64 // one byte and padding
}

// piece is a run of bytes of an image; between pieces it is zero.
type piece struct {
	offset int64
	bytes  []byte
}

// layout is a fresh image of the disk and its length in bytes; random makes the
// key of an encrypted one.
func layout(d block.Disk, random io.Reader) (pieces []piece, length int64, err error) {
	incompatible := uint64(incompatibleExtendedL2)
	if d.Source != (block.Source{}) {
		incompatible = 0
	}
	perL2 := image{header: header{ClusterBits: clusterBits, Incompatible: incompatible}}.bytesPerL2()
	l1Entries := (d.Size + perL2 - 1) / perL2
	clusters := 3 + (l1Entries*8+clusterSize-1)/clusterSize
	extensions, base := origin(d)
	method := uint32(0)
	if len(d.Key) > 0 {
		at := clusters * clusterSize
		if pieces, err = luks(d.Key, at, random); err != nil {
			return nil, 0, err
		}
		method = cryptLUKS
		where := binary.BigEndian.AppendUint64(nil, uint64(at))
		extensions = append(extensions, extension{extensionCrypto, binary.BigEndian.AppendUint64(where, luksSize)})
		clusters += luksClusters
	}
	refcounts := new(bytes.Buffer)
	for range clusters {
		refcounts.Write([]byte{0, 1})
	}
	h := header{
		Magic:                 magic,
		Version:               version,
		ClusterBits:           clusterBits,
		Size:                  uint64(d.Size),
		CryptMethod:           method,
		L1Entries:             uint32(l1Entries),
		L1Offset:              3 * clusterSize,
		RefcountTableOffset:   1 * clusterSize,
		RefcountTableClusters: 1,
		Incompatible:          incompatible,
		RefcountOrder:         refcountOrder,
		HeaderLength:          headerLength,
	}
	return append(pieces,
		piece{0, h.encode(extensions, base)},
		piece{1 * clusterSize, binary.BigEndian.AppendUint64(nil, 2*clusterSize)},
		piece{2 * clusterSize, refcounts.Bytes()},
	), clusters * clusterSize, nil
}

// origin is how a header says what a disk stands on.
func origin(d block.Disk) (extensions []extension, base string) {
	format := extension{extensionBackingFormat, []byte(backingFormat)}
	switch {
	case d.Base != "":
		return []extension{format}, d.Base
	case d.Source != (block.Source{}):
		size := extension{extensionSourceSize, binary.BigEndian.AppendUint64(nil, uint64(d.Source.Size))}
		return []extension{format, size}, nbd.URI(d.Source.Socket, d.Source.Export)
	}
	return nil, ""
}

// encode puts the header, its extensions and the name of the base together.
func (h header) encode(extensions []extension, base string) []byte {
	var encoded []byte
	for _, e := range extensions {
		encoded = e.append(encoded)
	}
	encoded = extension{extensionEnd, nil}.append(encoded)
	if base != "" {
		h.BackingNameOffset = uint64(headerLength + len(encoded))
		h.BackingNameSize = uint32(len(base))
	}
	out, err := binary.Append(nil, binary.BigEndian, h)
	if err != nil {
		panic("block/file: the header has a fixed size: " + err.Error())
	}
	return append(append(out, encoded...), base...)
}

// extension of a header.
type extension struct {
	kind  uint32
	value []byte
}

// append pads the value to 8 bytes, as the format wants it.
func (e extension) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, e.kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.value)))
	b = append(b, e.value...)
	return append(b, make([]byte, -len(e.value)&7)...)
}

// image is what a header says.
type image struct {
	header     header
	extensions []extension
	base       string // path or address of what it stands on
}

func (i image) size() int64     { return int64(i.header.Size) }
func (i image) encrypted() bool { return i.header.CryptMethod == cryptLUKS }

// find the value of an extension, nil if there is none.
func (i image) find(kind uint32) []byte {
	for _, e := range i.extensions {
		if e.kind == kind {
			return e.value
		}
	}
	return nil
}

// decodeHeader reads the header of an image. It need not be one that we
// wrote, and is refused where its base is not opened as raw: QEMU would guess
// the format from bytes that a guest may have written.
func decodeHeader(r io.ReaderAt) (image, error) {
	var i image
	h := &i.header
	if err := binary.Read(io.NewSectionReader(r, 0, headerLength), binary.BigEndian, h); err != nil {
		return i, fmt.Errorf("reading the qcow2 header: %w", err)
	}
	switch {
	case h.Magic != magic:
		return i, fmt.Errorf("not a qcow2 image: begins with %#08x", h.Magic)
	case h.Version != version:
		return i, fmt.Errorf("qcow2 version %d, want %d", h.Version, version)
	case h.HeaderLength < headerLength || h.HeaderLength > clusterSize:
		return i, fmt.Errorf("qcow2 header of %d bytes, want %d to %d", h.HeaderLength, headerLength, clusterSize)
	case h.Size > maxSize:
		return i, fmt.Errorf("qcow2 image of %d bytes, more than %d", h.Size, int64(maxSize))
	case h.CryptMethod != 0 && h.CryptMethod != cryptLUKS:
		return i, fmt.Errorf("qcow2 image with encryption %d, want none or LUKS", h.CryptMethod)
	case h.BackingNameSize > maxBackingName:
		return i, fmt.Errorf("qcow2 image with a base's name of %d bytes, more than %d", h.BackingNameSize, maxBackingName)
	case h.BackingNameOffset > clusterSize:
		return i, fmt.Errorf("qcow2 image with its base's name at byte %d, outside of its header", h.BackingNameOffset)
	}
	end := int64(h.BackingNameOffset)
	if end == 0 {
		end = clusterSize
	}
	var err error
	if i.extensions, err = decodeExtensions(io.NewSectionReader(r, int64(h.HeaderLength), max(end-int64(h.HeaderLength), 0))); err != nil {
		return i, err
	}
	return i, i.decodeBase(r)
}

func (i *image) decodeBase(r io.ReaderAt) error {
	if i.header.BackingNameOffset == 0 {
		return nil
	}
	if format := i.find(extensionBackingFormat); string(format) != backingFormat {
		return fmt.Errorf("qcow2 image with a base of format %.40q, want %q", format, backingFormat)
	}
	name := make([]byte, i.header.BackingNameSize)
	if _, err := r.ReadAt(name, int64(i.header.BackingNameOffset)); err != nil {
		return fmt.Errorf("reading the base's name: %w", err)
	}
	i.base = string(name)
	return nil
}

// source is what the image stands on where that is an NBD export, which the base
// names then.
func (i image) source() (s block.Source, ok bool) {
	socket, export, err := nbd.ParseURI(i.base)
	size := i.find(extensionSourceSize)
	if err != nil || len(size) != 8 {
		return s, false
	}
	return block.Source{Socket: socket, Export: export, Size: int64(binary.BigEndian.Uint64(size))}, true
}

// decodeExtensions reads the header's extensions, but for the end of them.
func decodeExtensions(r io.Reader) ([]extension, error) {
	var all []extension
	for {
		var e struct{ Kind, Length uint32 }
		if err := binary.Read(r, binary.BigEndian, &e); err != nil {
			return nil, fmt.Errorf("reading the qcow2 header's extensions: %w", err)
		}
		if e.Kind == extensionEnd {
			return all, nil
		}
		if e.Length > clusterSize {
			return nil, fmt.Errorf("qcow2 header extension %#x of %d bytes", e.Kind, e.Length)
		}
		value := make([]byte, (e.Length+7)&^7)
		if _, err := io.ReadFull(r, value); err != nil {
			return nil, fmt.Errorf("reading the qcow2 header's extension %#x: %w", e.Kind, err)
		}
		all = append(all, extension{e.Kind, value[:e.Length]})
	}
}
