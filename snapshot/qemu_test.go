package snapshot

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mallee/blob/mem"
	"mallee/nbd"
)

// daemon is a qemu-storage-daemon that is spoken to over its standard streams.
type daemon struct {
	t   *testing.T
	in  *json.Encoder
	out *bufio.Scanner
	cmd *exec.Cmd
}

func startDaemon(t *testing.T, disk string) *daemon {
	t.Helper()
	if _, err := exec.LookPath("qemu-storage-daemon"); err != nil {
		t.Skip("qemu-storage-daemon is not installed (apt-get install qemu-system-common)")
	}
	cmd := exec.CommandContext(t.Context(), "qemu-storage-daemon", "--chardev", "stdio,id=q", "--monitor", "chardev=q",
		"--blockdev", "driver=qcow2,node-name=disk,file.driver=file,file.filename="+disk)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	d := &daemon{t, json.NewEncoder(stdin), bufio.NewScanner(stdout), cmd}
	if !d.out.Scan() {
		t.Fatal("no greeting")
	}
	d.do("qmp_capabilities", nil)
	return d
}

type object = map[string]any

func (d *daemon) do(command string, arguments object) {
	d.t.Helper()
	if arguments == nil {
		arguments = object{}
	}
	must(d.t, d.in.Encode(object{"execute": command, "arguments": arguments}))
	for d.out.Scan() {
		var answer struct{ Return, Error json.RawMessage }
		must(d.t, json.Unmarshal(d.out.Bytes(), &answer))
		if answer.Error != nil {
			d.t.Fatalf("%s: %s", command, answer.Error)
		}
		if answer.Return != nil {
			return
		}
	}
	d.t.Fatalf("%s: no answer", command)
}

// wait until a job has ended well.
func (d *daemon) wait(job string) {
	d.t.Helper()
	for d.out.Scan() {
		var event struct {
			Event string
			Data  struct{ Device, Error string }
		}
		must(d.t, json.Unmarshal(d.out.Bytes(), &event))
		if event.Event == "BLOCK_JOB_COMPLETED" && event.Data.Device == job {
			if event.Data.Error != "" {
				d.t.Fatalf("the job failed: %s", event.Data.Error)
			}
			if job != "fill" {
				d.do("blockdev-del", object{"node-name": "to-" + job})
			}
			return
		}
	}
	d.t.Fatal("the daemon ended")
}

func (d *daemon) quit() {
	d.t.Helper()
	d.do("quit", nil)
	must(d.t, d.cmd.Wait())
}

// backup begins to push the disk, as it is now, into an export: all of it, or what a
// bitmap says, while another begins.
func (d *daemon) backup(socket, since, mark string) {
	d.t.Helper()
	d.do("blockdev-add", object{"driver": "nbd", "node-name": "to-" + mark, "export": "sink", "reconnect-delay": 60,
		"server": object{"type": "unix", "path": socket}})
	job := object{"device": "disk", "target": "to-" + mark, "sync": "full", "job-id": mark}
	if since != "" {
		job["sync"], job["bitmap"], job["bitmap-mode"] = "bitmap", since, "on-success"
	}
	d.do("transaction", object{"actions": []object{
		{"type": "block-dirty-bitmap-add", "data": object{"node": "disk", "name": mark, "granularity": BlockSize, "persistent": true}},
		{"type": "blockdev-backup", "data": job},
	}})
}

// sink is one export, whose writes are counted.
type sink struct {
	nbd.Export
	writes, partial atomic.Int64
	reached         chan struct{} // closed with the write of that number
	limit           int64
}

func (s *sink) Open(_ context.Context, name string) (nbd.Export, func(), error) {
	if name != "sink" {
		return nil, nil, fs.ErrNotExist
	}
	return s, func() {}, nil
}

func (s *sink) WriteAt(ctx context.Context, p []byte, offset int64) error {
	if n := s.writes.Add(1); n == s.limit {
		close(s.reached)
	}
	if offset%BlockSize != 0 || len(p)%BlockSize != 0 {
		s.partial.Add(1)
	}
	return s.Export.WriteAt(ctx, p, offset)
}

func listen(t *testing.T, path string, s *sink) *nbd.Server {
	t.Helper()
	server, err := nbd.Serve(path, s, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { server.Close() })
	return server
}

