package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mallee/hypervisor"
)

const (
	// How long QEMU may take to say how it stands, or that it will quit. A
	// caller that looks after many machines must not wait for one for long.
	glanceTimeout = time.Second
	// How long QEMU may take to quit by itself, which includes syncing the
	// disks, before it is killed.
	quitTimeout = 5 * time.Second
	// How long the kernel may take to end a killed process. It is longer only
	// where the process hangs in the kernel (a dead network file system).
	killTimeout = 30 * time.Second
)

// machine is a QEMU that this program knows.
type machine struct {
	dir      string
	keeper   bool // it has no guest
	log      *slog.Logger
	poke     func()
	exited   func() // called when the process has ended
	process  *process
	resets   chan struct{} // has room for one RESET event
	shooting sync.Mutex    // held while a picture of the screen is taken
	told     time.Time     // when the log last heard of a full disk; the monitor's reader's own

	mu        sync.Mutex
	monitor   *monitor          // guarded by mu; nil while there is no conversation
	forgotten bool              // guarded by mu; there shall be none any more
	unfilled  map[string]string // guarded by mu; why disks' fillings failed, by serial
}

// event is called for all that QEMU tells by itself.
func (m *machine) event(e event) {
	switch e.Name {
	case "SHUTDOWN", "DEVICE_DELETED":
		m.poke()
	case "JOB_STATUS_CHANGE":
		if bytes.Contains(e.Data, []byte(`"concluded"`)) || bytes.Contains(e.Data, []byte(`"pending"`)) {
			m.poke()
		}
	case "BLOCK_JOB_COMPLETED":
		m.jobEnded(e.Data)
	case "RESET":
		select {
		case m.resets <- struct{}{}:
		default:
		}
	case "BLOCK_IO_ERROR":
		m.blockError(e.Data)
	}
}

