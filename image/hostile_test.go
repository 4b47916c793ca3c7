package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// refused fails the test unless err blames the image, in words that contain want.
func refused(t testing.TB, err error, want string) {
	t.Helper()
	var bad *BadImageError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want it refused with %q", err, want)
	}
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func examined(b []byte, format string, limits Limits) error {
	_, err := examine(bytes.NewReader(b), int64(len(b)), format, limits)
	return err
}

// empty is an image of 64 MiB without data, made by QEMU.
func empty(t testing.TB, format string, args ...string) []byte {
	file := filepath.Join(t.TempDir(), "image")
	command(t, needQEMU(t), append(append([]string{"create", "-q", "-f", format}, args...), file, "64M")...)
	return read(t, file)
}

// A change makes an image hostile.
type change struct {
	name   string
	change func(b []byte) []byte
	want   string
}

// put writes a big-endian number of the size of v at off.
func put(off int, v any) func([]byte) []byte {
	return func(b []byte) []byte {
		n, err := binary.Encode(b[off:], binary.BigEndian, v)
		if err != nil || n == 0 {
			panic(err)
		}
		return b
	}
}

// putLE is put for formats that write numbers the other way round.
func putLE(off int, v any) func([]byte) []byte {
	return func(b []byte) []byte {
		if _, err := binary.Encode(b[off:], binary.LittleEndian, v); err != nil {
			panic(err)
		}
		return b
	}
}

func cut(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }

func all(changes ...func([]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte {
		for _, c := range changes {
			b = c(b)
		}
		return b
	}
}

// hold the examiner, and Convert in front of QEMU, against each change of an image that both take.
func hold(t *testing.T, image []byte, format string, changes []change) {
	t.Helper()
	if err := examined(image, format, small); err != nil {
		t.Fatalf("the image as QEMU made it: %v", err)
	}
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			b := c.change(bytes.Clone(image))
			refused(t, examined(b, format, small), c.want)
			file := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := converted(t, file, format, small)
			refused(t, err, c.want)
		})
	}
}

func TestHostileQCOW2(t *testing.T) {
	hold(t, empty(t, "qcow2"), "qcow2", []change{
		{"backing file", func(b []byte) []byte {
			copy(b[0x1000:], "/etc/passwd")
			return all(put(8, uint64(0x1000)), put(16, uint32(11)))(b)
		}, `"/etc/passwd"`},
		{"backing file by protocol", func(b []byte) []byte {
			copy(b[0x1000:], "json:{\"driver\":\"nbd\"}")
			return all(put(8, uint64(0x1000)), put(16, uint32(21)))(b)
		}, `nbd`},
		{"backing file's name outside", all(put(8, uint64(1<<40)), put(16, uint32(11))), "cut off or lies"},
		{"backing file's name endless", all(put(8, uint64(0x1000)), put(16, uint32(1<<31))), "a name of 2147483648 bytes"},
		{"external data by feature", put(72, uint64(4)), "data in another file"},
		{"external data by name", func(b []byte) []byte {
			copy(b[104:], "DATA\x00\x00\x00\x0b/etc/shadow\x00\x00\x00\x00\x00")
			return put(100, uint32(104))(b)
		}, `"/etc/shadow"`},
		{"absurd size", put(24, uint64(1<<62)), "the limit is 268435456"},
		{"negative size", put(24, ^uint64(0)), "the limit is 268435456"},
		{"no size", put(24, uint64(0)), "empty"},
		{"size above the limit by one", put(24, uint64(small.VirtualSize+1)), "the limit is"},
		{"first-level table outside", put(40, uint64(1<<40)), "first-level table"},
		{"first-level table at an overflow", put(40, ^uint64(0xffff)), "first-level table"},
		{"first-level table endless", put(36, ^uint32(0)), "first-level table"},
		{"first-level table too short", put(36, uint32(0)), "first-level table"},
		{"reference counts outside", put(48, uint64(1<<50)), "table of reference counts"},
		{"reference counts endless", put(56, ^uint32(0)), "table of reference counts"},
		{"snapshots endless", put(60, ^uint32(0)), "table of snapshots"},
		{"snapshots outside", all(put(60, uint32(1)), put(64, uint64(1<<40))), "table of snapshots"},
		{"clusters of a byte", put(20, uint32(0)), "clusters"},
		{"clusters of an exabyte", put(20, uint32(60)), "clusters"},
		{"AES", put(32, uint32(1)), "encrypted"},
		{"LUKS", put(32, uint32(2)), "encrypted"},
		{"LUKS by extension alone", put(112, []uint32{0x0537be77, 16}), "encrypted"},
		{"unknown feature", put(72, uint64(1<<40)), "nobody knows"},
		{"corrupt", put(72, uint64(2)), "corrupt"},
		{"header endless", put(100, ^uint32(0)), "header"},
		{"header short", put(100, uint32(72)), "header"},
		{"extension endless", put(112, []uint32{0x12345678, 0xfffffff0}), "header extension"},
		{"version 1", put(4, uint32(1)), "version 1"},
		{"version 4", put(4, uint32(4)), "version 4"},
		{"cut in the header", cut(50), "cut off"},
		{"cut in version 3's part", cut(80), "cut off"},
		{"cut before the tables", cut(0x10000), "cut off"},
	})
	full := read(t, made(t, rawDisk(t), "-O", "qcow2"))
	packed := read(t, made(t, rawDisk(t), "-c", "-O", "qcow2"))
	hold(t, full, "qcow2", []change{{"cut in the data", cut(len(full) / 2), "cut off"}, {"without its last cluster", cut(len(full) - 65536), "cut off"}})
	hold(t, packed, "qcow2", []change{{"compressed, cut in the data", cut(len(packed) - 65536), "cut off"}})
}

