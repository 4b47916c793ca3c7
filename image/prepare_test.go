package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
)

func saved(t testing.TB, b []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// entry is a member of an archive made for a test.
type entry struct {
	name string
	data []byte
	kind byte
	link string
	size int64 // where it isn't that of the data
}

func archived(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: 0o644, Size: max(e.size, int64(len(e.data)))}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
		if e.size > int64(len(e.data)) {
			return b.Bytes() // one that lies
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// packed compresses a file with the host's program.
func packed(t testing.TB, program, file string) string {
	t.Helper()
	tool, err := exec.LookPath(program)
	if err != nil {
		t.Skip(err)
	}
	out, err := exec.Command(tool, "-c", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	return saved(t, out)
}

// prepared runs Inspect and Prepare on a file, and fails if something is left behind.
func prepared(t testing.TB, file string, limits Limits) (Finding, Prepared, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	temp := t.TempDir()
	t.(interface{ Setenv(key, value string) }).Setenv("TMPDIR", temp)
	dir := t.TempDir()
	found, err := Inspect(ctx, file, limits)
	if err != nil {
		none(t, temp)
		return found, Prepared{}, err
	}
	p, err := Prepare(ctx, found, dir, limits, Quiet)
	if err != nil {
		none(t, dir)
	}
	none(t, temp)
	if left, _ := filepath.Glob(filepath.Join(dir, "prepare-*")); left != nil {
		t.Errorf("left behind: %q", left)
	}
	return found, p, err
}

func none(t testing.TB, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// bootableDisk is a disk of a GPT with an EFI system partition that has a loader, and with BIOS boot code.
func bootableDisk(t testing.TB, bios bool, loader string) string {
	b := make([]byte, 8<<20)
	if bios {
		b[0] = 0xeb
	}
	b[510], b[511] = 0x55, 0xaa
	copy(b[512:], "EFI PART")
	putLE(512+72, uint64(2))(b)
	putLE(512+80, []uint32{128, 128})(b)
	copy(b[1024:], gptESP)
	putLE(1024+32, []uint64{2048, 2048 + 8191})(b)
	copy(b[2048*512:], fatImage(loader))
	return saved(t, b)
}

// fatImage is a FAT16 file system of 4 MiB with EFI/BOOT/LOADER.
func fatImage(loader string) []byte {
	b := make([]byte, 4<<20)
	copy(b[3:], "mkfs.fat")
	putLE(11, uint16(512))(b)
	b[13] = 1                   // sectors of a cluster
	putLE(14, uint16(1))(b)     // reserved
	b[16] = 1                   // tables
	putLE(17, uint16(32))(b)    // entries of the root directory
	putLE(19, uint16(8192))(b)  // sectors
	putLE(22, uint16(32))(b)    // sectors of a table
	b[510], b[511] = 0x55, 0xaa //
	put := func(at int, name, ext string, attr byte, cluster uint16) {
		copy(b[at:], fmt.Sprintf("%-8s%-3s", name, ext))
		b[at+11] = attr
		putLE(at+26, cluster)(b)
	}
	root, data := 33*512, 35*512
	put(root, "ESP", "", fatLabel, 0)
	put(root+32, "EFI", "", fatDirectory, 2)
	put(data+32*0, ".", "", fatDirectory, 2)
	put(data+32*15, "x", "", 0, 0) // the folder goes on in another cluster
	for i := 1; i < 15; i++ {
		put(data+32*i, fmt.Sprint("F", i), "TXT", 0, 0)
	}
	putLE(512+2*2, uint16(5))(b) // cluster 2 goes on in 5
	putLE(512+5*2, uint16(0xffff))(b)
	put(data+3*512, "BOOT", "", fatDirectory, 3)
	putLE(512+3*2, uint16(0xffff))(b)
	stem, ext, _ := strings.Cut(loader, ".")
	put(data+512, stem, ext, 0, 9)
	return b
}

func bareRoot(t testing.TB) []byte {
	b := make([]byte, 1<<20)
	copy(b, extHeader(4, 0x42, 1))
	copy(b[900<<10:], "at the end")
	return b
}

func kernel64() []byte {
	b := kernelHeader()
	putLE(0x206, uint16(0x20f))(b)
	putLE(0x236, uint16(0x3f))(b)
	return b
}

func TestPrepareDisks(t *testing.T) {
	raw := rawDisk(t)
	want := digest(t, raw)
	files := map[string]string{"raw": raw}
	for _, kind := range kinds {
		files[kind.name] = made(t, raw, kind.args...)
	}
	for _, program := range []string{"gzip", "bzip2", "xz", "zstd"} {
		files["qcow2."+program] = packed(t, program, files["qcow2 compressed"])
	}
	files["raw.gz"], files["raw.xz"] = packed(t, "gzip", raw), packed(t, "xz", raw)
	files["vhd fixed.gz"] = packed(t, "gzip", files["vhd fixed"])
	files["tar of a qcow2"] = saved(t, archived(t, entry{name: "README", data: []byte("text")}, entry{name: "x/disk.img", data: read(t, files["qcow2 v3"])}))
	files["tar.gz of a raw disk"] = packed(t, "gzip", saved(t, archived(t, entry{name: "disk.raw", data: read(t, raw)})))
	for name, file := range files {
		t.Run(name, func(t *testing.T) {
			found, p, err := prepared(t, file, small)
			if err != nil {
				t.Fatal(err)
			}
			if p.Files.Disk == "" || p.Files.Root != "" || digest(t, p.Files.Disk) != want {
				t.Errorf("another disk comes out: %+v", p.Files)
			}
			if found.Virtualization != cloud.HVM && !strings.HasPrefix(name, "tar of") && !strings.HasPrefix(name, "qcow2.") && name != "vhd fixed.gz" {
				t.Errorf("inspected as %+v", found)
			}
			if f := p.Found; f.Virtualization != cloud.HVM || f.VirtualSize != rawSize || f.Machine() != nil {
				t.Errorf("prepared as %+v", f)
			}
			if used := allocated(t, p.Files.Disk); used > 2<<20 {
				t.Errorf("the disk takes %d bytes", used)
			}
		})
	}
}

func TestInspectTellsHowADiskBoots(t *testing.T) {
	tests := []struct {
		bios   bool
		loader string
		boot   cloud.BootMode
		arch   string
	}{
		{true, "BOOTX64.EFI", cloud.UEFIPreferred, "x86_64"},
		{false, "BOOTX64.EFI", cloud.UEFI, "x86_64"},
		{false, "BOOTAA64.EFI", cloud.UEFI, "arm64"},
		{true, "BOOTAA64.EFI", cloud.UEFI, "arm64"},
		{true, "OTHER.EFI", cloud.UEFIPreferred, ""},
	}
	for _, test := range tests {
		raw := bootableDisk(t, test.bios, test.loader)
		for _, file := range []string{raw, made(t, raw, "-O", "qcow2"), packed(t, "gzip", raw)} {
			found, p, err := prepared(t, file, small)
			if err != nil {
				t.Fatal(err)
			}
			if p.Found.BootMode != test.boot || p.Found.Architecture != test.arch || p.Found.Virtualization != cloud.HVM {
				t.Errorf("%+v: prepared as %+v", test, p.Found)
			}
			if found.BootMode != test.boot || found.Architecture != test.arch {
				t.Errorf("%+v: inspected as %+v", test, found)
			}
		}
	}
}

func TestPrepareRootFileSystem(t *testing.T) {
	for _, file := range []string{saved(t, bareRoot(t)), packed(t, "xz", saved(t, bareRoot(t))), made(t, saved(t, bareRoot(t)), "-O", "qcow2")} {
		found, p, err := prepared(t, file, small)
		if err != nil || found.Virtualization != cloud.Paravirtual || p.Files.Root == "" || p.Files.Disk != "" || p.Files.Kernel != "" {
			t.Fatalf("%+v, %+v, %v", found, p.Files, err)
		}
		if !bytes.Equal(read(t, p.Files.Root), bareRoot(t)) {
			t.Error("another file system comes out")
		}
	}
}

func TestPrepareTrio(t *testing.T) {
	root, kernel, initrd := bareRoot(t), kernel64(), zipped(ramdisk(t))
	xen := bytes.Clone(kernel)
	xen[0x700] = 1
	trio := archived(t,
		entry{name: "euca-debian-x86_64/", kind: tar.TypeDir},
		entry{name: "euca-debian-x86_64/xen-kernel/vmlinuz-xen", data: xen},
		entry{name: "euca-debian-x86_64/xen-kernel/initrd-xen.img", data: initrd},
		entry{name: "euca-debian-x86_64/kvm-kernel/initrd.img-2.6.28", data: initrd},
		entry{name: "euca-debian-x86_64/kvm-kernel/vmlinuz-2.6.28", data: kernel},
		entry{name: "euca-debian-x86_64/debian.img", data: root},
		entry{name: "euca-debian-x86_64/README", data: []byte("read me")})
	for name, file := range map[string]string{"tar": saved(t, trio), "tar.gz": saved(t, zipped(trio)), "tar.xz": packed(t, "xz", saved(t, trio))} {
		t.Run(name, func(t *testing.T) {
			found, p, err := prepared(t, file, small)
			if err != nil {
				t.Fatal(err)
			}
			if found.Archive != "tar" || found.Virtualization != cloud.Paravirtual || found.Kernel != "euca-debian-x86_64/kvm-kernel/vmlinuz-2.6.28" || found.VirtualSize != int64(len(root)) {
				t.Errorf("inspected as %+v", found)
			}
			if !bytes.Equal(read(t, p.Files.Kernel), kernel) || !bytes.Equal(read(t, p.Files.Ramdisk), initrd) || !bytes.Equal(read(t, p.Files.Root), root) || p.Files.Disk != "" {
				t.Errorf("other files come out: %+v", p.Files)
			}
			if p.Found.Architecture != "x86_64" || p.Found.Virtualization != cloud.Paravirtual || p.Found.BootMode != "" {
				t.Errorf("prepared as %+v", p.Found)
			}
		})
	}
}

func TestTarSparse(t *testing.T) {
	raw := rawDisk(t)
	for _, format := range []string{"gnu", "posix"} {
		file := filepath.Join(t.TempDir(), "disk.tar")
		command(t, "tar", "--format="+format, "-S", "-C", filepath.Dir(raw), "-cf", file, "disk.raw")
		_, p, err := prepared(t, file, small)
		if err != nil || digest(t, p.Files.Disk) != digest(t, raw) {
			t.Errorf("%s: %+v, %v", format, p.Files, err)
		}
	}
}

func TestHostileArchives(t *testing.T) {
	root, kernel := bareRoot(t), kernel64()
	many := make([]entry, maxMembers+2)
	for i := range many {
		many[i] = entry{name: fmt.Sprint("etc/", i), data: []byte("x")}
	}
	tests := []struct {
		name string
		tar  []byte
		want string
	}{
		{"name that leads out", archived(t, entry{name: "../../etc/cron.d/x", data: root}), `"../../etc/cron.d/x"`},
		{"name that leads out and in", archived(t, entry{name: "a/../../b", data: root}), "leads out"},
		{"absolute name", archived(t, entry{name: "/etc/passwd", data: root}), `"/etc/passwd"`},
		{"symbolic link", archived(t, entry{name: "disk.img", kind: tar.TypeSymlink, link: "/etc/shadow"}), `"/etc/shadow"`},
		{"hard link", archived(t, entry{name: "disk.img", kind: tar.TypeLink, link: "/etc/shadow"}), `"/etc/shadow"`},
		{"device", archived(t, entry{name: "disk.img", kind: tar.TypeBlock}), "no file"},
		{"pipe", archived(t, entry{name: "disk.img", kind: tar.TypeFifo}), "no file"},
		{"twice", archived(t, entry{name: "root.img", data: root}, entry{name: "./root.img", data: root}), "two files named"},
		{"two roots", archived(t, entry{name: "a.img", data: root}, entry{name: "b.img", data: root}), `"a.img", "b.img"`},
		{"two kernels", archived(t, entry{name: "a", data: kernel}, entry{name: "b", data: kernel}, entry{name: "c", data: root}), "several kernels"},
		{"a root file system's files", archived(t, many...), "more than 256"},
		{"no image", archived(t, entry{name: "README", data: []byte("x")}), "neither"},
		{"kernel alone", archived(t, entry{name: "vmlinuz", data: kernel}), "neither"},
		{"absurd size", archived(t, entry{name: "disk.img", data: root, size: 1 << 50}), "the limit is"},
		{"cut off", archived(t, entry{name: "root.img", data: root})[:600<<10], "cut off"},
		{"cut in the header", archived(t, entry{name: "root.img", data: root})[:300], "cut off"},
		{"qcow2 in it with a backing file", archived(t, entry{name: "disk.img", data: backed(t)}), "/etc/passwd"},
	}
	for _, test := range tests {
		for kind, file := range map[string]string{"plain": saved(t, test.tar), "compressed": saved(t, zipped(test.tar))} {
			t.Run(test.name+" "+kind, func(t *testing.T) {
				_, _, err := prepared(t, file, small)
				refused(t, err, test.want)
			})
		}
	}
}

// backed is a qcow2 image with /etc/passwd behind it.
func backed(t testing.TB) []byte {
	b := empty(t, "qcow2")
	copy(b[0x1000:], "/etc/passwd")
	return put(16, uint32(11))(put(8, uint64(0x1000))(b))
}

func TestHostileFiles(t *testing.T) {
	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "empty"},
		{"qcow2 on /etc/passwd", backed(t), "/etc/passwd"},
		{"qcow2 on /etc/passwd, compressed", zipped(backed(t)), "/etc/passwd"},
		{"cut gzip", zipped(read(t, rawDisk(t)))[:20000], "cut off"},
		{"gzip of nothing", zipped(nil), "nothing inside"},
		{"gzip in gzip", zipped(zipped(make([]byte, 1<<16))), "compressed twice"},
		{"gzip that isn't", []byte("\x1f\x8b\x08 and nothing of the kind"), "damaged"},
		{"xz that isn't", []byte("\xfd7zXZ\x00 and nothing of the kind"), "damaged"},
		{"bzip2 that isn't", []byte("BZh9 and nothing of the kind"), "damaged"},
		{"zstd that isn't", []byte("\x28\xb5\x2f\xfd and nothing of the kind"), "damaged"},
		{"zip", []byte("PK\x03\x04 and so on"), "zip"},
		{"a ramdisk", ramdisk(t), "ramdisk"},
		{"raw beyond the limit", bytes.Repeat([]byte("x"), 3<<20), "the limit is"},
		{"gzip bomb", bomb(t, "x"), "limit"},
		{"gzip bomb of zeros", bomb(t, "\x00"), "limit"},
	}
	limits := small
	limits.VirtualSize = 2 << 20
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := prepared(t, saved(t, test.file), limits)
			refused(t, err, test.want)
		})
	}
}

