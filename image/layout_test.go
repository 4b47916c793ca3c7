package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"mallee/cloud"
)

func TestDiskParts(t *testing.T) {
	const mib, gib = int64(1 << 20), int64(1 << 30)
	tests := []struct {
		name           string
		root, disk     int64
		ephemeral      int64 // bytes
		tooLarge, fail bool
	}{
		{name: "small image on m1.small", root: 32 * mib, disk: 5 * gib, ephemeral: 5*gib - 32*mib - 512*mib - 63*512},
		{name: "root of a part of a sector", root: 32*mib + 1, disk: 5 * gib, ephemeral: 5*gib - 32*mib - 512*mib - 64*512},
		{name: "just fits", root: 5*gib - 512*mib - 63*512 - 61440, disk: 5 * gib, ephemeral: 61440},
		{name: "one sector too many", root: 5*gib - 512*mib - 63*512 - 61440 + 1, disk: 5 * gib, tooLarge: true},
		{name: "as large as the disk", root: 5 * gib, disk: 5 * gib, tooLarge: true},
		{name: "40 GiB on 5", root: 40 * gib, disk: 5 * gib, tooLarge: true},
		{name: "disk smaller than swap", root: mib, disk: 256 * mib, tooLarge: true},
		{name: "no root", root: 0, disk: 5 * gib, fail: true},
		{name: "half a sector", root: mib, disk: 5*gib + 1, fail: true},
	}
	for _, test := range tests {
		p1, p2, p3, err := diskParts(test.root, test.disk)
		if fits := FitsParavirtual(test.root, test.disk); (fits == nil) != (err == nil) {
			t.Errorf("%s: FitsParavirtual says %v, diskParts %v", test.name, fits, err)
		}
		if test.tooLarge || test.fail {
			if err == nil || errors.Is(err, ErrTooLarge) != test.tooLarge {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if err != nil || p2.length*sector != test.ephemeral {
			t.Errorf("%s: ephemeral of %d bytes, want %d (%v)", test.name, p2.length*sector, test.ephemeral, err)
		}
		if p1.start != 63 || p2.start != p1.end() || p3.start != p2.end() || p3.end()*sector != test.disk || p3.length*sector != cloud.SwapSize {
			t.Errorf("%s: %+v %+v %+v don't fill the disk", test.name, p1, p2, p3)
		}
	}
}

// TestLayoutNeedsWhatIsSaid around every boundary: what a launch is accepted by
// is, to the byte, what the disk is then built by.
func TestLayoutNeedsWhatIsSaid(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		disk := (1 + random.Int64N(240)) << 30
		most := disk - cloud.DiskNeeded(cloud.Paravirtual, 0) // the largest image
		for _, root := range []int64{1, most - 512, most - 1, most, most + 1, most + 512, 1 + random.Int64N(disk)} {
			_, ephemeral, _, err := diskParts(root, disk)
			if fits := cloud.DiskNeeded(cloud.Paravirtual, root) <= disk; fits != (err == nil) || fits != (root <= most) {
				t.Errorf("%d bytes on %d: needs %d, and %v", root, disk, cloud.DiskNeeded(cloud.Paravirtual, root), err)
			}
			if err == nil && ephemeral.length*sector < cloud.MinEphemeral {
				t.Errorf("%d bytes on %d leave %d sectors", root, disk, ephemeral.length)
			}
		}
		for _, size := range []int64{1, disk - 1, disk, disk + 1, disk + 512} {
			_, err := EphemeralSize(size, disk)
			if fits := cloud.DiskNeeded(cloud.HVM, size) <= disk; fits != (err == nil) || fits != (size <= disk) {
				t.Errorf("HVM, %d bytes on %d: needs %d, and %v", size, disk, cloud.DiskNeeded(cloud.HVM, size), err)
			}
		}
	}
}

func TestEphemeralSize(t *testing.T) {
	tests := []struct {
		image, disk, want int64
		tooLarge          bool
	}{
		{49 << 20, 5 << 30, 5<<30 - 49<<20, false},
		{5<<30 - 100, 5 << 30, 0, false},
		{5 << 30, 5 << 30, 0, false},
		{5<<30 - 61441, 5 << 30, 61440, false},
		{40 << 30, 5 << 30, 0, true},
	}
	for _, test := range tests {
		got, err := EphemeralSize(test.image, test.disk)
		if got != test.want || errors.Is(err, ErrTooLarge) != test.tooLarge {
			t.Errorf("EphemeralSize(%d, %d) is %d, %v; want %d", test.image, test.disk, got, err, test.want)
		}
	}
}

func sum(t *testing.T, f *os.File) [32]byte {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<40)); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

