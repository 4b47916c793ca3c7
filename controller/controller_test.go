package controller

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/link"
	"mallee/state"
)

var pools = state.Pools{Local: netip.MustParsePrefix("172.31.0.0/24"), Public: netip.MustParsePrefix("127.20.0.0/24")}

// desk is a controller over a state in memory, with a clock that a test turns.
type desk struct {
	*testing.T
	*Controller
	now  time.Time
	log  bytes.Buffer
	late int64 // a generation that a test remembers
}

func newDesk(t *testing.T) *desk {
	d := &desk{T: t, now: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)}
	store, err := state.OpenMemory(t.Context(), state.NewMemory(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	d.Controller = New(Options{Store: store, Now: func() time.Time { return d.now }, Log: slog.New(slog.NewTextHandler(&d.log, nil))})
	for _, node := range []cloud.NodeID{"node-1", "node-2"} {
		d.report(node, 0)
	}
	return d
}

func (d *desk) update(change func(*state.Tx)) {
	d.Helper()
	if err := d.Store.Update(d.Context(), func(tx *state.Tx) error { change(tx); return nil }); err != nil {
		d.Fatal(err)
	}
}

var size = cloud.Size{VCPUs: 1, MemoryMiB: 512, DiskGiB: 5}

// launch an instance on the node, as RunInstances does.
func (d *desk) launch(id cloud.InstanceID, node cloud.NodeID) {
	d.Helper()
	i := cloud.Instance{
		ID: id, Reservation: "r-00000001", Account: "123456789012", Node: node, Size: size, LaunchedAt: d.now,
		Image: cloud.ImageRef{ID: "emi-00000001"}, Shutdown: cloud.ShutdownTerminate, ClientToken: "token",
		Wish: cloud.WishRunning, Wishes: 1, WishedAt: d.now,
	}
	d.update(func(tx *state.Tx) {
		if err := state.Allocate(tx, strings.NewReader(strings.Repeat(string(id), 100)), pools, &i, true); err != nil {
			d.Fatal(err)
		}
		state.Instances.Put(tx, i)
		state.TagSets.Put(tx, cloud.TagSet{Account: i.Account, Resource: string(id), Tags: map[string]string{"k": "v"}})
		r := cloud.Reservation{ID: i.Reservation, Account: i.Account}
		if was, _, ok := state.Reservations.Get(tx, r.ID); ok {
			r = *was
		}
		r.Instances = append(r.Instances[:len(r.Instances):len(r.Instances)], id)
		state.Reservations.Put(tx, r)
		state.ClientTokens.Put(tx, cloud.ClientToken{Account: i.Account, Action: "RunInstances", Token: "token"})
	})
}

func (d *desk) want(id cloud.InstanceID, w cloud.Wish) {
	d.Helper()
	d.update(func(tx *state.Tx) {
		i, _, ok := state.Instances.Get(tx, id)
		if !ok {
			d.Fatalf("%s is not there", id)
		}
		state.Want(tx, *i, w, cloud.Reason{Code: cloud.ReasonUserTerminated}, d.now)
	})
}

// report of a node that has these, under a generation.
func (d *desk) report(node cloud.NodeID, generation int64, has ...link.Machine) {
	d.Helper()
	r := link.Report{Node: node, Zone: "zone-1a", Capacity: cloud.Size{VCPUs: 8, MemoryMiB: 8192, DiskGiB: 100}, Generation: generation, Machines: has}
	if err := d.TakeIn(d.Context(), r); err != nil {
		d.Fatal(err)
	}
}

// current is the generation of the node's assignment.
func (d *desk) current(node cloud.NodeID) int64 { return d.Assignment(node).Generation }

func (d *desk) pass() {
	d.Helper()
	if err := d.Step(d.Context()); err != nil {
		d.Fatal(err)
	}
}

// instance as it is; the state is "" where it is forgotten.
func (d *desk) instance(id cloud.InstanceID) (cloud.Instance, cloud.Observation, cloud.InstanceState) {
	view := d.Store.View()
	i, _, ok := state.Instances.Get(view, id)
	if !ok {
		return cloud.Instance{}, cloud.Observation{}, ""
	}
	o := seen(view, id)
	return *i, o, i.State(o)
}

func (d *desk) wantState(when string, id cloud.InstanceID, want cloud.InstanceState) {
	d.Helper()
	if _, _, got := d.instance(id); got != want {
		d.Errorf("%s: %q, want %q", when, got, want)
	}
}

// used is what the node has given away.
func (d *desk) used(node cloud.NodeID) cloud.Size {
	n, _, _ := state.Nodes.Get(d.Store.View(), node)
	return n.Used
}

func up(id cloud.InstanceID) link.Machine {
	return link.Machine{Instance: id, Wishes: 1, Phase: cloud.PhaseUp}
}

const a, b = cloud.InstanceID("i-0000000a"), cloud.InstanceID("i-0000000b")

func TestLifeOfAnInstance(t *testing.T) {
	d := newDesk(t)
	d.launch(a, "node-1")
	d.wantState("launched", a, cloud.Pending)
	d.report("node-1", d.current("node-1"), link.Machine{Instance: a, Wishes: 1, Phase: cloud.PhasePreparing})
	d.wantState("being prepared", a, cloud.Pending)
	d.report("node-1", d.current("node-1"), up(a))
	d.wantState("up", a, cloud.Running)
	d.want(a, cloud.WishTerminated)
	d.wantState("terminated by its user", a, cloud.ShuttingDown)
	d.report("node-1", d.current("node-1"))
	d.wantState("gone", a, cloud.Terminated)
	if got := d.used("node-1"); got != (cloud.Size{}) {
		t.Errorf("the node still gives %+v", got)
	}
}

// An absence counts only under an assignment that knows of the last wish, and
// only where the node should not have it.
func TestAbsence(t *testing.T) {
	d := newDesk(t)
	d.launch(a, "node-1")
	before := d.current("node-1")
	d.report("node-1", before)
	d.wantState("missing while it is wished", a, cloud.Pending)
	d.want(a, cloud.WishTerminated)
	for _, late := range []int64{0, before - 1, before} {
		d.report("node-1", late)
		d.wantState("missing in a report of before the wish", a, cloud.ShuttingDown)
	}
	d.report("node-2", d.current("node-1"))
	d.wantState("missing on another node", a, cloud.ShuttingDown)
	d.report("node-1", d.current("node-1"), up(a))
	d.wantState("still there", a, cloud.ShuttingDown)
	if d.used("node-1") != size {
		t.Error("given back too early")
	}
	d.report("node-1", d.current("node-1"))
	d.wantState("missing", a, cloud.Terminated)
	at := d.current("node-1")
	d.report("node-1", at)
	if d.current("node-1") != at {
		t.Error("what is known was written again")
	}
}

// Reports may be late, and say what isn't so any more.
func TestLateReports(t *testing.T) {
	d := newDesk(t)
	d.launch(a, "node-1")
	early := d.current("node-1")
	d.report("node-1", early, up(a))
	d.report("node-1", early, link.Machine{Instance: a, Wishes: 1, Phase: cloud.PhasePreparing})
	d.wantState("once up", a, cloud.Running)
	d.want(a, cloud.WishTerminated)
	_, known, _ := d.instance(a)
	d.report("node-1", early, up(a))
	if _, now, _ := d.instance(a); now != known {
		t.Errorf("a report of a former wish was taken for news: %+v", now)
	}
	d.report("node-1", d.current("node-1"))
	for _, phase := range []cloud.Phase{cloud.PhaseUp, cloud.PhaseFailed, cloud.PhaseExited} {
		for wishes := range 4 {
			d.report("node-1", early, link.Machine{Instance: a, Wishes: wishes, Phase: phase})
			d.wantState("after it was gone", a, cloud.Terminated)
		}
	}
}

func TestReportsOfStrangers(t *testing.T) {
	d := newDesk(t)
	d.launch(a, "node-1")
	d.report("node-2", d.current("node-2"), up(a))
	d.wantState("up on a node that it isn't on", a, cloud.Pending)
	d.report("node-1", d.current("node-1"), up("i-99999999"))
	if _, _, ok := state.Observations.Get(d.Store.View(), "i-99999999"); ok {
		t.Error("an instance that nobody knows was observed")
	}
	if got := d.Assignment("node-2"); len(got.Instances) != 0 || got.Node != "node-2" {
		t.Errorf("node-2 is assigned %+v", got)
	}
	if got := d.Assignment("node-3"); got.Generation != 0 || len(got.Instances) != 0 {
		t.Errorf("a node that never joined is assigned %+v", got)
	}
}

func TestNodeJoins(t *testing.T) {
	d := newDesk(t)
	at := d.current("node-1")
	d.report("node-1", at)
	if d.current("node-1") != at {
		t.Error("a report without news was written")
	}
	r := link.Report{Node: "node-1", Zone: "zone-1b", Capacity: cloud.Size{VCPUs: 2}}
	if err := d.TakeIn(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	n, _, _ := state.Nodes.Get(d.Store.View(), "node-1")
	if n.Zone != "zone-1b" || n.Capacity.VCPUs != 2 || !n.JoinedAt.Equal(d.now) {
		t.Errorf("node %+v", n)
	}
}

// Sync is held open until there is news for the node, whatever else happens.
func TestSync(t *testing.T) {
	d := newDesk(t)
	type answer struct {
		a   link.Assignment
		err error
	}
	sync := func(ctx context.Context) chan answer {
		c := make(chan answer, 1)
		r := link.Report{Node: "node-1", Zone: "zone-1a", Capacity: cloud.Size{VCPUs: 8, MemoryMiB: 8192, DiskGiB: 100}, Generation: d.current("node-1")}
		go func() {
			a, err := d.Sync(ctx, r)
			c <- answer{a, err}
		}()
		return c
	}
	wait := func(c chan answer) answer {
		t.Helper()
		select {
		case got := <-c:
			return got
		case <-time.After(10 * time.Second):
			t.Fatal("no answer")
		}
		return answer{}
	}
	c := sync(t.Context())
	d.launch(b, "node-2") // not its affair
	select {
	case got := <-c:
		t.Errorf("answered without news: %+v", got)
	default:
	}
	d.launch(a, "node-1")
	if got := wait(c); got.err != nil || got.a.Node != "node-1" || len(got.a.Instances) != 1 || got.a.Instances[0].ID != a || got.a.Generation != d.current("node-1") {
		t.Errorf("answer %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c = sync(ctx)
	cancel()
	if got := wait(c); !errors.Is(got.err, context.Canceled) {
		t.Errorf("cancelled: %+v", got)
	}
	c = sync(t.Context())
	d.Store.Close()
	if got := wait(c); got.err == nil {
		t.Errorf("the state has ended: %+v", got)
	}
	if _, err := d.Sync(t.Context(), link.Report{Node: "node-9"}); err == nil || !strings.Contains(err.Error(), "node-9") {
		t.Errorf("a report that can't be written: %v", err)
	}
}

// A password that a node has heard stays known, when the node doesn't any more and
// when the instance is stopped and started.
func TestPasswordStays(t *testing.T) {
	d := newDesk(t)
	d.launch("i-00000001", "node-1")
	say := func(password string) {
		t.Helper()
		_, o, _ := d.instance("i-00000001")
		i, _, _ := state.Instances.Get(d.Store.View(), "i-00000001")
		d.report("node-1", d.current("node-1"), link.Machine{Instance: i.ID, Wishes: i.Wishes, Phase: cloud.PhaseUp, Password: password})
		if _, now, _ := d.instance("i-00000001"); now.Password != "c2VjcmV0" {
			t.Errorf("the password is %q after %q was reported, before %q", now.Password, password, o.Password)
		}
	}
	say("c2VjcmV0")
	say("")
	d.want("i-00000001", cloud.WishStopped)
	d.report("node-1", d.current("node-1"))
	d.update(func(tx *state.Tx) {
		i, _, _ := state.Instances.Get(tx, "i-00000001")
		if _, err := state.Start(tx, strings.NewReader(strings.Repeat("x", 100)), pools, *i, "node-1", d.now); err != nil {
			t.Fatal(err)
		}
	})
	if _, o, s := d.instance("i-00000001"); s != cloud.Pending || o.Password != "c2VjcmV0" {
		t.Errorf("after a start it is %s and its password %q", s, o.Password)
	}
	say("")
}

// Tags go to the node of an instance whose metadata tells them, and to no other.
func TestTagsAreAssigned(t *testing.T) {
	d := newDesk(t)
	d.launch("i-00000001", "node-1")
	for _, told := range []bool{false, true} {
		d.update(func(tx *state.Tx) {
			i, _, _ := state.Instances.Get(tx, "i-00000001")
			changed := *i
			changed.MetadataTags = told
			state.ChangeInstance(tx, changed)
		})
		if tags := d.Assignment("node-1").Instances[0].Tags; (tags["k"] == "v") != told {
			t.Errorf("tags told %t: the node is assigned %v", told, tags)
		}
	}
}
