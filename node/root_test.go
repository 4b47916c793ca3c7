package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
)

const bundling = "bun-00000001-root"

// stored is how a copy of a root disk ended.
type stored struct {
	content cloud.Content
	err     error
}

// storeRoot asks for a copy of the first instance's root disk, and returns when
// the node knows of it.
func (r *rig) storeRoot(ctx context.Context) <-chan stored {
	r.Helper()
	ended, n := make(chan stored, 1), r.Node
	go func() {
		c, err := n.StoreRoot(ctx, bundling, first)
		ended <- stored{c, err}
	}()
	r.await("the wish", func() bool { c, _ := r.rootWish(r.machine()); return c != nil })
	return ended
}

// machine is the node's memory of the first instance.
func (r *rig) machine() *machine {
	r.Node.mu.Lock()
	defer r.Node.mu.Unlock()
	return r.machines[first]
}

// await something that another goroutine does.
func (r *rig) await(what string, there func() bool) {
	r.Helper()
	for deadline := time.Now().Add(time.Minute); !there(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("%s does not come", what)
		}
	}
}

func (r *rig) wantStored(ended <-chan stored, want string) {
	r.Helper()
	select {
	case got := <-ended:
		said := got.content.Manifest
		if got.err != nil {
			said = got.err.Error()
		}
		if !strings.Contains(said, want) {
			r.Errorf("the copy ended with %q, want %q", said, want)
		}
	case <-time.After(time.Minute):
		r.Fatalf("the copy does not end; want %q", want)
	}
}

// wantNoRootCopy of which anything is left but, where it was well, its content.
func (r *rig) wantNoRootCopy() {
	r.Helper()
	if s := r.bytes.sinks[bundling]; s != nil && s.open != 0 {
		r.Errorf("the sink is open %d times", s.open)
	}
	if c, dropped := r.rootWish(r.machine()); c != nil || dropped {
		r.Errorf("the wish is still there: %+v, dropped %t", c, dropped)
	}
	jobs, err := r.Storage.Jobs(r.Context(), r.machineDir(first))
	if err != nil || len(jobs) > 0 {
		r.Errorf("jobs %v, %v", jobs, err)
	}
}

func bundled(t *testing.T) *rig {
	r, _ := machineWith(t, 0)
	return r
}

// TestRootIsStored as it is when the guest is down, which runs again at once.
func TestRootIsStored(t *testing.T) {
	for name, obeys := range map[string]bool{"obeys": true, "ignores it": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if !obeys {
				r.boots = stubborn
			}
			r.assign(instance(1))
			r.lasts()
			r.order()
			ended := r.storeRoot(t.Context())
			if _, err := r.StoreRoot(t.Context(), "bun-00000002-root", first); err == nil || !strings.Contains(err.Error(), "being copied") {
				t.Errorf("another copy at the same time: %v", err)
			}
			r.wantEffects("asked", "power down")
			if !obeys {
				r.now = r.now.Add(powerDownGrace)
			}
			r.wantPhase(cloud.PhaseUp)
			if got := r.effects(); strings.TrimPrefix(got, "power down, ") != "open sink, copy, copied, reset" { // it may not have heard
				t.Errorf("down: %q", got)
			}
			r.wantEffects("half way", "")
			r.wantEffects("copied", "commit, dismiss")
			r.wantStored(ended, "of-"+bundling)
			r.wantNoRootCopy()
			r.wantEffects("after", "")
			if s := r.bytes.sinks[bundling]; !s.committed || !s.whole || s.size != 1<<30 || s.stored != string(first)+"-root [] full true" {
				t.Errorf("the sink has %+v", s)
			}
		})
	}
}

// TestRootCannotBeStored: whoever asked is told, once, and the guest runs on.
func TestRootCannotBeStored(t *testing.T) {
	for _, test := range []struct {
		effect string
		want   string // of the effects after the guest is down
	}{
		{"open sink", "open sink, reset"},
		{"copy", "open sink, copy, reset"},
	} {
		t.Run(test.effect, func(t *testing.T) {
			r := bundled(t)
			ended := r.storeRoot(t.Context())
			r.fail[test.effect] = errors.New("on fire")
			r.wantEffects("asked", "power down")
			r.wantEffects("down", test.want)
			r.fail["dismiss"] = errors.New("no answer") // which doesn't keep the guest down either
			r.wantEffects("then", "dismiss")
			r.fail["dismiss"] = nil
			r.now = r.now.Add(time.Minute)
			r.wantEffects("in the end", "dismiss")
			r.wantStored(ended, "on fire")
			r.wantNoRootCopy()
			r.fail[test.effect] = nil
			r.now = r.now.Add(time.Hour)
			r.wantEffects("later", "")
		})
	}
}

