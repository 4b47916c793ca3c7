package node

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mallee/cloud"
	"mallee/hypervisor"
)

// rootCopy is the wish for an instance's own root disk, which is no volume, as it
// is at one instant. Its guest is shut down for that, and started again at once;
// the copying goes on beside it. Nothing of the wish is durable: whoever asked
// asks again after a restart.
type rootCopy struct {
	name string     // of the sink, and of the mark
	done chan error // gets how it ended, once

	// The worker's own, whose machine it is.
	sink    Sink  // nil: not begun
	taken   bool  // the guest need not be down for it any more
	failed  error // why it could not be begun
	content cloud.Content
}

// errInstanceGone tells that there is no machine to copy from.
var errInstanceGone = errors.New("the instance does not run on this node any more")

// StoreRoot stores the root disk of an instance-store instance under a name of
// the caller's ([a-z0-9-]+), whose journal is the caller's to remove.
func (n *Node) StoreRoot(ctx context.Context, name string, id cloud.InstanceID) (cloud.Content, error) {
	c := &rootCopy{name: name, done: make(chan error, 1)}
	if err := n.wishRoot(id, c); err != nil {
		return cloud.Content{}, err
	}
	select {
	case err := <-c.done:
		return c.content, err
	case <-ctx.Done():
		n.dropRoot(id, c) // by the machine's worker, in its time
		return cloud.Content{}, ctx.Err()
	}
}

func (n *Node) wishRoot(id cloud.InstanceID, c *rootCopy) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.machines[id]
	if i, assigned := n.assigned[id]; m == nil || !assigned || i.EBS {
		return fmt.Errorf("copy the root disk of %s: %w", id, errInstanceGone)
	}
	if m.root != nil {
		return fmt.Errorf("the root disk of %s is being copied", id)
	}
	m.root = c
	n.wakeLocked(&m.turn)
	return nil
}

// dropRoot has the copy given up by the machine's worker.
func (n *Node) dropRoot(id cloud.InstanceID, c *rootCopy) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.machines[id]
	if m == nil || m.root != c {
		return
	}
	m.rootDropped = true
	n.wakeLocked(&m.turn)
}

// rootWish of the machine, if there is one, and whether it was dropped.
func (n *Node) rootWish(m *machine) (c *rootCopy, dropped bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return m.root, m.rootDropped
}

// takeRoot begins the copy of the machine's root disk, whose guest is down. Where
// it can't, the guest goes on all the same, and whoever asked is told then.
func (n *Node) takeRoot(ctx context.Context, i cloud.Instance, m *machine, c *rootCopy) {
	c.failed = n.beginRoot(ctx, i, m, c)
	c.taken = true
	m.poll(n.Now())
}

func (n *Node) beginRoot(ctx context.Context, i cloud.Instance, m *machine, c *rootCopy) error {
	dir := n.machineDir(m.id)
	if err := n.Contents.Discard(ctx, cloud.SnapshotID(c.name)); err != nil {
		return fmt.Errorf("discard the last copy of the root disk: %w", err)
	}
	size := roundUp(i.Image.Size)
	if i.Virtualization == cloud.Paravirtual {
		size = diskBytes(i)
	}
	sink, err := n.Contents.Sink(ctx, cloud.SnapshotID(c.name), size, nil)
	if err != nil {
		return fmt.Errorf("store the root disk: %w", err)
	}
	c.sink = sink
	wish := hypervisor.Copy{Serial: roleRoot, Mark: c.name}
	wish.Socket, wish.Export = sink.Address()
	if _, err := n.Storage.Copy(ctx, dir, []hypervisor.Copy{wish}); err != nil {
		return fmt.Errorf("copy the root disk: %w", err)
	}
	return nil
}

// followRoot sees how the copy goes, and ends it when it has, whether well or not.
func (n *Node) followRoot(ctx context.Context, m *machine, status hypervisor.Status) error {
	if status != hypervisor.Absent {
		if err := n.sweepRoot(ctx, m); err != nil {
			return err
		}
	}
	c, dropped := n.rootWish(m)
	switch {
	case c == nil:
		return nil
	case dropped:
		return n.endRoot(ctx, m, c, status, context.Canceled)
	case !c.taken:
		return nil // reboot does
	case c.failed != nil:
		return n.endRoot(ctx, m, c, status, c.failed)
	case status == hypervisor.Absent:
		return n.endRoot(ctx, m, c, status, errInstanceGone)
	}
	job, found, err := n.job(ctx, n.machineHost(m.id), c.name)
	switch {
	case err != nil:
		return fmt.Errorf("look at the copy of the root disk: %w", err)
	case !found:
		return n.endRoot(ctx, m, c, status, errInstanceGone)
	case !job.Ended:
		m.poll(n.Now())
		return nil
	case job.Err != nil:
		return n.endRoot(ctx, m, c, status, fmt.Errorf("copy the root disk: %w", job.Err))
	}
	if c.content, err = c.sink.Commit(ctx, true); err != nil {
		return fmt.Errorf("store the root disk: %w", err)
	}
	return n.endRoot(ctx, m, c, status, nil)
}

// endRoot tells whoever asked how the copy ended. Nothing of it stays but, where
// that was well, its content.
func (n *Node) endRoot(ctx context.Context, m *machine, c *rootCopy, status hypervisor.Status, why error) error {
	if status != hypervisor.Absent {
		if err := n.Storage.Dismiss(ctx, n.machineDir(m.id), c.name); err != nil {
			return fmt.Errorf("end the copy of the root disk: %w", err)
		}
	}
	if c.sink != nil {
		if err := c.sink.Close(); err != nil {
			return fmt.Errorf("close what stores the root disk: %w", err)
		}
		c.sink = nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m.root, m.rootDropped = nil, false
	c.done <- why
	return nil
}

// abandonRoot tells whoever waits for a copy of it that the machine is gone.
func (n *Node) abandonRoot(ctx context.Context, m *machine) error {
	c, _ := n.rootWish(m)
	if c == nil {
		return nil
	}
	return n.endRoot(ctx, m, c, hypervisor.Absent, errInstanceGone)
}

// sweepRoot ends, once, the copy that an earlier program began and nobody waits
// for any more.
func (n *Node) sweepRoot(ctx context.Context, m *machine) error {
	if m.rootSwept {
		return nil
	}
	dir := n.machineDir(m.id)
	jobs, err := n.Storage.Jobs(ctx, dir)
	if err != nil {
		return fmt.Errorf("look for copies of the root disk: %w", err)
	}
	for _, j := range jobs {
		if strings.HasPrefix(j.ID, string(cloud.BundleInstance)+"-") {
			if err := n.Storage.Dismiss(ctx, dir, j.ID); err != nil {
				return fmt.Errorf("end the last copy of the root disk: %w", err)
			}
		}
	}
	m.rootSwept = true
	return nil
}
