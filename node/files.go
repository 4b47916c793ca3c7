package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"mallee/cloud"
	"mallee/durable"
)

// memo is what a pass has to remember of one machine over a restart.
type memo struct {
	Instance cloud.InstanceID `json:"instance"`
	Up       bool             `json:"up"`                // the guest was up once: its disk is worth keeping
	Reboots  int              `json:"reboots"`           // how many of the reboots asked for were made
	Bases    []string         `json:"bases"`             // cache entries that its disks stand on
	Volumes  []cloud.VolumeID `json:"volumes,omitempty"` // that its machine may have open
	Halted   bool             `json:"halted,omitempty"`  // the guest was asked to shut down for a snapshot, and is to be started again

	written []byte // what is durable of it; nil where that isn't known
}

func (n *Node) memoPath(id cloud.InstanceID) string {
	return filepath.Join(n.machineDir(id), "machine.json")
}

// recall what was remembered of the machine.
func (n *Node) recall(m *machine) error {
	if m.memo != nil {
		return nil
	}
	known := memo{Instance: m.id}
	if err := readJSON(n.memoPath(m.id), &known); err != nil {
		return fmt.Errorf("read what is known of the machine: %w", err)
	}
	m.memo = &known
	return nil
}

// makeFolder of the machine where it has none.
func (n *Node) makeFolder(m *machine) error {
	dir := n.machineDir(m.id)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(dir))
	}
	if err != nil {
		return fmt.Errorf("make the machine's folder: %w", err)
	}
	return nil
}

// remember is durable when it returns, and costs nothing where nothing changed.
func (n *Node) remember(m *memo) error {
	data, err := json.Marshal(m)
	if err == nil && !bytes.Equal(data, m.written) {
		if err = durable.WriteFile(n.memoPath(m.Instance), data); err == nil {
			m.written = data
		}
	}
	if err != nil {
		return fmt.Errorf("remember the machine: %w", err)
	}
	return nil
}

// basesInUse are the cache entries that the disks of this node stand on.
func (n *Node) basesInUse() (map[string]bool, error) {
	ids, err := n.folders()
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, id := range ids {
		var m memo
		if err := readJSON(n.memoPath(id), &m); err != nil {
			return nil, err
		}
		for _, key := range m.Bases {
			used[key] = true
		}
	}
	return used, nil
}

// readJSON leaves v alone where there is no such file.
func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}