// blocks is what the file takes on disk, in bytes.
func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var s syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &s); err != nil {
		t.Fatal(err)
	}
	return s.Blocks * 512
}

// check runs e2fsck over a file system inside a file.
func check(t *testing.T, f *os.File, off, size int64) {
	t.Helper()
	fsck, err := hostTool("e2fsck", "e2fsprogs")
	if err != nil {
		t.Skip(err)
	}
	if out, err := exec.Command(fsck, "-fn", fmt.Sprintf("%s?offset=%d", f.Name(), off)).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	i, err := Probe(io.NewSectionReader(f, off, size), size)
	if err != nil || !strings.HasPrefix(i.FileSystem, "ext") {
		t.Errorf("the ephemeral file system is probed as %+v, %v", i, err)
	}
}

func needMkfs(t *testing.T) {
	t.Helper()
	if _, err := hostTool("mke2fs", "e2fsprogs"); err != nil {
		t.Skip(err)
	}
}

func TestParavirtual(t *testing.T) {
	if testing.Short() {
		t.Skip("builds or boots a whole image")
	}
	needMkfs(t)
	t.Parallel()
	// A root of data, a hole and an end in the middle of a sector.
	root := append(bytes.Repeat([]byte("root"), 5000), make([]byte, 3<<20)...)
	root = append(root, "the end"...)
	const size = 600 << 20
	var sums [2][32]byte
	for i := range sums {
		dst := newFile(t, "disk")
		if err := Paravirtual(t.Context(), dst, bytes.NewReader(root), int64(len(root)), size); err != nil {
			t.Fatal(err)
		}
		sums[i] = sum(t, dst)
		if i == 0 {
			checkParavirtual(t, dst, root, size)
		}
	}
	if sums[0] != sums[1] {
		t.Error("two disks of the same root differ")
	}
}

func checkParavirtual(t *testing.T, dst *os.File, root []byte, size int64) {
	t.Helper()
	boot := make([]byte, sector)
	if _, err := dst.ReadAt(boot, 0); err != nil {
		t.Fatal(err)
	}
	p := readTable(boot)
	if len(p) != 3 || p[0].kind != typeLinux || p[1].kind != typeLinux || p[2].kind != typeSwap || p[2].end()*sector != size {
		t.Fatalf("partitions %+v", p)
	}
	got := make([]byte, len(root))
	if _, err := dst.ReadAt(got, p[0].start*sector); err != nil || !bytes.Equal(got, root) {
		t.Errorf("the root partition isn't the root image (%v)", err)
	}
	page := make([]byte, swapPage)
	if _, err := dst.ReadAt(page, p[2].start*sector); err != nil || !has(page, swapPage-10, "SWAPSPACE2") {
		t.Errorf("the swap partition has no signature (%v)", err)
	}
	if last := binary.LittleEndian.Uint32(page[1028:]); int64(last+1)*swapPage != cloud.SwapSize {
		t.Errorf("the swap area's last page is %d", last)
	}
	if info, _ := dst.Stat(); info.Size() != size {
		t.Errorf("disk of %d bytes, want %d", info.Size(), size)
	}
	if used := blocks(t, dst); used > 16<<20 {
		t.Errorf("an almost empty disk takes %d bytes", used)
	}
	check(t, dst, p[1].start*sector, p[1].length*sector)
}

