package test

import (
	"os"
	"testing"
)

// TestCeph: a cloud whose volumes are in Ceph. A guest writes to three of them, with
// flushes; QEMU is killed, and what was acknowledged is there. So it is in snapshots,
// and in a volume that comes of one, which the guest reads and writes while it is filled.
// make ceph brings the cluster up.
func TestCeph(t *testing.T) {
	conf := os.Getenv("MALLEE_CEPH_CONF")
	if conf == "" {
		t.Skip("MALLEE_CEPH_CONF names no cluster; make ceph brings one up")
	}
	t.Parallel()
	c := cloudOfOwn(t)
	c.Flags = append(c.Flags, "--ceph-conf", conf, "--ceph-pool", "mallee")
	r := newRig(t, c)
	since := r.books(r.mounted())
	r.strike(kill{qemu: true})
	r.rereads(since)
	r.calmly(snapshotting("in Ceph", func(r *rig) string { return r.secret }))
	r.calmly(snapshotting("in Ceph", func(r *rig) string { return r.plain }))
	a := reading()
	a.prepare(r)
	r.calmly(a)
	since = r.books(r.mounted())
	r.strike(kill{qemu: true, mallee: true})
	r.up()
	r.rereads(since)
	if files, err := namesIn(r.Path("node", "volumes")); err != nil || len(files) > 0 {
		t.Errorf("volumes in the cloud's folder: %v, %v", files, err)
	}
	if wrote, scanned := r.ledger.total(); wrote == 0 || scanned == 0 {
		t.Errorf("%d acknowledged writes, %d readings", wrote, scanned)
	}
}
