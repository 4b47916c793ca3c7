package node

import (
	"context"

	"mallee/block"
	"mallee/cloud"
)

// Contents keeps what volumes start from and what snapshots end in.
type Contents interface {
	// Source is where the bytes of c are read. It is there as long as a program
	// runs; a hypervisor that reads while there is none waits for the next.
	Source(c cloud.Content) block.Source

	// Trouble says why bytes of c can't be read, as far as a hypervisor has asked for
	// them; nil where there is none. It is cloud.ErrDamaged if that won't mend by
	// itself.
	Trouble(c cloud.Content) error

	// Sink opens where the snapshot's bytes are written, with all that was written
	// before: so many bytes, over those of parent, nil being none.
	Sink(ctx context.Context, id cloud.SnapshotID, size int64, parent *cloud.Content) (Sink, error)

	// Discard what was written for a snapshot; the sink is closed. A content that
	// was committed stays if the cloud knows of it. Discarding nothing is no error.
	Discard(ctx context.Context, id cloud.SnapshotID) error
}

// Sink takes the bytes of one snapshot.
type Sink interface {
	// Address is where a hypervisor writes to: the path of the socket of an NBD
	// server, and the name of an export.
	Address() (socket, export string)

	// Commit makes a content of what was written, durable when it returns. Where
	// whole is set nothing of the parent is in it. It may be tried again.
	Commit(ctx context.Context, whole bool) (cloud.Content, error)

	// Close ends the export, and keeps what was written.
	Close() error
}
