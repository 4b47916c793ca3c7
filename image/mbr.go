package image

import (
	"encoding/binary"
	"fmt"
	"math"

	"mallee/cloud"
)

const (
	sector = cloud.SectorSize // bytes; what partition tables count in

	typeLinux byte = 0x83
	typeSwap  byte = 0x82
)

// A partition of an MBR, in sectors.
type partition struct {
	kind   byte
	active bool // the one a boot loader of old would start
	start  int64
	length int64
}

// end is the first sector behind the partition.
func (p partition) end() int64 { return p.start + p.length }

// writeTable writes disk signature, partition table and boot signature into a disk's first
// sector and leaves the 440 bytes of boot code before them alone. Addresses are LBA; the older
// cylinder fields say "out of range", as every system of this century expects.
func writeTable(boot []byte, diskID uint32, parts ...partition) error {
	if len(boot) != sector || len(parts) > 4 {
		return fmt.Errorf("a partition table of %d entries in %d bytes: it has at most 4, in %d", len(parts), len(boot), sector)
	}
	binary.LittleEndian.PutUint32(boot[440:], diskID)
	clear(boot[444:510])
	for i, p := range parts {
		if p.start < 1 || p.length < 1 || p.end() > math.MaxUint32 {
			return fmt.Errorf("partition %d of %d sectors at %d: an MBR reaches 2 TiB", i+1, p.length, p.start)
		}
		e := boot[446+16*i : 462+16*i]
		if p.active {
			e[0] = 0x80
		}
		copy(e[1:], []byte{0xfe, 0xff, 0xff, p.kind, 0xfe, 0xff, 0xff})
		binary.LittleEndian.PutUint32(e[8:], uint32(p.start))
		binary.LittleEndian.PutUint32(e[12:], uint32(p.length))
	}
	boot[510], boot[511] = 0x55, 0xaa
	return nil
}

// readTable returns the partitions in a first sector; nil where there is no plausible table.
func readTable(boot []byte) []partition {
	if len(boot) < sector || boot[510] != 0x55 || boot[511] != 0xaa {
		return nil
	}
	var parts []partition
	for i := range 4 {
		e := boot[446+16*i : 462+16*i]
		p := partition{
			kind: e[4], active: e[0] == 0x80,
			start:  int64(binary.LittleEndian.Uint32(e[8:])),
			length: int64(binary.LittleEndian.Uint32(e[12:])),
		}
		switch {
		case e[0]&0x7f != 0:
			return nil // boot code that happens to end like a table
		case p.kind != 0 && p.length > 0:
			parts = append(parts, p)
		}
	}
	return parts
}
