package file

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"mallee/block"
)

const (
	sizeAt      = 24 // in the header
	l1EntriesAt = 36
)

// grow makes the disk larger; nobody may have it open. Where the cluster of its
// L1 table has room, as it has in all that we wrote, that is a change of two fields in the header's
// first sector, and so happens wholly or not at all.
func grow(ctx context.Context, path string, have image, d block.Disk) error {
	h := have.header
	entries := (d.Size + have.bytesPerL2() - 1) / have.bytesPerL2()
	l1Clusters := func(entries int64) int64 { return (entries*8 + have.clusterSize() - 1) / have.clusterSize() }
	if have.find(extensionBitmaps) != nil || h.Snapshots != 0 || l1Clusters(entries) > l1Clusters(int64(h.L1Entries)) {
		return resizeFile(ctx, path, d)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	h.Size = uint64(d.Size)
	old := int64(h.L1Entries)
	h.L1Entries = uint32(max(entries, old))
	// What follows the table in its cluster need not be zero.
	_, err = f.WriteAt(make([]byte, 8*(int64(h.L1Entries)-old)), int64(h.L1Offset)+8*old)
	if err == nil {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if err == nil {
		_, err = f.WriteAt(h.encodeSize(), sizeAt)
	}
	if err == nil {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("growing %s from %d to %d bytes: %w", path, have.size(), d.Size, err)
	}
	return nil
}

// encodeSize is the part of the header from its size to its L1 table's length.
func (h header) encodeSize() []byte {
	b := binary.BigEndian.AppendUint64(nil, h.Size)
	b = binary.BigEndian.AppendUint32(b, h.CryptMethod)
	return binary.BigEndian.AppendUint32(b, h.L1Entries)
}

func (i image) clusterSize() int64 { return 1 << i.header.ClusterBits }

// bytesPerL2 are what an L2 table, of one cluster, maps.
func (i image) bytesPerL2() int64 {
	entry := int64(8)
	if i.header.Incompatible&incompatibleExtendedL2 != 0 {
		entry = l2EntrySize
	}
	return i.clusterSize() / entry * i.clusterSize()
}
