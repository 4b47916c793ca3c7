package qemu

import (
	"testing"

	"mallee/block"
	"mallee/hypervisor"
)

// TestLimits has QEMU itself say what it holds a disk to: from the start, plugged,
// and after each change, of which none may leave anything of the one before.
func TestLimits(t *testing.T) {
	needsTools(t)
	h := openTest(t)
	defer h.Close()
	gp2 := hypervisor.Limits{IOPS: 100, BurstIOPS: 3000, BurstSeconds: 1800, BytesPerSecond: 128 << 20, OperationBytes: 256 << 10}
	started, plugged := newDisk(t, "vol-1", block.Disk{}), newDisk(t, "vol-2", block.Disk{})
	started.Limits, plugged.Limits = gp2, gp2
	m := hypervisor.Machine{ID: "k", Dir: t.TempDir(), Disks: []hypervisor.Disk{started}}
	killLater(t, m.Dir)
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := h.Plug(t.Context(), m.Dir, plugged); err != nil {
		t.Fatal(err)
	}
	for _, serial := range []string{"vol-1", "vol-2"} {
		holds(t, h, m.Dir, serial, gp2)
		for _, l := range []hypervisor.Limits{
			{IOPS: 500, BytesPerSecond: 40 << 20, BurstBytesPerSecond: 250 << 20, BurstSeconds: 4194, OperationBytes: 1 << 20},
			{IOPS: 3000, BytesPerSecond: 125 << 20, OperationBytes: 256 << 10},
			{BytesPerSecond: 1 << 20, OperationBytes: 256 << 10},
			gp2, {},
		} {
			if err := h.Adjust(t.Context(), m.Dir, serial, 0, l); err != nil {
				t.Fatalf("Adjust to %+v: %v", l, err)
			}
			holds(t, h, m.Dir, serial, l)
		}
	}
}

// holds fails the test where QEMU holds the disk to other limits.
func holds(t *testing.T, h *Hypervisor, dir, serial string, want hypervisor.Limits) {
	t.Helper()
	var got struct {
		IOPS         int   `json:"iops-total"`
		IOPSMax      int   `json:"iops-total-max"`
		IOPSMaxFor   int   `json:"iops-total-max-length"`
		IOPSSize     int64 `json:"iops-size"`
		Bytes        int64 `json:"bps-total"`
		BytesMax     int64 `json:"bps-total-max"`
		BytesMaxFor  int   `json:"bps-total-max-length"`
		ReadIOPS     int   `json:"iops-read"`
		BytesWritten int64 `json:"bps-write"`
	}
	limits := arguments{"path": "/objects/" + limitPrefix + serial, "property": "limits"}
	if err := h.machines[dir].order(t.Context(), "qom-get", limits, &got); err != nil {
		t.Fatal(err)
	}
	has := hypervisor.Limits{
		IOPS: got.IOPS, BurstIOPS: got.IOPSMax, BytesPerSecond: got.Bytes, BurstBytesPerSecond: got.BytesMax,
		BurstSeconds: max(got.IOPSMaxFor, got.BytesMaxFor), OperationBytes: got.IOPSSize,
	}
	if want.BurstSeconds == 0 {
		want.BurstSeconds = 1 // QEMU's word for none
	}
	if want.IOPS == 0 {
		want.OperationBytes = 0 // nothing is counted
	}
	if has != want || got.ReadIOPS != 0 || got.BytesWritten != 0 {
		t.Errorf("QEMU holds %s to %+v, want %+v", serial, has, want)
	}
}