func TestEncryptedQCOW2(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "image")
	command(t, needQEMU(t), "create", "-q", "--object", "secret,id=s,data=abc", "-f", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", file, "1M")
	refused(t, examined(read(t, file), "qcow2", small), "encrypted")
}

func TestQCOW2OnAnother(t *testing.T) {
	dir := t.TempDir()
	base, file := filepath.Join(dir, "base"), filepath.Join(dir, "image")
	command(t, needQEMU(t), "create", "-q", "-f", "raw", base, "1M")
	command(t, needQEMU(t), "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", file)
	refused(t, examined(read(t, file), "qcow2", small), base)
	command(t, needQEMU(t), "create", "-q", "-f", "qcow2", "-o", "data_file="+base+".data", file, "1M")
	refused(t, examined(read(t, file), "qcow2", small), base+".data")
}

func TestHostileVMDK(t *testing.T) {
	descriptor := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte {
			i := bytes.Index(b, []byte(old))
			if i < 0 {
				panic("no " + old)
			}
			copy(b[i:], new)
			return b
		}
	}
	sparse := empty(t, "vmdk")
	hold(t, sparse, "vmdk", []change{
		{"parent's name", descriptor("# The Disk Data Base", "parentFileNameHint=\"/etc/passwd\"\n"), `"/etc/passwd"`},
		{"parent's number", descriptor("parentCID=ffffffff", "parentCID=12345678"), "child of another"},
		{"parent where the header doesn't point", all(putLE(28, uint64(0)), descriptor("parentCID=ffffffff", "parentCID=12345678")), "child of another"},
		{"no capacity, so that the descriptor counts", putLE(12, uint64(0)), "empty"},
		{"absurd capacity", putLE(12, ^uint64(0)), "sectors"},
		{"capacity above the limit", putLE(12, uint64(small.VirtualSize/512+1)), "the limit is"},
		{"grains of nothing", putLE(20, uint64(0)), "grains"},
		{"grains endless", putLE(20, uint64(1<<40)), "grains"},
		{"grain tables endless", putLE(44, ^uint32(0)), "grain tables"},
		{"directory outside", putLE(56, uint64(1<<40)), "grain directory"},
		{"directory at an overflow", putLE(56, ^uint64(1)), "grain directory"},
		{"descriptor outside", putLE(28, uint64(1<<40)), "descriptor"},
		{"descriptor endless", putLE(36, uint64(1<<40)), "descriptor"},
		{"version 9", putLE(4, uint32(9)), "version 9"},
		{"compression unknown", putLE(77, uint16(7)), "compressed"},
		{"cut in the header", cut(100), "cut off"},
		{"cut in the descriptor", cut(700), "cut off"},
	})
	stream := read(t, made(t, rawDisk(t), "-O", "vmdk", "-o", "subformat=streamOptimized"))
	hold(t, stream, "vmdk", []change{{"stream cut in the data", cut(len(stream) - 256<<10), "cut off"}, {"stream cut early", cut(1600), "cut off"}})
	full := read(t, made(t, rawDisk(t), "-O", "vmdk"))
	hold(t, full, "vmdk", []change{{"cut in the data", cut(len(full) - 256<<10), "cut off"}})
	refused(t, examined([]byte("COWD"+strings.Repeat("\x00", 4096)), "vmdk", small), "ESX")
}

