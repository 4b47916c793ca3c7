package sim

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"mallee/cloud"
	"mallee/hypervisor"
	hypervisorfake "mallee/hypervisor/fake"
	"mallee/state"
)

// maxVolumes that a world makes at once, and maxSnapshots: it has to come to rest.
const (
	maxVolumes   = 6
	maxSnapshots = 6
)

// furnishVolumes with an image whose instances have a volume as their root.
func furnishVolumes(tx *state.Tx, account cloud.AccountID) {
	const root = cloud.SnapshotID("snap-00000001")
	state.Snapshots.Put(tx, cloud.Snapshot{
		ID: root, Account: account, SizeGiB: 1, StartedAt: birth, CompletedAt: birth,
		Content: &cloud.Content{Manifest: manifest(root), Size: 1 << 30},
	})
	state.Images.Put(tx, cloud.Image{
		ID: "emi-00000002", Account: account, Kind: cloud.MachineImage, Name: "volumes",
		Architecture: "x86_64", Virtualization: cloud.HVM, RootDevice: "/dev/sda", CreatedAt: birth,
		Mappings: []cloud.Mapping{{Device: "/dev/sda", EBS: &cloud.EBSMapping{Snapshot: root, SizeGiB: 1, DeleteOnTermination: true, VolumeType: "gp2"}}},
	})
}

// userStores does one thing with volumes and snapshots.
func (w *World) userStores() {
	chosen := []func(){
		w.userCreatesVolume, w.userCreatesVolume, w.userAttaches, w.userAttaches, w.userAttaches, w.userDetaches, w.userDetaches,
		w.userDeletesVolume, w.userGrows, w.userSnapshots, w.userSnapshots, w.userDeletesSnapshot,
	}
	chosen[w.rand.IntN(len(chosen))]()
}

// oneOf the records of a table, as ids, that are chosen; false where there is none.
func oneOf[T any](w *World, table interface {
	All(state.Reader) iter.Seq2[*T, int64]
}, id func(*T) (string, bool)) (string, bool) {
	var ids []string
	for r := range table.All(w.store.View()) {
		if s, ok := id(r); ok {
			ids = append(ids, s)
		}
	}
	if len(ids) == 0 {
		return "", false
	}
	slices.Sort(ids)
	return ids[w.rand.IntN(len(ids))], true
}

func (w *World) anyVolume() (string, bool) {
	return oneOf(w, state.Volumes, func(v *cloud.Volume) (string, bool) { return string(v.ID), true })
}

// dataVolume is one that is no root, and free or not; users know what they do, mostly.
func (w *World) dataVolume(free bool) (string, bool) {
	if w.rand.IntN(8) == 0 {
		return w.anyVolume()
	}
	return oneOf(w, state.Volumes, func(v *cloud.Volume) (string, bool) {
		return string(v.ID), v.Deleted.IsZero() && (v.Attachment == nil) == free && (free || v.Attachment.Device != "/dev/sda")
	})
}

// runningInstance is one that is wished to run, or any.
func (w *World) runningInstance() (string, bool) {
	if w.rand.IntN(8) == 0 {
		return w.anyInstance()
	}
	return oneOf(w, state.Instances, func(i *cloud.Instance) (string, bool) {
		return string(i.ID), i.Wish == cloud.WishRunning
	})
}

func (w *World) anySnapshot() (string, bool) {
	return oneOf(w, state.Snapshots, func(s *cloud.Snapshot) (string, bool) { return string(s.ID), s.Volume != "" })
}

func (w *World) userCreatesVolume() {
	data := 0
	for v := range state.Volumes.All(w.store.View()) {
		if v.Attachment == nil || v.Attachment.Device != "/dev/sda" {
			data++
		}
	}
	if data >= maxVolumes {
		return
	}
	form := map[string]string{"AvailabilityZone": "sim-1a", "Size": strconv.Itoa(1 + w.rand.IntN(3))}
	if id, ok := w.anySnapshot(); ok && w.rand.IntN(2) == 0 {
		delete(form, "Size")
		form["SnapshotId"] = id
	}
	w.call("CreateVolume", form)
}

