package controller

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/link"
	"mallee/state"
)

// What a guest or a failure asks for becomes the wish, once.
func TestSettle(t *testing.T) {
	broken := cloud.Reason{Code: cloud.ReasonInvalidImage, Message: "Client.InternalError: image emi-1: part 3 is wrong"}
	for _, c := range []struct {
		name     string
		phase    cloud.Phase
		reason   cloud.Reason
		shutdown cloud.ShutdownBehavior
		wish     cloud.Wish
		state    cloud.InstanceState // when the node has given it back
		words    string
	}{
		{"is up", cloud.PhaseUp, cloud.Reason{}, cloud.ShutdownTerminate, cloud.WishRunning, cloud.Running, ""},
		{"powered itself off", cloud.PhaseExited, cloud.Reason{}, cloud.ShutdownTerminate, cloud.WishTerminated, cloud.Terminated, "Client.InstanceInitiatedShutdown: Instance initiated shutdown"},
		{"powered itself off, to stop", cloud.PhaseExited, cloud.Reason{}, cloud.ShutdownStop, cloud.WishStopped, cloud.Stopped, "Client.InstanceInitiatedShutdown: Instance initiated shutdown"},
		{"failed", cloud.PhaseFailed, broken, cloud.ShutdownStop, cloud.WishTerminated, cloud.Terminated, broken.Message},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			d.launch(a, "node-1")
			d.update(func(tx *state.Tx) {
				state.Instances.Edit(tx, a, func(i *cloud.Instance) { i.Shutdown = c.shutdown })
			})
			d.report("node-1", d.current("node-1"), link.Machine{Instance: a, Wishes: 1, Phase: c.phase, Reason: c.reason})
			d.pass()
			d.pass()
			i, _, _ := d.instance(a)
			if i.Wish != c.wish || i.Reason.Message != c.words {
				t.Errorf("wish %s, reason %q", i.Wish, i.Reason.Message)
			}
			if ended := strings.Count(d.log.String(), "instance ends"); ended != i.Wishes-1 {
				t.Errorf("said %d times", ended)
			}
			if c.wish == cloud.WishRunning {
				return
			}
			if got := d.Assignment("node-1"); len(got.Instances) != 0 {
				t.Errorf("still assigned: %+v", got)
			}
			d.report("node-1", d.current("node-1"))
			d.wantState("given back", a, c.state)
		})
	}
}

// A user who ends an instance comes before its guest, and is not overruled.
func TestSettleLeavesAUsersWish(t *testing.T) {
	d := newDesk(t)
	d.launch(a, "node-1")
	d.report("node-1", d.current("node-1"), link.Machine{Instance: a, Wishes: 1, Phase: cloud.PhaseExited})
	d.want(a, cloud.WishTerminated)
	d.pass()
	if i, _, _ := d.instance(a); i.Reason.Code != cloud.ReasonUserTerminated {
		t.Errorf("reason %+v", i.Reason)
	}
}

func TestDeadlines(t *testing.T) {
	d := newDesk(t)
	d.launch(a, "node-1")
	d.launch(b, "node-1")
	running := cloud.InstanceID("i-0000000c")
	d.launch(running, "node-1")
	slow := link.Machine{Instance: b, Wishes: 1, Phase: cloud.PhasePreparing, Reason: cloud.Reason{Message: "Server.InternalError: no network"}}
	d.report("node-1", d.current("node-1"), up(running), slow)
	d.now = d.now.Add(time.Hour)
	d.pass()
	d.wantState("at its deadline", a, cloud.Pending)
	d.now = d.now.Add(time.Second)
	d.pass()
	for id, words := range map[cloud.InstanceID]string{
		a: "Server.InternalError: not running after 1h0m0s: its node did not say why",
		b: "Server.InternalError: not running after 1h0m0s: Server.InternalError: no network",
	} {
		if i, _, _ := d.instance(id); i.Wish != cloud.WishTerminated || i.Reason.Message != words || i.Reason.Code != cloud.ReasonInternalError {
			t.Errorf("%s: %s, %+v", id, i.Wish, i.Reason)
		}
	}
	d.wantState("one that runs", running, cloud.Running)
}

