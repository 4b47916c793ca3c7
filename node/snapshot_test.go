package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/link"
)

func snapshotOf(n int, w cloud.Volume) cloud.Snapshot {
	return cloud.Snapshot{ID: cloud.SnapshotID(fmt.Sprintf("snap-%08x", n)), Volume: w.ID, SizeGiB: w.SizeGiB, Node: "node-1"}
}

// seen is what the node says of a snapshot.
func (r *rig) seen(n int) link.Snapshot {
	report, _ := r.Report()
	for _, s := range report.Snapshots {
		if s.Snapshot == snapshotOf(n, cloud.Volume{}).ID {
			return s
		}
	}
	return link.Snapshot{}
}

func (r *rig) wantSeen(when string, n int, want string) link.Snapshot {
	r.Helper()
	s := r.seen(n)
	got := fmt.Sprintf("taken %t, %d of %d", s.Taken, s.Done>>10, s.Total>>10)
	if s.Content != nil {
		got = "content " + s.Content.Manifest
	}
	if s.Failed != (cloud.Reason{}) {
		got = "failed " + s.Failed.Message
	}
	if got != want {
		r.Errorf("%s: snapshot %d is %q, want %q", when, n, got, want)
	}
	return s
}

// wantNoSnapshot of which anything is left.
func (r *rig) wantNoSnapshot() {
	r.Helper()
	folders, _ := os.ReadDir(filepath.Join(r.Dir, "snapshots"))
	keepers, _ := os.ReadDir(filepath.Join(r.Dir, "keepers"))
	if len(folders)+len(keepers)+len(r.bytes.sinks)+len(r.snapshots) > 0 {
		r.Errorf("left: folders %v, keepers %v, sinks %v, known %v", folders, keepers, r.bytes.sinks, r.snapshots)
	}
}

func TestSnapshotOfAFreeVolume(t *testing.T) {
	r := newRig(t)
	w := volumeOf(1, "", "")
	s := snapshotOf(1, w)
	a := link.Assignment{Volumes: []cloud.Volume{w}, Snapshots: []cloud.Snapshot{s}}
	r.tell(a)
	r.wantSeen("told", 1, "taken false, 0 of 0")
	r.step()
	r.wantSeen("taken", 1, "taken true, 0 of 0")
	r.wantDisks("taken", "vol-00000001:vol00000001")
	r.step()
	r.wantSeen("half way", 1, "taken true, 256 of 512")
	r.step()
	r.wantSeen("stored", 1, "content of-snap-00000001")
	r.passes(1)
	r.wantDisks("stored", "")
	r.open()
	r.passes(1)
	r.wantSeen("after a restart", 1, "content of-snap-00000001")
	if got := r.bytes.sinks[s.ID]; got.stored != "vol-00000001 [] full true" || !got.whole || got.open != 0 {
		t.Errorf("the sink has %+v", got)
	}
	a.Snapshots = nil
	r.tell(a)
	r.step()
	r.wantNoSnapshot()
}

// machineWith volumes 1 to n attached, up.
func machineWith(t *testing.T, n int) (*rig, link.Assignment) {
	r := newRig(t)
	a := link.Assignment{Instances: []cloud.Instance{instance(1)}}
	for i := range n {
		a.Volumes = append(a.Volumes, volumeOf(i+1, first, fmt.Sprintf("/dev/sd%c", 'f'+i)))
	}
	r.tell(a)
	r.lasts()
	r.order()
	return r, a
}

func TestSnapshotOfARunningMachine(t *testing.T) {
	r, a := machineWith(t, 1)
	s := snapshotOf(1, a.Volumes[0])
	a.Snapshots = []cloud.Snapshot{s}
	r.tell(a)
	for range 4 {
		r.wantPhase(cloud.PhaseUp)
	}
	r.wantSeen("stored", 1, "content of-snap-00000001")
	if got := r.effects(); got != "open sink, copy, copied, commit, dismiss" {
		t.Errorf("effects %s", got)
	}
	r.world.Write(r.machineDir(first), "vol00000001", 5<<20, make([]byte, 512))
	next := snapshotOf(2, a.Volumes[0])
	next.Parent, next.Base = s.ID, r.seen(1).Content
	a.Snapshots = []cloud.Snapshot{next}
	r.tell(a)
	r.passes(4)
	r.wantSeen("the next", 2, "content of-snap-00000002")
	if got := r.bytes.sinks[next.ID]; got.stored != "vol-00000001 [10] full false" || got.whole || *got.parent != *next.Base {
		t.Errorf("the sink has %+v", got)
	}
	r.world.Crash(r.machineDir(first)) // the disk forgets its marks
	r.passes(2)
	third := snapshotOf(3, a.Volumes[0])
	third.Parent, third.Base = next.ID, r.seen(2).Content
	a.Snapshots = []cloud.Snapshot{third}
	r.tell(a)
	r.passes(4)
	if got := r.bytes.sinks[third.ID]; got.stored != "vol-00000001 [] full true" || !got.whole {
		t.Errorf("the sink has %+v", got)
	}
	a.Snapshots = nil
	r.tell(a)
	r.passes(1)
	r.wantNoSnapshot()
}

