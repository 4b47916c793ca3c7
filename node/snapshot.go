package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"mallee/cloud"
	"mallee/durable"
	"mallee/link"
)

// snap is the node's memory of one snapshot that it takes. It belongs to the
// worker of the host where its copy is made; while it has no host, to the sweeper,
// or to the worker who has its volume in hand and takes it.
//
//	(told) ──host──▶ begun ──Copy──▶ taken ──copied──▶ ended: stored or failed
//	   ▲               │ crash, error
//	   └───────────────┘
//
// What is durable is snapshots/ID/snapshot.json. Snapshots of one set are taken
// when all their files say so: a crash between two of them begins the whole set
// again, and nobody was told.
type snap struct {
	memo        snapshotMemo // guarded by Node.mu; changed by the one to whom it belongs
	done, total int64        // guarded by Node.mu

	failures int  // to begin
	sink     Sink // where its bytes go; nil: not open
}

// snapshotMemo is what has to be remembered of a snapshot over a restart.
type snapshotMemo struct {
	Snapshot cloud.SnapshotID `json:"snapshot"`
	Volume   cloud.VolumeID   `json:"volume"`
	Set      string           `json:"set,omitempty"`
	Size     int64            `json:"size"`
	Parent   *cloud.Content   `json:"parent,omitempty"`
	Host     string           `json:"host,omitempty"` // where there may be a job of it
	Taken    bool             `json:"taken,omitempty"`
	Whole    bool             `json:"whole,omitempty"` // all of the disk is copied, and nothing of Parent counts
	Content  *cloud.Content   `json:"content,omitempty"`
	Failed   cloud.Reason     `json:"failed,omitzero"`
}

func (m *snapshotMemo) ended() bool { return m.Content != nil || m.Failed != cloud.Reason{} }

// setOf names what has to be taken at one instant.
func (m *snapshotMemo) setOf() string {
	if m.Set == "" {
		return string(m.Snapshot)
	}
	return m.Set
}

func (n *Node) snapshotDir(id cloud.SnapshotID) string {
	return filepath.Join(n.Dir, "snapshots", string(id))
}

func (n *Node) snapshotPath(id cloud.SnapshotID) string {
	return filepath.Join(n.snapshotDir(id), "snapshot.json")
}

// knowSnapshot is the snapshot's entry, made where there is none. mu is held.
func (n *Node) knowSnapshot(id cloud.SnapshotID) *snap {
	s := n.snapshots[id]
	if s == nil {
		s = &snap{memo: snapshotMemo{Snapshot: id}}
		n.snapshots[id] = s
	}
	return s
}

// recogniseSnapshots opens the sinks of those whose copies may go on: who writes
// to them waits.
func (n *Node) recogniseSnapshots(ctx context.Context) error {
	entries, err := os.ReadDir(n.snapshotDir(""))
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	for _, e := range entries {
		id, ok := cloud.ParseID(e.Name(), cloud.PrefixSnapshot)
		if !ok || id != e.Name() || !e.IsDir() {
			continue
		}
		s := n.knowSnapshot(cloud.SnapshotID(id))
		if err := readJSON(n.snapshotPath(s.memo.Snapshot), &s.memo); err != nil {
			return fmt.Errorf("read what is known of a snapshot: %w", err)
		}
		if s.memo.Host == "" || !s.memo.Taken || s.memo.ended() {
			continue
		}
		if err := n.openSink(ctx, s); err != nil {
			n.Log.Warn("a snapshot can't be stored on yet", "snapshot", id, "err", err)
		}
	}
	return nil
}

// wakeSnapshots has those looked at that are new, or not to be taken any more.
// mu is held.
func (n *Node) wakeSnapshots(before map[cloud.SnapshotID]cloud.Snapshot) {
	for id, s := range n.takes {
		if _, had := before[id]; !had {
			n.wakeTaker(s.Volume)
		}
	}
	for id, s := range before {
		if _, still := n.takes[id]; !still {
			n.wakeTaker(s.Volume)
		}
	}
}

// wakeTaker of a volume's snapshots, whoever it is. mu is held.
func (n *Node) wakeTaker(id cloud.VolumeID) {
	if v := n.volumes[id]; v != nil {
		n.wakeVolume(v)
	}
	n.wakeLocked(&n.sweeping)
}

// reportSnapshot says taken only of a whole set. mu is held.
func (n *Node) reportSnapshot(s *snap) link.Snapshot {
	return link.Snapshot{
		Snapshot: s.memo.Snapshot, Taken: n.taken(s) || s.memo.Content != nil,
		Done: s.done, Total: s.total, Content: s.memo.Content, Failed: s.memo.Failed,
	}
}

// taken says whether the snapshot's instant is past. mu is held.
func (n *Node) taken(s *snap) bool {
	for _, other := range n.snapshots {
		if other.memo.Host == s.memo.Host && other.memo.setOf() == s.memo.setOf() && !other.memo.Taken {
			return false
		}
	}
	return s.memo.Taken
}

// note a change of what is remembered of a snapshot: durable first, then known.
func (n *Node) note(s *snap, change func(*snapshotMemo)) error {
	next := s.memo
	change(&next)
	if err := n.writeSnapshot(next); err != nil {
		return err
	}
	n.say(func() { s.memo = next })
	return nil
}

func (n *Node) writeSnapshot(m snapshotMemo) error {
	data, err := json.Marshal(m)
	if err == nil {
		err = durable.WriteFile(n.snapshotPath(m.Snapshot), data)
	}
	if err != nil {
		return fmt.Errorf("remember snapshot %s: %w", m.Snapshot, err)
	}
	return nil
}