func qemu(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil || bytes.Contains(out, []byte("failed")) {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// raw is what QEMU says that the disk holds.
func raw(t *testing.T, disk string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "raw")
	qemu(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, out)
	data, err := os.ReadFile(out)
	must(t, err)
	return data
}

// newDisk has noise, zeroes that are written and zeroes that never were, at
// offsets that are and aren't those of blocks.
func newDisk(t *testing.T, dir string) string {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is not installed (apt-get install qemu-utils)")
	}
	flat, disk := filepath.Join(dir, "flat"), filepath.Join(dir, "disk.qcow2")
	data := make([]byte, 48*MiB+3*4096)
	copy(data, noise(1, 10*MiB+12345))
	copy(data[20*MiB+4096:], noise(2, 9*MiB))
	copy(data[len(data)-5000:], noise(3, 5000))
	must(t, os.WriteFile(flat, data, 0o600))
	qemu(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k", flat, disk)
	qemu(t, "qemu-io", "-f", "qcow2", "-c", "write -P 0 40M 1M", disk)
	return disk
}

func TestQEMUPushesABackupAndWhatChanged(t *testing.T) {
	dir := t.TempDir()
	disk, socket := newDisk(t, dir), filepath.Join(dir, "s")
	s, _ := newStore(t)
	size := int64(len(raw(t, disk)))

	w := write(t, s, "first", size, nil)
	to := &sink{Export: w}
	server := listen(t, socket, to)
	d := startDaemon(t, disk)
	d.backup(socket, "", "m1")
	d.wait("m1")
	t.Logf("full: %d writes, %d of them in part", to.writes.Load(), to.partial.Load())
	first := commit(t, w)
	must(t, server.Close())
	d.quit()
	if !bytes.Equal(content(t, s, first), raw(t, disk)) {
		t.Fatal("the full backup has other bytes")
	}

	qemu(t, "qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 4k", "-c", "write -P 8 30M 600k", "-c", "write -z 2M 1M", "-c", fmt.Sprintf("write -P 9 %d 512", size-512), disk)
	w = write(t, s, "second", size, &first)
	to = &sink{Export: w}
	listen(t, socket, to)
	d = startDaemon(t, disk)
	d.backup(socket, "m1", "m2")
	d.wait("m2")
	d.quit()
	t.Logf("changes: %d writes, %d of them in part, %d bytes", to.writes.Load(), to.partial.Load(), w.Done())
	if w.Done() != 6*BlockSize {
		t.Errorf("%d bytes for changes in 6 blocks", w.Done())
	}
	if !bytes.Equal(content(t, s, commit(t, w)), raw(t, disk)) {
		t.Error("the backup of the changes has other bytes")
	}
}

// TestABackupGoesOnWithTheNextProgram ends the server and the store in the middle
// of a backup, without any orderly end, and begins them anew.
func TestABackupGoesOnWithTheNextProgram(t *testing.T) {
	dir, journals := t.TempDir(), t.TempDir()
	disk, socket := newDisk(t, dir), filepath.Join(dir, "s")
	blobs := mem.New()
	size := int64(len(raw(t, disk)))
	open := func(limit int64) (*Writer, *nbd.Server, *sink) {
		w := write(t, openStore(t, blobs, journals), "a", size, nil)
		to := &sink{Export: w, reached: make(chan struct{}), limit: limit}
		return w, listen(t, socket, to), to
	}
	_, server, to := open(7)
	d := startDaemon(t, disk)
	d.backup(socket, "", "m1")
	<-to.reached
	must(t, server.Close())
	w, _, _ := open(-1)
	if w.Done() == 0 {
		t.Error("nothing is left of what was done")
	}
	d.wait("m1")
	d.quit()
	if !bytes.Equal(content(t, w.store, commit(t, w)), raw(t, disk)) {
		t.Error("other bytes")
	}
}

// TestQEMUStreamsASnapshot fills a disk from a reader, with the store away at first.
func TestQEMUStreamsASnapshot(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	want := raw(t, newDisk(t, dir))
	s, blobs := newStore(t)
	c := keep(t, s, "a", want, nil)
	r, err := openStore(t, blobs, t.TempDir()).Read(t.Context(), c)
	must(t, err)
	listen(t, socket, &sink{Export: r})
	uri := nbd.URI(socket, "sink")
	blobs.broken.Store(true)
	out, err := exec.CommandContext(t.Context(), "qemu-io", "-r", "-f", "raw", "-c", "read 0 4k", uri).CombinedOutput()
	if !strings.Contains(string(out), "Input/output error") {
		t.Errorf("reading while the store is away: %v, %s", err, out)
	}
	blobs.broken.Store(false)
	disk := filepath.Join(dir, "volume.qcow2")
	qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", uri, "-F", "raw", disk)
	d := startDaemon(t, disk)
	begun := time.Now()
	d.do("block-stream", object{"device": "disk", "job-id": "fill"})
	d.wait("fill")
	t.Logf("streamed %d bytes in %v", len(want), time.Since(begun))
	d.quit()
	if !bytes.Equal(raw(t, disk), want) {
		t.Error("other bytes")
	}
}
