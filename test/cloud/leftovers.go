package cloud

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Process is one of the host's.
type Process struct {
	PID  int
	Args []string
}

// QEMUs are the processes that run instances of this cloud, by instance. They
// are known by their working or disk's folder, which no other cloud has.
func (c *Cloud) QEMUs() (map[string][]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	found := map[string][]Process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !bytes.Contains(line, []byte("qemu-system")) || !bytes.Contains(line, []byte(c.Dir+"/node/disks/")) {
			continue // gone meanwhile, or not ours
		}
		args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		for _, a := range args {
			if id, ok := strings.CutPrefix(a, "guest="); ok {
				found[id] = append(found[id], Process{pid, args})
			}
		}
	}
	return found, nil
}

// Left says what there still is of instances on the host: processes, folders of
// machines, disks. Of all instances, or of those named.
func (c *Cloud) Left(ids ...string) error {
	qemus, err := c.QEMUs()
	if err != nil {
		return err
	}
	var left []string
	for id, processes := range qemus {
		if of(id, ids) {
			left = append(left, fmt.Sprintf("process %d of %s", processes[0].PID, id))
		}
	}
	for _, dir := range []string{"machines", "disks"} {
		names, err := list(c.Path("node", dir))
		if err != nil {
			return err
		}
		for _, name := range names {
			if of(name, ids) {
				left = append(left, filepath.Join("node", dir, name))
			}
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("there is still %s", strings.Join(left, ", "))
	}
	return nil
}

// HalfMade says what there is of images that were not unpacked to their end.
func (c *Cloud) HalfMade() error {
	cached, err := list(c.Path("node", "cache"))
	if err != nil {
		return err
	}
	for _, name := range cached {
		if strings.HasSuffix(name, ".new") {
			return fmt.Errorf("there is still node/cache/%s", name)
		}
	}
	return nil
}

// of says whether a name is that of one of the ids, or of anything if there are none.
func of(name string, ids []string) bool {
	for _, id := range ids {
		if strings.HasPrefix(name, id) {
			return true
		}
	}
	return len(ids) == 0
}

func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}
