package state

import (
	"fmt"
	"iter"
	"time"

	"mallee/cloud"
)

// The life of a volume's record, and who moves it on:
//
//	MakeVolume     it is wished for, on its node                       by the API
//	Attach         that it is in an instance's machine                 by the API
//	Detach         that it isn't any more                              by the API
//	LetGo          the machine has it no more                          by the loops, when the node has shown so
//	ChangeVolume   its size or figures; it has all bytes of its own    by the API and the loops
//	DeleteVolume   that nothing is left of it                          by the API, and by Release
//	ForgetVolume   nothing is left of it                               by the loops, when the node has shown so
//
// Each writes the record of the node that keeps the volume, so that the node's
// assignment, which names the volume, becomes newer than any that it has.

// VolumeRoom is the kind of the guards that count what an account's volumes come
// to, in GiB, from their making until they are forgotten.
const VolumeRoom = "volume-gib"

// MakeVolume wishes for a volume, whose Node is set, and returns how many GiB the
// account's volumes come to then.
func MakeVolume(tx *Tx, v cloud.Volume) (totalGiB int64, err error) {
	if _, _, ok := Nodes.Get(tx, v.Node); !ok {
		return 0, fmt.Errorf("state: make %s: node %s is not there", v.ID, v.Node)
	}
	putVolume(tx, v)
	return tx.Add(VolumeRoom, string(v.Account), int64(v.SizeGiB)), nil
}

// ChangeVolume writes a volume that was changed, and returns how many GiB the
// account's volumes come to then.
func ChangeVolume(tx *Tx, v cloud.Volume) (totalGiB int64) {
	grown := 0
	if was, _, ok := Volumes.Get(tx, v.ID); ok {
		grown = v.SizeGiB - was.SizeGiB
	}
	putVolume(tx, v)
	return tx.Add(VolumeRoom, string(v.Account), int64(grown))
}

// Attach wishes for a volume that nothing has to be in an instance's machine.
func Attach(tx *Tx, v cloud.Volume, a cloud.Attachment) cloud.Volume {
	v.Attachment = &a
	putVolume(tx, v)
	return v
}

// Detach wishes that the instance hasn't the volume any more; force, once said,
// stays. A volume that is detached is no change.
func Detach(tx *Tx, v cloud.Volume, force bool, now time.Time) cloud.Volume {
	if v.Attachment == nil {
		return v
	}
	a := *v.Attachment
	if a.Detaching.IsZero() {
		a.Detaching = now
	}
	a.Force = a.Force || force
	v.Attachment = &a
	putVolume(tx, v)
	return v
}

// LetGo ends a volume's attachment. The node must have shown that the machine has
// it no more.
func LetGo(tx *Tx, v cloud.Volume) {
	v.Attachment = nil
	putVolume(tx, v)
}

// DeleteVolume wishes that nothing is left of a volume that nothing has.
func DeleteVolume(tx *Tx, v cloud.Volume, now time.Time) cloud.Volume {
	v.Attachment = nil
	if v.Deleted.IsZero() {
		v.Deleted = now
	}
	putVolume(tx, v)
	return v
}

// ForgetVolume removes what is known of a volume of which its node has nothing
// left.
func ForgetVolume(tx *Tx, v *cloud.Volume) {
	Volumes.Delete(tx, v.ID)
	VolumeObservations.Delete(tx, v.ID)
	TagSets.Delete(tx, string(v.ID))
	tx.Add(VolumeRoom, string(v.Account), -int64(v.SizeGiB))
	poke(tx, v.Node)
}

// VolumesOf an instance: those attached to it, also by a wish that hasn't come
// true yet, and those that are being detached.
func VolumesOf(r Reader, id cloud.InstanceID) []*cloud.Volume {
	var list []*cloud.Volume
	for v := range VolumesByInstance.By(r, id) {
		list = append(list, v)
	}
	return list
}

func putVolume(tx *Tx, v cloud.Volume) {
	Volumes.Put(tx, v)
	poke(tx, v.Node)
}

// PutSnapshot writes a snapshot, and tells the node that takes it.
func PutSnapshot(tx *Tx, s cloud.Snapshot) {
	Snapshots.Put(tx, s)
	poke(tx, s.Node)
}

// CompleteSnapshot says what a pending snapshot holds. Those that were taken after
// it build on that.
func CompleteSnapshot(tx *Tx, s cloud.Snapshot, content cloud.Content, now time.Time) cloud.Snapshot {
	s.Content, s.CompletedAt, s.Base = &content, now, nil
	PutSnapshot(tx, s)
	SnapshotObservations.Delete(tx, s.ID)
	var next []cloud.Snapshot
	if s.Volume != "" {
		for n := range SnapshotsByVolume.By(tx, s.Volume) {
			if n.Parent == s.ID && n.State() == cloud.SnapshotPending {
				next = append(next, *n)
			}
		}
	}
	for _, n := range next {
		n.Base = &content
		PutSnapshot(tx, n)
	}
	return s
}

// FailSnapshot says why a pending snapshot will never be complete.
func FailSnapshot(tx *Tx, s cloud.Snapshot, why cloud.Reason) {
	s.Failed, s.Base = why, nil
	PutSnapshot(tx, s)
	SnapshotObservations.Delete(tx, s.ID)
}

// ForgetSnapshot removes a snapshot, which the caller has seen in this transaction
// not to be under an image. A node that takes it gives it up; the bytes that
// nothing else holds are swept away later (LiveContents).
func ForgetSnapshot(tx *Tx, s *cloud.Snapshot) {
	tx.Release(imageSnapshot, string(s.ID))
	Snapshots.Delete(tx, s.ID)
	SnapshotObservations.Delete(tx, s.ID)
	TagSets.Delete(tx, string(s.ID))
	poke(tx, s.Node)
}

// LiveContents goes through the contents that something in the state holds, some
// of them more than once. All others may be swept away, but for those that are
// being written: a content is in the state only when it is whole.
func LiveContents(r Reader) iter.Seq[cloud.Content] {
	return func(yield func(cloud.Content) bool) {
		for s := range Snapshots.All(r) {
			if s.Content != nil && !yield(*s.Content) || s.Base != nil && !yield(*s.Base) {
				return
			}
		}
		for v := range Volumes.All(r) {
			if v.Source != nil && !yield(*v.Source) {
				return
			}
		}
		for t := range Tasks.All(r) {
			for _, c := range taskContents(r, t) {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// taskContents are what an unfinished task reads, and what it has made that isn't
// in the state yet.
func taskContents(r Reader, t *cloud.Task) []cloud.Content {
	if !t.FinishedAt.IsZero() {
		return nil
	}
	list := t.Contents
	if o, _, ok := TaskObservations.Get(r, t.ID); ok {
		list = append(list[:len(list):len(list)], o.Result.Contents...)
	}
	return list
}
