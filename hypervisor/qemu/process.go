package qemu

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// process is a QEMU that lives or lived, child of this program or not. Held by
// its pidfd, it can't be mistaken for a later one with the same pid.
type process struct {
	pid  int
	file *os.File      // pidfd, in the runtime's poller: waiting takes no thread
	gone chan struct{} // closed when the process has ended
	how  string        // it ended, if it was our child; written before gone is closed
}

// openProcess watches a process that this program need not have started.
func openProcess(pid int, exited func()) (*process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("opening process %d: %w", pid, err)
	}
	return newProcess(pid, pidfd, exited)
}

// newProcess watches the process of a pidfd, which it owns; exited is called
// once when it ends, unless it is released before.
func newProcess(pid, pidfd int, exited func()) (*process, error) {
	if pidfd < 0 {
		return nil, fmt.Errorf("watching process %d: this kernel has no pidfd, want Linux 5.4 or later", pid)
	}
	if err := unix.SetNonblock(pidfd, true); err != nil { // else os waits by a thread
		unix.Close(pidfd)
		return nil, fmt.Errorf("watching process %d: %w", pid, err)
	}
	p := &process{pid: pid, file: os.NewFile(uintptr(pidfd), fmt.Sprintf("pidfd of %d", pid)), gone: make(chan struct{})}
	conn, err := p.file.SyscallConn()
	if err != nil {
		p.file.Close()
		return nil, fmt.Errorf("watching process %d: %w", pid, err)
	}
	go func() {
		if err := conn.Read(p.reap); err != nil {
			return // released
		}
		close(p.gone)
		p.file.Close()
		exited()
	}()
	return p, nil
}

// reap tells whether the process of a pidfd has ended, and if it is our child
// lets the kernel forget it.
func (p *process) reap(pidfd uintptr) (ended bool) {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); n == 0 || err != nil {
		return false
	}
	// The error is ECHILD for a QEMU that an earlier program started. As long as
	// ours is not waited for, its pid is its own.
	if unix.Waitid(unix.P_PIDFD, int(pidfd), nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == nil {
		var status unix.WaitStatus
		if _, err := unix.Wait4(p.pid, &status, unix.WNOHANG, nil); err == nil {
			p.how = words(status)
		}
	}
	return true
}

func words(status unix.WaitStatus) string {
	if status.Signaled() {
		return "signal: " + status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

// signal sends a signal; that the process has ended is no error.
func (p *process) signal(s unix.Signal) error {
	var sendErr error
	conn, err := p.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("sending %v to process %d: %w", s, p.pid, err)
	}
	err = conn.Control(func(fd uintptr) { sendErr = unix.PidfdSendSignal(int(fd), s, nil, 0) })
	if p.ended() || errors.Is(sendErr, unix.ESRCH) {
		return nil
	}
	if err := errors.Join(err, sendErr); err != nil {
		return fmt.Errorf("sending %v to process %d: %w", s, p.pid, err)
	}
	return nil
}

func (p *process) ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// dead asks the kernel, which knows before those who watch were told: a process
// that another program has just killed is not to be taken for one that lives
// and doesn't answer.
func (p *process) dead() bool {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return p.ended()
	}
	var over bool
	_ = conn.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		over = err == nil && n > 0
	})
	return over || p.ended() // the pidfd is closed after gone, or when it is released
}

// release stops watching.
func (p *process) release() { p.file.Close() }
