package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"mallee/block"
	"mallee/block/file"
	"mallee/block/rbd"
	"mallee/durable"
	"mallee/euca"
)

// ceph is where volumes are if not in the cloud's folder.
type ceph struct{ conf, pool, user string }

func cephOf(cmd *cobra.Command) (c ceph, err error) {
	f := cmd.Flags()
	c.conf, _ = f.GetString("ceph-conf")
	c.pool, _ = f.GetString("ceph-pool")
	c.user, _ = f.GetString("ceph-user")
	switch {
	case c.conf == "" && c.pool == "" && !f.Changed("ceph-user"):
		return ceph{}, nil
	case c.conf == "" || c.pool == "":
		return c, fmt.Errorf("--ceph-conf %q with --ceph-pool %q: want both, or neither and no --ceph-user", c.conf, c.pool)
	}
	if c.conf, err = filepath.Abs(c.conf); err == nil {
		_, err = os.Stat(c.conf)
	}
	if err != nil {
		return c, fmt.Errorf("--ceph-conf: %w", err)
	}
	return c, nil
}

// openVolumes opens where volumes are, which is one place for all the cloud's
// life: elsewhere they would be made anew, empty.
func (h *house) openVolumes(ctx context.Context) (block.Disks, error) {
	dir, c := h.settings.folder.Path("node", "volumes"), h.settings.ceph
	known, err := h.settings.folder.Ceph()
	there := known != euca.Ceph{}
	switch {
	case err != nil:
		return nil, err
	case c == ceph{} && there:
		return nil, fmt.Errorf("this cloud's volumes are in Ceph's pool %s: say --ceph-conf and --ceph-pool", known.Pool)
	case c == ceph{}:
		return file.Open(dir)
	case there && c.pool != known.Pool:
		return nil, fmt.Errorf("--ceph-pool %s: this cloud's volumes are in the pool %s", c.pool, known.Pool)
	case !there:
		if err := mustBeEmpty(dir); err != nil {
			return nil, err
		}
	}
	return h.openCeph(ctx, known)
}

// mustBeEmpty refuses a cloud that has volumes in its folder.
func mustBeEmpty(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(files) > 0 {
		return fmt.Errorf("--ceph-pool: this cloud has volumes in %s, which it would not find in Ceph", dir)
	}
	return nil
}

// openCeph opens the cloud's namespace, and remembers that it is there. Its name
// is the cloud's own, as its account number is.
func (h *house) openCeph(ctx context.Context, known euca.Ceph) (block.Disks, error) {
	admin, err := h.iam.SystemAdmin()
	if err != nil {
		return nil, err
	}
	c := h.settings.ceph
	now := euca.Ceph{Pool: c.pool, Namespace: "mallee-" + string(admin.Account)}
	disks, err := rbd.Open(ctx, rbd.Options{
		Conf: c.conf, User: c.user, Pool: now.Pool, Namespace: now.Namespace, Known: known != euca.Ceph{}, Log: h.log,
	})
	if err != nil || known == now {
		return disks, err
	}
	data, err := json.Marshal(now)
	if err == nil {
		err = durable.WriteFile(h.settings.folder.CephPath(), data)
	}
	return disks, err
}
