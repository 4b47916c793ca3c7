package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"mallee/durable"
)

// reserveBytes are kept back on the node's disk for the one write that must not
// fail when it is full: the assignment that ends an instance, and so frees some.
const reserveBytes = 4 << 20

func (n *Node) reservePath() string { return filepath.Join(n.Dir, "reserve") }

// keepReserve has the reserve in place where there is room for it.
func (n *Node) keepReserve() {
	if _, err := os.Stat(n.reservePath()); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err := durable.WriteFile(n.reservePath(), make([]byte, reserveBytes)); err != nil {
		n.Log.Warn("no room can be kept back on the node's disk", "err", err)
	}
}

// writeAssignment is durable when it returns, on a full disk too, once.
func (n *Node) writeAssignment(data []byte) error {
	err := durable.WriteFile(n.assignmentPath(), data)
	if errors.Is(err, syscall.ENOSPC) && os.Remove(n.reservePath()) == nil {
		n.Log.Warn("the node's disk is full: its reserve is given up for the assignment")
		err = durable.WriteFile(n.assignmentPath(), data)
	}
	if err != nil {
		return fmt.Errorf("write the assignment: %w", err)
	}
	return nil
}
