package controller

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/link"
	"mallee/state"
)

const (
	vol  = cloud.VolumeID("vol-00000001")
	snap = cloud.SnapshotID("snap-00000001")
)

// makeVolume on node-1, attached to a where that is launched.
func (d *desk) makeVolume(change func(*cloud.Volume)) {
	d.Helper()
	v := cloud.Volume{ID: vol, Account: "123456789012", Node: "node-1", SizeGiB: 2}
	if change != nil {
		change(&v)
	}
	d.update(func(tx *state.Tx) {
		if _, err := state.MakeVolume(tx, v); err != nil {
			d.Fatal(err)
		}
	})
}

// changeVolume in the state, as the API does.
func (d *desk) changeVolume(change func(*state.Tx, cloud.Volume)) {
	d.Helper()
	d.update(func(tx *state.Tx) {
		v, _, ok := state.Volumes.Get(tx, vol)
		if !ok {
			d.Fatalf("%s is not there", vol)
		}
		change(tx, *v)
	})
}

func (d *desk) attach() {
	d.Helper()
	d.changeVolume(func(tx *state.Tx, v cloud.Volume) {
		state.Attach(tx, v, cloud.Attachment{Instance: a, Device: "/dev/sdf", At: d.now})
	})
}

func (d *desk) detach() {
	d.Helper()
	d.changeVolume(func(tx *state.Tx, v cloud.Volume) { state.Detach(tx, v, false, d.now) })
}

func (d *desk) deleteVolume() {
	d.Helper()
	d.changeVolume(func(tx *state.Tx, v cloud.Volume) { state.DeleteVolume(tx, v, d.now) })
}

// reportVolumes of node-1, beside its machines.
func (d *desk) reportVolumes(generation int64, volumes []link.Volume, snapshots []link.Snapshot, has ...link.Machine) {
	d.Helper()
	r := link.Report{
		Node: "node-1", Zone: "zone-1a", Capacity: cloud.Size{VCPUs: 8, MemoryMiB: 8192, DiskGiB: 100},
		Generation: generation, Machines: has, Volumes: volumes, Snapshots: snapshots,
	}
	if err := d.TakeIn(d.Context(), r); err != nil {
		d.Fatal(err)
	}
}

// told is a report on the volume alone, made now.
func (d *desk) told(v link.Volume) {
	d.Helper()
	v.Volume = vol
	d.reportVolumes(d.current("node-1"), []link.Volume{v}, nil)
}

// volume as it is; the state is "" where it is forgotten.
func (d *desk) volume() (cloud.Volume, cloud.VolumeObservation, cloud.VolumeState) {
	v, _, ok := state.Volumes.Get(d.Store.View(), vol)
	if !ok {
		return cloud.Volume{}, cloud.VolumeObservation{}, ""
	}
	o := volumeSeen(d.Store.View(), vol)
	return *v, o, v.State(o)
}

func (d *desk) wantVolume(when string, want cloud.VolumeState) {
	d.Helper()
	if _, _, got := d.volume(); got != want {
		d.Errorf("%s: %q, want %q", when, got, want)
	}
}

func (d *desk) wantAttachment(when string, want cloud.AttachmentState) {
	d.Helper()
	v, o, _ := d.volume()
	got := cloud.AttachmentState("")
	if v.Attachment != nil {
		got = v.Attachment.State(o, true)
	}
	if got != want {
		d.Errorf("%s: %q, want %q", when, got, want)
	}
}

var ready = link.Volume{Phase: cloud.VolumeReady, SizeGiB: 2}

func readyIn(id cloud.InstanceID) link.Volume {
	v := ready
	v.Attached = id
	return v
}

