package controller

import (
	"mallee/cloud"
	"mallee/link"
	"mallee/state"
)

// What a node says of a snapshot is true whenever it comes: the instant doesn't
// come back, and a content is what it is. Only what is pending is listened to.

// snapshotNews are the snapshots of which the report says what isn't known yet.
func (c *Controller) snapshotNews(view *state.View, r link.Report) (news []link.Snapshot) {
	for _, said := range r.Snapshots {
		s, ok := pendingOn(view, r.Node, said.Snapshot)
		if !ok {
			continue
		}
		if _, changed := c.snapshotSeen(view, s, said); changed || ended(said) {
			news = append(news, said)
		}
	}
	return news
}

// pendingOn finds a snapshot that the node is to take.
func pendingOn(r state.Reader, node cloud.NodeID, id cloud.SnapshotID) (*cloud.Snapshot, bool) {
	s, _, ok := state.Snapshots.Get(r, id)
	if !ok || s.Node != node || s.State() != cloud.SnapshotPending {
		return nil, false
	}
	return s, true
}

func ended(said link.Snapshot) bool { return said.Content != nil || said.Failed != cloud.Reason{} }

// snapshotSeen is what is known of a pending snapshot after a node said that of
// it. Reports may overtake each other; progress doesn't go back.
func (c *Controller) snapshotSeen(r state.Reader, s *cloud.Snapshot, said link.Snapshot) (o cloud.SnapshotObservation, changed bool) {
	was := cloud.SnapshotObservation{Snapshot: s.ID}
	if o, _, ok := state.SnapshotObservations.Get(r, s.ID); ok {
		was = *o
	}
	o = was
	o.Taken = was.Taken || said.Taken
	if said.Done >= was.Done {
		o.Done, o.Total = said.Done, said.Total
	}
	if o == was {
		return o, false
	}
	o.At = c.Now()
	return o, true
}

// observeSnapshot writes what is new, and the end where it has come. Then the
// node is told that it may forget it.
func (c *Controller) observeSnapshot(tx *state.Tx, r link.Report, said link.Snapshot) {
	s, ok := pendingOn(tx, r.Node, said.Snapshot)
	if !ok {
		return
	}
	if !ended(said) {
		if o, changed := c.snapshotSeen(tx, s, said); changed {
			state.SnapshotObservations.Put(tx, o)
		}
		return
	}
	if said.Content != nil {
		state.CompleteSnapshot(tx, *s, *said.Content, c.Now())
	} else {
		state.FailSnapshot(tx, *s, said.Failed)
	}
}
