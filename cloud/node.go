package cloud

import "time"

// Node is one machine that runs instances, and the guard of its capacity:
// every transaction that places, releases or changes the wish of an instance
// on it writes this record, so that two can't give away the same room, and so
// that the record's revision is the generation of the node's assignment
// (package link).
type Node struct {
	ID       NodeID    `json:"id"`
	Zone     string    `json:"zone"`
	Capacity Size      `json:"capacity"`
	Used     Size      `json:"used"`
	Wishes   int       `json:"wishes"` // counts changes of what the node should run
	JoinedAt time.Time `json:"joined_at"`
}

// Fits says how many more of size the node can hold.
func (n *Node) Fits(size Size) int {
	free := n.Capacity.Sub(n.Used)
	fit := free.MemoryMiB / max(size.MemoryMiB, 1)
	fit = min(fit, free.VCPUs/max(size.VCPUs, 1), free.DiskGiB/max(size.DiskGiB, 1))
	return max(fit, 0)
}
