package qemu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"mallee/block"
	"mallee/block/file"
	"mallee/hypervisor"
	"mallee/hypervisor/hypervisortest"
	"mallee/nbd"
)

// exports is an NBD server's, by name.
type exports struct {
	socket string

	mu  sync.Mutex // guards all
	all map[string]*memory
}

// memory is bytes in memory that remember which blocks were written.
type memory struct {
	readOnly bool
	fails    bool
	stalls   chan struct{} // if any, writes wait until it is closed, and fail
	once     sync.Once     // for closing it

	mu       sync.Mutex // guards what follows
	data     []byte
	touched  map[int64]bool
	received int64 // bytes of data
	broken   bool  // reads fail
}

func (e *exports) Open(_ context.Context, name string) (nbd.Export, func(), error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if one := e.all[name]; one != nil {
		return one, func() {}, nil
	}
	return nil, nil, fs.ErrNotExist
}

func (e *exports) add(one *memory) (name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	name = fmt.Sprintf("export-%d", len(e.all))
	e.all[name] = one
	return name
}

func (e *memory) hangUp() {
	if e.stalls != nil {
		e.once.Do(func() { close(e.stalls) })
	}
}

func (e *memory) Size() int64    { return int64(len(e.data)) }
func (e *memory) ReadOnly() bool { return e.readOnly }

func (e *memory) ReadAt(_ context.Context, p []byte, offset int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken {
		return errors.New("the test has broken it")
	}
	copy(p, e.data[offset:])
	return nil
}

func (e *memory) change(ctx context.Context, offset, length int64, do func([]byte)) error {
	if e.fails {
		return errors.New("the test wants it to fail")
	}
	if e.stalls != nil {
		select {
		case <-e.stalls:
			return errors.New("the test has hung up")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for b := offset / hypervisor.Granularity; b*hypervisor.Granularity < offset+length; b++ {
		e.touched[b] = true
	}
	do(e.data[offset : offset+length])
	return nil
}

func (e *memory) WriteAt(ctx context.Context, p []byte, offset int64) error {
	return e.change(ctx, offset, int64(len(p)), func(to []byte) {
		e.received += int64(len(p))
		copy(to, p)
	})
}

func (e *memory) Zero(ctx context.Context, offset, length int64) error {
	return e.change(ctx, offset, length, func(to []byte) { clear(to) })
}

func (e *memory) Flush(context.Context) error { return nil }

func (e *memory) Extent(_ context.Context, offset int64) (int64, bool) {
	return e.Size() - offset, false
}

// serve is an NBD server for a test.
func serve(t testing.TB) *exports {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd") // short enough for a socket's address
	if err != nil {
		t.Fatal(err)
	}
	e := &exports{socket: filepath.Join(dir, "nbd.sock"), all: map[string]*memory{}}
	server, err := nbd.Serve(e.socket, e, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.mu.Lock()
		for _, one := range e.all {
			one.hangUp()
		}
		e.mu.Unlock()
		if err := errors.Join(server.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return e
}

// sourced serves bytes to a disk.
func (e *exports) source(content []byte) (block.Source, *memory) {
	one := &memory{readOnly: true, data: slices.Clone(content)}
	return block.Source{Socket: e.socket, Export: e.add(one), Size: int64(len(content))}, one
}

func (e *exports) sink(b hypervisortest.Behaviour, size int64) (hypervisortest.Sink, *memory) {
	one := &memory{data: make([]byte, size), touched: map[int64]bool{}, fails: b == hypervisortest.Fails}
	if b == hypervisortest.Stalls {
		one.stalls = make(chan struct{})
	}
	return hypervisortest.Sink{
		Socket: e.socket,
		Export: e.add(one),
		HangUp: one.hangUp,
		Bytes: func() []byte {
			one.mu.Lock()
			defer one.mu.Unlock()
			return slices.Clone(one.data)
		},
		Touched: func() []int64 {
			one.mu.Lock()
			defer one.mu.Unlock()
			return slices.Sorted(maps.Keys(one.touched))
		},
	}, one
}

// newDisk makes a disk as a node would.
func newDisk(t testing.TB, serial string, wish block.Disk) hypervisor.Disk {
	t.Helper()
	disks, err := file.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	wish.Name = serial
	if wish.Size == 0 {
		wish.Size = hypervisortest.DiskSize
	}
	a, err := disks.Ensure(t.Context(), wish)
	if err != nil {
		t.Fatal(err)
	}
	return hypervisor.Disk{Serial: serial, Attachment: a}
}

// sourcedDisk makes a disk that stands on a source, as large, without the
// subclusters that QEMU (7.2) does not survive the filling of.
func sourcedDisk(t testing.TB, serial string, source block.Source) hypervisor.Disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), serial+".qcow2")
	out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", "raw",
		"-b", nbd.URI(source.Socket, source.Export), path, fmt.Sprint(source.Size)).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	return hypervisor.Disk{Serial: serial, Attachment: block.Attachment{Format: "qcow2", Path: path, Source: source}}
}

