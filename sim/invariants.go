package sim

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"mallee/cloud"
	"mallee/hypervisor"
	"mallee/state"
)

// check what must hold after every step.
func (w *World) check() error {
	view := w.store.View()
	users := map[netip.Addr]cloud.InstanceID{}
	for _, m := range w.machines.Machines() {
		if m.VCPUs == 0 || w.status(m) == hypervisor.Absent {
			continue
		}
		i, err := w.entitled(view, cloud.InstanceID(m.ID))
		if err != nil {
			return err
		}
		if other, twice := users[i.Local]; twice {
			return fmt.Errorf("%s and %s run with one address, %s", i.ID, other, i.Local)
		}
		users[i.Local] = i.ID
	}
	for id := range w.promised {
		if _, _, ok := state.Instances.Get(view, id); ok {
			continue
		}
		if w.now.Sub(birth) < time.Hour { // before that nothing is forgotten
			return fmt.Errorf("%s was promised, and is not there", id)
		}
		delete(w.promised, id)
	}
	if err := w.checkVolumes(view); err != nil {
		return err
	}
	return w.checkCapacity(view)
}

// entitled says whether the instance whose machine runs still has what it runs with.
func (w *World) entitled(view *state.View, id cloud.InstanceID) (*cloud.Instance, error) {
	i, _, ok := state.Instances.Get(view, id)
	if !ok {
		return nil, fmt.Errorf("%s runs, and the cloud has forgotten it", id)
	}
	if o, _, ok := state.Observations.Get(view, id); ok && o.Phase == cloud.PhaseGone {
		return nil, fmt.Errorf("%s runs after its release", id)
	}
	for kind, address := range map[string]netip.Addr{state.LocalAddress: i.Local, state.PublicAddress: i.Public} {
		if owner := state.Owner(view, kind, address.String()); address.IsValid() && owner != string(id) {
			return nil, fmt.Errorf("%s runs with the %s %s, which is %q's", id, kind, address, owner)
		}
	}
	return i, nil
}

// checkCapacity holds what the node has given away against what instances took.
func (w *World) checkCapacity(view *state.View) error {
	var took cloud.Size
	for i := range state.InstancesByNode.By(view, nodeID) {
		if o, _, ok := state.Observations.Get(view, i.ID); !ok || o.Phase != cloud.PhaseGone {
			took = took.Add(i.Size)
		}
	}
	n, _, ok := state.Nodes.Get(view, nodeID)
	if !ok || n.Used != took {
		return fmt.Errorf("the node has given %v away, and instances took %v", n.Used, took)
	}
	return nil
}

// rounds without faults in which a world has to come to rest.
const rounds = 80

// converge carries messages faithfully until all is as wished.
func (w *World) converge() error {
	w.toCloud, w.toNode = nil, nil
	var unrest error
	for range rounds {
		w.timePasses()
		w.guestsGiveBack()
		w.nodePass()
		report, _ := w.node.Report()
		if err := w.controller.TakeIn(w.ctx, report); err != nil {
			return err
		}
		if err := w.controller.Step(w.ctx); err != nil {
			return err
		}
		w.accept(w.controller.Assignment(nodeID))
		if err := w.check(); err != nil {
			return err
		}
		if unrest = w.unrest(); unrest == nil {
			return nil
		}
	}
	return fmt.Errorf("no rest after %d rounds without faults: %w", rounds, unrest)
}

// unrest says what is not yet as wished; nil at rest.
func (w *World) unrest() error {
	view := w.store.View()
	up := map[string]bool{}
	for _, m := range w.machines.Machines() {
		up[m.ID] = w.status(m) == hypervisor.Running
	}
	wished := map[string]bool{}
	for i := range state.Instances.All(view) {
		var seen cloud.Observation
		if o, _, ok := state.Observations.Get(view, i.ID); ok {
			seen = *o
		}
		want := cloud.Terminated
		switch i.Wish {
		case cloud.WishRunning:
			want, wished[string(i.ID)] = cloud.Running, true
		case cloud.WishStopped:
			want = cloud.Stopped
		}
		if at := i.State(seen); at != want {
			return fmt.Errorf("%s should be %s and is %s", i.ID, want, at)
		}
		if wished[string(i.ID)] != up[string(i.ID)] {
			return fmt.Errorf("%s is %s, and that its machine runs is %t", i.ID, want, up[string(i.ID)])
		}
	}
	if err := w.unrestOfVolumes(view); err != nil {
		return err
	}
	return w.leftovers(wished)
}

// leftovers names what is on the node and belongs to no instance that is
// wished to run.
func (w *World) leftovers(wished map[string]bool) error {
	disks, err := w.disks.List(w.ctx)
	if err != nil {
		return err
	}
	for _, name := range disks {
		if owner := name[:strings.LastIndexByte(name, '-')]; !wished[owner] {
			return fmt.Errorf("disk %s is left", name)
		}
	}
	for _, id := range w.network.List() {
		if !wished[id] {
			return fmt.Errorf("the port of %s is left", id)
		}
	}
	folders, err := w.leftIn("machines")
	if err != nil {
		return err
	}
	for _, id := range folders {
		if !wished[id] {
			return fmt.Errorf("the folder of %s is left", id)
		}
	}
	cached, err := w.leftIn("cache")
	if err != nil {
		return err
	}
	for _, name := range cached {
		if filepath.Ext(name) == ".new" {
			return fmt.Errorf("the half-made %s is left in the cache", name)
		}
	}
	return nil
}