// An hour after its end an instance is forgotten; its reservation and what
// remembers the call go with the last one.
func TestExpireInstances(t *testing.T) {
	d := newDesk(t)
	d.launch(a, "node-1")
	d.launch(b, "node-1")
	d.want(a, cloud.WishTerminated)
	d.report("node-1", d.current("node-1"), up(b))
	d.now = d.now.Add(time.Hour - time.Second)
	d.pass()
	d.wantState("just before", a, cloud.Terminated)
	d.now = d.now.Add(time.Second)
	d.pass()
	d.wantState("an hour later", a, "")
	view := d.Store.View()
	if _, _, ok := state.TagSets.Get(view, string(a)); ok {
		t.Error("its tags are still there")
	}
	if _, _, ok := state.Observations.Get(view, a); ok {
		t.Error("its observation is still there")
	}
	if _, _, ok := state.Reservations.Get(view, "r-00000001"); !ok {
		t.Error("the reservation went before its last instance")
	}
	d.wantState("its sister", b, cloud.Running)
	d.want(b, cloud.WishTerminated)
	d.report("node-1", d.current("node-1"))
	d.now = d.now.Add(time.Hour)
	d.pass()
	view = d.Store.View()
	if _, _, ok := state.Reservations.Get(view, "r-00000001"); ok {
		t.Error("the reservation is still there")
	}
	if _, _, ok := state.ClientTokens.Get(view, state.ClientTokenKey("123456789012", "RunInstances", "token")); ok {
		t.Error("the client token is still there")
	}
}

// One that is stopped is not over.
func TestStoppedDoesNotExpire(t *testing.T) {
	d := newDesk(t)
	d.launch(a, "node-1")
	d.want(a, cloud.WishStopped)
	d.report("node-1", d.current("node-1"))
	d.now = d.now.Add(48 * time.Hour)
	d.pass()
	d.wantState("two days later", a, cloud.Stopped)
}

func TestExpireImages(t *testing.T) {
	d := newDesk(t)
	d.launch(a, "node-1") // of emi-00000001
	d.update(func(tx *state.Tx) {
		for _, i := range []cloud.Image{
			{ID: "emi-00000001", Deregistered: d.now}, {ID: "emi-00000002", Deregistered: d.now}, {ID: "emi-00000003"},
		} {
			state.Images.Put(tx, i)
		}
	})
	left := func() (list string) {
		for i := range state.Images.All(d.Store.View()) {
			list += " " + string(i.ID[11:])
		}
		return list
	}
	d.pass()
	if got := left(); got != " 1 2 3" {
		t.Errorf("at once: %s", got)
	}
	d.report("node-1", d.current("node-1"), up(a))
	d.now = d.now.Add(10 * time.Minute)
	d.pass()
	if got := left(); got != " 1 3" {
		t.Errorf("ten minutes later: %s", got)
	}
	d.want(a, cloud.WishTerminated)
	d.report("node-1", d.current("node-1"))
	d.now = d.now.Add(time.Hour)
	d.pass()
	if got := left(); got != " 3" {
		t.Errorf("when its last instance is forgotten: %s", got)
	}
}

// Run does what Step does, woken by what is written.
func TestRun(t *testing.T) {
	d := newDesk(t)
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { d.Controller.Run(ctx) })
	d.launch(a, "node-1")
	d.report("node-1", d.current("node-1"), link.Machine{Instance: a, Wishes: 1, Phase: cloud.PhaseExited})
	deadline := time.After(9 * time.Second) // before the first tick
	for {
		changed := d.Store.Changed()
		if i, _, _ := d.instance(a); i.Wish == cloud.WishTerminated {
			break
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("the loop was not woken")
		}
	}
	cancel()
	run.Wait()
}