func TestEphemeral(t *testing.T) {
	needMkfs(t)
	t.Parallel()
	for _, size := range []int64{cloud.MinEphemeral, 1 << 20, 100 << 20, 5<<30 - 49<<20} {
		var sums [2][32]byte
		for i := range sums {
			dst := newFile(t, "disk")
			if err := Ephemeral(t.Context(), dst, size); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if size <= 100<<20 {
				sums[i] = sum(t, dst)
			}
			if used := blocks(t, dst); used > 16<<20 {
				t.Errorf("an empty disk of %d bytes takes %d", size, used)
			}
			if info, _ := dst.Stat(); info.Size() != size {
				t.Errorf("disk of %d bytes, want %d", info.Size(), size)
			}
			if i == 0 {
				check(t, dst, 0, size)
			}
		}
		if sums[0] != sums[1] {
			t.Errorf("two disks of %d bytes differ", size)
		}
	}
}

func TestLayoutsRefuse(t *testing.T) {
	full := newFile(t, "full")
	if _, err := full.WriteString("precious"); err != nil {
		t.Fatal(err)
	}
	if err := Ephemeral(t.Context(), full, 1<<20); err == nil {
		t.Error("a file with content was formatted")
	}
	if err := Paravirtual(t.Context(), full, strings.NewReader("x"), 1, 5<<30); err == nil {
		t.Error("a file with content became a disk")
	}
	empty := newFile(t, "empty")
	if err := Ephemeral(t.Context(), empty, 100); err == nil {
		t.Error("an ephemeral disk of 100 bytes was made")
	}
	if err := Paravirtual(t.Context(), empty, strings.NewReader("x"), 40<<30, 5<<30); !errors.Is(err, ErrTooLarge) {
		t.Errorf("40 GiB on 5: %v", err)
	}
	short := newFile(t, "short")
	if err := Paravirtual(t.Context(), short, strings.NewReader("short"), 1<<20, 5<<30); err == nil {
		t.Error("a root shorter than announced made a disk")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Ephemeral(cancelled, newFile(t, "cancelled"), 1<<20); err == nil {
		t.Error("a cancelled format succeeded")
	}
}

func TestWriteTableRefuses(t *testing.T) {
	boot := make([]byte, sector)
	for _, p := range []partition{{start: 0, length: 1}, {start: 1, length: 0}, {start: 1 << 32, length: 1}} {
		if err := writeTable(boot, 0, p); err == nil {
			t.Errorf("%+v was written", p)
		}
	}
	if err := writeTable(boot, 0, make([]partition, 5)...); err == nil {
		t.Error("five partitions were written")
	}
	if err := writeSwap(newFile(t, "swap"), 0, swapPage, [16]byte{}, ""); err == nil {
		t.Error("a swap area of one page was made")
	}
}

func FuzzReadTable(f *testing.F) {
	f.Add(partitioned(f)[:sector])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range readTable(b) {
			if p.kind == 0 || p.length <= 0 {
				t.Fatalf("%+v is no partition", p)
			}
		}
	})
}

func TestCopySparse(t *testing.T) {
	t.Parallel()
	data := make([]byte, 3*copyBuffer+5)
	copy(data[copyBuffer-3:], "across two buffers")
	data[2*copyBuffer] = 1
	data[len(data)-1] = 2
	src := newFile(t, "src")
	if err := src.Truncate(int64(len(data)) + copyBuffer); err != nil { // ends in a hole
		t.Fatal(err)
	}
	for at, b := range data {
		if b != 0 {
			if _, err := src.WriteAt([]byte{b}, int64(at)); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := append(bytes.Clone(data), make([]byte, copyBuffer)...)
	for name, source := range map[string]io.ReaderAt{"file": src, "memory": bytes.NewReader(want)} {
		dst := newFile(t, "dst")
		if err := dst.Truncate(int64(len(want)) + 63); err != nil {
			t.Fatal(err)
		}
		if err := copySparse(dst, 63, source, int64(len(want))); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := make([]byte, len(want))
		if _, err := dst.ReadAt(got, 63); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the copy differs (%v)", name, err)
		}
		if used := blocks(t, dst); used > 64<<10 {
			t.Errorf("%s: the copy takes %d bytes", name, used)
		}
	}
}
