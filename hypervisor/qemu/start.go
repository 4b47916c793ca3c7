package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"mallee/hypervisor"
)

// How long QEMU may take until it answers. It takes some 30 ms, and more where
// many start at once on a slow machine.
const startTimeout = 60 * time.Second

// Start runs a machine. See hypervisor.Hypervisor.
func (h *Hypervisor) Start(ctx context.Context, m hypervisor.Machine) error {
	m.Dir = filepath.Clean(m.Dir)
	err := check(m)
	if err == nil {
		err = h.start(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("starting the machine %s in %s: %w", m.ID, m.Dir, err)
	}
	return nil
}

func (h *Hypervisor) start(ctx context.Context, m hypervisor.Machine) error {
	name, args := h.binary, commandLine(m, h.accel)
	if m.VCPUs == 0 {
		name, args = h.keeper, keeperCommandLine(m)
	}
	binary, err := findBinary(name)
	if err != nil {
		return err
	}
	l, err := prepare(ctx, m)
	if err != nil {
		return err
	}
	defer l.close()
	machine := h.machine(m.Dir)
	machine.keeper = m.VCPUs == 0
	if machine.process, err = l.exec(binary, args, machine.exited); err != nil {
		return err
	}
	if err := machine.begin(ctx, l.handOver()); err != nil {
		err = l.explain(ctx, err, machine)
		// Also when ctx is over, for nothing may be left.
		return errors.Join(err, machine.end(context.WithoutCancel(ctx)))
	}
	h.remember(machine)
	return nil
}

// findBinary says where QEMU is, or how to get it.
func findBinary(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("QEMU is not there: %w (on Debian: apt-get install qemu-system-x86)", err)
	}
	return filepath.Abs(path)
}

// launch is what QEMU is given, and our end of it.
type launch struct {
	dir    *folder
	lock   *os.File   // for QEMU to hold
	listen *os.File   // for QEMU to accept its monitor from
	keys   []*os.File // for QEMU to read the disks' passphrases from
	log    *os.File   // for QEMU to complain to
	logged int64      // what earlier QEMUs said
	conn   net.Conn   // to the monitor: waiting before QEMU is there
}

// These are the numbers under which QEMU inherits files.
const (
	listenFD   = 3
	lockFD     = 4
	firstKeyFD = 5 // and one more for each further disk's key
)

func prepare(ctx context.Context, m hypervisor.Machine) (*launch, error) {
	l := &launch{}
	err := l.open(ctx, m.Dir)
	if err == nil {
		err = l.openKeys(passphrases(m.Disks))
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *launch) open(ctx context.Context, dir string) (err error) {
	if l.dir, err = openFolder(dir); err != nil {
		return err
	}
	if l.lock, err = l.dir.lock(); err != nil {
		return err
	}
	if l.listen, err = l.dir.listen(qmpName); err != nil {
		return err
	}
	if l.conn, err = l.dir.dial(ctx, qmpName); err != nil {
		return err
	}
	return l.openLogs()
}

// openLogs makes the logs, which QEMU would make readable to others.
func (l *launch) openLogs() error {
	console, err := os.OpenFile(l.dir.file(consoleName), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := console.Close(); err != nil {
		return err
	}
	l.log, err = os.OpenFile(l.dir.file(logName), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.logged, err = l.log.Seek(0, io.SeekEnd)
	return err
}

// openKeys puts each passphrase into a pipe, where no command line and no file
// tells it.
func (l *launch) openKeys(passphrases []string) error {
	for _, p := range passphrases {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		l.keys = append(l.keys, r)
		_, err = w.WriteString(p) // a pipe has room for it
		if err := errors.Join(err, w.Close()); err != nil {
			return err
		}
	}
	return nil
}

// exec starts QEMU. It is not waited for as a child is in package os, which
// takes a thread for each: its process is watched by its pidfd.
func (l *launch) exec(binary string, args []string, exited func()) (*process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	pidfd := -1
	child, err := os.StartProcess(binary, append([]string{binary}, args...), &os.ProcAttr{
		Dir: l.dir.path,
		Env: environment(),
		Files: append([]*os.File{
			0: null, 1: l.log, 2: l.log,
			listenFD: l.listen, lockFD: l.lock,
		}, l.keys...), // from firstKeyFD on
		Sys: &syscall.SysProcAttr{
			Setsid: true, // no terminal's and no group's signal reaches it
			PidFD:  &pidfd,
		},
	})
	if err != nil {
		return nil, err
	}
	p, err := newProcess(child.Pid, pidfd, exited)
	if err != nil {
		killErr := child.Kill()
		_, waitErr := child.Wait()
		return nil, errors.Join(err, killErr, waitErr)
	}
	return p, child.Release()
}

// environment is what QEMU may know of ours: no keys.
func environment() []string {
	env := []string{"LC_ALL=C"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// handOver closes what now is QEMU's, and yields the connection to it.
// That it breaks when QEMU dies needs the listener to be QEMU's alone.
func (l *launch) handOver() net.Conn {
	l.listen.Close()
	l.lock.Close()
	conn := l.conn
	l.listen, l.lock, l.conn = nil, nil, nil
	return conn
}

func (l *launch) close() {
	for _, f := range append(l.keys, l.listen, l.lock, l.log) {
		if f != nil {
			f.Close()
		}
	}
	if l.conn != nil {
		l.conn.Close()
	}
	if l.dir != nil {
		l.dir.Close()
	}
}

// begin waits until QEMU answers, which it does when the machine runs.
func (m *machine) begin(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("QEMU does not answer within %v", startTimeout))
	defer cancel()
	monitor, err := newMonitor(ctx, conn, m.event)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.monitor = monitor
	return nil
}

// explain says how QEMU ended, if it did, and what its last words were, for a
// start that failed with err.
func (l *launch) explain(ctx context.Context, err error, m *machine) error {
	if gone, _ := m.wait(ctx, glanceTimeout); gone { // else err has more to say
		err = fmt.Errorf("QEMU has ended (%s) before it answered", m.process.how)
	}
	const enough = 16 << 10 // bytes; it ends with what matters
	info, statErr := l.log.Stat()
	if statErr != nil {
		return errors.Join(err, statErr)
	}
	from := max(l.logged, info.Size()-enough)
	said, readErr := io.ReadAll(io.NewSectionReader(l.log, from, info.Size()-from))
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	lines := bytes.Split(bytes.TrimSpace(said), []byte("\n"))
	if last := lines[len(lines)-1]; len(last) > 0 {
		return fmt.Errorf("%w: %s", err, last)
	}
	return fmt.Errorf("%w, and says nothing in %s", err, l.dir.file(logName))
}

// Kill ends the machine. See hypervisor.Hypervisor.
func (h *Hypervisor) Kill(ctx context.Context, dir string) error {
	m, err := h.await(ctx, dir)
	if errors.Is(err, errAbsent) {
		return nil
	}
	if err == nil {
		err = m.kill(ctx)
	}
	if err != nil {
		return fmt.Errorf("killing the machine in %s: %w", dir, err)
	}
	return nil
}

// await finds the machine, also one whose process isn't known yet.
func (h *Hypervisor) await(ctx context.Context, dir string) (*machine, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errUnreachable)
	defer cancel()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		m, err := h.find(ctx, dir)
		if !errors.Is(err, errUnreachable) {
			return m, err
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
