package state_test

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/state"
)

var volumePools = state.Pools{Local: netip.MustParsePrefix("10.1.2.0/24"), Public: netip.MustParsePrefix("127.5.0.0/24")}

// TestBooksBalance whatever becomes of instances and volumes, in any order: what
// nodes and guards count is what the records come to, and in the end nothing.
func TestBooksBalance(t *testing.T) {
	for seed := range uint64(6) {
		l := &ledger{T: t, s: allocationStore(t), random: rand.New(rand.NewPCG(seed, 1)), source: rand.NewChaCha8([32]byte{byte(seed)})}
		for range 200 {
			allocationWrite(t, l.s, func(tx *state.Tx) error { l.step(tx); return nil })
			l.check(seed)
		}
		allocationWrite(t, l.s, func(tx *state.Tx) error { l.endAll(tx); return nil })
		l.check(seed)
		for g := range state.Guards.All(l.s.View()) {
			t.Errorf("seed %d: in the end %s %s is still with %q, at %d", seed, g.Kind, g.Name, g.Owner, g.Count)
		}
	}
}

type ledger struct {
	*testing.T
	s      *state.Store
	random *rand.Rand
	source *rand.ChaCha8
	made   int
}

func pick[T any](l *ledger, all []T) (one T, ok bool) {
	if len(all) == 0 {
		return one, false
	}
	return all[l.random.IntN(len(all))], true
}

func (l *ledger) instances(r state.Reader) (list []cloud.Instance) {
	for i := range state.Instances.All(r) {
		list = append(list, *i)
	}
	return list
}

func (l *ledger) volumes(r state.Reader) (list []cloud.Volume) {
	for v := range state.Volumes.All(r) {
		list = append(list, *v)
	}
	return list
}

var someTime = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

func (l *ledger) step(tx *state.Tx) {
	l.made++
	i, haveInstance := pick(l, l.instances(tx))
	v, haveVolume := pick(l, l.volumes(tx))
	switch step := l.random.IntN(10); {
	case step == 0:
		n := cloud.Instance{ID: cloud.InstanceID("i-" + strconv.Itoa(l.made)), Node: "n", Size: cloud.Size{VCPUs: 1, MemoryMiB: 2, DiskGiB: l.made % 2}, Wish: cloud.WishRunning, Wishes: 1}
		if err := state.Allocate(tx, l.source, volumePools, &n, l.made%3 > 0); err != nil {
			l.Fatal(err)
		}
		state.Instances.Put(tx, n)
	case step == 1:
		n := cloud.Volume{ID: cloud.VolumeID("vol-" + strconv.Itoa(l.made)), Account: "1", Node: "n", SizeGiB: 1 + l.made%5}
		if _, err := state.MakeVolume(tx, n); err != nil {
			l.Fatal(err)
		}
	case haveInstance && step < 7:
		l.stepInstance(tx, i, step)
	case haveVolume:
		l.stepVolume(tx, v, i, haveInstance)
	}
}

func (l *ledger) stepInstance(tx *state.Tx, i cloud.Instance, step int) {
	switch {
	case step == 2:
		state.Want(tx, i, cloud.WishStopped, cloud.Reason{}, someTime)
	case step == 3 && i.Vacated && i.Wish == cloud.WishStopped:
		if _, err := state.Start(tx, l.source, volumePools, i, "n", someTime); err != nil {
			l.Error(err)
		}
	case step == 4:
		state.Want(tx, i, cloud.WishTerminated, cloud.Reason{}, someTime)
	case i.Wish == cloud.WishStopped:
		state.Vacate(tx, &i)
	case i.Wish == cloud.WishTerminated:
		state.Release(tx, &i)
		if step == 6 {
			state.Forget(tx, &i)
		}
	}
}

func (l *ledger) stepVolume(tx *state.Tx, v cloud.Volume, i cloud.Instance, haveInstance bool) {
	free := v.Attachment == nil && v.Deleted.IsZero()
	switch {
	case !v.Deleted.IsZero():
		state.ForgetVolume(tx, &v)
	case free && haveInstance && i.Wish == cloud.WishRunning:
		state.Attach(tx, v, cloud.Attachment{Instance: i.ID, DeleteOnTermination: l.made%2 == 0})
	case free && l.made%3 == 0:
		state.DeleteVolume(tx, v, someTime)
	case free:
		v.SizeGiB++
		state.ChangeVolume(tx, v)
	case v.Attachment.Detaching.IsZero():
		state.Detach(tx, v, l.made%2 == 0, someTime)
	default:
		state.LetGo(tx, v)
	}
}

