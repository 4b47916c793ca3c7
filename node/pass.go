package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"mallee/block"
	"mallee/cloud"
	"mallee/hypervisor"
)

// attempts is how often a launch is tried before it is reported as failed.
const attempts = 3

// memo is what a pass has to remember of one machine over a restart.
type memo struct {
	Instance cloud.InstanceID `json:"instance"`
	Up       bool             `json:"up"`      // the guest was up once: its disk is worth keeping
	Reboots  int              `json:"reboots"` // how many of the reboots asked for were made
	Bases    []string         `json:"bases"`   // cache entries that its disks stand on
}

// pass walks the whole road once for one machine.
func (n *Node) pass(ctx context.Context, id cloud.InstanceID) {
	n.mu.Lock()
	m := n.machines[id]
	instance, assigned := n.assigned[id]
	waiting := m != nil && assigned && m.phase != cloud.PhaseUp && n.Now().Before(m.retryAt)
	finished := m != nil && assigned && m.phase == cloud.PhaseFailed && m.wishes == instance.Wishes
	n.mu.Unlock()
	switch {
	case m == nil || waiting || finished:
	case assigned:
		phase, err := n.ensure(ctx, instance)
		n.conclude(ctx, instance, phase, err)
	default:
		n.giveBack(ctx, id)
	}
}

// ensure makes the machine what it should be, and says how it stands.
func (n *Node) ensure(ctx context.Context, i cloud.Instance) (cloud.Phase, error) {
	dir := n.machineDir(i.ID)
	remembered, err := n.ensureFolder(i)
	if err != nil {
		return cloud.PhasePreparing, err
	}
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
		wanted, err := n.prepare(ctx, i, &remembered)
		if err != nil {
			return cloud.PhasePreparing, err
		}
		wanted.NICs = []hypervisor.NIC{{MAC: i.MAC, Attachment: port}}
		remembered.Reboots = i.Reboots // a new start is all that a reboot asks for
		if err := n.remember(remembered); err != nil {
			return cloud.PhasePreparing, err
		}
		if err := n.Hypervisor.Start(ctx, wanted); err != nil {
			return cloud.PhasePreparing, fmt.Errorf("start the machine: %w", err)
		}
		status = hypervisor.Running
	}
	if !remembered.Up {
		remembered.Up = true
		if err := n.remember(remembered); err != nil {
			return cloud.PhasePreparing, err
		}
	}
	return n.reboot(ctx, i, remembered, status)
}

