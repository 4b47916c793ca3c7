package networktest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"mallee/network"
)

// wire is the machine's end of the two sockets, as network.Attachment names
// them.
type wire struct {
	folder int // kept open, as a machine's working directory is
	in     *os.File
	to     string
	out    int // connected to the switch; -1 for none
	closed bool
}

func newSocket() (int, error) {
	return unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}

func newWire(dir string, at network.Attachment) (*wire, error) {
	if err := os.Remove(filepath.Join(dir, at.Machine)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	folder, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	fd, err := newSocket()
	if err != nil {
		return nil, err
	}
	w := &wire{folder: folder, in: os.NewFile(uintptr(fd), at.Machine), out: -1}
	w.to = fmt.Sprintf("/proc/self/fd/%d/%s", folder, at.Switch)
	return w, unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", folder, at.Machine)})
}

// connect to the switch that is there now.
func (w *wire) connect() error {
	if w.out >= 0 {
		unix.Close(w.out)
	}
	var err error
	if w.out, err = newSocket(); err != nil {
		return err
	}
	return unix.Connect(w.out, &unix.SockaddrUnix{Name: w.to})
}

// send a frame, or lose it where there is no switch.
func (w *wire) send(frame []byte) {
	for range 100 {
		if w.closed {
			return
		}
		_, err := unix.Write(w.out, frame)
		switch err {
		case nil:
			return
		case unix.EAGAIN:
			unix.Poll([]unix.PollFd{{Fd: int32(w.out), Events: unix.POLLOUT}}, 100)
		case unix.EINTR:
		default:
			if w.connect() != nil {
				return
			}
		}
	}
}

func (w *wire) close() {
	w.in.Close()
	unix.Close(w.folder)
	if w.out >= 0 {
		unix.Close(w.out)
	}
	w.out, w.closed = -1, true
}