// blockError tells the log why a guest was paused. Errors that go to the guest
// are not told: the guest could fill the log.
func (m *machine) blockError(data json.RawMessage) {
	var why struct {
		Node   string `json:"node-name"`
		Action string `json:"action"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(data, &why); err != nil || why.Action != "stop" || time.Since(m.told) < time.Minute {
		return // or told already: each try to go on may fail anew
	}
	m.told = time.Now()
	m.log.Warn("a guest is paused until its disk can be read and written", "dir", m.dir, "disk", why.Node, "reason", why.Reason)
}

// talk returns the monitor, connected anew where it is not.
func (m *machine) talk(ctx context.Context) (*monitor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.monitor != nil {
		select {
		case <-m.monitor.done:
			m.monitor = nil
		default:
			return m.monitor, nil
		}
	}
	if m.forgotten {
		return nil, errors.New("the machine is no longer known")
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	d, err := openFolder(m.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	conn, err := d.dial(ctx, qmpName)
	if err != nil {
		return nil, fmt.Errorf("connecting to QEMU: %w", err)
	}
	m.monitor, err = newMonitor(ctx, conn, m.event)
	return m.monitor, err
}

func (m *machine) execute(ctx context.Context, c command, result any) error {
	monitor, err := m.talk(ctx)
	if err != nil {
		return err
	}
	return monitor.execute(ctx, c, result)
}

// runState is QEMU's RunState, of which we tell these apart.
type runState string

const (
	stateShutdown  runState = "shutdown"  // powered off by its guest, needs a reset
	stateIOError   runState = "io-error"  // paused at a write for which the host has no space
	statePaused    runState = "paused"    // in the middle of our reset,
	statePrelaunch runState = "prelaunch" // and further
)

func (m *machine) state(ctx context.Context) (runState, error) {
	var answer struct {
		Status runState `json:"status"`
	}
	err := m.execute(ctx, command{Name: "query-status"}, &answer)
	return answer.Status, err
}

// observe asks QEMU. One that doesn't answer is running, for all we know.
func (m *machine) observe(ctx context.Context) hypervisor.Status {
	if m.keeper {
		return hypervisor.Running
	}
	ctx, cancel := context.WithTimeout(ctx, glanceTimeout)
	defer cancel()
	state, err := m.state(ctx)
	switch {
	case err != nil:
		m.log.DebugContext(ctx, "a machine does not answer", "dir", m.dir, "err", err)
		return hypervisor.Running
	case state == stateShutdown:
		return hypervisor.Exited
	}
	if err := m.resume(ctx, state); err != nil {
		m.log.WarnContext(ctx, "a guest that is paused can't go on", "dir", m.dir, "state", state, "err", err)
	}
	return hypervisor.Running
}

// resume ends a pause.
func (m *machine) resume(ctx context.Context, from runState) error {
	switch from {
	case stateIOError: // the write is done again, and pauses the guest again if it must
		return m.execute(ctx, command{Name: "cont"}, nil)
	case statePaused, statePrelaunch: // a program died while it reset the guest
		return m.reset(ctx)
	}
	return nil
}

// reset resets the guest, and lets it run. The guest stands still meanwhile;
// should we die in between, the next to observe it begins anew.
func (m *machine) reset(ctx context.Context) error {
	if err := m.execute(ctx, command{Name: "stop"}, nil); err != nil {
		return err
	}
	if err := m.unshadow(ctx); err != nil {
		return err
	}
	if err := m.systemReset(ctx); err != nil {
		return err
	}
	return m.execute(ctx, command{Name: "cont"}, nil)
}

// unshadow maps the firmware's ROM where the firmware maps RAM, and copies
// itself to, early at each boot. QEMU's reset doesn't do so (7.2, q35), and the
// processor would begin in a copy that is not complete: a machine that is reset
// within the first milliseconds of a boot hangs for good. These are the
// registers PAM0 to PAM6 of the host bridge, by way of PCI's configuration ports.
func (m *machine) unshadow(ctx context.Context) error {
	return m.monitorLines(ctx,
		"o /4 0xcf8 0x80000090", "o /4 0xcfc 0",
		"o /4 0xcf8 0x80000094", "o /2 0xcfc 0", "o /1 0xcfe 0",
	)
}

// monitorLines are commands of QEMU's monitor for people.
func (m *machine) monitorLines(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		c := command{Name: "human-monitor-command", Arguments: arguments{"command-line": line}}
		var complaint string
		if err := m.execute(ctx, c, &complaint); err != nil {
			return err
		}
		if complaint != "" {
			return fmt.Errorf("QEMU says to %q: %s", line, complaint)
		}
	}
	return nil
}

// systemReset returns when the reset is done, which is after QEMU has
// answered. Only then may the guest go on.
func (m *machine) systemReset(ctx context.Context) error {
	select {
	case <-m.resets: // an earlier one
	default:
	}
	if err := m.execute(ctx, command{Name: "system_reset"}, nil); err != nil {
		return err
	}
	timer := time.NewTimer(commandTimeout)
	defer timer.Stop()
	select {
	case <-m.resets:
		return nil
	case <-m.process.gone:
		return errAbsent
	case <-timer.C:
		return fmt.Errorf("QEMU has not reset it within %v", commandTimeout)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// kill ends the process, politely if it listens, and returns when it is gone.
func (m *machine) kill(ctx context.Context) error {
	if err := m.quit(ctx); err != nil {
		if err := m.process.signal(unix.SIGTERM); err != nil {
			return err
		}
	}
	if gone, err := m.wait(ctx, quitTimeout); gone || err != nil {
		return err
	}
	m.log.WarnContext(ctx, "QEMU does not quit and is killed", "dir", m.dir, "pid", m.process.pid)
	return m.end(ctx)
}

func (m *machine) quit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, glanceTimeout)
	defer cancel()
	return m.execute(ctx, command{Name: "quit"}, nil)
}

// end kills the process for certain, and waits until it is gone.
func (m *machine) end(ctx context.Context) error {
	if err := m.process.signal(unix.SIGKILL); err != nil {
		return err
	}
	gone, err := m.wait(ctx, killTimeout)
	if err == nil && !gone {
		err = fmt.Errorf("QEMU, process %d, is not gone %v after it was killed", m.process.pid, killTimeout)
	}
	return err
}

func (m *machine) wait(ctx context.Context, limit time.Duration) (gone bool, err error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-m.process.gone:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// hangUp ends the conversation.
func (m *machine) hangUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgotten = true
	if m.monitor != nil {
		m.monitor.close()
		m.monitor = nil
	}
}

// forget lets go of the machine without touching it.
func (m *machine) forget() {
	m.process.release()
	m.hangUp()
}
