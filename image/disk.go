package image

import (
	"fmt"
	"io"

	"mallee/cloud"
)

// Contents is what a raw image turns out to hold, as far as its bytes tell.
type Contents struct {
	Info
	Architecture string         // EC2's name: x86_64, i386, arm64; "" where nothing tells
	BootMode     cloud.BootMode // of a partitioned disk; "" where nothing tells
}

// maxGPT is how many entries of a GPT are looked at; 128 is what everybody writes.
const maxGPT = 256

// A volume is a partition of either kind of table.
type volume struct {
	kind   string // of an MBR its type's byte, of a GPT its type's GUID as it lies in the table
	off    int64  // bytes
	length int64
}

// GPT's types, as they lie in the table. Sources: UEFI 2.10 section 5.3, and the Discoverable Partitions Specification.
const (
	gptESP       = "\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b"
	gptBIOSBoot  = "\x48\x61\x68\x21\x49\x64\x6f\x6e\x74\x4e\x65\x65\x64\x45\x46\x49"
	gptRootAMD64 = "\xe3\xbc\x68\x4f\xcd\xe8\xb1\x4d\x96\xe7\xfb\xca\xf9\x84\xb7\x09"
	gptRoot386   = "\x40\x95\x47\x44\x97\xf2\xb2\x41\x9a\xf7\xd1\x31\xd5\xf0\x45\x8a"
	gptRootARM64 = "\x45\xb0\x21\xb9\xf0\x1d\xc3\x41\xaf\x44\x4c\x6f\x28\x0d\x3f\xae"

	mbrESP = "\xef"
)

// loaders are the programs that UEFI firmware looks for on a disk that it doesn't know, by
// architecture (UEFI 2.10, 3.5.1.1).
var loaders = map[string]string{"BOOTX64.EFI": "x86_64", "BOOTIA32.EFI": "i386", "BOOTAA64.EFI": "arm64"}

// LookInside says what a raw image of size bytes holds. Like Probe it trusts nothing, uses little
// memory, and fails only where reading does.
func LookInside(r io.ReaderAt, size int64) (Contents, error) {
	info, err := Probe(r, size)
	if err != nil {
		return Contents{}, err
	}
	c := Contents{Info: info}
	if c.Format != "raw" {
		return c, nil
	}
	if c.Kernel != "" {
		head, err := readAt(r, 0, min(size, 4096))
		c.Architecture = kernelArchitecture(head)
		return c, err
	}
	if c.Partitions != "" || c.BootSector {
		err = c.lookBoot(r, size)
	}
	return c, err
}

// lookBoot finds out by which firmware the disk boots.
func (c *Contents) lookBoot(r io.ReaderAt, size int64) error {
	volumes, err := volumesOf(r, size, c.Partitions)
	if err != nil {
		return fmt.Errorf("reading the partition table: %w", err)
	}
	boot, err := readAt(r, 0, min(size, sector))
	if err != nil {
		return fmt.Errorf("reading the boot sector: %w", err)
	}
	bios, uefi := c.BootSector && hasBootCode(boot), false
	for _, v := range volumes {
		switch v.kind {
		case gptBIOSBoot:
			bios = true
		case gptRootAMD64:
			c.Architecture = "x86_64"
		case gptRoot386:
			c.Architecture = "i386"
		case gptRootARM64:
			c.Architecture = "arm64"
		case gptESP, mbrESP:
			uefi = true
			if arch := espArchitecture(io.NewSectionReader(r, v.off, v.length), v.length); arch != "" {
				c.Architecture = arch
			}
		}
	}
	bios = bios && c.Architecture != "arm64" // which has no BIOS: what is there is left over
	switch {
	case bios && uefi:
		c.BootMode = cloud.UEFIPreferred
	case uefi:
		c.BootMode = cloud.UEFI
	case bios:
		c.BootMode = cloud.LegacyBIOS
	}
	return nil
}

// hasBootCode tells whether a boot sector has code in it, besides table and signature.
func hasBootCode(boot []byte) bool {
	return len(boot) >= 440 && !isZero(boot[:440])
}

// volumesOf reads the partition table; what lies outside the disk, or makes no sense, isn't there.
func volumesOf(r io.ReaderAt, size int64, table string) ([]volume, error) {
	if table == "gpt" {
		return gptVolumes(r, size)
	}
	boot, err := readAt(r, 0, min(size, sector))
	if err != nil {
		return nil, err
	}
	var all []volume
	for _, p := range readTable(boot) {
		if within(uint64(p.start*sector), uint64(p.length*sector), size) {
			all = append(all, volume{kind: string(p.kind), off: p.start * sector, length: p.length * sector})
		}
	}
	return all, nil
}

// gptVolumes reads the first copy of a GPT in sectors of 512 bytes.
func gptVolumes(r io.ReaderAt, size int64) ([]volume, error) {
	if size < 2*sector {
		return nil, nil
	}
	h, err := readAt(r, sector, sector)
	if err != nil {
		return nil, err
	}
	at, n, each := le.Uint64(h[72:]), uint64(le.Uint32(h[80:])), uint64(le.Uint32(h[84:]))
	n = min(n, maxGPT)
	if each < 128 || each > 1024 || at > 1<<40 || !within(at*sector, n*each, size) {
		return nil, nil
	}
	b, err := readAt(r, int64(at*sector), int64(n*each))
	if err != nil {
		return nil, err
	}
	var all []volume
	for ; uint64(len(b)) >= each; b = b[each:] {
		first, last := le.Uint64(b[32:]), le.Uint64(b[40:])
		if isZero(b[:16]) || first < 1 || last < first || last > 1<<50 || !within(first*sector, (last-first+1)*sector, size) {
			continue
		}
		all = append(all, volume{kind: string(b[:16]), off: int64(first * sector), length: int64((last - first + 1) * sector)})
	}
	return all, nil
}

// kernelArchitecture of a Linux kernel, by its header.
func kernelArchitecture(head []byte) string {
	switch kind, _ := kernelKind(head); kind {
	case "bzImage":
		// Boot protocol 2.12 and later say whether there is a 64-bit entry; before, only the 64-bit kernels
		// asked for so much: nothing tells.
		if len(head) < 0x238 || le.Uint16(head[0x206:]) < 0x20c {
			return ""
		}
		if le.Uint16(head[0x236:])&1 != 0 {
			return "x86_64"
		}
		return "i386"
	case "Image":
		return "arm64"
	case "ELF":
		return elfArchitecture(head)
	}
	return ""
}

// elfArchitecture is that of an ELF file with little-endian numbers.
func elfArchitecture(head []byte) string {
	if len(head) < 20 || head[5] != 1 {
		return ""
	}
	return map[uint16]string{3: "i386", 62: "x86_64", 183: "arm64"}[le.Uint16(head[18:])]
}
