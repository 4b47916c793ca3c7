package euca

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Ceph is where a cloud has its volumes, if not in its folder.
type Ceph struct {
	Pool      string `json:"pool"`
	Namespace string `json:"namespace"`
}

// CephPath is where that is remembered.
func (f Folder) CephPath() string { return f.Path("node", "ceph.json") }

// Ceph is empty where the volumes are in the folder.
func (f Folder) Ceph() (c Ceph, err error) {
	data, err := os.ReadFile(f.CephPath())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err == nil && c.Pool == "" {
		err = errors.New("no pool in it")
	}
	if err != nil {
		return c, fmt.Errorf("read where the volumes are in Ceph, %s: %w", f.CephPath(), err)
	}
	return c, nil
}

// qemuModules is where Debian's QEMU has its drivers.
const qemuModules = "/usr/lib/*/qemu/block-rbd.so"

// examineCeph looks for what volumes in Ceph need.
func examineCeph() []finding {
	command := examineTool("rbd", "ceph-common", "makes volumes in Ceph (mallee up --ceph-pool), if they are to be there", slower)
	driver := finding{"QEMU's driver for Ceph", fine, "", ""}
	if found, _ := filepath.Glob(qemuModules); len(found) > 0 { // the pattern is a good one
		driver.Detail = found[0] + " opens volumes in Ceph"
	} else {
		driver.Verdict, driver.Mend = slower, "apt-get install qemu-block-extra"
		driver.Detail = "not at " + qemuModules + "; it opens volumes in Ceph, if they are to be there"
	}
	return []finding{command, driver}
}
