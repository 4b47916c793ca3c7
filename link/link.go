// Package link is the one conversation between the cloud and a node.
//
//	node                                    cloud
//	  │  Report{Generation 7, machines}       │
//	  ├──────────────────────────────────────▶│  writes observations
//	  │                                       │  (held open until the
//	  │      Assignment{Generation 9, …}      │   assignment is newer)
//	  │◀──────────────────────────────────────┤
//	  │  makes it durable, then acts          │
//
// Each message is whole: a report holds all that the node has, an assignment
// all that it should have. Messages may be lost, repeated and reordered. Three
// rules make the release of an instance's resources safe all the same; without
// any one of them an instance can run after its addresses were given away:
//
//  1. Absence counts only in a report stamped with a generation that is at
//     least the instance's own, which is the revision of its last wish.
//  2. A node ignores an assignment older than the one it has.
//  3. A node makes an assignment durable before it acts on it, or reports its
//     generation.
//
// A node reports every instance that its assignment names, and every one of
// which anything is left on the machine. What a report does not name, the node
// neither has nor will start.
//
// Volumes hold what nobody else has, so that absence from an assignment never
// deletes one: an assignment names a volume until the node has proven that it is
// gone, and what a node keeps without being told of it, it leaves alone. Of a
// snapshot and a task nothing is lost: what is not assigned any more is given up.
package link

import (
	"context"
	"io"
	"net/netip"

	"mallee/cloud"
)

// Assignment is all that a node should run: whatever else it has, it gives back.
type Assignment struct {
	Node       cloud.NodeID     `json:"node"`
	Generation int64            `json:"generation"`
	Instances  []cloud.Instance `json:"instances"`
	Volumes    []cloud.Volume   `json:"volumes,omitempty"`   // all that it keeps, those to delete included
	Snapshots  []cloud.Snapshot `json:"snapshots,omitempty"` // those that it should take: pending ones
	Tasks      []cloud.Task     `json:"tasks,omitempty"`     // those that it should do: unfinished ones
	Groups     []Group          `json:"groups,omitempty"`    // that its instances are in, or that the rules of those name
}

// Group is a security group as it matters to a node.
type Group struct {
	ID      cloud.GroupID     `json:"id"`
	Account cloud.AccountID   `json:"account"`
	Rules   []cloud.GroupRule `json:"rules,omitempty"`   // where an instance of the node's is in it
	Members []netip.Addr      `json:"members,omitempty"` // private addresses, on whatever node, where such a group's rule names it
}

// Report is all that a node has.
type Report struct {
	Node       cloud.NodeID `json:"node"`
	Zone       string       `json:"zone"`
	Capacity   cloud.Size   `json:"capacity"`
	Generation int64        `json:"generation"` // of the assignment that the node has made durable
	Machines   []Machine    `json:"machines"`
	Volumes    []Volume     `json:"volumes,omitempty"`
	Snapshots  []Snapshot   `json:"snapshots,omitempty"`
	Tasks      []Task       `json:"tasks,omitempty"`
}

// Volume is what a node sees of one volume. One that should be deleted is
// reported until nothing of it is left; then its absence counts, by rule 1.
type Volume struct {
	Volume   cloud.VolumeID    `json:"volume"`
	Phase    cloud.VolumePhase `json:"phase"`
	Reason   cloud.Reason      `json:"reason,omitzero"`
	SizeGiB  int               `json:"size_gib,omitempty"`
	Attached cloud.InstanceID  `json:"attached,omitempty"` // whose machine has it
	Filled   int               `json:"filled,omitempty"`   // percent of Source
	Trouble  cloud.Trouble     `json:"trouble,omitzero"`   // with Source
}

// Snapshot is what a node sees of a snapshot that it takes. Content or Failed
// is how it ended; the node reports it until its assignment names it no more.
type Snapshot struct {
	Snapshot cloud.SnapshotID `json:"snapshot"`
	Taken    bool             `json:"taken"`
	Done     int64            `json:"done,omitempty"`
	Total    int64            `json:"total,omitempty"`
	Content  *cloud.Content   `json:"content,omitempty"`
	Failed   cloud.Reason     `json:"failed,omitzero"`
}

// Task is what a node sees of a task that it does. It is reported until the
// node's assignment names it no more.
type Task struct {
	Task     cloud.TaskID     `json:"task"`
	Phase    cloud.TaskPhase  `json:"phase"`
	Progress int              `json:"progress"`
	Message  string           `json:"message,omitempty"`
	Reason   cloud.Reason     `json:"reason,omitzero"`
	Result   cloud.TaskResult `json:"result,omitzero"`
}

// Machine is what a node sees of one instance.
type Machine struct {
	Instance cloud.InstanceID `json:"instance"`
	Wishes   int              `json:"wishes"` // cloud.Instance.Wishes that the node acts on
	Phase    cloud.Phase      `json:"phase"`  // never Gone: that is an absence
	Reason   cloud.Reason     `json:"reason,omitzero"`
	Password string           `json:"password,omitempty"` // cloud.Observation.Password, where the node knows it
}

// Cloud is what a node talks to.
type Cloud interface {
	// Sync takes in the report and answers with the node's assignment. It is
	// held open until the assignment is newer than the report's generation or
	// ctx ends (then with ctx's error; the report has been taken in). A node
	// that has something new to say cancels, and calls again.
	Sync(ctx context.Context, r Report) (Assignment, error)
}

// Node is what the cloud asks of a node beside the assignment: reading what is
// too large for reports. Nothing of it changes what is wished.
type Node interface {
	// Console opens the console log of an instance; fs.ErrNotExist where the
	// node has none.
	Console(ctx context.Context, id cloud.InstanceID) (io.ReadSeekCloser, error)

	// Screenshot is a picture of an instance's screen, a PNG file's bytes;
	// fs.ErrNotExist where nothing runs that has one. wake presses a key before.
	Screenshot(ctx context.Context, id cloud.InstanceID, wake bool) ([]byte, error)
}
