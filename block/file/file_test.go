package file_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"mallee/block"
	"mallee/block/blocktest"
	"mallee/block/file"
	"mallee/nbd"
)

// needs skips where a program of QEMU's is not installed.
func needs(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed (apt-get install qemu-utils)", program)
	}
}

func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	var stderr bytes.Buffer
	command := exec.CommandContext(t.Context(), name, args...)
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return out
}

func base(t testing.TB, content []byte) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "base-*.raw")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func TestConformance(t *testing.T) {
	needs(t, "qemu-io")
	blocktest.Run(t, func(t *testing.T) blocktest.Store {
		dir := filepath.Join(t.TempDir(), "disks")
		return blocktest.Store{
			Open:   func(t *testing.T) block.Disks { return open(t, dir) },
			Base:   func(t *testing.T, content []byte) string { return base(t, content) },
			Source: source,
			Write: func(t *testing.T, _ block.Disk, at block.Attachment, offset int64, data []byte) {
				qemuIO(t, at, fmt.Sprintf("write -s %s %d %d", base(t, data), offset, len(data)))
			},
			Read: func(t *testing.T, _ block.Disk, at block.Attachment, offset int64, length int) []byte {
				return read(t, at, offset, length)
			},
			Fill: func(t *testing.T, _ block.Disk, at block.Attachment) {
				run(t, "qemu-img", append(opened(t, at, "rebase", "--image-opts"), "-b", "")...)
			},
		}
	})
}

func open(t testing.TB, dir string) *file.Disks {
	t.Helper()
	disks, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return disks
}

// opened is how QEMU's tools open a disk: by themselves, from its header alone.
func opened(t *testing.T, at block.Attachment, args ...string) []string {
	t.Helper()
	options := "driver=" + at.Format + ",file.driver=file,file.filename=" + at.Path
	if len(at.Key) > 0 {
		secret := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(secret, []byte(block.Passphrase(at.Key)), 0o600); err != nil {
			t.Fatal(err)
		}
		options += ",encrypt.format=luks,encrypt.key-secret=k"
		args = append(args, "--object", "secret,id=k,file="+secret)
	}
	return append(args, options)
}

