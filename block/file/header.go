package file

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// The format is QEMU's docs/interop/qcow2.txt, version 3. Written is the
// smallest image that is whole: a header with the name of the base, and the
// tables that say that nothing but they themselves is allocated.
//
//	cluster 0           header, base's name
//	cluster 1           refcount table, whose first entry is cluster 2
//	cluster 2           refcount block, that counts these clusters
//	cluster 3…          L1 table, all zero: every read goes to the base
const (
	magic         = 0x514649fb // "QFI\xfb"
	version       = 3
	headerLength  = 112
	clusterBits   = 17 // 128 KiB
	clusterSize   = 1 << clusterBits
	refcountOrder = 4 // 16 bits a refcount

	// Subclusters of 4 KiB, so that a small write to a fresh overlay copies 4 KiB
	// from the base and not a cluster.
	incompatibleExtendedL2 = 1 << 4
	l2EntrySize            = 16
	bytesPerL2             = clusterSize / l2EntrySize * clusterSize // 1 GiB

	extensionBackingFormat = 0xe2792aca
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

// layout is a fresh image over base ("" for none) and its length in bytes.
func layout(base string, size int64) (pieces []piece, length int64) {
	l1Entries := (size + bytesPerL2 - 1) / bytesPerL2
	l1Clusters := (l1Entries*8 + clusterSize - 1) / clusterSize
	clusters := 3 + l1Clusters

	refcounts := new(bytes.Buffer)
	for range clusters {
		refcounts.Write([]byte{0, 1})
	}
	return []piece{
		{0, encodeHeader(base, size, l1Entries)},
		{1 * clusterSize, binary.BigEndian.AppendUint64(nil, 2*clusterSize)},
		{2 * clusterSize, refcounts.Bytes()},
	}, clusters * clusterSize
}

func encodeHeader(base string, size, l1Entries int64) []byte {
	h := header{
		Magic:                 magic,
		Version:               version,
		ClusterBits:           clusterBits,
		Size:                  uint64(size),
		L1Entries:             uint32(l1Entries),
		L1Offset:              3 * clusterSize,
		RefcountTableOffset:   1 * clusterSize,
		RefcountTableClusters: 1,
		Incompatible:          incompatibleExtendedL2,
		RefcountOrder:         refcountOrder,
		HeaderLength:          headerLength,
	}
	var extensions []byte
	if base != "" {
		extensions = appendExtension(extensions, extensionBackingFormat, backingFormat)
	}
	extensions = append(extensions, make([]byte, 8)...) // the end of extensions
	if base != "" {
		h.BackingNameOffset = uint64(headerLength + len(extensions))
		h.BackingNameSize = uint32(len(base))
	}
	out, err := binary.Append(nil, binary.BigEndian, h)
	if err != nil {
		panic("block/file: the header has a fixed size: " + err.Error())
	}
	return append(append(out, extensions...), base...)
}

// appendExtension pads the value to 8 bytes, as the format wants it.
func appendExtension(b []byte, kind uint32, value string) []byte {
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&7)...)
}

// decodeHeader reads the base and size of an image. It need not be one that we
// wrote, and is refused where its base is not opened as raw: QEMU would guess
// the format from bytes that a guest may have written.
func decodeHeader(r io.ReaderAt) (base string, size int64, err error) {
	var h header
	if err := binary.Read(io.NewSectionReader(r, 0, headerLength), binary.BigEndian, &h); err != nil {
		return "", 0, fmt.Errorf("reading the qcow2 header: %w", err)
	}
	switch {
	case h.Magic != magic:
		return "", 0, fmt.Errorf("not a qcow2 image: begins with %#08x", h.Magic)
	case h.Version != version:
		return "", 0, fmt.Errorf("qcow2 version %d, want %d", h.Version, version)
	case h.Size > maxSize:
		return "", 0, fmt.Errorf("qcow2 image of %d bytes, more than %d", h.Size, int64(maxSize))
	case h.BackingNameSize > maxBackingName:
		return "", 0, fmt.Errorf("qcow2 image with a base's name of %d bytes, more than %d", h.BackingNameSize, maxBackingName)
	case h.BackingNameOffset == 0:
		return "", int64(h.Size), nil
	case h.BackingNameOffset > clusterSize:
		return "", 0, fmt.Errorf("qcow2 image with its base's name at byte %d, outside of its header", h.BackingNameOffset)
	}
	format, err := decodeBackingFormat(io.NewSectionReader(r, int64(h.HeaderLength), int64(h.BackingNameOffset)))
	if err != nil {
		return "", 0, err
	}
	if format != backingFormat {
		return "", 0, fmt.Errorf("qcow2 image with a base of format %q, want %q", format, backingFormat)
	}
	name := make([]byte, h.BackingNameSize)
	if _, err := r.ReadAt(name, int64(h.BackingNameOffset)); err != nil {
		return "", 0, fmt.Errorf("reading the base's name: %w", err)
	}
	return string(name), int64(h.Size), nil
}

// decodeBackingFormat looks through the header's extensions.
func decodeBackingFormat(r io.Reader) (string, error) {
	for {
		var extension struct{ Kind, Length uint32 }
		if err := binary.Read(r, binary.BigEndian, &extension); err != nil {
			return "", fmt.Errorf("reading the qcow2 header's extensions: %w", err)
		}
		if extension.Kind == 0 {
			return "", nil
		}
		if extension.Length > clusterSize {
			return "", fmt.Errorf("qcow2 header extension %#x of %d bytes", extension.Kind, extension.Length)
		}
		value := make([]byte, (extension.Length+7)&^7)
		if _, err := io.ReadFull(r, value); err != nil {
			return "", fmt.Errorf("reading the qcow2 header's extension %#x: %w", extension.Kind, err)
		}
		if extension.Kind == extensionBackingFormat {
			return string(value[:extension.Length]), nil
		}
	}
}
