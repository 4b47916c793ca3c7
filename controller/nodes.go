package controller

import (
	"context"
	"fmt"
	"time"

	"mallee/cloud"
	"mallee/link"
	"mallee/state"
)

// Sync implements link.Cloud: it takes the report in, and answers as soon as
// the node's assignment is newer than what the report was made under.
func (c *Controller) Sync(ctx context.Context, r link.Report) (link.Assignment, error) {
	if err := c.TakeIn(ctx, r); err != nil {
		return link.Assignment{}, err
	}
	for {
		changed := c.Store.Changed()
		// Most commits are not this node's affair, which its record tells
		// without a look at its instances.
		if _, generation, _ := state.Nodes.Get(c.Store.View(), r.Node); generation > r.Generation {
			return c.Assignment(r.Node), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return link.Assignment{}, ctx.Err()
		case <-c.Store.Done():
			return link.Assignment{}, c.Store.Err()
		}
	}
}

// Assignment is all that the node should run, as wished now. Its generation is
// the revision of the node's record, which every change of a wish on that node
// also writes.
func (c *Controller) Assignment(id cloud.NodeID) link.Assignment {
	view := c.Store.View()
	_, generation, _ := state.Nodes.Get(view, id)
	a := link.Assignment{Node: id, Generation: generation}
	for i := range state.InstancesByNode.By(view, id) {
		if i.Wish == cloud.WishRunning {
			a.Instances = append(a.Instances, withTags(view, *i))
		}
	}
	busy := map[cloud.VolumeID]bool{}
	for s := range state.SnapshotsToTake.By(view, id) {
		a.Snapshots = append(a.Snapshots, *s)
		busy[s.Volume] = true
	}
	for v := range state.VolumesByNode.By(view, id) {
		assigned := *v
		if busy[v.ID] {
			assigned.Deleted = time.Time{} // not before its snapshots have what they need of it
		}
		a.Volumes = append(a.Volumes, assigned)
	}
	for t := range state.TasksToDo.By(view, id) {
		a.Tasks = append(a.Tasks, *t)
	}
	a.Groups = groups(view, a.Instances)
	return a
}

// withTags is the instance with its tags, if its metadata tells them.
func withTags(view *state.View, i cloud.Instance) cloud.Instance {
	if set, _, ok := state.TagSets.Get(view, string(i.ID)); ok && i.MetadataTags {
		i.Tags = set.Tags
	}
	return i
}

// TakeIn writes what a report says that wasn't known. A machine that is as it was
// known to be is left out of the transaction, which compares all that it reads:
// a node has hundreds, and reports all of them when one has changed.
func (c *Controller) TakeIn(ctx context.Context, r link.Report) error {
	if err := c.takeInMachines(ctx, r); err != nil {
		return err
	}
	return c.takeInTasks(ctx, r)
}

