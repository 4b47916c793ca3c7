package cloud

import (
	"slices"
	"time"
)

// Snapshot is the state of a volume at one instant, kept in the object store in
// blocks. It is complete when its Content is known, and never changes then.
//
//	CreateSnapshot ─▶ pending ──node: point in time taken, blocks stored──▶ completed
//	StartSnapshot  ─▶ pending ──CompleteSnapshot──────────────────────────▶ completed
//	CopySnapshot   ──────────────────────────────────────────────────────▶ completed
//	                     └── the node can't ──▶ error
type Snapshot struct {
	ID          SnapshotID  `json:"id"`
	Account     AccountID   `json:"account"`
	Volume      VolumeID    `json:"volume,omitempty"` // of which it was taken
	SizeGiB     int         `json:"size_gib"`         // of the volume
	StartedAt   time.Time   `json:"started_at"`
	Description string      `json:"description,omitempty"`
	Encrypted   bool        `json:"encrypted,omitempty"`
	Parent      SnapshotID  `json:"parent,omitempty"` // the one before it of the same volume, or that StartSnapshot named
	Public      bool        `json:"public,omitempty"`
	SharedWith  []AccountID `json:"shared_with,omitempty"`

	Node   NodeID `json:"node,omitempty"`   // that takes it; none for one that is written by StartSnapshot
	Set    string `json:"set,omitempty"`    // of snapshots that are taken at one instant
	Reboot bool   `json:"reboot,omitempty"` // the guest is shut down for the instant, and started again

	Written bool `json:"written,omitempty"` // block by block, by StartSnapshot, and not taken of a volume
	Timeout int  `json:"timeout,omitempty"` // minutes without a block, after which such a one is given up

	// Base is what Parent holds, once that is complete. Until this snapshot is
	// complete it is kept for the node to build on, though Parent may be deleted.
	Base *Content `json:"base,omitempty"`

	Content     *Content  `json:"content,omitempty"`
	CompletedAt time.Time `json:"completed_at,omitzero"`
	Failed      Reason    `json:"failed,omitzero"`
}

// SnapshotObservation is what is known of a pending snapshot from its node's
// reports.
type SnapshotObservation struct {
	Snapshot SnapshotID `json:"snapshot"`
	Taken    bool       `json:"taken"` // the instant is past: what is written now is not in it
	Done     int64      `json:"done,omitempty"`
	Total    int64      `json:"total,omitempty"` // bytes to store
	At       time.Time  `json:"at"`
}

// SnapshotState is EC2's word for where a snapshot stands.
type SnapshotState string

const (
	SnapshotPending   SnapshotState = "pending"
	SnapshotCompleted SnapshotState = "completed"
	SnapshotError     SnapshotState = "error"
)

// State of the snapshot.
func (s *Snapshot) State() SnapshotState {
	switch {
	case s.Content != nil:
		return SnapshotCompleted
	case s.Failed != Reason{}:
		return SnapshotError
	}
	return SnapshotPending
}

// Progress in percent, as DescribeSnapshots shows it.
func (s *Snapshot) Progress(seen SnapshotObservation) int {
	if s.Content != nil {
		return 100
	}
	if seen.Total <= 0 {
		return 0
	}
	return int(min(seen.Done*100/seen.Total, 99))
}

// UsableBy says whether account may make volumes and images of it.
func (s *Snapshot) UsableBy(account AccountID) bool {
	return s.Account == account || s.Public || slices.Contains(s.SharedWith, account)
}
