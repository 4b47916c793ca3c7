package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mallee/block"
	"mallee/cloud"
	"mallee/durable"
	"mallee/hypervisor"
	"mallee/network"
)

// attempts is how often a launch is tried before it is reported as failed.
const attempts = 3

// settleTime is how long a machine has to last before its start has succeeded.
const settleTime = 10 * time.Second

// pass walks the whole road once for one machine. Nothing is done before the
// node has an assignment: to know of none is not to be told to run nothing.
func (n *Node) pass(ctx context.Context, m *machine) {
	n.mu.Lock()
	told := n.assignment.Generation > 0
	removed := n.machines[m.id] != m
	instance, assigned := n.assigned[m.id]
	waiting := assigned && m.phase != cloud.PhaseUp && n.Now().Before(m.retryAt)
	finished := assigned && m.phase == cloud.PhaseFailed && m.wishes == instance.Wishes
	n.mu.Unlock()
	switch {
	case !told || removed || waiting || finished:
	case assigned:
		phase, err := n.ensure(ctx, instance, m)
		n.conclude(ctx, instance, m, phase, noSpace(err))
	default:
		n.giveBack(ctx, m)
	}
}

// ensure makes the machine what it should be, and says how it stands.
func (n *Node) ensure(ctx context.Context, i cloud.Instance, m *machine) (cloud.Phase, error) {
	if err := errors.Join(n.recall(m), n.makeFolder(m)); err != nil {
		return cloud.PhasePreparing, err
	}
	m.lookAt = time.Time{}
	dir := n.machineDir(i.ID)
	status, err := n.Hypervisor.Observe(ctx, dir)
	if err != nil {
		return cloud.PhasePreparing, fmt.Errorf("look at the machine: %w", err)
	}
	// The port comes first for a machine that runs: a new program finds it
	// with nobody at the other end of its cable.
	port, err := n.Network.Ensure(ctx, portOf(i, dir))
	if err != nil {
		return phaseOf(status), fmt.Errorf("connect to the network: %w", err)
	}
	if status == hypervisor.Absent {
		return n.restart(ctx, i, m, port)
	}
	if status == hypervisor.Exited || n.Now().Sub(m.startedAt) >= settleTime {
		m.memo.Up, m.startedAt = true, time.Time{}
	}
	err = errors.Join(n.readPassword(i, m), n.tend(ctx, m, status), n.followRoot(ctx, m, status))
	phase, rebooted := n.reboot(ctx, i, m, status)
	return phase, errors.Join(err, rebooted, n.remember(m.memo))
}

// restart the machine of an instance that has none: what the last one had open is
// closed.
func (n *Node) restart(ctx context.Context, i cloud.Instance, m *machine, port network.Attachment) (cloud.Phase, error) {
	if _, err := n.follow(ctx, n.machineHost(m.id), hypervisor.Absent); err != nil {
		return cloud.PhasePreparing, err
	}
	if err := n.followRoot(ctx, m, hypervisor.Absent); err != nil {
		return cloud.PhasePreparing, err
	}
	if err := n.releaseUnwanted(m); err != nil {
		return cloud.PhasePreparing, err
	}
	if err := n.endedEarly(m); err != nil {
		return cloud.PhasePreparing, err
	}
	if err := n.start(ctx, i, m, port); err != nil {
		return cloud.PhasePreparing, err
	}
	m.startedAt = n.Now()
	return cloud.PhaseUp, nil
}

// endedEarly says, once, that a machine which this program has started was gone
// before it had lasted: one that can't run at all is not started for ever
// without a pause.
func (n *Node) endedEarly(m *machine) error {
	lasted := n.Now().Sub(m.startedAt)
	if m.startedAt.IsZero() || lasted >= settleTime {
		return nil
	}
	m.startedAt = time.Time{}
	return fmt.Errorf("the machine's process ended %s after its start, and not by the guest", lasted.Round(time.Millisecond))
}

// start the machine on what it needs. What it stands on is remembered first,
// all at once, so that no cached image is evicted from under its disks; and a
// start is all that the reboots asked for so far want.
func (n *Node) start(ctx context.Context, i cloud.Instance, m *machine, port network.Attachment) error {
	var err error
	if m.memo.Bases, err = bases(i); err != nil {
		return err
	}
	m.memo.Reboots, m.memo.Halted, m.powerDownBy = i.Reboots, false, time.Time{}
	volumes := n.wanted(i.ID)
	if err := n.claim(m, volumes...); err != nil {
		return err
	}
	wanted, err := n.prepare(ctx, i, volumes)
	if err != nil {
		return err
	}
	wanted.NICs = []hypervisor.NIC{{MAC: i.MAC, Attachment: port}}
	if err := n.Hypervisor.Start(ctx, wanted); err != nil {
		return fmt.Errorf("start the machine: %w", err)
	}
	n.plugged(m, volumes...)
	return nil
}