// TestRootCopyFails half way.
func TestRootCopyFails(t *testing.T) {
	r := bundled(t)
	ended := r.storeRoot(t.Context())
	r.passes(3)
	r.world.Fail(r.machineDir(first), bundling, errors.New("the disk is on fire"))
	r.passes(1)
	r.wantStored(ended, "on fire")
	r.wantNoRootCopy()
}

// TestRootCopyWaits for a store that can't commit what it has.
func TestRootCopyWaits(t *testing.T) {
	r := bundled(t)
	ended := r.storeRoot(t.Context())
	r.fail["commit"] = errors.New("the store is away")
	r.passes(5)
	r.wantPhase(cloud.PhaseUp)
	select {
	case got := <-ended:
		t.Fatalf("it ended: %+v", got)
	default:
	}
	r.fail["commit"] = nil
	r.passes(1)
	r.wantStored(ended, "of-"+bundling)
	r.wantNoRootCopy()
}

// TestRootCopyIsGivenUp before the guest is down, and while its disk is copied: the
// guest runs again, and nothing is left.
func TestRootCopyIsGivenUp(t *testing.T) {
	for name, passes := range map[string]int{"before it was looked at": 0, "while the guest shuts down": 1, "while it is copied": 2, "half way": 3} {
		t.Run(name, func(t *testing.T) {
			r := bundled(t)
			ctx, cancel := context.WithCancel(t.Context())
			ended := r.storeRoot(ctx)
			r.passes(passes)
			cancel()
			r.wantStored(ended, "canceled")
			r.await("the end of the wish", func() bool { _, dropped := r.rootWish(r.machine()); return dropped })
			r.passes(3)
			r.wantNoRootCopy()
			if downs, resets := r.count("power down"), r.count("reset"); downs != resets {
				t.Errorf("the guest was shut down %d times, and started again %d times", downs, resets)
			}
			again := r.storeRoot(t.Context())
			r.passes(5)
			r.wantStored(again, "of-"+bundling)
		})
	}
}

// TestRootOfAMachineThatEnds: whoever asked is told, whether the instance is
// terminated or its process ends, and whenever.
func TestRootOfAMachineThatEnds(t *testing.T) {
	for passes := range 4 {
		r := bundled(t)
		ended := r.storeRoot(t.Context())
		r.passes(passes)
		r.assign()
		r.passes(1)
		r.wantStored(ended, errInstanceGone.Error())
		r.wantNothing()
		if s := r.bytes.sinks[bundling]; s != nil && s.open != 0 {
			t.Errorf("after %d passes: the sink is open", passes)
		}
	}
	for passes := 2; passes < 4; passes++ {
		r := bundled(t)
		ended := r.storeRoot(t.Context())
		r.passes(passes)
		r.world.Crash(r.machineDir(first))
		r.passes(2)
		r.wantStored(ended, errInstanceGone.Error())
		r.wantNoRootCopy()
		r.wantPhase(cloud.PhaseUp)
	}
}

// TestRootCopySurvivesDeaths: whatever the program dies of, at whichever effect,
// the guest runs in the end, nothing of the copy is left, and who asks the next
// program gets one.
func TestRootCopySurvivesDeaths(t *testing.T) {
	for n := 1; ; n++ {
		r := bundled(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := r.storeRoot(ctx)
		r.diesAt = n
		died := false
		for range 6 {
			if r.outlive(func() { r.passes(1) }) {
				died = true
				r.bytes.close()
			}
		}
		cancel()
		if !died {
			r.wantStored(ended, "of-"+bundling)
			if n < 8 {
				t.Errorf("only %d effects", n)
			}
			return
		}
		r.wantStored(ended, "") // well, if that was before the program died
		r.wantNoRootCopy()
		downs, resets := r.count("power down"), r.count("reset")
		if again := resets - downs; again < 0 || again > 1 {
			t.Errorf("death %d: the guest was shut down %d times, and started again %d times", n, downs, resets)
		}
		again := r.storeRoot(t.Context())
		r.passes(6)
		r.wantStored(again, "of-"+bundling)
		r.wantNoRootCopy()
		if t.Failed() {
			t.Fatalf("and so on after death %d: %v", n, r.did)
		}
	}
}

// TestRootsThatAreNone: instances that aren't here, and those that have a volume.
func TestRootsThatAreNone(t *testing.T) {
	r := newRig(t)
	backed := instance(2)
	backed.EBS = true
	r.assign(instance(1), backed)
	for _, id := range []cloud.InstanceID{"i-00000002", "i-00000003"} {
		if _, err := r.StoreRoot(t.Context(), bundling, id); !errors.Is(err, errInstanceGone) {
			t.Errorf("%s: %v", id, err)
		}
	}
}