func TestVMDKDescriptors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "image.vmdk")
	command(t, needQEMU(t), "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", file, "1M")
	refused(t, examined(read(t, file), "vmdk", small), `"image-flat.vmdk"`)
	evil := "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 2048 FLAT \"/etc/passwd\" 0\n"
	refused(t, examined([]byte(evil), "vmdk", small), `"/etc/passwd"`)
	refused(t, examined([]byte(strings.ReplaceAll(evil, "ffffffff", "1")), "vmdk", small), "child of another")
}

// summed writes a VHD structure's checksum anew.
func summed(from, to, at int) func([]byte) []byte {
	return func(b []byte) []byte {
		var sum uint32
		for i := from; i < to; i++ {
			if i < at || i >= at+4 {
				sum += uint32(b[i])
			}
		}
		return put(at, ^sum)(b)
	}
}

func TestHostileVHD(t *testing.T) {
	footer := func(c func([]byte) []byte) func([]byte) []byte { return all(c, summed(0, 512, 64)) }
	header := func(c func([]byte) []byte) func([]byte) []byte { return all(c, summed(512, 1536, 512+36)) }
	dynamic := read(t, made(t, rawDisk(t), "-O", "vpc"))
	hold(t, dynamic, "vhd", []change{
		{"differencing", footer(put(60, uint32(4))), "child of another"},
		{"parent in the header", header(func(b []byte) []byte {
			b[512+40] = 1
			copy(b[512+64:], "\x00/\x00e\x00t\x00c\x00/\x00p\x00a\x00s\x00s\x00w\x00d")
			return b
		}), `"/etc/passwd"`},
		{"absurd size", footer(put(48, uint64(1<<62))), "the limit is"},
		{"size of half a sector", footer(put(48, uint64(1<<20+256))), "whole sectors"},
		{"header outside", footer(put(16, uint64(1<<62))), "cut off or lies"},
		{"header at an overflow", footer(put(16, ^uint64(0))), "cut off or lies"},
		{"wrong checksum", put(70, uint32(1)), "checksum"},
		{"wrong checksum of the header", put(512+60, uint32(12345)), "checksum"},
		{"unknown type", footer(put(60, uint32(9))), "type 9"},
		{"fixed with a footer in front", footer(put(60, uint32(2))), "lies"},
		{"blocks of nothing", header(put(512+32, uint32(0))), "blocks have 0 bytes"},
		{"blocks of 2 GiB", header(put(512+32, uint32(1<<31))), "blocks have"},
		{"table endless", header(put(512+28, ^uint32(0))), "entries"},
		{"table too short", header(put(512+28, uint32(1))), "less than its disk"},
		{"table outside", header(put(512+16, uint64(1<<40))), "table"},
		{"a block outside", put(1536, uint32(1<<30)), "a block at sector"},
		{"cut in the header", cut(700), "cut off"},
		{"cut in the blocks", cut(len(dynamic) / 2), "cut off"},
	})
	fixed := read(t, made(t, rawDisk(t), "-O", "vpc", "-o", "subformat=fixed,force_size=on"))
	hold(t, fixed, "vhd", []change{{"without its footer", cut(len(fixed) - 512), "no footer"}, {"shorter than its disk", func(b []byte) []byte { return b[1<<20:] }, "cut off"}})
}

// crc writes a VHDX structure's checksum anew.
func crc(at, n int) func([]byte) []byte {
	return func(b []byte) []byte {
		clear(b[at+4 : at+8])
		return putLE(at+4, crc32.Checksum(b[at:at+n], crc32.MakeTable(crc32.Castagnoli)))(b)
	}
}

