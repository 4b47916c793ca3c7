package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// small are limits for tests.
var small = Limits{VirtualSize: 256 << 20, Memory: 2 << 30, CPU: time.Minute}

// needQEMU is the path of qemu-img.
func needQEMU(t testing.TB) string {
	t.Helper()
	tool, err := hostTool("qemu-img", "qemu-utils")
	if err != nil {
		t.Skip(err)
	}
	return tool
}

func command(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// rawSize is one that VHD can express in cylinders: 250 of 4 heads of 17 sectors.
const rawSize = 250 * 4 * 17 * sector

// rawDisk makes a disk with a partition table, some data here and there, and holes.
func rawDisk(t testing.TB) string {
	file := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(rawSize); err != nil {
		t.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{1})
	for _, at := range []int64{sector * 8, 1 << 20, 5<<20 + 512, 8 << 20} {
		b := make([]byte, 100_000)
		r.Read(b)
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.WriteAt(partitioned(t)[:sector], 0); err != nil {
		t.Fatal(err)
	}
	return file
}

func digest(t testing.TB, file string) [32]byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

// kinds are the forms of images that QEMU can make of a raw disk.
var kinds = []struct {
	name, format string
	args         []string
}{
	{"qcow2 v3", "qcow2", []string{"-O", "qcow2"}},
	{"qcow2 v2", "qcow2", []string{"-O", "qcow2", "-o", "compat=0.10"}},
	{"qcow2 compressed", "qcow2", []string{"-c", "-O", "qcow2"}},
	{"qcow2 zstd", "qcow2", []string{"-c", "-O", "qcow2", "-o", "compression_type=zstd"}},
	{"qcow2 subclusters", "qcow2", []string{"-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k"}},
	{"qcow2 small clusters", "qcow2", []string{"-O", "qcow2", "-o", "cluster_size=512"}},
	{"vmdk sparse", "vmdk", []string{"-O", "vmdk"}},
	{"vmdk stream", "vmdk", []string{"-O", "vmdk", "-o", "subformat=streamOptimized"}},
	{"vhd dynamic", "vhd", []string{"-O", "vpc"}},
	{"vhd dynamic exact", "vhd", []string{"-O", "vpc", "-o", "force_size=on"}},
	{"vhd fixed", "vhd", []string{"-O", "vpc", "-o", "subformat=fixed,force_size=on"}},
	{"vhdx", "vhdx", []string{"-O", "vhdx"}},
	{"vhdx fixed", "vhdx", []string{"-O", "vhdx", "-o", "subformat=fixed"}},
	{"raw", "raw", []string{"-O", "raw"}},
}

// made is a disk image of that kind.
func made(t testing.TB, raw string, args ...string) string {
	file := filepath.Join(t.TempDir(), "image")
	command(t, needQEMU(t), append(append([]string{"convert", "-f", "raw"}, args...), raw, file)...)
	return file
}

// converted runs Convert on a file, and returns the name of what comes out.
func converted(t testing.TB, file, format string, limits Limits) (string, error) {
	t.Helper()
	src, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return dst.Name(), Convert(ctx, dst, src, format, limits, Quiet)
}

func TestConvert(t *testing.T) {
	raw := rawDisk(t)
	want := digest(t, raw)
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			file := made(t, raw, kind.args...)
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, _ := f.Stat()
			if i, err := Probe(f, info.Size()); err != nil || i.Format != kind.format {
				t.Errorf("probed as %+v, %v", i, err)
			}
			out, err := converted(t, file, kind.format, small)
			if err != nil {
				t.Fatal(err)
			}
			if digest(t, out) != want {
				t.Error("the disk that comes out is another one")
			}
		})
	}
}

func TestConvertIsSparse(t *testing.T) {
	for _, format := range []string{"qcow2", "raw"} {
		out, err := converted(t, made(t, rawDisk(t), "-O", format), format, small)
		if err != nil {
			t.Fatal(err)
		}
		if used := allocated(t, out); used > 1<<20 {
			t.Errorf("%s: 0.4 MB of data take %d bytes", format, used)
		}
	}
}

func TestConvertShowsProgress(t *testing.T) {
	src, err := os.Open(made(t, rawDisk(t), "-O", "qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	last, calls := int64(-1), 0
	err = Convert(t.Context(), dst, src, "qcow2", small, func(step string, done, total int64) {
		if done < last || total != 10000 || !strings.Contains(step, "qcow2") {
			t.Errorf("%s: %d of %d after %d", step, done, total, last)
		}
		last, calls = done, calls+1
	})
	if err != nil || last != 10000 || calls < 3 {
		t.Errorf("%d calls, the last of %d: %v", calls, last, err)
	}
}

func TestConvertIsCancelled(t *testing.T) {
	src, err := os.Open(made(t, rawDisk(t), "-O", "qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var bad *BadImageError
	if err := Convert(ctx, dst, src, "qcow2", small, Quiet); !errors.Is(err, context.Canceled) || errors.As(err, &bad) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestPercents(t *testing.T) {
	var got []int64
	p := &percents{step: "x", show: func(_ string, done, _ int64) { got = append(got, done) }}
	all := "    (0.00/100%)\r    (1.50/100%)\r    (1.50/100%)\r  (99.99/100%)\r (100.00/100%)\r\n"
	for len(all) > 0 {
		n := min(7, len(all))
		p.Write([]byte(all[:n]))
		all = all[n:]
	}
	if want := []int64{150, 9999, 10000}; len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("%v, want %v", got, want)
	}
	p.Write(bytes.Repeat([]byte("(("), 1<<16))
	if len(p.rest) > 1<<10 {
		t.Errorf("%d bytes kept of what is no progress", len(p.rest))
	}
}

// allocated is what a file takes on the disk, in bytes.
func allocated(t testing.TB, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}
