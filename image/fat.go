package image

import (
	"io"
	"strings"
)

// As much of the FAT file system as it takes to see which boot loaders an EFI system partition
// has (Microsoft's FAT specification 1.03). It reads short names alone: the loaders' fit into them.

const (
	fatMaxClusters = 64     // of one directory: what it has behind is not seen
	fatMaxCluster  = 64     // KiB
	fatEntry       = 32     // bytes
	fatDirectory   = 1 << 4 // attribute
	fatLabel       = 1 << 3 // attribute, of long names too
)

// A fat is an open file system. Figures are bytes but for cluster numbers.
type fat struct {
	r       io.ReaderAt
	size    int64
	cluster int64
	table   int64  // where the allocation table is
	data    int64  // where cluster 2 is
	root    int64  // where the root directory of FAT12 and FAT16 is
	entries int64  // bytes of that
	first   uint32 // first cluster of the root directory of FAT32
	bits    int
}

// espArchitecture is that of the boot loader in an EFI system partition; "" where there is none that
// everybody finds, or where the file system can't be read.
func espArchitecture(r io.ReaderAt, size int64) string {
	f, ok := openFAT(r, size)
	if !ok {
		return ""
	}
	at, ok := f.find(f.rootDirectory(), "EFI")
	if !ok {
		return ""
	}
	if at, ok = f.find(f.directory(at), "BOOT"); !ok {
		return ""
	}
	names := f.directory(at)
	for loader, arch := range loaders {
		if _, ok := f.find(names, loader); ok {
			return arch
		}
	}
	return ""
}

func openFAT(r io.ReaderAt, size int64) (*fat, bool) {
	if size < sector {
		return nil, false
	}
	b, err := readAt(r, 0, sector)
	if err != nil || b[510] != 0x55 || b[511] != 0xaa {
		return nil, false
	}
	bytes, perCluster := int64(le.Uint16(b[11:])), int64(b[13])
	reserved, tables, rootEntries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	total, tableSectors := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	if tableSectors == 0 {
		tableSectors = int64(le.Uint32(b[36:]))
	}
	if bytes < 512 || bytes > 4096 || bytes&(bytes-1) != 0 || perCluster == 0 || bytes*perCluster > fatMaxCluster<<10 || tables == 0 {
		return nil, false
	}
	f := &fat{r: r, size: size, cluster: bytes * perCluster, table: reserved * bytes, entries: rootEntries * fatEntry}
	f.root = f.table + tables*tableSectors*bytes
	f.data = f.root + (f.entries+bytes-1)/bytes*bytes
	switch clusters := (total*bytes - f.data) / f.cluster; {
	case clusters < 4085:
		f.bits = 12
	case clusters < 65525:
		f.bits = 16
	default:
		f.bits = 32
	}
	if rootEntries == 0 {
		f.bits, f.first = 32, le.Uint32(b[44:])
	}
	return f, f.data < size
}

func (f *fat) rootDirectory() []byte {
	if f.bits == 32 {
		return f.directory(f.first)
	}
	return f.read(f.root, f.entries)
}

// directory reads a chain of clusters, up to a limit that no loop of them passes.
func (f *fat) directory(at uint32) (all []byte) {
	for range fatMaxClusters {
		if at < 2 {
			break
		}
		b := f.read(f.data+int64(at-2)*f.cluster, f.cluster)
		if b == nil {
			break
		}
		all = append(all, b...)
		at = f.next(at)
	}
	return all
}

// next is the cluster behind another one; 0 at the end.
func (f *fat) next(at uint32) uint32 {
	off := f.table + int64(at)*int64(f.bits)/8
	b := f.read(off, 4)
	if b == nil {
		return 0
	}
	value, last := le.Uint32(b)&0x0fffffff, uint32(0x0ffffff7)
	switch f.bits {
	case 16:
		value, last = value&0xffff, 0xfff7
	case 12:
		value, last = value>>(at%2*4)&0xfff, 0xff7
	}
	if value >= last {
		return 0
	}
	return value
}

func (f *fat) read(off, n int64) []byte {
	if off < 0 || !within(uint64(off), uint64(n), f.size) {
		return nil
	}
	b, err := readAt(f.r, off, n)
	if err != nil {
		return nil
	}
	return b
}

// find the first cluster of what has that name in a directory.
func (f *fat) find(directory []byte, name string) (uint32, bool) {
	stem, ext, _ := strings.Cut(name, ".")
	for b := directory; len(b) >= fatEntry && b[0] != 0; b = b[fatEntry:] {
		if b[11]&fatLabel != 0 {
			continue
		}
		if strings.EqualFold(strings.TrimRight(string(b[:8]), " "), stem) && strings.EqualFold(strings.TrimRight(string(b[8:11]), " "), ext) {
			return uint32(le.Uint16(b[20:]))<<16 | uint32(le.Uint16(b[26:])), true
		}
	}
	return 0, false
}