func TestHostileVHDX(t *testing.T) {
	image := empty(t, "vhdx")
	regions := func(c func([]byte) []byte) func([]byte) []byte { return all(c, crc(192<<10, 64<<10)) }
	find := func(id string) int { // where the entry of that GUID is, which is before the thing itself
		i := bytes.Index(image, []byte(id))
		if i < 0 {
			t.Fatalf("no %x in the image", id)
		}
		return i
	}
	metadata := int(binary.LittleEndian.Uint64(image[find(vhdxMetadata)+16:]))
	item := func(id string) int { return metadata + int(binary.LittleEndian.Uint32(image[find(id)+16:])) }
	hold(t, image, "vhdx", []change{
		{"parent by flag", putLE(item(vhdxParameters)+4, uint32(2)), "child of another"},
		{"parent by locator", func(b []byte) []byte {
			text := "r\x00e\x00l\x00a\x00t\x00i\x00v\x00e\x00_\x00p\x00a\x00t\x00h\x00/\x00e\x00t\x00c\x00/\x00p\x00a\x00s\x00s\x00w\x00d\x00"
			at := metadata + 0x8000
			entry := metadata + 32 + 32*int(binary.LittleEndian.Uint16(b[metadata+10:]))
			copy(b[entry:], vhdxParent)
			b = all(putLE(entry+16, []uint32{0x8000, 200}), putLE(metadata+10, uint16(binary.LittleEndian.Uint16(b[metadata+10:])+1)))(b)
			b = all(putLE(at+18, uint16(1)), putLE(at+20, []uint32{32, 58}), putLE(at+28, []uint16{26, 22}))(b)
			copy(b[at+32:], text)
			return b
		}, `"/etc/passwd"`},
		{"absurd size", putLE(item(vhdxDiskSize), uint64(1<<62)), "the limit is"},
		{"size of half a sector", putLE(item(vhdxDiskSize), uint64(1<<20+5)), "sectors of"},
		{"sectors of nothing", putLE(item(vhdxLogical), uint32(0)), "sectors of 0"},
		{"blocks of nothing", putLE(item(vhdxParameters), uint32(0)), "blocks have 0"},
		{"blocks of 2 GiB", putLE(item(vhdxParameters), uint32(1<<31)), "blocks have"},
		{"region outside", regions(putLE(find(vhdxBAT)+16, uint64(1<<50))), "region"},
		{"region endless", regions(putLE(find(vhdxBAT)+24, ^uint32(0))), "region"},
		{"no table", regions(putLE(find(vhdxBAT)+24, uint32(0))), "lacks"},
		{"regions endless", regions(putLE(192<<10+8, ^uint32(0))), "region table"},
		{"wrong checksum of the regions", putLE(192<<10+20, ^uint32(0)), "checksum"},
		{"both headers wrong", all(putLE(64<<10+100, ^uint32(0)), putLE(128<<10+100, ^uint32(0))), "checksum"},
		{"metadata endless", putLE(metadata+10, ^uint16(0)), "metadata"},
		{"metadata outside", putLE(find(vhdxDiskSize)+16, ^uint32(0)), "metadata"},
		{"cut before the headers", cut(5000), "cut off"},
		{"cut before the regions", cut(150 << 10), "cut off"},
		{"cut before the metadata", cut(1 << 20), "cut off"},
	})
}

func TestCutVHDX(t *testing.T) {
	full := read(t, made(t, rawDisk(t), "-O", "vhdx"))
	hold(t, full, "vhdx", []change{{"cut in the data", cut(len(full) - 8<<20), "cut off"}})
}

func TestOtherFormatsAreNamed(t *testing.T) {
	for _, format := range []string{"vdi", "qed"} {
		refused(t, examined(empty(t, format), format, small), format)
	}
}