// in lists the snapshots that the host may have a job of, in the order of their
// ids.
func (n *Node) in(h host) (list []*snap) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.snapshots {
		if s.memo.Host == h.name {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, byID)
	return list
}

func byID(a, b *snap) int { return cmp.Compare(a.memo.Snapshot, b.memo.Snapshot) }

// copying says whether the host may have a copy of the volume going on.
func (n *Node) copying(h host, volume cloud.VolumeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.snapshots {
		if s.memo.Volume == volume && s.memo.Host == h.name {
			return true
		}
	}
	return false
}

// untaken are the snapshots that are yet to be taken of the volumes, by sets.
func (n *Node) untaken(volumes ...cloud.VolumeID) (sets [][]cloud.Snapshot) {
	n.mu.Lock()
	defer n.mu.Unlock()
	bySet := map[string][]cloud.Snapshot{}
	for id, w := range n.takes {
		known := &n.snapshots[id].memo
		if known.Host != "" || known.Taken || known.ended() || !slices.Contains(volumes, w.Volume) {
			continue
		}
		set := snapshotMemo{Snapshot: id, Set: w.Set}
		bySet[set.setOf()] = append(bySet[set.setOf()], w)
	}
	for _, set := range bySet {
		slices.SortFunc(set, func(a, b cloud.Snapshot) int { return cmp.Compare(a.ID, b.ID) })
		sets = append(sets, set)
	}
	slices.SortFunc(sets, func(a, b []cloud.Snapshot) int { return cmp.Compare(a[0].ID, b[0].ID) })
	return sets
}

// openSink where it isn't.
func (n *Node) openSink(ctx context.Context, s *snap) error {
	if s.sink != nil {
		return nil
	}
	sink, err := n.Contents.Sink(ctx, s.memo.Snapshot, s.memo.Size, s.memo.Parent)
	if err != nil {
		return fmt.Errorf("store snapshot %s: %w", s.memo.Snapshot, err)
	}
	s.sink = sink
	return nil
}

// closeSink where it is open.
func (n *Node) closeSink(s *snap) error {
	if s.sink == nil {
		return nil
	}
	if err := s.sink.Close(); err != nil {
		return fmt.Errorf("close what stores snapshot %s: %w", s.memo.Snapshot, err)
	}
	s.sink = nil
	return nil
}

// discard what was written for the snapshot.
func (n *Node) discard(ctx context.Context, s *snap) error {
	if err := n.closeSink(s); err != nil {
		return err
	}
	if err := n.Contents.Discard(ctx, s.memo.Snapshot); err != nil {
		return fmt.Errorf("discard what was stored of snapshot %s: %w", s.memo.Snapshot, err)
	}
	return nil
}

// sweep the snapshots that are in nobody's hands: those that should not be taken
// any more, and those that nobody can take.
func (n *Node) sweep(ctx context.Context) {
	n.mu.Lock()
	var gone, lost []*snap
	for id, s := range n.snapshots {
		w, assigned := n.takes[id]
		switch {
		case n.assignment.Generation == 0 || s.memo.Host != "":
		case !assigned:
			gone = append(gone, s)
		case !s.memo.ended() && n.lost(w.Volume):
			lost = append(lost, s)
		}
	}
	for _, s := range gone {
		delete(n.snapshots, s.memo.Snapshot) // it is taken by nobody from here on
	}
	n.mu.Unlock()
	slices.SortFunc(gone, byID)
	slices.SortFunc(lost, byID)
	for _, s := range gone {
		if err := n.sweepOne(ctx, s); err != nil {
			n.Log.Warn("what is left of a snapshot can't be removed yet", "snapshot", s.memo.Snapshot, "err", err)
			n.comeBack(s)
		}
	}
	for _, s := range lost {
		if err := n.fail(s, errors.New("its volume is not on this node")); err != nil {
			n.Log.Warn("a snapshot that can't be taken can't be given up either", "snapshot", s.memo.Snapshot, "err", err)
		}
	}
}

// comeBack to a snapshot that is not removed yet.
func (n *Node) comeBack(s *snap) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, again := n.snapshots[s.memo.Snapshot]; !again {
		n.snapshots[s.memo.Snapshot] = s
	}
}

// lost says whether nobody will ever have the volume in hand. mu is held.
func (n *Node) lost(id cloud.VolumeID) bool {
	_, assigned := n.keeps[id]
	v := n.volumes[id]
	return v == nil || v.gone || !assigned && v.holder == "" && !v.kept || v.phase == cloud.VolumeFailed
}

// sweepOne snapshot of which nothing is to be left; its folder goes last.
func (n *Node) sweepOne(ctx context.Context, s *snap) error {
	if err := n.discard(ctx, s); err != nil {
		return err
	}
	dir := n.snapshotDir(s.memo.Snapshot)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// fail a snapshot for good.
func (n *Node) fail(s *snap, why error) error {
	n.Log.Warn("a snapshot failed", "snapshot", s.memo.Snapshot, "err", why)
	if err := os.MkdirAll(n.snapshotDir(s.memo.Snapshot), 0o700); err != nil {
		return fmt.Errorf("make the folder of snapshot %s: %w", s.memo.Snapshot, err)
	}
	return n.note(s, func(m *snapshotMemo) { m.Failed = reasonOf(why) })
}