// conclude notes how a pass ended, and what that means for the next one.
func (n *Node) conclude(ctx context.Context, i cloud.Instance, phase cloud.Phase, err error) {
	if ctx.Err() != nil {
		return // the program ends; the next one measures again
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.know(i.ID)
	before := *m
	m.phase, m.wishes, m.reason = phase, i.Wishes, cloud.Reason{}
	if err == nil {
		m.failures, m.retryAt = 0, m.powerDownBy
	} else {
		m.fail(n.Now(), err)
		n.Log.Warn("a machine is not as it should be", "instance", i.ID, "attempt", m.failures, "err", err)
		if phase == cloud.PhasePreparing && !n.everUp(i.ID) && (m.failures >= attempts || permanent(err)) {
			m.phase = cloud.PhaseFailed
		}
	}
	if m.phase != before.phase || m.reason != before.reason || m.wishes != before.wishes {
		n.Log.Info("machine", "instance", i.ID, "phase", m.phase, "reason", m.reason.Message)
		n.touch()
	}
}

// fail counts a failure; the next try is the later the more there were.
func (m *machine) fail(now time.Time, err error) {
	m.failures++
	m.retryAt = now.Add(backoff(m.failures))
	m.reason = reasonOf(err)
}

// everUp says whether the guest ever ran. What can't be read is taken for a
// yes: nothing is given up for lack of a memory.
func (n *Node) everUp(id cloud.InstanceID) bool {
	var m memo
	return readJSON(n.memoPath(id), &m) != nil || m.Up
}

// giveBack removes all that is left of a machine that is no longer assigned.
func (n *Node) giveBack(ctx context.Context, id cloud.InstanceID) {
	err := n.remove(ctx, id)
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.machines[id]
	if err != nil {
		m.fail(n.Now(), err)
		n.Log.Warn("a machine can't be removed yet", "instance", id, "attempt", m.failures, "err", err)
		return
	}
	if _, back := n.assigned[id]; back {
		return
	}
	delete(n.machines, id)
	n.Log.Info("machine removed", "instance", id)
	n.touch()
}

// remove in the order that leaves no part in use by another; the folder last.
func (n *Node) remove(ctx context.Context, id cloud.InstanceID) error {
	dir := n.machineDir(id)
	if _, err := os.Stat(dir); err == nil {
		if err := n.Hypervisor.Kill(ctx, dir); err != nil {
			return fmt.Errorf("end the machine: %w", err)
		}
	}
	if err := n.Network.Remove(ctx, string(id)); err != nil {
		return fmt.Errorf("disconnect from the network: %w", err)
	}
	disks, err := n.Disks.List(ctx)
	if err != nil {
		return fmt.Errorf("list the disks: %w", err)
	}
	for _, name := range disks {
		if diskOwner(name) != id {
			continue
		}
		if err := n.Disks.Remove(ctx, name); err != nil {
			return fmt.Errorf("remove disk %s: %w", name, err)
		}
	}
	return removeDir(dir)
}

// reboot brings the guest through the reboots that were asked for and not made
// yet, and says how the machine stands.
func (n *Node) reboot(ctx context.Context, i cloud.Instance, m memo, status hypervisor.Status) (cloud.Phase, error) {
	if m.Reboots >= i.Reboots {
		return phaseOf(status), nil
	}
	if status == hypervisor.Running {
		due, err := n.askToPowerDown(ctx, i)
		if err != nil || !due {
			return cloud.PhaseUp, err
		}
	}
	if err := n.Hypervisor.Reset(ctx, n.machineDir(i.ID)); err != nil {
		return cloud.PhaseUp, fmt.Errorf("reset the machine: %w", err)
	}
	m.Reboots = i.Reboots
	return cloud.PhaseUp, n.remember(m)
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
	entries, err := os.ReadDir(n.machineDir(""))
	if err != nil {
		return nil, fmt.Errorf("list the machines: %w", err)
	}
	disks, err := n.Disks.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the disks: %w", err)
	}
	var ids []cloud.InstanceID
	for _, e := range entries {
		ids = append(ids, cloud.InstanceID(e.Name()))
	}
	for _, name := range disks {
		ids = append(ids, diskOwner(name))
	}
	return ids, nil
}

// Disks are named after their instance: i-0123abcd.root, i-0123abcd.ephemeral0.
func diskName(id cloud.InstanceID, role string) string { return string(id) + "-" + role }

func diskOwner(name string) cloud.InstanceID {
	return cloud.InstanceID(name[:max(strings.LastIndexByte(name, '-'), 0)])
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
	return errors.As(err, &p)
}

// reasonOf puts a failure in EC2's form: the user's own image is the client's
// matter, everything else the server's.
func reasonOf(err error) cloud.Reason {
	var image *ImageError
	var full *block.NoSpaceError
	switch {
	case errors.As(err, &image):
		return cloud.Reason{Code: cloud.ReasonInvalidImage, Message: cloud.ReasonInvalidImage + ": " + err.Error()}
	case errors.As(err, &full):
		return cloud.Reason{Code: cloud.ReasonNoCapacity, Message: cloud.ReasonNoCapacity + ": " + err.Error()}
	}
	return cloud.Reason{Code: cloud.ReasonInternalError, Message: cloud.ReasonInternalError + ": " + err.Error()}
}