// conclude notes how a pass ended, and what that means for the next one.
func (n *Node) conclude(ctx context.Context, i cloud.Instance, m *machine, phase cloud.Phase, err error) {
	if ctx.Err() != nil {
		return // the program ends; the next one measures again
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	before := *m
	m.phase, m.wishes, m.reason = phase, i.Wishes, cloud.Reason{}
	if err == nil || errors.Is(err, errWaiting) {
		m.retryAt = earlier(m.powerDownBy, m.lookAt)
		if m.startedAt.IsZero() {
			m.failures = 0
		}
	} else {
		m.fail(n.Now(), err)
		n.Log.Warn("a machine is not as it should be", "instance", i.ID, "attempt", m.failures, "err", err)
		if phase == cloud.PhasePreparing && !m.everUp() && (m.failures >= attempts || permanent(err)) {
			m.phase = cloud.PhaseFailed
		}
	}
	if m.phase != before.phase || m.reason != before.reason || m.wishes != before.wishes {
		n.Log.Info("machine", "instance", i.ID, "phase", m.phase, "reason", m.reason.Message)
		n.touch()
	}
}

// earlier of two times, a zero one being none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// fail counts a failure; the next try is the later the more there were.
func (m *machine) fail(now time.Time, err error) {
	m.failures++
	m.retryAt = now.Add(backoff(m.failures))
	m.reason = reasonOf(err)
}

// everUp says whether the guest ever ran. What can't be read is taken for a
// yes: nothing is given up for lack of a memory.
func (m *machine) everUp() bool { return m.memo == nil || m.memo.Up }

// giveBack removes all that is left of a machine that is no longer assigned.
func (n *Node) giveBack(ctx context.Context, m *machine) {
	ready, err := n.letGo(ctx, m)
	if err == nil && ready {
		err = errors.Join(n.remove(ctx, m.id), n.abandonRoot(ctx, m))
	}
	if ctx.Err() != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		m.fail(n.Now(), err)
		n.Log.Warn("a machine can't be removed yet", "instance", m.id, "attempt", m.failures, "err", err)
		return
	}
	if m.retryAt = earlier(m.powerDownBy, m.lookAt); !ready {
		return
	}
	for _, id := range m.memo.Volumes {
		n.free(id)
	}
	n.keepReserve()
	delete(n.machines, m.id)
	if _, back := n.assigned[m.id]; back {
		n.know(m.id) // from the beginning: there is nothing of it
		n.wakeMachine(m.id)
	}
	n.Log.Info("machine removed", "instance", m.id)
	n.touch()
}

// remove in the order that leaves no part in use by another; the folder last.
func (n *Node) remove(ctx context.Context, id cloud.InstanceID) error {
	dir := n.machineDir(id)
	if _, err := os.Stat(dir); err == nil {
		if err := n.Hypervisor.Kill(ctx, dir); err != nil {
			return fmt.Errorf("end the machine: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("find the machine: %w", err)
	}
	if err := n.Network.Remove(ctx, string(id)); err != nil {
		return fmt.Errorf("disconnect from the network: %w", err)
	}
	for _, role := range roles {
		if err := n.Disks.Remove(ctx, diskName(id, role)); err != nil {
			return fmt.Errorf("remove disk %s: %w", role, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the machine's folder: %w", err)
	}
	return durable.SyncDir(filepath.Dir(dir))
}

func phaseOf(s hypervisor.Status) cloud.Phase {
	switch s {
	case hypervisor.Running:
		return cloud.PhaseUp
	case hypervisor.Exited:
		return cloud.PhaseExited
	}
	return cloud.PhasePreparing
}

// leftovers are the instances of which anything is on this machine.
func (n *Node) leftovers(ctx context.Context) ([]cloud.InstanceID, error) {
	ids, err := n.folders()
	if err != nil {
		return nil, err
	}
	disks, err := n.Disks.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the disks: %w", err)
	}
	for _, name := range disks {
		if id, ok := diskOwner(name); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// folders are the machines that have one; what isn't named like an instance is
// somebody else's.
func (n *Node) folders() (ids []cloud.InstanceID, err error) {
	entries, err := os.ReadDir(n.machineDir(""))
	if err != nil {
		return nil, fmt.Errorf("list the machines: %w", err)
	}
	for _, e := range entries {
		if id, ok := instanceID(e.Name()); ok && e.IsDir() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func instanceID(name string) (cloud.InstanceID, bool) {
	id, ok := cloud.ParseID(name, cloud.PrefixInstance)
	return cloud.InstanceID(id), ok && id == name
}

// roles of an instance's disks, which are named after both: i-0123abcd-root.
var roles = []string{roleRoot, roleEphemeral}

const (
	roleRoot      = "root"
	roleEphemeral = "ephemeral0"
)

func diskName(id cloud.InstanceID, role string) string { return string(id) + "-" + role }

// diskOwner is the instance of a disk; false where it is somebody else's.
func diskOwner(name string) (cloud.InstanceID, bool) {
	for _, role := range roles {
		if id, ok := strings.CutSuffix(name, "-"+role); ok {
			return instanceID(id)
		}
	}
	return "", false
}

// backoff before the next try: 1 s, 2 s, 4 s … a minute.
func backoff(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 6), time.Minute)
}

// permanentError is one that trying again can't mend.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

func permanent(err error) bool {
	var p permanentError
	return errors.As(err, &p) || errors.Is(err, cloud.ErrDamaged)
}

// reasonOf puts a failure in EC2's form: the user's own image is the client's
// matter, everything else the server's, a full disk met while unpacking included.
func reasonOf(err error) cloud.Reason {
	code := cloud.ReasonInternalError
	var image *ImageError
	var full *block.NoSpaceError
	switch {
	case errors.As(err, &full):
		code = cloud.ReasonNoCapacity
	case errors.As(err, &image):
		code = cloud.ReasonInvalidImage
	}
	return cloud.Reason{Code: code, Message: code + ": " + err.Error()}
}
