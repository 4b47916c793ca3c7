package node

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"mallee/cloud"
)

func (n *Node) memoPath(id cloud.InstanceID) string {
	return filepath.Join(n.machineDir(id), "machine.json")
}

// ensureFolder makes the machine's folder, and reads what was remembered in it.
func (n *Node) ensureFolder(i cloud.Instance) (memo, error) {
	m := memo{Instance: i.ID}
	if err := readJSON(n.memoPath(i.ID), &m); err != nil {
		return m, fmt.Errorf("read what is known of the machine: %w", err)
	}
	dir := n.machineDir(i.ID)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return m, noSpace(fmt.Errorf("make the machine's folder: %w", err))
	} else if err == nil {
		return m, syncDir(filepath.Dir(dir))
	}
	return m, nil
}

func (n *Node) remember(m memo) error {
	if err := writeJSON(n.memoPath(m.Instance), m); err != nil {
		return noSpace(fmt.Errorf("remember the machine: %w", err))
	}
	return nil
}

// basesInUse are the cache entries that the disks of this node stand on.
func (n *Node) basesInUse() (map[string]bool, error) {
	entries, err := os.ReadDir(n.machineDir(""))
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, e := range entries {
		var m memo
		if err := readJSON(n.memoPath(cloud.InstanceID(e.Name())), &m); err != nil {
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
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeJSON is durable when it returns: the old file or the new one, never a part.
func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	temp := path + ".new"
	if err := writeSynced(temp, data); err != nil {
		os.Remove(temp)
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeSynced(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// removeDir takes a folder away as one step: whoever looks finds all of it or,
// under its own name, nothing.
func removeDir(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the machine's folder: %w", err)
	}
	return syncDir(filepath.Dir(dir))
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func contains(list []string, s string) bool { return slices.Contains(list, s) }
