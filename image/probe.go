package image

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Info is what the bytes of a file say that it is.
type Info struct {
	Size        int64  // bytes of the file
	Format      string // raw, or a disk format, archive or compression by its usual name
	VirtualSize int64  // bytes of the disk inside, where the format says; Size for raw
	Backing     bool   // a disk format whose content is partly in another file that it names

	Kernel  string // what kind of Linux kernel it is: bzImage, Image (arm64), ELF; or ""
	Version string // the kernel's version, where it says one
	Ramdisk bool   // a cpio archive, plain or compressed with gzip

	BootSector bool   // the first sector has the signature that BIOS firmware asks for
	Partitions string // mbr, gpt, or ""
	FileSystem string // of a file that is a bare file system: ext2, ext4, xfs, btrfs, …; or ""
}

// headSize is how much of a file's beginning is looked at: btrfs has its magic the furthest behind.
const headSize = 68 << 10

// A magic is a mark at a fixed place.
type magic struct {
	name  string
	off   int
	bytes string
}

// Formats in which a file isn't the disk itself. Sources: qemu's docs/interop, file(1).
var formats = []magic{
	{"qcow2", 0, "QFI\xfb"}, {"vmdk", 0, "KDMV"}, {"vmdk", 0, "COWD"}, {"vmdk", 0, "# Disk DescriptorFile"},
	{"vhdx", 0, "vhdxfile"}, {"vhd", 0, "conectix"}, {"vdi", 64, "\x7f\x10\xda\xbe"}, {"qed", 0, "QED\x00"},
	{"gzip", 0, "\x1f\x8b\x08"}, {"xz", 0, "\xfd7zXZ\x00"}, {"bzip2", 0, "BZh"}, {"zstd", 0, "\x28\xb5\x2f\xfd"},
	{"lz4", 0, "\x04\x22\x4d\x18"}, {"lz4", 0, "\x02\x21\x4c\x18"}, {"lzop", 0, "\x89LZO\x00"}, {"zip", 0, "PK\x03\x04"},
	{"7z", 0, "7z\xbc\xaf\x27\x1c"}, {"tar", 257, "ustar"}, {"cpio", 0, "070701"}, {"cpio", 0, "070702"},
}

// File systems without a partition table around them; ext is told apart by its features.
var fileSystems = []magic{
	{"xfs", 0, "XFSB"}, {"btrfs", 0x10040, "_BHRfS_M"}, {"squashfs", 0, "hsqs"}, {"iso9660", 32769, "CD001"},
	{"swap", 4086, "SWAPSPACE2"}, {"f2fs", 1024, "\x10\x20\xf5\xf2"}, {"erofs", 1024, "\xe2\xe1\xf5\xe0"},
	{"lvm", 512, "LABELONE"}, {"luks", 0, "LUKS\xba\xbe"}, {"ntfs", 3, "NTFS    "}, {"exfat", 3, "EXFAT   "},
	{"fat", 82, "FAT32   "}, {"fat", 54, "FAT16   "}, {"fat", 54, "FAT12   "},
}

// Probe looks at the first 68 KiB of a file of size bytes, and the last 512. It trusts nothing in
// there: whatever the bytes are, it uses constant memory, and fails only where reading does.
func Probe(r io.ReaderAt, size int64) (Info, error) {
	if size < 0 {
		return Info{}, fmt.Errorf("probing a file of %d bytes", size)
	}
	head, err := readAt(r, 0, min(size, headSize))
	if err != nil {
		return Info{}, fmt.Errorf("reading the beginning of the image: %w", err)
	}
	tail, err := readAt(r, max(0, size-sector), min(size, sector))
	if err != nil {
		return Info{}, fmt.Errorf("reading the end of the image: %w", err)
	}
	return probeParts(head, tail, size), nil
}

// probeParts is Probe of a file of which only the beginning and the end are at hand.
func probeParts(head, tail []byte, size int64) Info {
	i := Info{Size: size, Format: "raw", VirtualSize: size}
	if format := find(formats, head); format != "" {
		i.Format, i.VirtualSize = format, 0
	} else if bytes.HasPrefix(tail, []byte("conectix")) {
		i.Format, i.VirtualSize = "vhd", 0 // of fixed size: all of its header is at the end
	}
	i.look(head)
	return i
}

func (i *Info) look(head []byte) {
	switch i.Format {
	case "raw":
		i.lookRaw(head)
	case "qcow2":
		// Big-endian: version, offset of the backing file's name at 8, virtual size at 24.
		if len(head) >= 80 {
			i.Backing = binary.BigEndian.Uint64(head[8:]) != 0
			i.VirtualSize = int64(binary.BigEndian.Uint64(head[24:]) & (1<<63 - 1))
			// Incompatible feature bit 2: the data is in an external file.
			i.Backing = i.Backing || binary.BigEndian.Uint32(head[4:]) >= 3 && head[79]&4 != 0
		}
	case "cpio":
		i.Ramdisk = true
	case "gzip":
		i.Ramdisk = holdsCPIO(head)
	}
}

func (i *Info) lookRaw(head []byte) {
	i.Kernel, i.Version = kernelKind(head)
	if i.Kernel != "" {
		return // a kernel has a boot sector's signature too, left from when it booted from floppies
	}
	i.FileSystem = find(fileSystems, head)
	if i.FileSystem == "" {
		i.FileSystem = extKind(head)
	}
	i.BootSector = len(head) >= sector && head[510] == 0x55 && head[511] == 0xaa
	switch {
	case has(head, 512, "EFI PART"):
		i.Partitions = "gpt"
	case i.FileSystem == "" && len(readTable(head)) > 0:
		i.Partitions = "mbr"
	}
	if i.Partitions != "" {
		i.FileSystem = "" // what remains of one under a partition table doesn't count
	}
}