func (w *World) userAttaches() {
	v, ok := w.dataVolume(true)
	i, launched := w.runningInstance()
	if ok && launched {
		device := string(rune('f' + w.rand.IntN(5)))
		w.call("AttachVolume", map[string]string{"VolumeId": v, "InstanceId": i, "Device": "/dev/sd" + device})
	}
}

func (w *World) userDetaches() {
	if v, ok := w.dataVolume(false); ok {
		w.call("DetachVolume", map[string]string{"VolumeId": v, "Force": strconv.FormatBool(w.rand.IntN(4) == 0)})
	}
}

func (w *World) userDeletesVolume() {
	if v, ok := w.dataVolume(true); ok {
		w.call("DeleteVolume", map[string]string{"VolumeId": v})
	}
}

func (w *World) userGrows() {
	if v, ok := w.anyVolume(); ok {
		w.call("ModifyVolume", map[string]string{"VolumeId": v, "Size": strconv.Itoa(2 + w.rand.IntN(6))})
	}
}

func (w *World) userSnapshots() {
	if n := count(state.Snapshots.All(w.store.View())); n > maxSnapshots {
		return
	}
	if i, ok := w.runningInstance(); ok && w.rand.IntN(2) == 0 {
		w.call("CreateSnapshots", map[string]string{"InstanceSpecification.InstanceId": i})
		return
	}
	if v, ok := w.anyVolume(); ok {
		w.call("CreateSnapshot", map[string]string{"VolumeId": v})
	}
}

func (w *World) userDeletesSnapshot() {
	if s, ok := w.anySnapshot(); ok {
		w.call("DeleteSnapshot", map[string]string{"SnapshotId": s})
	}
}

func (w *World) userStops() {
	if id, ok := w.anyInstance(); ok {
		w.call("StopInstances", map[string]string{"InstanceId.1": id})
	}
}

func (w *World) userStarts() {
	if id, ok := w.anyInstance(); ok {
		w.call("StartInstances", map[string]string{"InstanceId.1": id})
	}
}

func count[T any](all iter.Seq2[*T, int64]) (n int) {
	for range all {
		n++
	}
	return n
}

// guestWrites its number to the beginning of a volume, which has it from then on.
func (w *World) guestWrites() {
	for _, m := range w.machines.Machines() {
		if m.VCPUs == 0 || w.status(m) != hypervisor.Running {
			continue
		}
		for _, d := range m.Disks {
			if id := volume(d); strings.HasPrefix(id, "vol-") && w.rand.IntN(2) == 0 {
				w.writes++
				if err := w.machines.Write(m.Dir, d.Serial, 0, sector(w.writes)); err != nil {
					panic("sim: " + err.Error())
				}
				w.wrote[cloud.VolumeID(id)] = w.writes
				return
			}
		}
	}
}

// boots Linux; every other guest keeps the disks that it is asked for, until
// guestsGiveBack.
func boots(m hypervisor.Machine) (hypervisorfake.Guest, error) {
	guest, err := hypervisorfake.Linux(m)
	guest.Keeps = m.ID != "" && m.ID[len(m.ID)-1]%2 == 0
	return guest, err
}

// guestsGiveBack all disks that they were asked for.
func (w *World) guestsGiveBack() {
	for _, m := range w.machines.Machines() {
		for _, d := range m.Disks {
			w.machines.GiveBack(m.Dir, d.Serial)
		}
	}
}

// sector that says a number.
func sector(n int) []byte { return fmt.Appendf(nil, "%0512d", n) }

