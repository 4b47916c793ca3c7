package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"mallee/cloud"
	"mallee/durable"
	"mallee/hypervisor"
)

// takeAll the sets of snapshots whose volumes the host has open. A set that can't
// be taken is no reason to leave the others.
func (n *Node) takeAll(ctx context.Context, h host, sets [][]cloud.Snapshot) error {
	var errs []error
	for _, set := range sets {
		errs = append(errs, n.take(ctx, h, set))
	}
	return errors.Join(errs...)
}

// take snapshots of volumes that the host has open, at one instant. Where it fails
// half way, follow makes an end of it.
func (n *Node) take(ctx context.Context, h host, set []cloud.Snapshot) error {
	var list []*snap
	var copies []hypervisor.Copy
	for _, w := range set {
		s, since, err := n.begin(ctx, h, w)
		if err != nil {
			return err
		}
		c := hypervisor.Copy{Serial: serialOf(w.Volume), Mark: string(w.ID), Since: since}
		c.Socket, c.Export = s.sink.Address()
		list, copies = append(list, s), append(copies, c)
	}
	whole, err := n.Storage.Copy(ctx, h.dir, copies)
	if err != nil {
		return fmt.Errorf("copy volumes for snapshots: %w", err)
	}
	for i, s := range list {
		if err := n.note(s, func(m *snapshotMemo) { m.Taken, m.Whole = true, whole[i] }); err != nil {
			return err
		}
	}
	return nil
}

// begin a snapshot: whose it is, and what of it is there already, is durable before
// anything is copied. Since is the mark from which on the disk is copied; empty
// for all of it.
func (n *Node) begin(ctx context.Context, h host, w cloud.Snapshot) (s *snap, since string, err error) {
	if err := os.MkdirAll(n.snapshotDir(w.ID), 0o700); err != nil {
		return nil, "", fmt.Errorf("make the folder of snapshot %s: %w", w.ID, err)
	}
	if err := durable.SyncDir(n.snapshotDir("")); err != nil {
		return nil, "", fmt.Errorf("make the folder of snapshot %s: %w", w.ID, err)
	}
	if s, err = n.adopt(h, w); err != nil {
		return nil, "", err
	}
	if err := n.writeSnapshot(s.memo); err != nil {
		return nil, "", err
	}
	if w.Base != nil {
		since = string(w.Parent)
	}
	return s, since, n.openSink(ctx, s)
}

// adopt a snapshot that is nobody's, unless it should not be taken any more.
func (n *Node) adopt(h host, w cloud.Snapshot) (*snap, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.snapshots[w.ID]
	if _, assigned := n.takes[w.ID]; !assigned || s == nil {
		return nil, fmt.Errorf("snapshot %s was given up", w.ID)
	}
	size := n.volumes[w.Volume].sizeGiB
	if size == 0 { // of a guest that is down since before this program: it can't have been grown
		size = n.keeps[w.Volume].SizeGiB
	}
	s.memo = snapshotMemo{Snapshot: w.ID, Volume: w.Volume, Set: w.Set, Size: int64(size) << 30, Parent: w.Base, Host: h.name}
	return s, nil
}

// follow the copies that the host makes, and say how many go on. status is how the
// host stands.
func (n *Node) follow(ctx context.Context, h host, status hypervisor.Status) (running int, err error) {
	list := n.in(h)
	if len(list) == 0 {
		return 0, nil
	}
	jobs := map[string]hypervisor.Job{}
	if status != hypervisor.Absent {
		all, err := n.Storage.Jobs(ctx, h.dir)
		if err != nil {
			return 0, fmt.Errorf("look at the copies: %w", err)
		}
		for _, j := range all {
			jobs[j.ID] = j
		}
	}
	var errs []error
	for _, c := range n.courses(h, list, jobs, status) {
		goesOn, err := n.followOne(ctx, c)
		if goesOn {
			running++
		}
		errs = append(errs, err)
	}
	return running, errors.Join(errs...)
}