// takeInMachines, and volumes and snapshots.
func (c *Controller) takeInMachines(ctx context.Context, r link.Report) error {
	view := c.Store.View()
	changed, volumes, snapshots := c.changed(view, r), c.volumeNews(view, r), c.snapshotNews(view, r)
	news := len(changed) + len(volumes) + len(snapshots) + len(c.absent(view, r)) + len(c.deleted(view, r))
	if news == 0 && !c.joins(view, r) {
		return nil
	}
	err := c.Store.Update(ctx, func(tx *state.Tx) error {
		c.join(tx, r)
		for _, m := range changed {
			c.observe(tx, r.Node, m)
		}
		for _, v := range volumes {
			c.observeVolume(tx, r, v)
		}
		for _, s := range snapshots {
			c.observeSnapshot(tx, r, s)
		}
		for _, id := range c.absent(tx, r) {
			c.release(tx, id)
		}
		for _, id := range c.deleted(tx, r) {
			c.forgetVolume(tx, id)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("take in the report of node %s: %w", r.Node, err)
	}
	return nil
}

// joins says whether the node is new, or offers something new.
func (c *Controller) joins(view *state.View, r link.Report) bool {
	n, _, ok := state.Nodes.Get(view, r.Node)
	return !ok || n.Capacity != r.Capacity || n.Zone != r.Zone
}

// changed are the machines of which the report says what isn't known yet.
func (c *Controller) changed(view *state.View, r link.Report) (news []link.Machine) {
	for _, m := range r.Machines {
		i, _, known := state.Instances.Get(view, m.Instance)
		if !known || i.Node != r.Node {
			continue // as in observe
		}
		if _, changed := c.observation(i, seen(view, i.ID), m); changed {
			news = append(news, m)
		}
	}
	return news
}

// join makes the node's record, or brings what it offers up to date.
func (c *Controller) join(tx *state.Tx, r link.Report) {
	n := cloud.Node{ID: r.Node, JoinedAt: c.Now()}
	if was, _, ok := state.Nodes.Get(tx, r.Node); ok {
		n = *was
	}
	if n.Zone == r.Zone && n.Capacity == r.Capacity {
		return
	}
	n.Zone, n.Capacity = r.Zone, r.Capacity
	state.Nodes.Put(tx, n)
	c.Log.Info("node", "node", n.ID, "zone", n.Zone, "vcpus", n.Capacity.VCPUs, "memory_mib", n.Capacity.MemoryMiB, "disk_gib", n.Capacity.DiskGiB)
}

func (c *Controller) observe(tx *state.Tx, node cloud.NodeID, m link.Machine) {
	i, _, known := state.Instances.Get(tx, m.Instance)
	if !known || i.Node != node {
		return // of a state that was restored from a backup, say: unassigned, so the node gives it back
	}
	if o, changed := c.observation(i, seen(tx, i.ID), m); changed {
		state.Observations.Put(tx, o)
	}
}

// observation is what is known of the instance after a node said m of it. A
// report may be late: what was concluded to be gone stays so, having been seen
// up stays so, and what was said of a former wish is no news of this one.
func (c *Controller) observation(i *cloud.Instance, was cloud.Observation, m link.Machine) (o cloud.Observation, changed bool) {
	o = was
	o.Instance = i.ID
	if m.Wishes != i.Wishes || o.Phase == cloud.PhaseGone && i.Wish != cloud.WishRunning {
		return o, false
	}
	o.Phase, o.Reason = m.Phase, m.Reason
	if m.Phase == cloud.PhaseUp || m.Phase == cloud.PhaseExited {
		o.UpWish = i.Wishes
	}
	if m.Password != "" {
		o.Password = m.Password // a node that has not heard it again knows no better
	}
	if o == was {
		return o, false
	}
	o.At = c.Now()
	return o, true
}

// absent are the instances which the node should not run any more, and of
// which this report proves that it has nothing and will start nothing: they
// are not in it, and it was made under an assignment that already knew of
// their last wish.
func (c *Controller) absent(r state.Reader, report link.Report) []cloud.InstanceID {
	has := make(map[cloud.InstanceID]bool, len(report.Machines))
	for _, m := range report.Machines {
		has[m.Instance] = true
	}
	var ids []cloud.InstanceID
	for i, generation := range state.InstancesByNode.By(r, report.Node) {
		if i.Wish == cloud.WishRunning || has[i.ID] || report.Generation < generation {
			continue
		}
		if seen(r, i.ID).Phase != cloud.PhaseGone {
			ids = append(ids, i.ID)
		}
	}
	return ids
}

// release concludes that the node has nothing left of the instance, and gives
// back what it took from the cloud. It looks the instance up, so that a wish
// which changes meanwhile overtakes this transaction.
func (c *Controller) release(tx *state.Tx, id cloud.InstanceID) {
	i, _, ok := state.Instances.Get(tx, id)
	if !ok || i.Wish == cloud.WishRunning {
		return
	}
	o := seen(tx, id)
	o.Instance, o.Phase, o.Reason, o.At = id, cloud.PhaseGone, cloud.Reason{}, c.Now()
	state.Observations.Put(tx, o)
	if i.Wish == cloud.WishStopped {
		state.Vacate(tx, i)
	} else {
		state.Release(tx, i)
	}
}