func TestLifeOfAVolume(t *testing.T) {
	d := newDesk(t)
	d.launch(a, "node-1")
	d.makeVolume(nil)
	d.wantVolume("wished for", cloud.VolumeCreating)
	d.told(link.Volume{Phase: cloud.VolumePreparing})
	d.wantVolume("being prepared", cloud.VolumeCreating)
	d.told(ready)
	d.wantVolume("ready", cloud.VolumeAvailable)
	d.attach()
	d.wantAttachment("wished for", cloud.Attaching)
	d.told(readyIn(a))
	d.wantAttachment("there", cloud.Attached)
	d.detach()
	d.wantAttachment("to be given back", cloud.Detaching)
	d.told(readyIn(a))
	d.wantAttachment("not given back yet", cloud.Detaching)
	d.told(ready)
	d.wantVolume("given back", cloud.VolumeAvailable)
	d.deleteVolume()
	d.wantVolume("deleted", cloud.VolumeDeleting)
	d.told(ready)
	d.wantVolume("something is left", cloud.VolumeDeleting)
	d.reportVolumes(d.current("node-1"), nil, nil)
	d.wantVolume("nothing is left", "")
	if n := state.Count(d.Store.View(), state.VolumeRoom, "123456789012"); n != 0 {
		t.Errorf("%d GiB are still counted", n)
	}
	if _, _, ok := state.VolumeObservations.Get(d.Store.View(), vol); ok {
		t.Error("its observation is still there")
	}
}

