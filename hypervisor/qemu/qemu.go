// Package qemu runs machines in QEMU, a process a machine, in a session of its
// own and with the machine's folder as its working directory. It survives the
// program that started it.
//
// The kernel keeps the truth about which machine lives, and no file of ours
// has to be trusted or synced: QEMU inherits the locked file machine.lock, so
// that the lock is held exactly as long as the process lives; the pid is that
// of the process which holds QEMU's own pid file locked.
//
// A machine is known to this program from its Start, or from the first call
// that finds it living; then a monitor (QMP) is connected, for commands and
// events alike since QEMU talks to one client, and its pidfd is watched.
// Neither takes a thread.
//
// A guest that powers off leaves its QEMU paused (-action shutdown=pause), so
// that also a later program can tell that from a crash, and can start it again
// in place.
//
// Disks come and go, are copied and filled by QEMU's block layer, whose nodes
// and jobs are named so that they say all about themselves (disk.go, job.go). A
// machine without processors is the storage daemon: that layer alone. Copies are pushed
// to a server of ours; nothing is ever exported from a guest's process.
//
// What can go wrong: QEMU is missing or dies at once (Start says its last
// words); it lives but doesn't answer (the machine counts as Running, and Kill
// ends it by signal); the disk's file system is full (QEMU pauses the guest at
// the failing write, and Observe lets it try again); the server of what a disk
// still stands on is away (reads wait, then the guest is paused, and Observe lets
// it try again); a guest doesn't give a disk back (it can be taken, and the guest keeps
// a device at which everything fails); a guest writes to its console for ever (Observe keeps the log bounded).
package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"

	"mallee/hypervisor"
)

// Accel is how QEMU runs a guest's instructions.
type Accel string

const (
	KVM Accel = "kvm" // by the processor's virtualization
	TCG Accel = "tcg" // by translating them
)

const (
	defaultBinary = "qemu-system-x86_64"
	defaultKeeper = "qemu-storage-daemon"
)

// Options say how to run QEMU.
type Options struct {
	Binary string // name or path; qemu-system-x86_64 if empty
	Keeper string // what runs a machine without processors; qemu-storage-daemon if empty
	Accel  Accel
	Logger *slog.Logger // slog.Default if nil
}

// Hypervisor is a hypervisor.Hypervisor of QEMU processes.
type Hypervisor struct {
	binary  string
	keeper  string
	accel   Accel
	log     *slog.Logger
	changes chan struct{}

	mu       sync.Mutex
	machines map[string]*machine // the known ones by folder; guarded by mu
}

var _ hypervisor.Hypervisor = (*Hypervisor)(nil)

