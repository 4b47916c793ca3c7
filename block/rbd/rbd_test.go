package rbd

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"mallee/block"
	"mallee/block/blocktest"
	"mallee/nbd"
)

// fresh is where a test's disks are: a namespace of the cluster that test/ceph.sh
// has brought up.
func fresh(t *testing.T) Options {
	t.Helper()
	conf := os.Getenv("MALLEE_CEPH_CONF")
	if conf == "" {
		t.Skip("MALLEE_CEPH_CONF names no cluster; make ceph brings one up")
	}
	name := strings.ToLower(strings.NewReplacer("/", "-", "#", "-").Replace(t.Name()))
	return Options{
		Conf: conf, User: "admin", Pool: "mallee", Namespace: fmt.Sprintf("%s-%d", name, os.Getpid()), Log: slog.New(slog.DiscardHandler),
	}
}

func open(t *testing.T, o Options) *Disks {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
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

func base(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "base.raw")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConformance(t *testing.T) {
	blocktest.Run(t, func(t *testing.T) blocktest.Store {
		o := fresh(t)
		return blocktest.Store{
			Open:   func(t *testing.T) block.Disks { return open(t, o) },
			Base:   base,
			Source: source,
			Write: func(t *testing.T, _ block.Disk, at block.Attachment, offset int64, data []byte) {
				qemuIO(t, at, fmt.Sprintf("write -s %s %d %d", base(t, data), offset, len(data)))
			},
			Read: func(t *testing.T, _ block.Disk, at block.Attachment, offset int64, length int) []byte {
				return dumped(t, qemuIO(t, at, fmt.Sprintf("read -v %d %d", offset, length)), length)
			},
			Fill: func(t *testing.T, _ block.Disk, at block.Attachment) {
				run(t, "qemu-img", append(opened(t, at, "rebase", "--image-opts"), "-b", "")...)
			},
		}
	})
}

// opened is how QEMU's tools open a disk: by themselves, from its header alone.
func opened(t *testing.T, at block.Attachment, args ...string) []string {
	t.Helper()
	options := fmt.Sprintf("driver=%s,file.driver=rbd,file.conf=%s,file.user=%s,file.pool=%s,file.namespace=%s,file.image=%s",
		at.Format, at.RBD.Conf, at.RBD.User, at.RBD.Pool, at.RBD.Namespace, at.RBD.Image)
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

func qemuIO(t *testing.T, at block.Attachment, command string) []byte {
	t.Helper()
	out := run(t, "qemu-io", opened(t, at, "--image-opts", "-c", command)...)
	if bytes.Contains(out, []byte("failed")) {
		t.Fatalf("qemu-io says %s", out)
	}
	return out
}

// dumped are the bytes that qemu-io has printed.
func dumped(t *testing.T, out []byte, length int) (data []byte) {
	t.Helper()
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

// exports is one that begins with content.
type exports []byte

func (e exports) Open(context.Context, string) (nbd.Export, func(), error) { return e, func() {}, nil }
func (e exports) Size() int64                                              { return blocktest.MiB }
func (e exports) ReadOnly() bool                                           { return true }
func (e exports) WriteAt(context.Context, []byte, int64) error             { return syscall.EROFS }
func (e exports) Zero(context.Context, int64, int64) error                 { return syscall.EROFS }
func (e exports) Flush(context.Context) error                              { return nil }
func (e exports) Extent(_ context.Context, offset int64) (int64, bool) {
	return blocktest.MiB - offset, false
}

func (e exports) ReadAt(_ context.Context, p []byte, offset int64) error {
	clear(p)
	if offset < int64(len(e)) {
		copy(p, e[offset:])
	}
	return nil
}

func source(t *testing.T, content []byte) block.Source {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "nbd.sock")
	server, err := nbd.Serve(socket, exports(content), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return block.Source{Socket: socket, Export: "snap-1", Size: blocktest.MiB}
}

// TestCutOff: what a program that was killed while it made a disk leaves is in
// nobody's way, and goes.
func TestCutOff(t *testing.T) {
	o := fresh(t)
	s := open(t, o)
	d := block.Disk{Name: "vol", Size: 1 << 30}
	if _, err := s.Ensure(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := s.move(t.Context(), "vol", tempPrefix+"vol.1"); err != nil {
		t.Fatal(err)
	}
	// A rename first writes which image the new name is.
	id := filepath.Join(t.TempDir(), "id")
	rados := []string{"--conf", o.Conf, "--id", o.User, "-p", o.Pool, "-N", o.Namespace}
	run(t, "rados", append(rados, "get", "rbd_id."+tempPrefix+"vol.1", id)...)
	run(t, "rados", append(rados, "put", "rbd_id.vol", id)...)
	if names, err := s.List(t.Context()); err != nil || len(names) > 0 {
		t.Errorf("List = %q, %v: want none", names, err)
	}
	s = open(t, o)
	if _, err := s.Ensure(t.Context(), d); err != nil {
		t.Error(err)
	}
	if images, err := s.images(t.Context()); err != nil || !slices.Equal(images, []string{"vol"}) {
		t.Errorf("there are %q, %v: want the disk alone", images, err)
	}
}

// TestBitmapsOutliveGrowth: also where QEMU was killed, and left one that says nothing.
func TestBitmapsOutliveGrowth(t *testing.T) {
	s := open(t, fresh(t))
	d := block.Disk{Name: "vol", Size: 1 << 30, Key: bytes.Repeat([]byte{7}, block.KeySize)}
	at, err := s.Ensure(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	bitmap := func(name string) {
		run(t, "qemu-img", append(opened(t, at, "bitmap", "--add", "--image-opts"), name)...)
	}
	bitmap("m1")
	run(t, "qemu-io", opened(t, at, "--image-opts", "-c", "write 0 64k", "-c", "flush")...)
	killed := exec.CommandContext(t.Context(), "qemu-io", opened(t, at, "--image-opts", "-c", "write 0 64k", "-c", "sigraise 9")...)
	if out, err := killed.CombinedOutput(); err == nil {
		t.Fatalf("qemu-io was not killed: %s", out)
	}
	bitmap("m2")
	d.Size = 2 << 30
	if _, err := s.Ensure(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	var info struct {
		Size   int64 `json:"virtual-size"`
		Detail struct {
			Data struct {
				Bitmaps []struct {
					Name  string
					Flags []string
				}
			}
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(run(t, "qemu-img", opened(t, at, "info", "--output=json", "--image-opts")...), &info); err != nil {
		t.Fatal(err)
	}
	b := info.Detail.Data.Bitmaps
	if info.Size != d.Size || len(b) != 1 || b[0].Name != "m2" || slices.Contains(b[0].Flags, "in-use") {
		t.Errorf("of %d bytes with the bitmaps %+v, want %d bytes and m2", info.Size, b, d.Size)
	}
	run(t, "qemu-img", opened(t, at, "check", "--image-opts")...)
}

// TestAnotherCluster: a cloud whose volumes are elsewhere gets no empty ones.
func TestAnotherCluster(t *testing.T) {
	o := fresh(t)
	o.Known = true
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), o.Namespace) {
		t.Errorf("opened, or not for the namespace: %v", err)
	}
	o.Known, o.Pool = false, "nowhere"
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("opened, or not for the pool: %v", err)
	}
}