// TestReportsOnVolumes that are late, early, repeated, or somebody else's.
func TestReportsOnVolumes(t *testing.T) {
	for _, c := range []struct {
		name  string
		wish  func(*desk)
		late  link.Volume // said under the assignment of before the wish
		state cloud.VolumeState
	}{
		{"ready, before an attachment", (*desk).attach, ready, cloud.VolumeInUse},
		{"not attached, before a detachment", func(d *desk) { d.attach(); d.told(readyIn(a)); d.late = d.current("node-1"); d.detach() }, ready, cloud.VolumeInUse},
		{"failed, before an attachment", (*desk).attach, link.Volume{Phase: cloud.VolumeFailed}, cloud.VolumeInUse},
		{"attached, before its deletion", (*desk).deleteVolume, readyIn(a), cloud.VolumeDeleting},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			d.launch(a, "node-1")
			d.makeVolume(nil)
			d.told(ready)
			d.late = d.current("node-1")
			c.wish(d)
			before := d.Store.View().Revision()
			c.late.Volume = vol
			for _, generation := range []int64{0, d.late - 1, d.late} {
				d.reportVolumes(generation, []link.Volume{c.late}, nil)
				d.wantVolume("a late report", c.state)
			}
			d.reportVolumes(d.late, nil, nil)
			d.wantVolume("a late report without it", c.state)
			if after := d.Store.View().Revision(); after != before {
				t.Errorf("a late report was written: revision %d became %d", before, after)
			}
		})
	}
	t.Run("of another node", func(t *testing.T) {
		d := newDesk(t)
		d.makeVolume(nil)
		r := link.Report{Node: "node-2", Zone: "zone-1a", Capacity: cloud.Size{VCPUs: 8, MemoryMiB: 8192, DiskGiB: 100}, Generation: d.current("node-1"), Volumes: []link.Volume{{Volume: vol, Phase: cloud.VolumeReady}}}
		if err := d.TakeIn(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		d.wantVolume("another's word", cloud.VolumeCreating)
		d.deleteVolume()
		r.Volumes, r.Generation = nil, d.current("node-1")
		if err := d.TakeIn(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		d.wantVolume("absent elsewhere", cloud.VolumeDeleting)
	})
	t.Run("twice, and of what is unknown", func(t *testing.T) {
		d := newDesk(t)
		d.makeVolume(nil)
		at := d.current("node-1")
		d.told(ready)
		before := d.Store.View().Revision()
		d.told(ready)
		d.reportVolumes(at, []link.Volume{{Volume: "vol-99999999", Phase: cloud.VolumeReady}, {Volume: vol, Phase: cloud.VolumeReady, SizeGiB: 2}}, nil)
		if after := d.Store.View().Revision(); after != before {
			t.Errorf("what is known was written again: revision %d became %d", before, after)
		}
	})
}

// TestFilledVolumes stand on their own.
func TestFilledVolumes(t *testing.T) {
	d := newDesk(t)
	d.makeVolume(func(v *cloud.Volume) { v.Source = &cloud.Content{Manifest: "m"} })
	for _, filled := range []int{10, 99, 50} {
		v := ready
		v.Filled = filled
		d.told(v)
	}
	if v, o, _ := d.volume(); v.Source == nil || o.Filled != 99 {
		t.Errorf("half filled it has the source %v, and %d%%", v.Source, o.Filled)
	}
	v := ready
	v.Filled = 100
	d.told(v)
	if v, o, _ := d.volume(); v.Source != nil || o.Filled != 100 {
		t.Errorf("filled it has the source %v, and %d%%", v.Source, o.Filled)
	}
	if got := d.Assignment("node-1").Volumes; len(got) != 1 || got[0].Source != nil {
		t.Errorf("assigned is %+v", got)
	}
}

// TestStopKeepsVolumes and the private address; the end of the instance lets them
// go.
func TestStopKeepsVolumes(t *testing.T) {
	d := newDesk(t)
	d.launch(a, "node-1")
	d.makeVolume(nil)
	d.attach()
	d.reportVolumes(d.current("node-1"), []link.Volume{{Volume: vol, Phase: cloud.VolumeReady, Attached: a}}, nil, up(a))
	d.want(a, cloud.WishStopped)
	d.wantState("stopped by its user", a, cloud.Stopping)
	d.told(ready)
	i, _, at := d.instance(a)
	if at != cloud.Stopped || !i.Vacated || i.Public.IsValid() || d.used("node-1") != (cloud.Size{}) {
		t.Errorf("%s: %+v, the node gives %+v", at, i, d.used("node-1"))
	}
	if owner := state.Owner(d.Store.View(), state.LocalAddress, i.Local.String()); owner != string(a) {
		t.Errorf("the private address is %q's", owner)
	}
	d.wantAttachment("stopped", cloud.Attaching) // of a machine; it has none, so the API says attached
	at1 := d.current("node-1")
	d.told(ready)
	if d.current("node-1") != at1 {
		t.Error("a stop was concluded twice")
	}
	d.now = d.now.Add(48 * time.Hour)
	d.want(a, cloud.WishTerminated)
	d.pass()
	d.wantState("terminated when it was stopped", a, cloud.Terminated)
	d.wantVolume("its volume", cloud.VolumeAvailable)
	d.now = d.now.Add(time.Hour)
	d.pass()
	d.wantState("an hour later", a, "")
}

// TestStartedAgain is pending until it is seen up, and nothing that was said of
// its former life counts.
func TestStartedAgain(t *testing.T) {
	d := newDesk(t)
	d.launch(a, "node-1")
	d.update(func(tx *state.Tx) { state.Instances.Edit(tx, a, func(i *cloud.Instance) { i.EBS = true }) })
	d.report("node-1", d.current("node-1"), up(a))
	d.want(a, cloud.WishStopped)
	stopped := d.current("node-1")
	d.report("node-1", stopped)
	d.update(func(tx *state.Tx) {
		i, _, _ := state.Instances.Get(tx, a)
		if _, err := state.Start(tx, strings.NewReader(strings.Repeat("random", 100)), pools, *i, "node-2", d.now); err != nil {
			t.Fatal(err)
		}
	})
	d.wantState("started", a, cloud.Pending)
	d.report("node-1", stopped, up(a))
	d.report("node-1", stopped)
	d.wantState("its former node speaks", a, cloud.Pending)
	d.want(a, cloud.WishTerminated)
	d.report("node-2", 0)
	d.wantState("its node didn't know yet", a, cloud.ShuttingDown)
	d.report("node-2", d.current("node-2"))
	d.wantState("its node has nothing", a, cloud.Terminated)
}

// TestFailedVolumes end a launch with words, and send a start back to stopped.
func TestFailedVolumes(t *testing.T) {
	why := cloud.Reason{Code: "Client.InvalidSnapshot.NotFound", Message: "Client.InvalidSnapshot.NotFound: block 7 is damaged"}
	for _, c := range []struct {
		name   string
		wishes int
		up     bool
		reason cloud.Reason
		wish   cloud.Wish
		words  string
	}{
		{"at launch", 1, false, why, cloud.WishTerminated, why.Message + " (volume vol-00000001, which was to be /dev/sdf, can't be made)"},
		{"at a start", 3, false, why, cloud.WishStopped, why.Message},
		{"without words", 1, false, cloud.Reason{}, cloud.WishTerminated, "did not say why"},
		{"while it runs", 1, true, why, cloud.WishRunning, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			d.launch(a, "node-1")
			d.update(func(tx *state.Tx) {
				state.Instances.Edit(tx, a, func(i *cloud.Instance) { i.EBS, i.Wishes = true, c.wishes })
			})
			d.makeVolume(nil)
			d.attach()
			var has []link.Machine
			if c.up {
				has = append(has, link.Machine{Instance: a, Wishes: c.wishes, Phase: cloud.PhaseUp})
			}
			d.reportVolumes(d.current("node-1"), []link.Volume{{Volume: vol, Phase: cloud.VolumeFailed, Reason: c.reason}}, nil, has...)
			d.pass()
			d.pass()
			if i, _, _ := d.instance(a); i.Wish != c.wish || !strings.Contains(i.Reason.Message, c.words) || c.words == "" && i.Reason.Code != "" {
				t.Errorf("wish %s, reason %+v", i.Wish, i.Reason)
			}
		})
	}
}