// endAll as the user and the loops would.
func (l *ledger) endAll(tx *state.Tx) {
	for _, i := range l.instances(tx) {
		i = state.Want(tx, i, cloud.WishTerminated, cloud.Reason{}, someTime)
		state.Release(tx, &i)
		state.Forget(tx, &i)
	}
	for _, v := range l.volumes(tx) {
		if v.Attachment != nil {
			l.Errorf("%s is still attached to %s, which is gone", v.ID, v.Attachment.Instance)
		}
		state.ForgetVolume(tx, &v)
	}
}

// check the node's count and the guards against the records.
func (l *ledger) check(seed uint64) {
	l.Helper()
	view := l.s.View()
	var used cloud.Size
	owners, gib := map[string]string{}, int64(0)
	for _, i := range l.instances(view) {
		if state.Owner(view, state.LocalAddress, i.Local.String()) != string(i.ID) {
			continue // released
		}
		owners[state.LocalAddress+i.Local.String()] = string(i.ID)
		if !i.Vacated {
			used = used.Add(i.Size)
		}
		if i.Public.IsValid() {
			owners[state.PublicAddress+i.Public.String()] = string(i.ID)
		}
	}
	for _, v := range l.volumes(view) {
		gib += int64(v.SizeGiB)
	}
	if n, _, _ := state.Nodes.Get(view, "n"); n.Used != used {
		l.Fatalf("seed %d: the node counts %+v, its instances have %+v", seed, n.Used, used)
	}
	if count := state.Count(view, state.VolumeRoom, "1"); count != gib {
		l.Fatalf("seed %d: %d GiB are counted, the volumes have %d", seed, count, gib)
	}
	for g := range state.Guards.All(view) {
		if g.Owner != owners[g.Kind+g.Name] {
			l.Fatalf("seed %d: %s %s is with %s, and should be with %q", seed, g.Kind, g.Name, g.Owner, owners[g.Kind+g.Name])
		}
		delete(owners, g.Kind+g.Name)
	}
	if len(owners) > 0 {
		l.Fatalf("seed %d: nothing guards %v", seed, owners)
	}
}

// TestStartIsALaunchAnew of an instance that keeps its private address.
func TestStartIsALaunchAnew(t *testing.T) {
	s, random := allocationStore(t), rand.NewChaCha8([32]byte{})
	i := cloud.Instance{ID: "i-1", Node: "n", Size: cloud.Size{VCPUs: 1}, Wish: cloud.WishRunning, Wishes: 1, LaunchedAt: someTime}
	allocationWrite(t, s, func(tx *state.Tx) error {
		state.Nodes.Put(tx, cloud.Node{ID: "m", Capacity: cloud.Size{VCPUs: 1}})
		err := state.Allocate(tx, random, volumePools, &i, true)
		state.Instances.Put(tx, i)
		return err
	})
	if err := s.Update(context.Background(), func(tx *state.Tx) error {
		_, err := state.Start(tx, random, volumePools, i, "m", someTime)
		return err
	}); err == nil {
		t.Error("one that runs was started")
	}
	allocationWrite(t, s, func(tx *state.Tx) error {
		i = state.Want(tx, i, cloud.WishStopped, cloud.Reason{Code: "x"}, someTime)
		state.Observations.Put(tx, cloud.Observation{Instance: i.ID, Phase: cloud.PhaseGone, UpWish: 1})
		state.Vacate(tx, &i)
		return nil
	})
	stopped, _, _ := state.Instances.Get(s.View(), "i-1")
	if !stopped.Vacated || stopped.Public.IsValid() || stopped.Local != i.Local {
		t.Errorf("stopped: %+v", stopped)
	}
	later := someTime.Add(time.Hour)
	allocationWrite(t, s, func(tx *state.Tx) error {
		_, err := state.Start(tx, random, volumePools, *stopped, "m", later)
		return err
	})
	view := s.View()
	started, _, _ := state.Instances.Get(view, "i-1")
	if started.Node != "m" || started.Local != i.Local || started.MAC != i.MAC || !started.Public.IsValid() || started.Vacated ||
		started.Wish != cloud.WishRunning || started.Wishes != 3 || started.LaunchedAt != later || started.Reason != (cloud.Reason{}) {
		t.Errorf("started: %+v", started)
	}
	if got := started.State(observed(view)); got != cloud.Pending {
		t.Errorf("started, and not seen yet: %s", got)
	}
	for node, used := range map[cloud.NodeID]int{"n": 0, "m": 1} {
		if n, _, _ := state.Nodes.Get(view, node); n.Used.VCPUs != used {
			t.Errorf("node %s counts %+v", node, n.Used)
		}
	}
}

