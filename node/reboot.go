package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"mallee/cloud"
	"mallee/hypervisor"
)

// powerDownGrace is how long a guest that is asked to reboot may take to shut
// down before it is reset hard (EC2 waits four minutes); stopGrace how long one
// may that is stopped.
const (
	powerDownGrace = 4 * time.Minute
	stopGrace      = time.Minute
)

// reboot brings the guest through the reboots that were asked for and not made
// yet, takes the snapshots there are to take of its volumes, and says how the
// machine stands. A reboot that comes while the guest still shuts down for another
// is made with it, and a snapshot that wants one is taken between its shutting down
// and its starting again.
func (n *Node) reboot(ctx context.Context, i cloud.Instance, m *machine, status hypervisor.Status) (cloud.Phase, error) {
	calm, quiet := n.toTake(m)
	taken := n.takeFrom(ctx, m, calm)
	root, dropped := n.rootWish(m)
	wantsRoot := root != nil && !root.taken && !dropped
	if (len(quiet) > 0 || wantsRoot) && status == hypervisor.Running && !m.memo.Halted {
		m.memo.Halted = true
		if err := n.remember(m.memo); err != nil {
			return cloud.PhaseUp, errors.Join(taken, err)
		}
	}
	if m.memo.Reboots >= i.Reboots && !m.memo.Halted {
		return phaseOf(status), errors.Join(taken, n.takeFrom(ctx, m, quiet))
	}
	down, err := n.shutDown(ctx, m, status, powerDownGrace)
	if err != nil || !down {
		return cloud.PhaseUp, errors.Join(taken, err)
	}
	if err := n.takeFrom(ctx, m, quiet); err != nil {
		return cloud.PhaseUp, errors.Join(taken, err)
	}
	if wantsRoot {
		n.takeRoot(ctx, i, m, root)
	}
	if err := n.Hypervisor.Reset(ctx, n.machineDir(i.ID)); err != nil {
		return cloud.PhaseUp, errors.Join(taken, fmt.Errorf("reset the machine: %w", err))
	}
	m.memo.Reboots, m.memo.Halted, m.powerDownBy = i.Reboots, false, time.Time{}
	return cloud.PhaseUp, taken
}

// toTake are the snapshots to take of volumes that the machine has: those that
// are taken of a guest that runs, and those of one that is shut down.
func (n *Node) toTake(m *machine) (calm, quiet [][]cloud.Snapshot) {
	n.mu.Lock()
	var has []cloud.VolumeID
	for _, id := range m.memo.Volumes {
		if n.volumes[id].plugged {
			has = append(has, id)
		}
	}
	n.mu.Unlock()
	for _, set := range n.untaken(has...) {
		if slices.ContainsFunc(set, func(s cloud.Snapshot) bool { return s.Reboot }) {
			quiet = append(quiet, set)
		} else {
			calm = append(calm, set)
		}
	}
	return calm, quiet
}

// takeFrom the machine, and look soon how the copies go.
func (n *Node) takeFrom(ctx context.Context, m *machine, sets [][]cloud.Snapshot) error {
	if len(sets) == 0 {
		return nil
	}
	m.poll(n.Now())
	return n.takeAll(ctx, n.machineHost(m.id), sets)
}

// shutDown asks the guest, and says when it is down or had its time. It is asked
// again and again, for one that boots doesn't hear it.
func (n *Node) shutDown(ctx context.Context, m *machine, status hypervisor.Status, grace time.Duration) (down bool, err error) {
	if status != hypervisor.Running {
		return true, nil
	}
	now := n.Now()
	if m.powerDownBy.IsZero() {
		m.powerDownBy, m.pressedAt = now.Add(grace), time.Time{}
	}
	if now.Sub(m.pressedAt) >= askEvery {
		if err := n.Hypervisor.PowerDown(ctx, n.machineDir(m.id)); err != nil {
			return false, fmt.Errorf("ask the guest to shut down: %w", err)
		}
		m.pressedAt = now
	}
	m.lookAt = earlier(m.lookAt, m.pressedAt.Add(askEvery))
	return !now.Before(m.powerDownBy), nil
}

// letGo says when the machine of an instance that is not assigned any more may be
// ended: where volumes outlive it, when the guest has shut down in good time and
// what is being copied of them is.
func (n *Node) letGo(ctx context.Context, m *machine) (ready bool, err error) {
	if err := n.recall(m); err != nil {
		m.memo = &memo{Instance: m.id, Volumes: n.mayHave(m.id)} // it is not needed for long
	}
	if len(m.memo.Volumes) == 0 {
		return true, nil
	}
	m.lookAt = time.Time{}
	h := n.machineHost(m.id)
	if _, err := os.Stat(h.dir); errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	status, err := n.Hypervisor.Observe(ctx, h.dir)
	if err != nil {
		return false, fmt.Errorf("look at the machine: %w", err)
	}
	running, err := n.follow(ctx, h, status)
	if err != nil || status == hypervisor.Absent {
		return err == nil, err
	}
	if running > 0 {
		m.poll(n.Now())
	}
	if !n.outlived(m) {
		return running == 0, nil
	}
	down, err := n.shutDown(ctx, m, status, stopGrace)
	return down && running == 0, err
}

// outlived says whether a volume of the machine is kept when it has ended.
func (n *Node) outlived(m *machine) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(m.memo.Volumes, func(id cloud.VolumeID) bool {
		w, assigned := n.keeps[id]
		return assigned && w.Deleted.IsZero()
	})
}
