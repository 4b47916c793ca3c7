package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mallee/cloud"
	"mallee/durable"
	"mallee/hypervisor"
)

// Volumes that no machine has are filled by so many keepers at once, and only
// after a while: most are attached as soon as they are made.
const (
	maxFillers = 2
	fillDelay  = 30 * time.Second
)

// pollEvery is how often work that goes on beside guests is looked at.
const pollEvery = time.Second

// host is a process that has volumes open: a machine's, or a keeper's.
type host struct {
	name string // of its folder in the node's: machines/i-0123abcd, keepers/vol-0123abcd
	dir  string
}

func (n *Node) host(kind, name string) host {
	return host{kind + "/" + name, filepath.Join(n.Dir, kind, name)}
}

func (n *Node) machineHost(id cloud.InstanceID) host { return n.host("machines", string(id)) }
func (n *Node) keeperHost(id cloud.VolumeID) host    { return n.host("keepers", string(id)) }

// keep is one pass over a volume that no machine has. Of one that a machine has
// the machine's worker takes care.
func (n *Node) keep(ctx context.Context, v *volume) {
	n.mu.Lock()
	w, assigned := n.keeps[v.id]
	waiting := v.failures > 0 && n.Now().Before(v.retryAt)
	given := v.phase == cloud.VolumeFailed && w.Deleted.IsZero()
	idle := n.assignment.Generation == 0 || v.gone || waiting || given || v.holder != "" || !assigned && !v.kept
	if !idle && !v.kept {
		v.kept = true
		if v.freeAt.IsZero() {
			v.freeAt = n.Now()
		}
	}
	n.mu.Unlock()
	if idle {
		return
	}
	open, err := n.keepVolume(ctx, v, w, assigned)
	n.concludeVolume(ctx, v, open, noSpace(err))
}

// keepVolume makes a volume that is in hand what it should be. It returns with
// open unset only if no keeper has it open.
func (n *Node) keepVolume(ctx context.Context, v *volume, w cloud.Volume, assigned bool) (open bool, err error) {
	k := n.keeperHost(v.id)
	status, err := n.observeKeeper(ctx, k)
	if err != nil {
		return true, err
	}
	open = status != hypervisor.Absent
	running, err := n.follow(ctx, k, status)
	if err != nil {
		return open, err
	}
	sets := n.untaken(v.id)
	if running == 0 && !n.needsKeeper(v, w, sets) {
		if err := n.endKeeper(ctx, v, k); err != nil {
			return open, err
		}
		open = false
	}
	if !assigned || !open && !w.Deleted.IsZero() && len(sets) == 0 {
		return open, n.forget(ctx, v, w, assigned)
	}
	if !open {
		disk, err := n.ensureVolume(ctx, w)
		if err != nil || !n.needsKeeper(v, w, sets) || len(sets) == 0 && !n.claimFiller(v) {
			return false, err
		}
		if err := n.startKeeper(ctx, v, k, disk); err != nil {
			return true, err
		}
	}
	return true, n.workInKeeper(ctx, v, k, running, sets)
}

// forget a volume that should be deleted, and is open nowhere.
func (n *Node) forget(ctx context.Context, v *volume, w cloud.Volume, assigned bool) error {
	if !assigned || w.Deleted.IsZero() {
		return nil // who isn't told of it leaves it alone
	}
	if err := n.Volumes.Remove(ctx, string(w.ID)); err != nil {
		return fmt.Errorf("remove volume %s: %w", w.ID, err)
	}
	n.say(func() { v.gone = true })
	n.Log.Info("volume removed", "volume", w.ID)
	return nil
}

// needsKeeper says whether there is work on a volume that no machine has: a
// snapshot to take, or a filling, for which nobody waits. One that is to grow is
// closed first.
func (n *Node) needsKeeper(v *volume, w cloud.Volume, sets [][]cloud.Snapshot) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	wanted := n.wantedBy(w) != ""
	switch {
	case v.sizeGiB != 0 && w.SizeGiB > v.sizeGiB:
		return false
	case len(sets) > 0:
		return !wanted || v.failures == 0 // otherwise its machine takes them
	case wanted || !w.Deleted.IsZero() || !v.stands || v.filled == 100:
		return false
	}
	return v.filling || n.fillers < maxFillers && n.Now().Sub(v.freeAt) >= fillDelay
}

