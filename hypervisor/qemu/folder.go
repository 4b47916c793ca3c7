package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What lies in a machine's folder.
const (
	lockName    = "machine.lock" // locked as long as the machine's QEMU lives
	pidName     = "qemu.pid"     // QEMU's own, which it keeps locked too; tells its pid
	keeperName  = "keeper.pid"   // the same for a machine without a guest
	qmpName     = "qmp.sock"
	serialName  = "serial.sock" // the serial console, for whoever wants to type
	consoleName = "console.log" // all that the serial console ever said
	screenName  = "screen.png"  // a picture of the screen, while it is taken
	logName     = "qemu.log"    // QEMU's own words
)

// folder is a machine's folder. Sockets in it are named by way of its file
// descriptor: the address of a UNIX socket has at most 107 bytes.
type folder struct {
	path string
	*os.File
}

func openFolder(path string) (*folder, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the machine's folder: %w", err)
	}
	return &folder{path, f}, nil
}

func (d *folder) file(name string) string { return filepath.Join(d.path, name) }

func (d *folder) socket(name string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name)}
}

// dial connects to a socket in the folder.
func (d *folder) dial(ctx context.Context, name string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", d.socket(name).Name)
}

// listen makes a listening socket in the folder, to be handed to QEMU: whoever
// connects need not wait for QEMU to make it.
func (d *folder) listen(name string) (*os.File, error) {
	if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing an earlier QEMU's socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", d.socket(name))
	if err != nil {
		return nil, fmt.Errorf("listening for QEMU at %s: %w", d.file(name), err)
	}
	listener.SetUnlinkOnClose(false)
	defer listener.Close()
	return listener.File()
}

var errLocked = errors.New("the machine is there already")

// lock takes the machine's lock. It belongs to the open file, so that a QEMU
// that inherits the file holds it until it ends, whatever becomes of us: from
// before QEMU exists there is no moment at which a later program could think
// that there is none.
func (d *folder) lock() (*os.File, error) {
	f, err := os.OpenFile(d.file(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the machine's lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errLocked
	}
	return nil, fmt.Errorf("locking %s: %w", d.file(lockName), err)
}

// alive tells whether a QEMU lives that owns the folder at path. No folder, or
// one that never had a machine, has none.
func alive(path string) (bool, error) {
	f, err := os.Open(filepath.Join(path, lockName))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for the machine: %w", err)
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking whether %s is locked: %w", f.Name(), err)
	}
	return false, nil
}

// owner asks the kernel which process holds one of QEMU's pid files locked, and
// so whether it has a guest. Zero is nobody.
func (d *folder) owner() (pid int, keeper bool, err error) {
	if pid, err = d.pid(pidName); pid != 0 || err != nil {
		return pid, false, err
	}
	pid, err = d.pid(keeperName)
	return pid, true, err
}

// pid asks the kernel which process holds a pid file locked. What is
// written in the file does not count, and can't mislead: a pid that another
// process has got since does not hold the lock. Zero is nobody.
func (d *folder) pid(name string) (int, error) {
	f, err := os.OpenFile(d.file(name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("looking for QEMU's pid: %w", err)
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("looking who locks %s: %w", f.Name(), err)
	}
	if lock.Type == unix.F_UNLCK || lock.Pid <= 1 { // not positive: a process of another PID namespace
		return 0, nil
	}
	return int(lock.Pid), nil
}
