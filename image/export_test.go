package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mallee/cloud"
)

// exported writes a raw disk in that format into a new file of its own folder.
func exported(t testing.TB, raw, format string, m Machine) (string, error) {
	t.Helper()
	src, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	return dst.Name(), Export(context.Background(), dst, src, format, m, small, Quiet)
}

// What is exported, QEMU takes for the same disk, and Prepare makes the same disk of it again.
func TestExport(t *testing.T) {
	raw := rawDisk(t)
	qemu := map[string]string{"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vpc", "vhdx": "vhdx"}
	for _, format := range ExportFormats {
		t.Run(format, func(t *testing.T) {
			needQEMU(t)
			file, err := exported(t, raw, format, Machine{Name: "my machine", BootMode: cloud.UEFI, Architecture: "x86_64"})
			if err != nil {
				t.Fatal(err)
			}
			if name := qemu[format]; name != "" {
				command(t, needQEMU(t), "compare", "-f", name, "-F", "raw", file, raw)
			}
			found, p, err := prepared(t, file, small)
			if err != nil || digest(t, p.Files.Disk) != digest(t, raw) {
				t.Fatalf("read again: %+v, %v", found, err)
			}
			if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
			if format == "ova" && (found.Archive != "ova" || found.BootMode != cloud.UEFI || found.Architecture != "x86_64" || found.Disks != 1) {
				t.Errorf("inspected as %+v", found)
			}
		})
	}
}

// The archive is one that tar and sha256sum take apart and verify.
func TestOVAByOtherTools(t *testing.T) {
	needQEMU(t)
	file, err := exported(t, rawDisk(t), "ova", Machine{Name: `a<b>&"c`})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	command(t, "tar", "-C", dir, "-xf", file)
	names, err := exec.Command("tar", "-tf", file).Output()
	if want := "a-b-c.ovf\na-b-c.mf\na-b-c-disk1.vmdk\n"; err != nil || string(names) != want {
		t.Errorf("has %q, %v", names, err)
	}
	sums := strings.NewReplacer("SHA256(", "SHA256 (", ")= ", ") = ").Replace(string(read(t, filepath.Join(dir, "a-b-c.mf"))))
	cmd := exec.Command("sha256sum", "--strict", "-c")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(sums)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v", out, err)
	}
}

// A disk whose guest wrote the header of another format on it stays that disk.
func TestExportNeverGuesses(t *testing.T) {
	needQEMU(t)
	b := make([]byte, 1<<20)
	copy(b, backed(t)[:8192])
	for _, format := range []string{"raw", "qcow2", "vmdk", "vhd", "vhdx"} {
		file, err := exported(t, saved(t, b), format, Machine{})
		if err != nil {
			t.Fatal(err)
		}
		out := file
		if format != "raw" {
			if out, err = converted(t, file, format, small); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(read(t, out), b) {
			t.Errorf("%s: another disk comes out", format)
		}
	}
}

func TestExportRefuses(t *testing.T) {
	if _, err := exported(t, rawDisk(t), "vdi", Machine{}); err == nil || !strings.Contains(err.Error(), `"vdi"`) {
		t.Errorf("%v", err)
	}
	_, err := exported(t, saved(t, make([]byte, 1000)), "qcow2", Machine{})
	refused(t, err, "whole sectors")
	_, err = exported(t, saved(t, nil), "qcow2", Machine{})
	refused(t, err, "empty")
}

func TestExportIsCancelled(t *testing.T) {
	needQEMU(t)
	for _, format := range ExportFormats {
		src, err := os.Open(rawDisk(t))
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
		err = Export(ctx, dst, src, format, Machine{}, small, func(string, int64, int64) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", format, err)
		}
		if left, _ := os.ReadDir(filepath.Dir(dst.Name())); len(left) != 1 {
			t.Errorf("%s: left behind: %v", format, left)
		}
	}
}
