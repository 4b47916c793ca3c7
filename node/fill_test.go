package node

import (
	"errors"
	"os"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/link"
)

// A volume from a snapshot is filled by a keeper while it is free, and by its
// machine when it has one; never by both.
func TestFill(t *testing.T) {
	r := newRig(t)
	w := volumeOf(1, "", "")
	w.Source = &cloud.Content{Manifest: "m", Size: 1 << 30}
	r.tell(link.Assignment{Volumes: []cloud.Volume{w}})
	r.step()
	r.wantVolume("at once", link.Volume{Volume: w.ID, Phase: cloud.VolumeReady, SizeGiB: 1})
	r.wantDisks("at once", "")
	r.now = r.now.Add(fillDelay)
	r.step()
	r.wantDisks("after a while", "vol-00000001:vol00000001")
	r.wantVolume("half way", link.Volume{Volume: w.ID, Phase: cloud.VolumeReady, SizeGiB: 1, Filled: 50})
	w.Attachment = &cloud.Attachment{Instance: first, Device: "/dev/sdf"}
	r.tell(link.Assignment{Volumes: []cloud.Volume{w}, Instances: []cloud.Instance{instance(1)}})
	r.step() // the machine has to wait for the keeper to end
	r.wantDisks("wanted", "")
	r.step()
	r.wantDisks("attached", "i-00000001:root,vol00000001")
	r.passes(4)
	r.wantVolume("filled", link.Volume{Volume: w.ID, Phase: cloud.VolumeReady, SizeGiB: 1, Filled: 100, Attached: first})
	w.Source = nil
	r.tell(link.Assignment{Volumes: []cloud.Volume{w}, Instances: []cloud.Instance{instance(1)}})
	r.order()
	r.passes(1)
	if got := r.effects(); got != "" {
		t.Errorf("of one that stands on its own: %s", got)
	}
}

// A filling that fails is tried again, ever later, and is no matter of the guest's.
func TestFillFails(t *testing.T) {
	r := newRig(t)
	w := volumeOf(1, first, "/dev/sdf")
	w.Source = &cloud.Content{Manifest: "m", Size: 1 << 30}
	r.fail["fill"] = errors.New("the store is away")
	r.tell(link.Assignment{Volumes: []cloud.Volume{w}, Instances: []cloud.Instance{instance(1)}})
	r.lasts()
	tried := r.count("fill")
	for range 10 {
		r.now = r.now.Add(time.Second)
		if m := r.wantPhase(cloud.PhaseUp); m.Reason != (cloud.Reason{}) {
			t.Errorf("reason %+v", m.Reason)
		}
	}
	if got := r.count("fill") - tried; got < 1 || got > 4 {
		t.Errorf("tried %d times in ten seconds", got)
	}
	r.fail["fill"] = nil
	r.passes(4)
	if v, _ := r.reported(w.ID); v.Filled != 100 {
		t.Errorf("then: %+v", v)
	}
}

// While a volume is copied it is not filled, which is not taken for being full.
func TestFillWaitsForACopy(t *testing.T) {
	r := newRig(t)
	w := volumeOf(1, first, "/dev/sdf")
	w.Source = &cloud.Content{Manifest: "m", Size: 1 << 30}
	a := link.Assignment{Volumes: []cloud.Volume{w}, Instances: []cloud.Instance{instance(1)}, Snapshots: []cloud.Snapshot{snapshotOf(1, w)}}
	r.tell(a)
	r.lasts()
	r.wantSeen("up", 1, "taken true, 0 of 0")
	r.world.Hold(r.machineDir(first), "snap-00000001")
	before, _ := r.reported(w.ID)
	r.order()
	r.passes(5)
	if got := r.effects(); got != "" {
		t.Errorf("effects %s", got)
	}
	r.wantVolume("while it is copied", before)
	if before.Filled == 100 {
		t.Error("full at once")
	}
	r.world.Release(r.machineDir(first), "snap-00000001")
	r.passes(5)
	if v, _ := r.reported(w.ID); v.Filled != 100 {
		t.Errorf("then: %+v", v)
	}
}

// Only so many volumes are filled at once while they are free.
func TestFillersAreFew(t *testing.T) {
	r := newRig(t)
	var all []cloud.Volume
	for n := range 5 {
		w := volumeOf(n+1, "", "")
		w.Source = &cloud.Content{Manifest: "m", Size: 1 << 30}
		all = append(all, w)
	}
	r.tell(link.Assignment{Volumes: all})
	filled := func() (n int) {
		for _, w := range all {
			if v, _ := r.reported(w.ID); v.Filled == 100 {
				n++
			}
		}
		return n
	}
	for range 20 {
		r.passes(1)
		if n := len(r.world.Machines()); n > maxFillers {
			t.Fatalf("%d keepers", n)
		}
	}
	if n := filled(); n != len(all) {
		t.Errorf("%d are filled", n)
	}
	r.wantDisks("all filled", "")
	if left, _ := os.ReadDir(r.Dir + "/keepers"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