func observed(r state.Reader) cloud.Observation {
	if o, _, ok := state.Observations.Get(r, "i-1"); ok {
		return *o
	}
	return cloud.Observation{}
}

// TestVolumesOfTheTerminated are deleted where that was asked for, and free
// otherwise: also where they were being detached.
func TestVolumesOfTheTerminated(t *testing.T) {
	s, random := allocationStore(t), rand.NewChaCha8([32]byte{})
	i := cloud.Instance{ID: "i-1", Node: "n", Wish: cloud.WishRunning, Wishes: 1}
	attach := func(tx *state.Tx, id cloud.VolumeID, delete bool) cloud.Volume {
		v := cloud.Volume{ID: id, Account: "1", Node: "n", SizeGiB: 1}
		if _, err := state.MakeVolume(tx, v); err != nil {
			t.Fatal(err)
		}
		return state.Attach(tx, v, cloud.Attachment{Instance: "i-1", DeleteOnTermination: delete})
	}
	allocationWrite(t, s, func(tx *state.Tx) error {
		err := state.Allocate(tx, random, volumePools, &i, false)
		state.Instances.Put(tx, i)
		attach(tx, "vol-kept", false)
		attach(tx, "vol-deleted", true)
		state.Detach(tx, attach(tx, "vol-detaching", true), false, someTime)
		return err
	})
	before, _, _ := state.Nodes.Get(s.View(), "n")
	allocationWrite(t, s, func(tx *state.Tx) error {
		i = state.Want(tx, i, cloud.WishTerminated, cloud.Reason{}, someTime)
		return nil
	})
	allocationWrite(t, s, func(tx *state.Tx) error { state.Release(tx, &i); return nil })
	for id, want := range map[cloud.VolumeID]cloud.VolumeState{"vol-kept": "available", "vol-deleted": "deleting", "vol-detaching": "available"} {
		v, rev, _ := state.Volumes.Get(s.View(), id)
		if got := v.State(cloud.VolumeObservation{Phase: cloud.VolumeReady}); got != want || v.Attachment != nil {
			t.Errorf("%s is %s", id, got)
		}
		if n, generation, _ := state.Nodes.Get(s.View(), "n"); generation < rev || n.Wishes == before.Wishes {
			t.Errorf("the node's generation %d is older than %s's revision %d", generation, id, rev)
		}
	}
}

func TestLiveContents(t *testing.T) {
	s := allocationStore(t)
	content := func(name string) *cloud.Content { return &cloud.Content{Manifest: name} }
	allocationWrite(t, s, func(tx *state.Tx) error {
		state.PutSnapshot(tx, cloud.Snapshot{ID: "snap-1", Content: content("a")})
		state.PutSnapshot(tx, cloud.Snapshot{ID: "snap-2"})
		state.Volumes.Put(tx, cloud.Volume{ID: "vol-1", Source: content("b")})
		state.Volumes.Put(tx, cloud.Volume{ID: "vol-2"})
		state.Tasks.Put(tx, cloud.Task{ID: "t-1", Contents: []cloud.Content{*content("c")}})
		state.TaskObservations.Put(tx, cloud.TaskObservation{Task: "t-1", Result: cloud.TaskResult{Contents: []cloud.Content{*content("d")}}})
		state.Tasks.Put(tx, cloud.Task{ID: "t-2", Contents: []cloud.Content{*content("over")}, FinishedAt: someTime})
		return nil
	})
	list := ""
	for c := range state.LiveContents(s.View()) {
		list += c.Manifest
	}
	if list != "abcd" {
		t.Errorf("live are %s", list)
	}
	for range state.LiveContents(s.View()) {
		break
	}
	allocationWrite(t, s, func(tx *state.Tx) error {
		snap, _, _ := state.Snapshots.Get(tx, "snap-1")
		state.ForgetSnapshot(tx, snap)
		return nil
	})
	for c := range state.LiveContents(s.View()) {
		if c.Manifest == "a" {
			t.Error("the content of a forgotten snapshot is live")
		}
	}
}