// observeKeeper finds no process where there is no folder.
func (n *Node) observeKeeper(ctx context.Context, k host) (hypervisor.Status, error) {
	if _, err := os.Stat(k.dir); errors.Is(err, fs.ErrNotExist) {
		return hypervisor.Absent, nil
	}
	status, err := n.Hypervisor.Observe(ctx, k.dir)
	if err != nil {
		return status, fmt.Errorf("look at the keeper: %w", err)
	}
	return status, nil
}

// startKeeper opens the volume. The folder comes first: by it the next program
// knows that the volume may be open.
func (n *Node) startKeeper(ctx context.Context, v *volume, k host, disk hypervisor.Disk) error {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return fmt.Errorf("make the keeper's folder: %w", err)
	}
	if err := durable.SyncDir(filepath.Dir(k.dir)); err != nil {
		return fmt.Errorf("make the keeper's folder: %w", err)
	}
	keeper := hypervisor.Machine{ID: string(v.id), Dir: k.dir, Disks: []hypervisor.Disk{disk}}
	if err := n.Hypervisor.Start(ctx, keeper); err != nil {
		return fmt.Errorf("start a keeper: %w", err)
	}
	return nil
}

// endKeeper closes the volume, and is no error where it isn't open.
func (n *Node) endKeeper(ctx context.Context, v *volume, k host) error {
	if _, err := os.Stat(k.dir); !errors.Is(err, fs.ErrNotExist) {
		if err := n.removeKeeper(ctx, k); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopFilling(v)
	return nil
}

func (n *Node) removeKeeper(ctx context.Context, k host) error {
	if err := n.Hypervisor.Kill(ctx, k.dir); err != nil {
		return fmt.Errorf("end the keeper: %w", err)
	}
	if err := errors.Join(os.RemoveAll(k.dir), durable.SyncDir(filepath.Dir(k.dir))); err != nil {
		return fmt.Errorf("remove the keeper's folder: %w", err)
	}
	return nil
}

// claimFiller has the volume's keeper count among those that fill, if there is room
// for another.
func (n *Node) claimFiller(v *volume) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !v.filling && n.fillers >= maxFillers {
		return false
	}
	if !v.filling {
		v.filling = true
		n.fillers++
	}
	return true
}

// stopFilling makes room for another keeper that fills. mu is held.
func (n *Node) stopFilling(v *volume) {
	if v.filling {
		v.filling = false
		n.fillers--
	}
}

// workInKeeper takes the snapshots there are to take, or else fills.
func (n *Node) workInKeeper(ctx context.Context, v *volume, k host, running int, sets [][]cloud.Snapshot) error {
	if len(sets) > 0 || running > 0 {
		return n.takeAll(ctx, k, sets)
	}
	_, err := n.fill(ctx, k, v)
	return err
}

// concludeVolume notes how a pass ended, and gives the volume out of hand where
// it is open no more.
func (n *Node) concludeVolume(ctx context.Context, v *volume, open bool, err error) {
	if ctx.Err() != nil {
		return // the program ends; the next one measures again
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	phase, reason := v.phase, cloud.Reason{}
	if v.retryAt = (time.Time{}); open {
		v.retryAt = n.Now().Add(pollEvery)
	}
	if err == nil {
		v.failures = 0
	} else {
		v.failures++
		v.retryAt = n.Now().Add(backoff(v.failures))
		reason = reasonOf(err)
		n.Log.Warn("a volume is not as it should be", "volume", v.id, "attempt", v.failures, "err", err)
		if phase == cloud.VolumePreparing && (v.failures >= attempts || permanent(err)) {
			phase = cloud.VolumeFailed
		}
	}
	if phase != v.phase || reason != v.reason {
		v.phase, v.reason = phase, reason
		n.touch()
	}
	if v.kept = open; !open {
		n.wakeMachine(n.wantedBy(n.keeps[v.id]))
	}
}