// bomb is 64 MiB in some kilobytes.
func bomb(t testing.TB, what string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.CopyN(z, endless(what[0]), 64<<20); err != nil {
		t.Fatal(err)
	}
	z.Close()
	return b.Bytes()
}

type endless byte

func (e endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(e)
	}
	return len(b), nil
}

func TestInspectOfNoFile(t *testing.T) {
	_, err := Inspect(t.Context(), t.TempDir(), small)
	refused(t, err, "no file")
	_, err = Inspect(t.Context(), "/dev/zero", small)
	refused(t, err, "no file")
	if _, err := Inspect(t.Context(), "/nonexistent", small); !os.IsNotExist(err) {
		t.Error(err)
	}
	if _, err := Inspect(t.Context(), saved(t, []byte("x")), Limits{}); err == nil || !strings.Contains(err.Error(), "limits") {
		t.Error(err)
	}
}

func TestPrepareIsCancelled(t *testing.T) {
	for _, file := range []string{rawDisk(t), packed(t, "gzip", rawDisk(t)), packed(t, "xz", rawDisk(t)), made(t, rawDisk(t), "-O", "qcow2")} {
		found, err := Inspect(t.Context(), file, small)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		dir := t.TempDir()
		_, err = Prepare(ctx, found, dir, small, func(string, int64, int64) { cancel() })
		if err == nil || ctx.Err() == nil {
			t.Errorf("%s: %v", found.Format, err)
		}
		none(t, dir)
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(archived(f, entry{name: "vm.ovf", data: description("data.vmdk")}, entry{name: "data.vmdk", data: []byte("KDMV")}))
	f.Add(archived(f, entry{name: "a/kvm-kernel/vmlinuz", data: kernel64()}, entry{name: "a/root.img", data: extHeader(4, 2, 1)}))
	f.Add(zipped(archived(f, entry{name: "root.img", data: extHeader(4, 2, 1)})))
	f.Add(kernel64())
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 5 && (string(b[:5]) == "\xfd7zXZ" || string(b[:4]) == "QFI\xfb" || string(b[:4]) == "KDMV") {
			return // programs would be started
		}
		file := filepath.Join(dir, fmt.Sprint(os.Getpid()))
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := Inspect(context.Background(), file, small)
		if err == nil && (found.Size != int64(len(b)) || found.Format == "" || found.VirtualSize > small.VirtualSize) {
			t.Fatalf("%d bytes are %+v", len(b), found)
		}
	})
}
