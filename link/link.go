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
package link

import (
	"context"
	"io"

	"mallee/cloud"
)

// Assignment is all that a node should run: whatever else it has, it gives back.
type Assignment struct {
	Node       cloud.NodeID     `json:"node"`
	Generation int64            `json:"generation"`
	Instances  []cloud.Instance `json:"instances"`
}

// Report is all that a node has.
type Report struct {
	Node       cloud.NodeID `json:"node"`
	Zone       string       `json:"zone"`
	Capacity   cloud.Size   `json:"capacity"`
	Generation int64        `json:"generation"` // of the assignment that the node has made durable
	Machines   []Machine    `json:"machines"`
}

// Machine is what a node sees of one instance.
type Machine struct {
	Instance cloud.InstanceID `json:"instance"`
	Wishes   int              `json:"wishes"` // cloud.Instance.Wishes that the node acts on
	Phase    cloud.Phase      `json:"phase"`  // never Gone: that is an absence
	Reason   cloud.Reason     `json:"reason,omitzero"`
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
// too large for reports. Nothing of it changes anything.
type Node interface {
	// Console opens the console log of an instance; fs.ErrNotExist where the
	// node has none.
	Console(ctx context.Context, id cloud.InstanceID) (io.ReadSeekCloser, error)
}
