package image

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// at makes size bytes with a mark in them.
func at(size, off int, mark string) []byte {
	b := make([]byte, size)
	copy(b[off:], mark)
	return b
}

func probed(t *testing.T, b []byte) Info {
	t.Helper()
	i, err := Probe(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func ramdisk(t testing.TB) []byte {
	var b bytes.Buffer
	tr := tree{}
	tr.file("init", 0o755, []byte("#!/bin/sh\n"))
	if err := writeCPIO(&b, tr); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(b []byte) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(b)
	w.Close()
	return z.Bytes()
}

func partitioned(t testing.TB) []byte {
	b := make([]byte, 4096)
	if err := writeTable(b[:sector], 1, partition{kind: typeLinux, start: 1, length: 7}); err != nil {
		t.Fatal(err)
	}
	return b
}

func kernelHeader() []byte {
	b := at(4096, 0x202, "HdrS")
	b[510], b[511] = 0x55, 0xaa
	binary.LittleEndian.PutUint16(b[0x20e:], 0x400)
	copy(b[0x600:], "6.1.0-1-cloud (someone)")
	return b
}

func extHeader(compatible, incompatible, readOnly uint32) []byte {
	b := at(4096, 1024+56, "\x53\xef")
	binary.LittleEndian.PutUint32(b[1024+92:], compatible)
	binary.LittleEndian.PutUint32(b[1024+96:], incompatible)
	binary.LittleEndian.PutUint32(b[1024+100:], readOnly)
	return b
}

func qcow2Header(version uint32, backing, size, incompatible uint64) []byte {
	b := at(512, 0, "QFI\xfb")
	binary.BigEndian.PutUint32(b[4:], version)
	binary.BigEndian.PutUint64(b[8:], backing)
	binary.BigEndian.PutUint64(b[24:], size)
	binary.BigEndian.PutUint64(b[72:], incompatible)
	return b
}

func TestProbe(t *testing.T) {
	gpt := partitioned(t)
	copy(gpt[512:], "EFI PART")
	hole := extHeader(4, 0x40, 0)
	hole[510], hole[511] = 0x55, 0xaa
	tests := []struct {
		name string
		data []byte
		want Info // Size is filled in
	}{
		{"empty", nil, Info{Format: "raw"}},
		{"one byte", []byte{0x55}, Info{Format: "raw", VirtualSize: 1}},
		{"zeros", make([]byte, 4096), Info{Format: "raw", VirtualSize: 4096}},
		{"bzImage", kernelHeader(), Info{Format: "raw", VirtualSize: 4096, Kernel: "bzImage", Version: "6.1.0-1-cloud"}},
		{"arm64", at(4096, 56, "ARM\x64"), Info{Format: "raw", VirtualSize: 4096, Kernel: "Image"}},
		{"vmlinux", at(4096, 0, "\x7fELF"), Info{Format: "raw", VirtualSize: 4096, Kernel: "ELF"}},
		{"cpio", ramdisk(t), Info{Format: "cpio", Ramdisk: true}},
		{"cpio.gz", zipped(ramdisk(t)), Info{Format: "gzip", Ramdisk: true}},
		{"disk.gz", zipped(make([]byte, 4096)), Info{Format: "gzip"}},
		{"xz", at(64, 0, "\xfd7zXZ\x00"), Info{Format: "xz"}},
		{"tar", at(1024, 257, "ustar"), Info{Format: "tar"}},
		{"mbr", partitioned(t), Info{Format: "raw", VirtualSize: 4096, BootSector: true, Partitions: "mbr"}},
		{"gpt", gpt, Info{Format: "raw", VirtualSize: 4096, BootSector: true, Partitions: "gpt"}},
		{"ext2", extHeader(0, 2, 1), Info{Format: "raw", VirtualSize: 4096, FileSystem: "ext2"}},
		{"ext3", extHeader(4, 2, 1), Info{Format: "raw", VirtualSize: 4096, FileSystem: "ext3"}},
		{"ext4", extHeader(4, 0x42, 1), Info{Format: "raw", VirtualSize: 4096, FileSystem: "ext4"}},
		{"ext4 with a boot loader", hole, Info{Format: "raw", VirtualSize: 4096, FileSystem: "ext4", BootSector: true}},
		{"xfs", at(4096, 0, "XFSB"), Info{Format: "raw", VirtualSize: 4096, FileSystem: "xfs"}},
		{"btrfs", at(headSize, 0x10040, "_BHRfS_M"), Info{Format: "raw", VirtualSize: headSize, FileSystem: "btrfs"}},
		{"qcow2", qcow2Header(3, 0, 5<<30, 0), Info{Format: "qcow2", VirtualSize: 5 << 30}},
		{"qcow2 on another file", qcow2Header(3, 600, 5<<30, 0), Info{Format: "qcow2", VirtualSize: 5 << 30, Backing: true}},
		{"qcow2 around another file", qcow2Header(3, 0, 5<<30, 4), Info{Format: "qcow2", VirtualSize: 5 << 30, Backing: true}},
		{"vmdk", at(512, 0, "KDMV"), Info{Format: "vmdk"}},
		{"vhd", at(1024, 0, "conectix"), Info{Format: "vhd"}},
		{"fixed vhd", at(1536, 1024, "conectix"), Info{Format: "vhd"}},
		{"vhdx", at(512, 0, "vhdxfile"), Info{Format: "vhdx"}},
		{"vdi", at(512, 64, "\x7f\x10\xda\xbe"), Info{Format: "vdi"}},
	}
	for _, test := range tests {
		test.want.Size = int64(len(test.data))
		if got := probed(t, test.data); got != test.want {
			t.Errorf("%s:\n got %+v\nwant %+v", test.name, got, test.want)
		}
	}
}

// What QEMU itself makes is told as what it is.
func TestProbeQEMU(t *testing.T) {
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("no qemu-img: apt-get install qemu-utils")
	}
	for format, name := range map[string]string{"qcow2": "qcow2", "vmdk": "vmdk", "vpc": "vhd", "vhdx": "vhdx", "vdi": "vdi", "qed": "qed"} {
		file := filepath.Join(t.TempDir(), "disk")
		if out, err := exec.Command(tool, "create", "-q", "-f", format, file, "64M").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, _ := f.Stat()
		i, err := Probe(f, info.Size())
		if err != nil || i.Format != name {
			t.Errorf("%s from qemu-img: %+v, %v", format, i, err)
		}
		if format == "qcow2" && i.VirtualSize != 64<<20 {
			t.Errorf("qcow2 of 64 MiB has virtual size %d", i.VirtualSize)
		}
	}
}

func TestProbeCatalogue(t *testing.T) {
	disk, trio := artifacts(t, "tiny"), artifacts(t, "tiny-pv")
	open := func(file string) Info {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, _ := f.Stat()
		i, err := Probe(f, info.Size())
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	d, k, r, m := open(disk.Disk), open(trio.Kernel), open(trio.Ramdisk), open(trio.Root)
	if d.NotAMachine(false) != nil || d.Partitions != "mbr" || d.NotAMachine(true) == nil {
		t.Errorf("disk: %+v", d)
	}
	if k.NotAKernel() != nil || !strings.Contains(k.Version, "cloud") || k.NotAMachine(true) == nil || k.NotAMachine(false) == nil || k.NotARamdisk() == nil {
		t.Errorf("kernel: %+v", k)
	}
	if r.NotARamdisk() != nil || r.NotAMachine(true) == nil || r.NotAKernel() == nil {
		t.Errorf("ramdisk: %+v", r)
	}
	if m.NotAMachine(true) != nil || m.FileSystem != "ext4" || m.NotAMachine(false) == nil || m.NotAKernel() == nil {
		t.Errorf("root: %+v", m)
	}
}

func TestNotAMachineSaysWhatToDo(t *testing.T) {
	tests := []struct {
		data        []byte
		paravirtual bool
		want        string // "" for a machine
	}{
		{kernelHeader(), false, "register it as a kernel image"},
		{ramdisk(t), true, "register it as a ramdisk image"},
		{zipped(ramdisk(t)), true, "register it as a ramdisk image"},
		{zipped(make([]byte, 512)), false, "unpack it first"},
		{qcow2Header(3, 0, 1, 0), false, "qemu-img convert -O raw"},
		{partitioned(t), true, "register it as hvm"},
		{extHeader(4, 0x42, 1), false, "register it as paravirtual"},
		{nil, false, "empty"},
		{partitioned(t), false, ""},
		{extHeader(4, 0x42, 1), true, ""},
		{bytes.Repeat([]byte("anything"), 512), false, ""},
	}
	for i, test := range tests {
		err := probed(t, test.data).NotAMachine(test.paravirtual)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%d: %v, want %q", i, err, test.want)
		}
	}
}

func TestProbeOfAShortFile(t *testing.T) {
	if i, err := Probe(bytes.NewReader(make([]byte, 100)), 200); err == nil {
		t.Errorf("100 bytes that were announced as 200 probed as %+v", i)
	}
}

func FuzzProbe(f *testing.F) {
	for _, b := range [][]byte{nil, kernelHeader(), ramdisk(f), zipped(ramdisk(f)), partitioned(f), extHeader(4, 0x42, 1), qcow2Header(3, 1, 1<<63, 4), at(1536, 1024, "conectix")} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := Probe(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if i.Size != int64(len(b)) || i.VirtualSize < 0 || i.Format == "" {
			t.Fatalf("%+v of %d bytes", i, len(b))
		}
		// A kernel is never a machine, and nothing is a kernel and a ramdisk at once.
		if i.Kernel != "" && (i.NotAMachine(true) == nil || i.NotAMachine(false) == nil || i.NotARamdisk() == nil) {
			t.Fatalf("%+v passes as something else", i)
		}
	})
}