// kernelKind tells a Linux kernel by its header (Linux, Documentation/arch/x86/boot.rst and
// arm64/booting.rst).
func kernelKind(head []byte) (kind, version string) {
	switch {
	case has(head, 0x202, "HdrS"):
		if len(head) > 0x20f {
			version = cString(head, 0x200+int(binary.LittleEndian.Uint16(head[0x20e:])))
		}
		return "bzImage", version
	case has(head, 56, "ARM\x64"):
		return "Image", ""
	case has(head, 0, "\x7fELF"):
		return "ELF", ""
	}
	return "", ""
}

// extKind tells the members of the ext family by their features: journal, and what ext4 added.
func extKind(head []byte) string {
	const super = 1024
	if !has(head, super+56, "\x53\xef") || len(head) < super+104 {
		return ""
	}
	feature := func(off int) uint32 { return binary.LittleEndian.Uint32(head[super+off:]) }
	compatible, incompatible, readOnly := feature(92), feature(96), feature(100)
	switch {
	case incompatible&0x2c0 != 0 || readOnly&0x478 != 0: // extents, 64bit, flex_bg; huge_file and later
		return "ext4"
	case compatible&4 != 0: // has_journal
		return "ext3"
	}
	return "ext2"
}

// holdsCPIO unpacks the first bytes of a gzip stream, as far as we have it.
func holdsCPIO(head []byte) bool {
	z, err := gzip.NewReader(bytes.NewReader(head))
	if err != nil {
		return false
	}
	first := make([]byte, 6)
	_, err = io.ReadFull(z, first)
	return err == nil && (string(first) == "070701" || string(first) == "070702")
}

// NotAMachine returns why the file can't be a machine image of that virtualization, in words for
// whoever registers it; nil where it can, or where nobody can tell.
func (i Info) NotAMachine(paravirtual bool) error {
	switch {
	case i.Size == 0:
		return fmt.Errorf("the image is empty")
	case i.Kernel != "":
		return fmt.Errorf("the image is a Linux kernel (%s): register it as a kernel image", strings.TrimSpace(i.Kernel+" "+i.Version))
	case i.Ramdisk:
		return fmt.Errorf("the image is a ramdisk (cpio archive): register it as a ramdisk image")
	case i.Format != "raw":
		return fmt.Errorf("the image is in %s format: a machine image is raw; %s", i.Format, remedy(i.Format))
	case paravirtual && i.Partitions != "":
		return fmt.Errorf("the image is a partitioned disk (%s): a paravirtual image is a bare root file system; register it as hvm", i.Partitions)
	case !paravirtual && i.FileSystem != "" && !i.BootSector:
		return fmt.Errorf("the image is a bare %s file system without a boot sector: register it as paravirtual, with a kernel and a ramdisk", i.FileSystem)
	}
	return nil
}

// NotAKernel returns why the file can't be a kernel image.
func (i Info) NotAKernel() error {
	if i.Kernel == "" {
		return fmt.Errorf("the image is no Linux kernel but %s", i.describe())
	}
	return nil
}

// NotARamdisk returns why the file can't be a ramdisk image. What is compressed otherwise than with
// gzip isn't looked into.
func (i Info) NotARamdisk() error {
	switch i.Format {
	case "cpio", "xz", "bzip2", "zstd", "lz4", "lzop":
		return nil
	case "gzip":
		if i.Ramdisk {
			return nil
		}
		return fmt.Errorf("the image is compressed with gzip, but there is no cpio archive inside")
	}
	if i.FileSystem != "" && i.FileSystem != "swap" {
		return nil // the older kind of ramdisk, a file system
	}
	return fmt.Errorf("the image is no ramdisk but %s", i.describe())
}

func (i Info) describe() string {
	switch {
	case i.Size == 0:
		return "empty"
	case i.Kernel != "":
		return "a Linux kernel (" + i.Kernel + ")"
	case i.Ramdisk:
		return "a ramdisk (cpio archive)"
	case i.Format != "raw":
		return "a file in " + i.Format + " format"
	case i.Partitions != "":
		return "a partitioned disk (" + i.Partitions + ")"
	case i.FileSystem != "":
		return "a file system (" + i.FileSystem + ")"
	}
	return "data of no known kind"
}

func remedy(format string) string {
	switch format {
	case "qcow2", "vmdk", "vhdx", "vhd", "vdi", "qed":
		return "convert it with qemu-img convert -O raw"
	}
	return "unpack it first"
}

func find(all []magic, head []byte) string {
	for _, m := range all {
		if has(head, m.off, m.bytes) {
			return m.name
		}
	}
	return ""
}

func has(b []byte, off int, s string) bool {
	return len(b) >= off+len(s) && string(b[off:off+len(s)]) == s
}

// cString is the printable text at off, up to a space or NUL.
func cString(b []byte, off int) string {
	if off < 0 || off >= len(b) {
		return ""
	}
	b = b[off:min(off+64, len(b))]
	end := bytes.IndexFunc(b, func(r rune) bool { return r <= ' ' || r > '~' })
	return string(b[:max(end, 0)])
}

func readAt(r io.ReaderAt, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	got, err := r.ReadAt(b, off)
	if err == io.EOF && int64(got) == n {
		err = nil
	}
	return b, err
}