// course is how a snapshot stands when a host is looked at.
type course struct {
	*snap
	host
	absent   bool // the host is
	assigned bool
	taken    bool // with all of its set
	job      hypervisor.Job
	there    bool // the job is
}

// courses of the snapshots in a host. Of a set that is not taken, those come
// first whose files say that they are: the others' files say still that the set
// isn't if it ends here.
func (n *Node) courses(h host, list []*snap, jobs map[string]hypervisor.Job, status hypervisor.Status) (all []course) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range list {
		c := course{snap: s, host: h, absent: status == hypervisor.Absent, taken: n.taken(s)}
		_, c.assigned = n.takes[s.memo.Snapshot]
		c.job, c.there = jobs[string(s.memo.Snapshot)]
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b course) int {
		switch {
		case a.memo.Taken == b.memo.Taken:
			return 0
		case a.memo.Taken:
			return -1
		}
		return 1
	})
	return all
}

// followOne copy; false when the host has nothing of it any more.
func (n *Node) followOne(ctx context.Context, c course) (goesOn bool, err error) {
	if c.there {
		n.see(c.snap, c.job)
	}
	switch {
	case c.memo.ended() || !c.assigned:
	case !c.taken:
		err = n.beginAnew(ctx, c)
		return err != nil, err
	case !c.there:
		err = n.fail(c.snap, errors.New("the machine ended before the snapshot was stored"))
	case c.job.Ended && c.job.Err != nil:
		err = n.fail(c.snap, fmt.Errorf("store the snapshot: %w", c.job.Err))
	case c.job.Ended:
		err = n.commit(ctx, c.snap)
	default:
		return true, n.openSink(ctx, c.snap)
	}
	if err == nil {
		err = n.leave(ctx, c)
	}
	return err != nil, err
}

// see how far a copy is.
func (n *Node) see(s *snap, job hypervisor.Job) {
	if s.done != job.Done || s.total != job.Total {
		n.say(func() { s.done, s.total = job.Done, job.Total })
	}
}

// beginAnew a snapshot that was not taken, for a crash or an error came between;
// after so many attempts it has failed.
func (n *Node) beginAnew(ctx context.Context, c course) error {
	if err := n.dismiss(ctx, c); err != nil {
		return err
	}
	if err := n.discard(ctx, c.snap); err != nil {
		return err
	}
	if c.failures++; c.failures >= attempts {
		if err := n.fail(c.snap, errors.New("its volume can't be copied")); err != nil {
			return err
		}
	}
	return n.note(c.snap, func(m *snapshotMemo) { m.Host, m.Taken = "", false })
}

// leave the host with nothing of the snapshot.
func (n *Node) leave(ctx context.Context, c course) error {
	if err := n.dismiss(ctx, c); err != nil {
		return err
	}
	if err := n.closeSink(c.snap); err != nil {
		return err
	}
	if err := n.note(c.snap, func(m *snapshotMemo) { m.Host = "" }); err != nil {
		return err
	}
	n.wake(&n.sweeping)
	return nil
}

func (n *Node) dismiss(ctx context.Context, c course) error {
	if c.absent {
		return nil
	}
	if err := n.Storage.Dismiss(ctx, c.dir, string(c.memo.Snapshot)); err != nil {
		return fmt.Errorf("end the copy for snapshot %s: %w", c.memo.Snapshot, err)
	}
	return nil
}

// commit what was copied.
func (n *Node) commit(ctx context.Context, s *snap) error {
	if err := n.openSink(ctx, s); err != nil {
		return err
	}
	content, err := s.sink.Commit(ctx, s.memo.Whole)
	if err != nil {
		return fmt.Errorf("store snapshot %s: %w", s.memo.Snapshot, err)
	}
	return n.note(s, func(m *snapshotMemo) { m.Content = &content })
}
