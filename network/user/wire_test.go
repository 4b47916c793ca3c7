package user

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// machine binds the machine's socket of a folder and reads nothing.
func machine(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, machineSocket)}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestWireIsBounded: a machine that reads nothing holds little, loses the rest,
// and finds what was held in order when it reads.
func TestWireIsBounded(t *testing.T) {
	dir, err := os.MkdirTemp("", "wire") // short enough to bind in directly
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	w, err := newWire(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	fd := machine(t, dir)
	frame := make([]byte, 1500)
	for i := range uint32(10 * maxQueuedFrames) {
		binary.BigEndian.PutUint32(frame, i)
		w.send(frame)
	}
	w.mu.Lock()
	frames, size := len(w.queue), w.queued
	w.mu.Unlock()
	if frames == 0 || frames > maxQueuedFrames || size > maxQueuedBytes {
		t.Errorf("%d frames of %d bytes are held", frames, size)
	}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	buf := make([]byte, 2000)
	for i := range uint32(frames) {
		n, err := unix.Read(fd, buf)
		if err != nil || n != len(frame) || binary.BigEndian.Uint32(buf) != i {
			t.Fatalf("frame %d: %d bytes, number %d, %v", i, n, binary.BigEndian.Uint32(buf), err)
		}
	}
}

// TestWireFollowsMachines: each machine that comes is found, and a stale socket
// of an earlier switch is replaced.
func TestWireFollowsMachines(t *testing.T) {
	dir, err := os.MkdirTemp("", "wire")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	stale, err := newWire(dir)
	if err != nil {
		t.Fatal(err)
	}
	stale.in.Close() // as a program that was killed
	w, err := newWire(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, switchSocket)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the switch's socket: %v, %v", info, err)
	}
	w.send([]byte("to nobody"))
	if w.attached() {
		t.Error("attached to nobody")
	}
	for _, said := range []string{"to the first", "to the second"} {
		fd := machine(t, dir)
		w.send([]byte(said))
		buf := make([]byte, 100)
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
		if n, err := unix.Read(fd, buf); err != nil || !bytes.Equal(buf[:n], []byte(said)) {
			t.Errorf("heard %q, %v; want %q", buf[:max(n, 0)], err, said)
		}
		unix.Close(fd)
		os.Remove(filepath.Join(dir, machineSocket))
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
	if left, _ := fs.Glob(os.DirFS(dir), "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	w.send([]byte("after the end"))
}

// eventually polls until ok, which has to come without anybody's doing.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