func qemuIO(t *testing.T, at block.Attachment, commands ...string) {
	t.Helper()
	args := []string{"--image-opts"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	if out := run(t, "qemu-io", opened(t, at, args...)...); bytes.Contains(out, []byte("failed")) {
		t.Fatalf("qemu-io says %s", out)
	}
}

// read has qemu-io read a range of a disk.
func read(t *testing.T, at block.Attachment, offset int64, length int) []byte {
	t.Helper()
	out := run(t, "qemu-io", opened(t, at, "--image-opts", "-r", "-c", fmt.Sprintf("read -v %d %d", offset, length))...)
	var data []byte
	for line := range strings.Lines(string(out)) {
		address, rest, ok := strings.Cut(line, ":  ")
		if _, err := strconv.ParseUint(address, 16, 64); !ok || err != nil || len(rest) < 48 {
			continue
		}
		row, err := hex.DecodeString(strings.ReplaceAll(rest[:48], " ", ""))
		if err != nil {
			t.Fatalf("qemu-io says %q", line)
		}
		data = append(data, row...)
	}
	if len(data) != length {
		t.Fatalf("read %d bytes, want %d: %s", len(data), length, out)
	}
	return data
}

// exports are bytes that begin with what there is, of MiB in all.
type exports []byte

func (e exports) Open(context.Context, string) (nbd.Export, func(), error) { return e, func() {}, nil }
func (e exports) Size() int64                                              { return blocktest.MiB }
func (e exports) ReadOnly() bool                                           { return true }

func (e exports) ReadAt(_ context.Context, p []byte, offset int64) error {
	clear(p)
	copy(p, e[min(offset, int64(len(e))):])
	return nil
}

func (e exports) Extent(_ context.Context, offset int64) (int64, bool) {
	return blocktest.MiB - offset, offset >= int64(len(e))
}

func (e exports) WriteAt(context.Context, []byte, int64) error { return syscall.EROFS }
func (e exports) Zero(context.Context, int64, int64) error     { return syscall.EROFS }
func (e exports) Flush(context.Context) error                  { return nil }

func source(t *testing.T, content []byte) block.Source {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "a,b&c.sock")
	server, err := nbd.Serve(socket, exports(content), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return block.Source{Socket: socket, Export: "snap-1", Size: blocktest.MiB}
}

// TestQEMUAgrees asks QEMU what it thinks of what we wrote.
func TestQEMUAgrees(t *testing.T) {
	needs(t, "qemu-img")
	disks, err := file.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	raw := base(t, bytes.Repeat([]byte("base"), 1024))
	for i, d := range []block.Disk{
		{Size: 512},
		{Size: 4096, Base: raw},
		{Size: 5 << 30, Base: raw},
		{Size: 40 << 30, Base: raw},
		{Size: 1<<30 + 512},
		{Size: 16 << 40, Base: raw},
	} {
		d.Name = fmt.Sprintf("disk-%d", i)
		at, err := disks.Ensure(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		var check struct {
			Errors int64 `json:"check-errors"`
			Leaks  int64 `json:"leaks"`
		}
		unmarshal(t, run(t, "qemu-img", "check", "--output=json", at.Path), &check)
		if check.Errors != 0 || check.Leaks != 0 {
			t.Errorf("%+v: qemu-img check says %+v", d, check)
		}
		var info struct {
			Format  string `json:"format"`
			Size    int64  `json:"virtual-size"`
			Cluster int    `json:"cluster-size"`
			Base    string `json:"full-backing-filename"`
			BaseFmt string `json:"backing-filename-format"`
			Detail  struct {
				Data struct {
					Extended bool `json:"extended-l2"`
				} `json:"data"`
			} `json:"format-specific"`
		}
		unmarshal(t, run(t, "qemu-img", "info", "--output=json", at.Path), &info)
		if info.Format != "qcow2" || info.Size != d.Size || info.Base != d.Base || info.Cluster != 128<<10 ||
			!info.Detail.Data.Extended || (d.Base != "") != (info.BaseFmt == "raw") {
			t.Errorf("%+v: qemu-img info says %+v", d, info)
		}
	}
}

// TestQEMUsOwn reads what qemu-img wrote, and refuses what it should not trust.
func TestQEMUsOwn(t *testing.T) {
	needs(t, "qemu-img")
	dir := t.TempDir()
	disks, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	raw := base(t, make([]byte, 4096))
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", dir+"/good.qcow2", "1M")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", dir+"/good.qcow2", "-F", "qcow2", dir+"/chain.qcow2", "1M")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", dir+"/old.qcow2", "1M")
	if err := os.WriteFile(dir+"/garbage.qcow2", []byte("not a disk, by far not, but long enough to be read as if it had a header of its own, which it has not"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		disk block.Disk
		ok   bool
	}{
		{block.Disk{Name: "good", Base: raw, Size: 1 << 20}, true},
		{block.Disk{Name: "chain", Base: dir + "/good.qcow2", Size: 1 << 20}, false},
		{block.Disk{Name: "old", Size: 1 << 20}, false},
		{block.Disk{Name: "garbage", Size: 1 << 20}, false},
	} {
		if _, err := disks.Ensure(t.Context(), test.disk); (err == nil) != test.ok {
			t.Errorf("Ensure(%+v): %v, want ok %t", test.disk, err, test.ok)
		}
	}
}

func unmarshal(t *testing.T, data []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(data, to); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}

func TestModesAndLeftovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disks")
	disks, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	at, err := disks.Ensure(t.Context(), block.Disk{Name: "root", Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, at.Path: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v (%v), want %v", path, info.Mode(), err, want)
		}
	}
	half := filepath.Join(dir, ".new-other")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if names, err := disks.List(t.Context()); err != nil || len(names) != 1 {
		t.Errorf("List = %q, %v with a half-made disk beside, want the whole one", names, err)
	}
	if _, err := file.Open(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half-made disk is there after Open: %v", err)
	}
	if _, err := os.Stat(at.Path); err != nil {
		t.Errorf("the whole disk: %v", err)
	}
}

const fullDir = "MALLEE_TEST_FULL_DIR" // set in the child of TestNoSpace: where it may mount

// TestNoSpace runs itself in a mount namespace of its own (and a user
// namespace, where it isn't root), on a file system of two pages.
func TestNoSpace(t *testing.T) {
	if dir := os.Getenv(fullDir); dir != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8k"); err != nil {
			t.Skipf("mounting a small file system: %v", err)
		}
		ensureOnFull(t, dir)
		return
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoSpace$", "-test.v")
	child.Env = append(os.Environ(), fullDir+"="+t.TempDir())
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		child.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skipf("no namespace to mount a small file system in: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skipf("%s", out)
	}
}

func ensureOnFull(t *testing.T, dir string) {
	disks, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = disks.Ensure(t.Context(), block.Disk{Name: "root", Size: 1 << 30})
	var full *block.NoSpaceError
	if !errors.As(err, &full) {
		t.Errorf("Ensure on a full file system: %v, want a NoSpaceError", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func BenchmarkEnsure(b *testing.B) {
	disks, err := file.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	raw := base(b, make([]byte, 4096))
	for i := 0; b.Loop(); i++ {
		if _, err := disks.Ensure(b.Context(), block.Disk{Name: fmt.Sprintf("d-%d", i), Base: raw, Size: 40 << 30}); err != nil {
			b.Fatal(err)
		}
	}
	usage, err := disks.Usage(b.Context(), "d-0")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(usage), "bytes/disk")
}

func BenchmarkEnsureAgain(b *testing.B) {
	disks, err := file.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := disks.Ensure(b.Context(), block.Disk{Name: "root", Size: 40 << 30}); err != nil {
			b.Fatal(err)
		}
	}
}