// makeSnapshot of the volume, to be taken by node-1.
func (d *desk) makeSnapshot(id, parent cloud.SnapshotID) {
	d.Helper()
	d.update(func(tx *state.Tx) {
		state.PutSnapshot(tx, cloud.Snapshot{ID: id, Volume: vol, Node: "node-1", SizeGiB: 2, StartedAt: d.now, Parent: parent})
	})
}

func (d *desk) snapshot(id cloud.SnapshotID) (cloud.Snapshot, cloud.SnapshotObservation) {
	s, _, _ := state.Snapshots.Get(d.Store.View(), id)
	if o, _, ok := state.SnapshotObservations.Get(d.Store.View(), id); ok {
		return *s, *o
	}
	return *s, cloud.SnapshotObservation{}
}

// TestSnapshots as a node tells of them.
func TestSnapshots(t *testing.T) {
	d := newDesk(t)
	d.makeVolume(nil)
	d.told(ready)
	d.makeSnapshot(snap, "")
	d.makeSnapshot("snap-00000002", snap)
	if got := d.Assignment("node-1").Snapshots; len(got) != 2 || got[0].ID != snap {
		t.Fatalf("assigned are %+v", got)
	}
	tell := func(s link.Snapshot) {
		s.Snapshot = snap
		d.reportVolumes(0, nil, []link.Snapshot{s, {Snapshot: "snap-99999999", Taken: true}})
	}
	tell(link.Snapshot{Taken: true, Done: 30, Total: 100})
	tell(link.Snapshot{Done: 20, Total: 100}) // overtaken
	s, o := d.snapshot(snap)
	if !o.Taken || s.Progress(o) != 30 || s.State() != cloud.SnapshotPending {
		t.Errorf("%+v, %d%%", o, s.Progress(o))
	}
	at := d.current("node-1")
	d.now = d.now.Add(time.Minute)
	tell(link.Snapshot{Taken: true, Done: 100, Total: 100, Content: &cloud.Content{Manifest: "m", Size: 2 << 30}})
	s, o = d.snapshot(snap)
	if s.State() != cloud.SnapshotCompleted || s.Content.Manifest != "m" || !s.CompletedAt.Equal(d.now) || s.Progress(o) != 100 || o.Taken {
		t.Errorf("completed: %+v, %+v", s, o)
	}
	if got := d.Assignment("node-1"); len(got.Snapshots) != 1 || got.Generation == at || got.Snapshots[0].Base == nil || got.Snapshots[0].Base.Manifest != "m" {
		t.Errorf("assigned are %+v", got)
	}
	tell(link.Snapshot{Failed: cloud.Reason{Code: "late"}})
	tell(link.Snapshot{Content: &cloud.Content{Manifest: "other"}})
	if again, _ := d.snapshot(snap); again.Content.Manifest != "m" || again.Failed.Code != "" {
		t.Errorf("a completed snapshot became %+v", again)
	}
	d.reportVolumes(0, nil, []link.Snapshot{{Snapshot: "snap-00000002", Failed: cloud.Reason{Code: "c", Message: "the disk is on fire"}}})
	if s, _ := d.snapshot("snap-00000002"); s.State() != cloud.SnapshotError || s.Failed.Message != "the disk is on fire" || s.Base != nil {
		t.Errorf("failed: %+v", s)
	}
}

