package user

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names of the sockets in a machine's folder.
const (
	machineSocket = "net.sock"    // bound by the machine
	switchSocket  = "switch.sock" // bound by us
)

// What a wire holds for a machine that doesn't read: more is dropped.
const (
	maxQueuedBytes  = 1 << 20
	maxQueuedFrames = 512
)

// wire is our end of the two datagram sockets. Frames come in at a socket that
// is bound and not connected, so that any machine that starts in the folder is
// heard; they go out at another, connected to the machine's and made anew when
// the machine is another.
type wire struct {
	dir string
	in  *os.File // bound to switchSocket, non-blocking

	mu       sync.Mutex // guards what follows
	closed   bool
	out      *os.File // connected to machineSocket; nil before the machine is there
	outFD    int      // of out
	queue    [][]byte // frames that found the machine's socket full
	queued   int      // bytes in queue
	draining bool     // a goroutine works on queue
}

// newWire binds the switch's socket in dir, in place of one that an earlier
// program left.
func newWire(dir string) (*wire, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make the switch's socket: %w", err)
	}
	in := os.NewFile(uintptr(fd), filepath.Join(dir, switchSocket))
	err = atFolder(dir, switchSocket, func(folder int, path string) error {
		if err := unix.Unlinkat(folder, switchSocket, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			return err
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("bind %s: %w", in.Name(), err)
	}
	return &wire{dir: dir, in: in}, nil
}

// atFolder calls f with a path of name in dir that is short whatever dir is:
// a UNIX socket's path is limited to 107 bytes.
func atFolder(dir, name string, f func(folder int, path string) error) error {
	folder, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(folder)
	return f(folder, fmt.Sprintf("/proc/self/fd/%d/%s", folder, name))
}

// frames lends buffers to readers while they have something to read, so that a
// quiet port holds none.
var frames = sync.Pool{New: func() any { return new([headerLen + MaxMTU + 1]byte) }}

// receive hands every frame from the machine to handle, one at a time, until
// the wire is closed. A frame is valid during the call only, and handle may
// change it.
func (w *wire) receive(handle func(frame []byte)) {
	raw, err := w.in.SyscallConn()
	for err == nil {
		err = raw.Read(func(fd uintptr) bool { return readFrames(int(fd), handle) })
	}
}

// readFrames handles what is there; false asks to wait for more.
func readFrames(fd int, handle func([]byte)) bool {
	buf := frames.Get().(*[headerLen + MaxMTU + 1]byte)
	defer frames.Put(buf)
	for range 64 {
		n, err := unix.Read(fd, buf[:])
		switch {
		case err == nil:
			handle(buf[:n])
		case errors.Is(err, unix.EAGAIN):
			return false
		}
	}
	return true
}

// send passes a frame to the machine, or drops it: when the machine isn't there
// or has read too little for too long. The frame is the caller's again after.
func (w *wire) send(frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.draining {
		w.enqueue(frame)
		return
	}
	if !w.connect() {
		return
	}
	err := writeFrame(w.outFD, frame)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOTCONN) {
		w.disconnect() // another machine may have come in the place of the last
		if !w.connect() {
			return
		}
		err = writeFrame(w.outFD, frame)
	}
	if errors.Is(err, unix.EAGAIN) {
		w.enqueue(frame)
		w.draining = true
		go w.drain(w.out)
	}
}

// attached says whether a machine's socket is there.
func (w *wire) attached() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.connect()
}

func writeFrame(fd int, frame []byte) error {
	for {
		_, err := unix.Write(fd, frame)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// connect makes sure of out. The caller holds mu.
func (w *wire) connect() bool {
	if w.out != nil || w.closed {
		return w.out != nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	err = atFolder(w.dir, machineSocket, func(_ int, path string) error {
		return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	})
	if err != nil {
		unix.Close(fd)
		return false
	}
	w.out, w.outFD = os.NewFile(uintptr(fd), machineSocket), fd
	return true
}

// disconnect forgets out. The caller holds mu.
func (w *wire) disconnect() {
	if w.out != nil {
		w.out.Close()
		w.out = nil
	}
}

// enqueue keeps a copy of the frame if there is room. The caller holds mu.
func (w *wire) enqueue(frame []byte) {
	if len(w.queue) >= maxQueuedFrames || w.queued+len(frame) > maxQueuedBytes {
		return
	}
	w.queue = append(w.queue, append([]byte(nil), frame...))
	w.queued += len(frame)
}

// drain writes the queue as the machine makes room, and ends when it is empty
// or the machine gone.
func (w *wire) drain(out *os.File) {
	raw, err := out.SyscallConn()
	if err == nil {
		err = raw.Write(func(fd uintptr) bool { return w.drainSome(int(fd)) })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.queue, w.queued = nil, 0
	}
	w.draining = false
	if len(w.queue) > 0 { // came between drainSome's end and now
		w.draining = true
		go w.drain(out)
	}
}

// drainSome writes until the machine's socket is full (false) or the queue is
// empty or lost (true).
func (w *wire) drainSome(fd int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 {
		err := writeFrame(fd, w.queue[0])
		if errors.Is(err, unix.EAGAIN) {
			return false
		}
		if err != nil {
			w.queue, w.queued = nil, 0
			return true
		}
		w.queued -= len(w.queue[0])
		w.queue[0] = nil
		w.queue = w.queue[1:]
	}
	w.queue = nil
	return true
}

// close takes the sockets away; receive has returned, or is about to.
func (w *wire) close() error {
	w.mu.Lock()
	w.closed = true
	out := w.out
	w.out = nil
	w.mu.Unlock()
	if out != nil {
		out.Close() // wakes drain, which wants mu
	}
	err := atFolder(w.dir, switchSocket, func(folder int, _ string) error {
		return unix.Unlinkat(folder, switchSocket, 0)
	})
	if errors.Is(err, syscall.ENOENT) { // the folder may be gone before us
		err = nil
	}
	return errors.Join(err, w.in.Close())
}