// Whatever gets past the examiners: QEMU itself, shut in, reads no other file of the host.
func TestQEMUCannotReachOtherFiles(t *testing.T) {
	tool := needQEMU(t)
	dir := t.TempDir()
	secret, file, out := filepath.Join(dir, "secret"), filepath.Join(dir, "image"), filepath.Join(dir, "out")
	if err := os.WriteFile(secret, bytes.Repeat([]byte("secret! "), 1<<17), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, tool, "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", file)
	each(t, func(t *testing.T, plain bool) {
		if err := os.WriteFile(out, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := sandbox{tool: tool, args: []string{"convert", "-f", "qcow2", "-O", "raw", inName, outName}, in: file, out: out, limits: small, plain: plain}.run(ctx)
		if err == nil || bytes.Contains(read(t, out), []byte("secret")) {
			t.Errorf("QEMU read the backing file: %v", err)
		}
	})
	if err := exec.Command(tool, "convert", "-f", "qcow2", "-O", "raw", file, out).Run(); err != nil || !bytes.Contains(read(t, out), []byte("secret")) {
		t.Errorf("without a sandbox it wouldn't have read it either: %v", err)
	}
}

// A patched file differs from another one in a place.
type patched struct {
	base  []byte
	at    int64
	patch []byte
}

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := bytes.NewReader(p.base).ReadAt(b, off)
	for i := range p.patch {
		if at := p.at + int64(i) - off; at >= 0 && at < int64(n) {
			b[at] = p.patch[i]
		}
	}
	return n, err
}

// sums writes the checksums of an image anew, so that a patch isn't found out by them.
func sums(format string, b []byte) []byte {
	switch {
	case format == "vhd" && len(b) >= 1536:
		return all(summed(0, 512, 64), summed(512, 1536, 512+36))(b)
	case format == "vhdx" && len(b) >= 256<<10:
		return crc(192<<10, 64<<10)(b)
	}
	return b
}

// FuzzExamine changes an image of each format in two places, sets its checksums right, and cuts it off.
func FuzzExamine(f *testing.F) {
	names := []string{"qcow2", "vmdk", "vhd", "vhdx"}
	bases := [][]byte{empty(f, "qcow2"), empty(f, "vmdk"), empty(f, "vpc"), empty(f, "vhdx")}
	for i := range names {
		f.Add(uint8(i), uint32(0), []byte{}, uint32(1<<20), []byte{}, uint32(0))
	}
	f.Add(uint8(0), uint32(8), []byte("\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x0b"), uint32(4096), []byte("/etc/passwd"), uint32(0))
	f.Add(uint8(1), uint32(12), []byte("\x00\x00\x00"), uint32(600), []byte("parentFileNameHint"), uint32(10))
	f.Add(uint8(2), uint32(48), []byte("\xff"), uint32(512+28), []byte("\xff\xff"), uint32(1000))
	f.Add(uint8(3), uint32(192<<10+16), []byte("\xff"), uint32(2<<20), []byte("metadata"), uint32(1<<20))
	f.Fuzz(func(t *testing.T, format uint8, at1 uint32, patch1 []byte, at2 uint32, patch2 []byte, less uint32) {
		i := int(format) % len(names)
		b := bytes.Clone(bases[i][:max(0, len(bases[i])-int(less))])
		copy(b[min(int(at1), len(b)):], patch1)
		copy(b[min(int(at2), len(b)):], patch2)
		b = sums(names[i], b)
		d, err := examine(bytes.NewReader(b), int64(len(b)), names[i], small)
		var bad *BadImageError
		if err != nil && !errors.As(err, &bad) {
			t.Fatalf("%s: %v isn't the image's fault?", names[i], err)
		}
		if err == nil && (d.virtual <= 0 || d.virtual > small.VirtualSize || d.name == "") {
			t.Fatalf("%s passes as %+v", names[i], d)
		}
	})
}

// FuzzLookInside changes a bootable disk in a place.
func FuzzLookInside(f *testing.F) {
	base := read(f, bootableDisk(f, true, "BOOTX64.EFI"))
	f.Add(uint32(512+72), []byte("\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add(uint32(2048*512+11), []byte("\x00\x10\x80"))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		c, err := LookInside(patched{base, int64(at), patch}, int64(len(base)))
		if err != nil {
			t.Fatal(err)
		}
		if _, known := map[string]bool{"": true, "x86_64": true, "i386": true, "arm64": true}[c.Architecture]; !known {
			t.Fatalf("%+v", c)
		}
	})
}