// TestDeletionWaitsForSnapshots of the volume.
func TestDeletionWaitsForSnapshots(t *testing.T) {
	d := newDesk(t)
	d.makeVolume(nil)
	d.told(ready)
	d.makeSnapshot(snap, "")
	d.deleteVolume()
	d.wantVolume("deleted", cloud.VolumeDeleting)
	if got := d.Assignment("node-1").Volumes[0]; !got.Deleted.IsZero() {
		t.Error("the node is told to delete what it is to take a snapshot of")
	}
	d.reportVolumes(d.current("node-1"), nil, nil)
	d.wantVolume("missing before it was to be deleted", cloud.VolumeDeleting)
	before := d.current("node-1")
	d.reportVolumes(before, []link.Volume{{Volume: vol, Phase: cloud.VolumeReady}}, []link.Snapshot{{Snapshot: snap, Content: &cloud.Content{Manifest: "m"}}})
	if got := d.Assignment("node-1"); got.Volumes[0].Deleted.IsZero() || got.Generation == before {
		t.Errorf("assigned is %+v", got)
	}
	d.reportVolumes(d.current("node-1"), nil, nil)
	d.wantVolume("nothing is left", "")
}

// sweeper remembers what it was told is live.
type sweeper struct {
	live []string
	err  error
}

func (s *sweeper) Sweep(_ context.Context, live iter.Seq[cloud.Content]) error {
	if s.err != nil {
		return s.err
	}
	list := ""
	for c := range live {
		list += c.Manifest
	}
	s.live = append(s.live, list)
	return nil
}

// TestSweep after something was let go, and every hour.
func TestSweep(t *testing.T) {
	d := newDesk(t)
	s := &sweeper{}
	d.Contents = s
	put := func(id cloud.SnapshotID, manifest string) {
		d.update(func(tx *state.Tx) {
			state.PutSnapshot(tx, cloud.Snapshot{ID: id, Content: &cloud.Content{Manifest: manifest}})
		})
	}
	swept := func(when, want string) {
		t.Helper()
		d.pass()
		if got := strings.Join(s.live, " "); got != want {
			t.Errorf("%s: swept but %q, want %q", when, got, want)
		}
	}
	put("snap-1", "a")
	swept("the first pass", "a")
	put("snap-2", "b")
	put("snap-3", "b")
	swept("nothing was let go", "a")
	forget := func(id cloud.SnapshotID) {
		d.update(func(tx *state.Tx) {
			snap, _, _ := state.Snapshots.Get(tx, id)
			state.ForgetSnapshot(tx, snap)
		})
	}
	forget("snap-2")
	swept("another has the same", "a")
	forget("snap-3")
	swept("the last one went", "a a")
	d.now = d.now.Add(time.Hour)
	swept("an hour later", "a a a")
	forget("snap-1")
	s.err = errors.New("the disk is on fire")
	if err := d.Step(t.Context()); !errors.Is(err, s.err) {
		t.Errorf("a sweep that fails: %v", err)
	}
	s.err = nil
	swept("the next pass", "a a a ")
}

// TestTrouble is known since when it is of its kind, and when it is over.
func TestTrouble(t *testing.T) {
	said, c := link.Volume{}, &Controller{Options: Options{Now: time.Now}}
	if !c.troubled(cloud.VolumeObservation{Troubled: time.Unix(1, 0)}, said).IsZero() {
		t.Error("there is none, and it has a time")
	}
	was := cloud.VolumeObservation{Trouble: cloud.Trouble{Message: "away"}, Troubled: time.Unix(1, 0)}
	said.Trouble = cloud.Trouble{Message: "still away"}
	if got := c.troubled(was, said); !got.Equal(was.Troubled) {
		t.Errorf("the same trouble is there since %s", got)
	}
	said.Trouble.Damaged = true
	if got := c.troubled(was, said); got.Equal(was.Troubled) {
		t.Error("another trouble is there as long as the one before")
	}
}