// checkVolumes: each is open once at most, in a machine that it is attached to or
// in a keeper; and none is lost, nor what was written to it.
func (w *World) checkVolumes(view *state.View) error {
	open := map[string]string{}
	for _, m := range w.machines.Machines() {
		for _, d := range m.Disks {
			id := volume(d)
			if other, twice := open[id]; twice {
				return fmt.Errorf("%s is open in %s and in %s", id, m.ID, other)
			}
			open[id] = m.ID
			if !strings.HasPrefix(id, "vol-") {
				continue
			}
			v, _, ok := state.Volumes.Get(view, cloud.VolumeID(id))
			switch {
			case !ok:
				return fmt.Errorf("%s is open in %s, and the cloud has forgotten it", id, m.ID)
			case m.VCPUs > 0 && (v.Attachment == nil || string(v.Attachment.Instance) != m.ID):
				return fmt.Errorf("%s has %s, which was let go", m.ID, id)
			}
		}
	}
	return w.checkKept(view)
}

func (w *World) checkKept(view *state.View) error {
	there, err := w.volumes.List(w.ctx)
	if err != nil {
		return err
	}
	for v := range state.Volumes.All(view) {
		if o, _, ok := state.VolumeObservations.Get(view, v.ID); !ok || o.Phase != cloud.VolumeReady || !v.Deleted.IsZero() {
			continue
		}
		if !slices.Contains(there, string(v.ID)) {
			return fmt.Errorf("%s is lost", v.ID)
		}
		n, written := w.wrote[v.ID]
		got := make([]byte, 512)
		if err := w.volumes.Read(string(v.ID), 0, got); err != nil || written && string(got) != string(sector(n)) {
			return fmt.Errorf("%s holds %.10q, not %d: %v", v.ID, got, n, err)
		}
	}
	return nil
}

// unrestOfVolumes says what of volumes and snapshots is not yet as wished.
func (w *World) unrestOfVolumes(view *state.View) error {
	kept := map[string]bool{}
	for v := range state.Volumes.All(view) {
		kept[string(v.ID)] = true
		if err := w.unrestOf(view, v); err != nil {
			return err
		}
	}
	for s := range state.Snapshots.All(view) {
		if s.State() == cloud.SnapshotPending {
			return fmt.Errorf("%s is pending", s.ID)
		}
	}
	there, err := w.volumes.List(w.ctx)
	if err != nil {
		return err
	}
	for _, id := range there {
		if !kept[id] {
			return fmt.Errorf("%s is left", id)
		}
	}
	for _, folder := range []string{"keepers", "snapshots"} {
		if left, err := w.leftIn(folder); err != nil || len(left) > 0 {
			return fmt.Errorf("in %s there is left: %v, %v", folder, left, err)
		}
	}
	if left := w.vault.left(); len(left) > 0 {
		return fmt.Errorf("of these snapshots there is left: %v", left)
	}
	return nil
}

// unrestOf one volume.
func (w *World) unrestOf(view *state.View, v *cloud.Volume) error {
	var seen cloud.VolumeObservation
	if o, _, ok := state.VolumeObservations.Get(view, v.ID); ok {
		seen = *o
	}
	switch {
	case !v.Deleted.IsZero():
		return fmt.Errorf("%s is not gone", v.ID)
	case seen.Phase == cloud.VolumeFailed:
		return nil // after so many faults it may
	case seen.Phase != cloud.VolumeReady || seen.SizeGiB != v.SizeGiB:
		return fmt.Errorf("%s of %d GiB is seen %s with %d", v.ID, v.SizeGiB, seen.Phase, seen.SizeGiB)
	case v.Source != nil:
		return fmt.Errorf("%s stands on its snapshot", v.ID)
	case v.Attachment == nil:
		return nil
	case !v.Attachment.Detaching.IsZero():
		return fmt.Errorf("%s is not detached", v.ID)
	}
	i, _, ok := state.Instances.Get(view, v.Attachment.Instance)
	if ok && i.Wish == cloud.WishRunning && seen.Attached != i.ID {
		return fmt.Errorf("%s is not attached to %s", v.ID, i.ID)
	}
	return nil
}