// A set is copied by one call, and is begun again as a whole if the program dies
// between noting one and noting the other.
func TestSetOfSnapshots(t *testing.T) {
	r, a := machineWith(t, 2)
	for i, w := range a.Volumes {
		s := snapshotOf(i+1, w)
		s.Set = "r-1"
		a.Snapshots = append(a.Snapshots, s)
	}
	r.tell(a)
	r.step()
	if got := r.effects(); got != "open sink, open sink, copy, copied" {
		t.Errorf("effects %s", got)
	}
	second := r.snapshots["snap-00000002"]
	second.memo.Taken = false
	if err := r.writeSnapshot(second.memo); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.wantSeen("the first of a set that is not taken", 1, "taken false, 0 of 0")
	r.step()
	if got := r.effects(); got != "open sink, dismiss, dismiss, adjust, adjust, open sink, open sink, copy, copied" {
		t.Errorf("effects %s", got)
	}
	r.passes(3)
	r.wantSeen("stored", 1, "content of-snap-00000001")
	r.wantSeen("stored", 2, "content of-snap-00000002")
}

func TestSnapshotWithReboot(t *testing.T) {
	for name, boots := range map[string]bool{"obeys": true, "ignores it": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if !boots {
				r.boots = stubborn
			}
			a := link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: []cloud.Volume{volumeOf(1, first, "/dev/sdf")}}
			r.tell(a)
			r.lasts()
			r.order()
			s := snapshotOf(1, a.Volumes[0])
			s.Reboot = true
			a.Snapshots = []cloud.Snapshot{s}
			r.tell(a)
			r.wantEffects("told", "power down")
			r.wantSeen("while it shuts down", 1, "taken false, 0 of 0")
			if !boots {
				r.now = r.now.Add(powerDownGrace - time.Second)
				r.wantEffects("almost in time", "power down")
				r.now = r.now.Add(time.Second)
			}
			r.wantEffects("when it has", "open sink, copy, copied, reset")
			r.wantSeen("when it runs again", 1, "taken true, 0 of 0")
			r.wantEffects("copying", "")
			r.wantEffects("copied", "commit, dismiss")
			r.wantSeen("stored", 1, "content of-snap-00000001")
			r.wantEffects("after", "")
		})
	}
}

// A snapshot that can't be taken doesn't keep its guest down.
func TestSnapshotWithRebootFails(t *testing.T) {
	r, a := machineWith(t, 1)
	s := snapshotOf(1, a.Volumes[0])
	s.Reboot = true
	a.Snapshots = []cloud.Snapshot{s}
	r.fail["copy"] = errors.New("no bitmaps")
	r.tell(a)
	for range 6 {
		r.now = r.now.Add(time.Minute)
		r.wantPhase(cloud.PhaseUp)
	}
	r.wantSeen("in the end", 1, "failed Server.InternalError: its volume can't be copied")
	if got := r.count("reset"); got != 1 {
		t.Errorf("%d resets", got)
	}
	a.Snapshots = nil
	r.tell(a)
	r.passes(1)
	r.wantNoSnapshot()
}

func TestSnapshotFails(t *testing.T) {
	w := volumeOf(1, "", "")
	for name, c := range map[string]struct {
		do   func(r *rig)
		want string
	}{
		"the store is lost": {func(r *rig) {
			r.world.Fail(r.keeperHost(w.ID).dir, "snap-00000001", errors.New("connection lost"))
		}, "store the snapshot: connection lost"},
		"its process ends": {func(r *rig) { r.world.Crash(r.keeperHost(w.ID).dir) }, "the machine ended before the snapshot was stored"},
		"the host goes": {func(r *rig) {
			r.world.Reboot()
			r.open()
		}, "the machine ended before the snapshot was stored"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a := link.Assignment{Volumes: []cloud.Volume{w}, Snapshots: []cloud.Snapshot{snapshotOf(1, w)}}
			r.tell(a)
			r.step()
			r.wantSeen("begun", 1, "taken true, 0 of 0")
			c.do(r)
			r.passes(1)
			r.wantSeen("ended", 1, "failed Server.InternalError: "+c.want)
			a.Snapshots = nil
			r.tell(a)
			r.passes(1)
			r.wantNoSnapshot()
			r.wantDisks("nothing to do", "")
		})
	}
}