// Open makes a hypervisor that knows no machine yet. That QEMU is missing
// shows at Start.
func Open(o Options) (*Hypervisor, error) {
	if o.Accel != KVM && o.Accel != TCG {
		return nil, fmt.Errorf("opening QEMU: acceleration %q: want %s or %s", o.Accel, KVM, TCG)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Hypervisor{
		binary:   cmp.Or(o.Binary, defaultBinary),
		keeper:   cmp.Or(o.Keeper, defaultKeeper),
		accel:    o.Accel,
		log:      o.Logger,
		changes:  make(chan struct{}, 1),
		machines: map[string]*machine{},
	}, nil
}

// Observe sees how the machine stands. See hypervisor.Hypervisor.
func (h *Hypervisor) Observe(ctx context.Context, dir string) (hypervisor.Status, error) {
	m, err := h.find(ctx, dir)
	switch {
	case errors.Is(err, errAbsent):
		return hypervisor.Absent, nil
	case errors.Is(err, errUnreachable):
		return hypervisor.Running, nil
	case err != nil:
		return "", fmt.Errorf("observing the machine in %s: %w", dir, err)
	}
	if err := trimConsole(dir); err != nil {
		h.log.WarnContext(ctx, "a console grows without bound", "dir", dir, "err", err)
	}
	status := m.observe(ctx)
	if m.process.dead() {
		return hypervisor.Absent, nil
	}
	return status, nil
}

// PowerDown presses the power button. See hypervisor.Hypervisor.
func (h *Hypervisor) PowerDown(ctx context.Context, dir string) error {
	return h.pressPower(ctx, dir, "pause")
}

// PowerOff presses the power button of a machine whose process shall end with
// its guest. A guest that obeys leaves it Absent, not Exited: it did not power
// itself off, and whoever comes next may start it again.
func (h *Hypervisor) PowerOff(ctx context.Context, dir string) error {
	return h.pressPower(ctx, dir, "poweroff")
}

// pressPower presses the button, after saying what becomes of the process when
// the guest has obeyed.
func (h *Hypervisor) pressPower(ctx context.Context, dir, then string) error {
	m, err := h.find(ctx, dir)
	if err == nil && m.keeper {
		return nil // it has no guest who'd hear
	}
	if err == nil {
		err = m.execute(ctx, command{Name: "set-action", Arguments: arguments{"shutdown": then}}, nil)
	}
	if err == nil {
		err = m.execute(ctx, command{Name: "system_powerdown"}, nil)
	}
	if err != nil {
		return fmt.Errorf("powering down the machine in %s: %w", dir, err)
	}
	return nil
}

// Reset starts the guest anew. See hypervisor.Hypervisor.
func (h *Hypervisor) Reset(ctx context.Context, dir string) error {
	m, err := h.find(ctx, dir)
	if err == nil && !m.keeper {
		err = m.reset(ctx)
	}
	if err != nil {
		return fmt.Errorf("resetting the machine in %s: %w", dir, err)
	}
	return nil
}

// Changes pokes. See hypervisor.Hypervisor.
func (h *Hypervisor) Changes() <-chan struct{} { return h.changes }

func (h *Hypervisor) poke() {
	select {
	case h.changes <- struct{}{}:
	default: // one poke is as good as two
	}
}

// Close forgets the machines, and leaves them running.
func (h *Hypervisor) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.machines {
		m.forget()
	}
	clear(h.machines)
	return nil
}

var (
	errAbsent = errors.New("there is no machine")
	// errUnreachable: started so lately by a program that died since, that QEMU
	// hasn't said its pid yet.
	errUnreachable = errors.New("there is a machine, but its process is not known yet")
)

// find returns the machine of a folder, which is known from then on.
func (h *Hypervisor) find(ctx context.Context, dir string) (*machine, error) {
	dir = filepath.Clean(dir)
	h.mu.Lock()
	m := h.machines[dir]
	h.mu.Unlock()
	if m != nil && !m.process.ended() {
		return m, nil
	}
	if living, err := alive(dir); err != nil {
		return nil, err
	} else if !living {
		return nil, errAbsent
	}
	return h.adopt(ctx, dir)
}

// adopt gets to know a machine that an earlier program started.
func (h *Hypervisor) adopt(ctx context.Context, dir string) (*machine, error) {
	d, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	pid, keeper, err := d.owner()
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		return nil, errUnreachable
	}
	m := h.machine(dir)
	m.keeper = keeper
	if m.process, err = openProcess(pid, m.exited); err != nil {
		return nil, err
	}
	// Only now is the process held: was it still the one that has the lock?
	if now, _, err := d.owner(); err != nil || now != pid {
		m.forget()
		return nil, errors.Join(err, errUnreachable)
	}
	h.remember(m)
	h.log.DebugContext(ctx, "found a machine", "dir", dir, "pid", pid)
	return m, nil
}

// machine is one that isn't known yet, and has no process yet.
func (h *Hypervisor) machine(dir string) *machine {
	m := &machine{dir: dir, log: h.log, poke: h.poke, resets: make(chan struct{}, 1)}
	m.exited = func() {
		h.mu.Lock()
		if h.machines[dir] == m {
			delete(h.machines, dir)
		}
		h.mu.Unlock()
		m.hangUp()
		h.poke()
	}
	return m
}

func (h *Hypervisor) remember(m *machine) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !m.process.ended() {
		h.machines[m.dir] = m
	}
}

// Console opens the serial console's log. See hypervisor.Hypervisor.
func (h *Hypervisor) Console(dir string) (io.ReadSeekCloser, error) { return openConsole(dir) }
