package file_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"testing"

	"mallee/block"
)

// bitmaps of a disk, by what qemu-img says: whole ones and broken ones.
func bitmaps(t *testing.T, path string) (whole, broken []string) {
	t.Helper()
	var info struct {
		Detail struct {
			Data struct {
				Bitmaps []struct {
					Name  string
					Flags []string
				}
			}
		} `json:"format-specific"`
	}
	unmarshal(t, run(t, "qemu-img", "info", "--output=json", path), &info)
	for _, b := range info.Detail.Data.Bitmaps {
		if slices.Contains(b.Flags, "in-use") {
			broken = append(broken, b.Name)
		} else {
			whole = append(whole, b.Name)
		}
	}
	return whole, broken
}

// TestBitmapsOutliveGrowth: a snapshot after the growth is one of what changed.
func TestBitmapsOutliveGrowth(t *testing.T) {
	needs(t, "qemu-io")
	for name, key := range map[string][]byte{"plain": nil, "encrypted": bytes.Repeat([]byte{7}, block.KeySize)} {
		t.Run(name, func(t *testing.T) {
			disks := open(t, t.TempDir())
			d := block.Disk{Name: "vol", Size: 1 << 30, Key: key}
			at, err := disks.Ensure(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			run(t, "qemu-img", append(opened(t, at, "bitmap", "--add", "-g", "512k", "--image-opts"), "m1")...)
			for _, size := range []int64{d.Size, 2 << 30, 700 << 30} { // beyond 512 GiB the bitmap takes another cluster
				d.Size = size
				if _, err := disks.Ensure(t.Context(), d); err != nil {
					t.Fatal(err)
				}
				if whole, broken := bitmaps(t, at.Path); !slices.Equal(whole, []string{"m1"}) || len(broken) > 0 {
					t.Errorf("of %d bytes: bitmaps %q, broken %q", size, whole, broken)
				}
			}
			qemuIO(t, at, "write 699G 64k")
			run(t, "qemu-img", opened(t, at, "check", "--image-opts")...)
		})
	}
}

// TestBrokenBitmapsGo: a QEMU that was killed leaves its bitmaps marked as in use.
func TestBrokenBitmapsGo(t *testing.T) {
	needs(t, "qemu-storage-daemon")
	disks := open(t, t.TempDir())
	d := block.Disk{Name: "vol", Size: 1 << 30}
	at, err := disks.Ensure(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "bitmap", "--add", at.Path, "m1")
	kill(t, at)
	run(t, "qemu-img", "bitmap", "--add", at.Path, "m2")
	if _, broken := bitmaps(t, at.Path); !slices.Equal(broken, []string{"m1"}) {
		t.Fatalf("broken bitmaps: %q", broken)
	}
	if _, err := disks.Ensure(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	d.Size = 2 << 30
	if _, err := disks.Ensure(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if whole, broken := bitmaps(t, at.Path); !slices.Equal(whole, []string{"m2"}) || len(broken) > 0 {
		t.Errorf("bitmaps %q, broken %q, want the whole one", whole, broken)
	}
	run(t, "qemu-img", "check", at.Path)
}

// kill a QEMU that has the disk open.
func kill(t *testing.T, at block.Attachment) {
	t.Helper()
	daemon := exec.CommandContext(t.Context(), "qemu-storage-daemon", "--chardev", "stdio,id=q", "--monitor", "chardev=q",
		"--blockdev", "driver=qcow2,node-name=d,file.driver=file,file.filename="+at.Path)
	in, err := daemon.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte(`{"execute":"qmp_capabilities"}`)); err != nil {
		t.Fatal(err)
	}
	answers := json.NewDecoder(out)
	for range 2 { // the greeting comes when the disk is open
		var answer map[string]any
		if err := answers.Decode(&answer); err != nil {
			t.Fatal(err)
		}
	}
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	daemon.Wait()
}

func TestEncryptedBytesAreNotOnTheDisk(t *testing.T) {
	needs(t, "qemu-io")
	disks := open(t, t.TempDir())
	key := bytes.Repeat([]byte{9}, block.KeySize)
	at, err := disks.Ensure(t.Context(), block.Disk{Name: "vol", Size: 1 << 20, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	qemuIO(t, at, "write -P 0x5a 0 1M")
	data, err := os.ReadFile(at.Path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, bytes.Repeat([]byte{0x5a}, 64)) || bytes.Contains(data, key) || bytes.Contains(data, []byte(block.Passphrase(key))) {
		t.Error("what was written, or the key, is in the file")
	}
	if info, err := os.Stat(at.Path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	at.Key = bytes.Repeat([]byte{8}, block.KeySize)
	if out, err := exec.CommandContext(t.Context(), "qemu-io", opened(t, at, "--image-opts", "-c", "read 0 512")...).CombinedOutput(); err == nil {
		t.Errorf("another key opens it: %s", out)
	}
}