func testStorage(t *testing.T) hypervisortest.Storage {
	server := serve(t)
	return hypervisortest.Storage{
		Disk: func(t *testing.T, serial string) hypervisor.Disk { return newDisk(t, serial, block.Disk{}) },
		From: func(t *testing.T, serial string, content []byte) (hypervisor.Disk, func()) {
			source, one := server.source(content)
			return sourcedDisk(t, serial, source), func() {
				one.mu.Lock()
				defer one.mu.Unlock()
				one.broken = true
			}
		},
		Write: writeKeeper,
		Read:  readDisk,
		Sink: func(_ *testing.T, b hypervisortest.Behaviour) hypervisortest.Sink {
			sink, _ := server.sink(b, hypervisortest.DiskSize)
			return sink
		},
		Crash: func(t *testing.T, dir string) {
			h, err := Open(Options{Accel: testAccel, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			m, err := h.await(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.process.signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-m.process.gone
		},
	}
}

// writeKeeper writes through an export of the keeper's process, which is
// nothing to be done where there is a guest.
func writeKeeper(t *testing.T, h hypervisor.Hypervisor, dir string, d hypervisor.Disk, offset int64, p []byte) {
	t.Helper()
	m, err := h.(*Hypervisor).await(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := os.MkdirTemp("", "keeper")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(sockets)
	socket := filepath.Join(sockets, "nbd.sock")
	if err := m.orders(t.Context(),
		step{"nbd-server-start", arguments{"addr": arguments{"type": "unix", "data": arguments{"path": socket}}}},
		step{"block-export-add", arguments{"type": "nbd", "id": "test", "node-name": diskPrefix + d.Serial, "name": "test", "writable": true}},
	); err != nil {
		t.Fatal(err)
	}
	pattern := filepath.Join(sockets, "pattern")
	if err := os.WriteFile(pattern, p, 0o600); err != nil {
		t.Fatal(err)
	}
	qemuIO(t, nbd.URI(socket, "test"), fmt.Sprintf("write -s %s %d %d", pattern, offset, len(p)))
	if err := m.orders(t.Context(), step{"block-export-del", arguments{"id": "test", "mode": "hard"}}); err != nil {
		t.Fatal(err)
	}
	until(t.Context(), func(ctx context.Context) (bool, error) {
		var exports []any
		err := m.order(ctx, "query-block-exports", nil, &exports)
		return len(exports) == 0, err
	})
	if err := m.orders(t.Context(), step{"nbd-server-stop", nil}); err != nil {
		t.Fatal(err)
	}
}

// needsTools skips where QEMU's tools for disks are missing.
func needsTools(t testing.TB) {
	t.Helper()
	for _, name := range []string{"qemu-img", "qemu-io", defaultKeeper} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed (apt-get install qemu-utils qemu-system-common)", name)
		}
	}
}

func qemuIO(t testing.TB, where string, commands ...string) {
	t.Helper()
	args := []string{"-f", "raw"}
	for _, c := range append(commands, "flush") {
		args = append(args, "-c", c)
	}
	out, err := exec.CommandContext(t.Context(), "qemu-io", append(args, where)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "failed") {
		t.Fatalf("qemu-io %q: %v\n%s", commands, err, out)
	}
}

// readDisk reads all of a disk that stands on its own, by QEMU's own tool.
func readDisk(t *testing.T, d hypervisor.Disk) []byte {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	args := []string{"convert", "-O", "raw", "-f", d.Attachment.Format, d.Attachment.Path, raw}
	if key := d.Attachment.Key; len(key) > 0 {
		args = []string{"convert", "-O", "raw", "--object", "secret,id=key,data=" + block.Passphrase(key), "--image-opts",
			"driver=qcow2,encrypt.format=luks,encrypt.key-secret=key,file.filename=" + d.Attachment.Path, raw}
	}
	if out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	content, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestEncryptedDisk has a disk at the start and one that is plugged.
func TestEncryptedDisk(t *testing.T) {
	needsTools(t)
	h := openTest(t)
	defer h.Close()
	key := make([]byte, block.KeySize)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	one, two := newDisk(t, "vol-1", block.Disk{Key: key}), newDisk(t, "vol-2", block.Disk{Key: key})
	m := hypervisor.Machine{ID: "k", Dir: t.TempDir(), Disks: []hypervisor.Disk{one}}
	killLater(t, m.Dir)
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", h.machines[m.Dir].process.pid))
	if err != nil || strings.Contains(string(command), block.Passphrase(key)) {
		t.Errorf("the command line tells the key: %q, %v", command, err)
	}
	for range 2 { // objects come and go with the disk
		if err := h.Plug(t.Context(), m.Dir, two); err != nil {
			t.Fatal(err)
		}
		if err := h.Unplug(t.Context(), m.Dir, "vol-2", false); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Plug(t.Context(), m.Dir, two); err != nil {
		t.Fatal(err)
	}
	secret := []byte(strings.Repeat("not for others' eyes ", 200))
	for _, d := range []hypervisor.Disk{one, two} {
		writeKeeper(t, h, m.Dir, d, 4096, secret[:4096])
	}
	if err := h.Kill(t.Context(), m.Dir); err != nil {
		t.Fatal(err)
	}
	for _, d := range []hypervisor.Disk{one, two} {
		stored, err := os.ReadFile(d.Attachment.Path)
		if err != nil || strings.Contains(string(stored), "others' eyes") {
			t.Errorf("%s has the bytes as they are (%v)", d.Serial, err)
		}
		if content := readDisk(t, d); string(content[4096:8192]) != string(secret[:4096]) {
			t.Errorf("%s, decrypted, begins %q", d.Serial, content[4096:4136])
		}
	}
}

// TestCopyWithoutServer begins nothing.
func TestCopyWithoutServer(t *testing.T) {
	needsTools(t)
	h := openTest(t)
	defer h.Close()
	server := serve(t)
	one, two := newDisk(t, "vol-1", block.Disk{}), newDisk(t, "vol-2", block.Disk{})
	m := hypervisor.Machine{ID: "k", Dir: t.TempDir(), Disks: []hypervisor.Disk{one, two}}
	killLater(t, m.Dir)
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	sink, _ := server.sink(hypervisortest.Takes, hypervisortest.DiskSize)
	small, _ := server.sink(hypervisortest.Takes, 4096)
	good := hypervisor.Copy{Serial: "vol-1", Mark: "a", Socket: sink.Socket, Export: sink.Export}
	for what, bad := range map[string]hypervisor.Copy{
		"no server":          {Serial: "vol-2", Mark: "b", Socket: sink.Socket + ".gone", Export: "x"},
		"no export":          {Serial: "vol-2", Mark: "b", Socket: sink.Socket, Export: "x"},
		"too small a server": {Serial: "vol-2", Mark: "b", Socket: small.Socket, Export: small.Export},
	} {
		if _, err := h.Copy(t.Context(), m.Dir, []hypervisor.Copy{good, bad}); err == nil {
			t.Errorf("%s: Copy succeeds", what)
		}
		if jobs, err := h.Jobs(t.Context(), m.Dir); err != nil || len(jobs) != 0 {
			t.Errorf("%s: Jobs = %+v, %v, want none", what, jobs, err)
		}
		s, err := h.machines[m.Dir].storage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for name, n := range s.nodes {
			if strings.HasPrefix(name, "sink-") || len(n.Marks) > 0 {
				t.Errorf("%s: left behind: %+v", what, n)
			}
		}
	}
	if full, err := h.Copy(t.Context(), m.Dir, []hypervisor.Copy{good}); err != nil || !full[0] {
		t.Errorf("Copy: %v, %v", full, err)
	}
}