func TestSnapshotOfNoVolume(t *testing.T) {
	r := newRig(t)
	r.tell(link.Assignment{Snapshots: []cloud.Snapshot{snapshotOf(1, volumeOf(1, "", ""))}})
	r.step()
	r.wantSeen("of nothing", 1, "failed Server.InternalError: its volume is not on this node")
}

// An object store that refuses what was copied is tried again, and the guest goes
// on.
func TestCommitIsTriedAgain(t *testing.T) {
	r, a := machineWith(t, 1)
	a.Snapshots = []cloud.Snapshot{snapshotOf(1, a.Volumes[0])}
	r.fail["commit"] = errors.New("503")
	r.tell(a)
	for range 6 {
		r.passes(1)
		if m := r.first(); m.Phase != cloud.PhaseUp {
			t.Fatalf("machine %+v", m)
		}
	}
	r.wantSeen("meanwhile", 1, "taken true, 512 of 512")
	r.fail["commit"] = nil
	r.passes(1)
	r.wantSeen("then", 1, "content of-snap-00000001")
}

// What is cancelled, what is detached and what is stopped while it is copied.
func TestSnapshotMeanwhile(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a *link.Assignment)
		during string // disks while the copy is held
		after  string
		want   string
	}{
		"cancelled": {func(a *link.Assignment) { a.Snapshots = nil },
			"i-00000001:root,vol00000001", "i-00000001:root,vol00000001", "taken false, 0 of 0"},
		"detached": {func(a *link.Assignment) { a.Volumes[0] = detaching(a.Volumes[0], true) },
			"i-00000001:root,vol00000001", "i-00000001:root", "content of-snap-00000001"},
		"stopped": {func(a *link.Assignment) { a.Instances = nil },
			"i-00000001:root,vol00000001", "", "content of-snap-00000001"},
	} {
		t.Run(name, func(t *testing.T) {
			r, a := machineWith(t, 1)
			a.Snapshots = []cloud.Snapshot{snapshotOf(1, a.Volumes[0])}
			r.tell(a)
			r.step()
			r.world.Hold(r.machineDir(first), "snap-00000001")
			c.change(&a)
			r.tell(a)
			r.passes(4)
			r.wantDisks("while it is copied", c.during)
			r.world.Release(r.machineDir(first), "snap-00000001")
			r.passes(4)
			r.wantDisks("when it is", c.after)
			r.wantSeen("when it is", 1, c.want)
			a.Snapshots = nil
			r.tell(a)
			r.passes(2)
			r.wantNoSnapshot()
		})
	}
}

// The program may end while a copy goes on: the next one opens the sink again
// before it does anything else.
func TestSnapshotGoesOnAfterARestart(t *testing.T) {
	r, a := machineWith(t, 1)
	a.Snapshots = []cloud.Snapshot{snapshotOf(1, a.Volumes[0])}
	r.tell(a)
	r.step()
	r.order()
	r.open()
	if got := r.order(); got != "open sink" {
		t.Errorf("effects %s", got)
	}
	r.passes(3)
	r.wantSeen("after", 1, "content of-snap-00000001")
}

// Whatever the program dies of, at whichever effect, both of a set are stored, as
// of one instant.
func TestSnapshotsSurviveDeaths(t *testing.T) {
	for n := 1; ; n++ {
		r, a := machineWith(t, 2)
		for i, w := range a.Volumes {
			s := snapshotOf(i+1, w)
			s.Set, s.Reboot = "r-1", true
			a.Snapshots = append(a.Snapshots, s)
		}
		r.tell(a)
		r.diesAt = n
		died := false
		for range 20 {
			died = r.outlive(func() { r.passes(1) }) || died
		}
		r.wantSeen(fmt.Sprintf("death %d", n), 1, "content of-snap-00000001")
		r.wantSeen(fmt.Sprintf("death %d", n), 2, "content of-snap-00000002")
		if got := r.count("reset"); got != 1 {
			t.Errorf("death %d: %d resets: %s", n, got, strings.Join(r.did, ", "))
		}
		a.Snapshots = nil
		r.tell(a)
		for range 5 {
			died = r.outlive(func() { r.passes(1) }) || died
		}
		r.wantNoSnapshot()
		if !died {
			return
		}
		if t.Failed() {
			t.Fatal("and so on")
		}
	}
}
