package controller

import (
	"context"
	"fmt"
	"time"

	"mallee/cloud"
	"mallee/link"
	"mallee/state"
)

// What a report says of a volume counts if it was made under an assignment that
// knew of the volume as it is wished for now: one that is older may tell of a
// former attachment. That a volume is let go, and that nothing is left of it, is
// concluded from such reports alone.

// volumeNews are the volumes of which the report says what isn't known yet.
func (c *Controller) volumeNews(view *state.View, r link.Report) (news []link.Volume) {
	for _, said := range r.Volumes {
		if _, changed := c.heard(view, r, said); changed {
			news = append(news, said)
		}
	}
	return news
}

// volumeHeard is what a volume and what is known of it come to.
type volumeHeard struct {
	seen     cloud.VolumeObservation
	volume   cloud.Volume
	letGo    bool // the machine has it no more
	complete bool // it has all bytes of its source itself
	modified bool // it has the size that it was to have
}

// heard works out what a report's words on a volume change.
func (c *Controller) heard(r state.Reader, report link.Report, said link.Volume) (h volumeHeard, changed bool) {
	v, revision, ok := state.Volumes.Get(r, said.Volume)
	if !ok || v.Node != report.Node || report.Generation < revision {
		return h, false
	}
	was := volumeSeen(r, v.ID)
	h.volume = *v
	h.seen = cloud.VolumeObservation{
		Volume: v.ID, Phase: said.Phase, Reason: said.Reason, SizeGiB: said.SizeGiB,
		Attached: said.Attached, Filled: max(said.Filled, was.Filled), Trouble: said.Trouble, Troubled: c.troubled(was, said), At: was.At,
	}
	h.letGo = v.Attachment != nil && !v.Attachment.Detaching.IsZero() && said.Attached != v.Attachment.Instance
	h.complete = v.Source != nil && said.Filled >= 100
	h.modified = v.Modification != nil && v.Modification.Ended.IsZero() && said.SizeGiB >= v.SizeGiB
	changed = h.seen != was
	if changed {
		h.seen.At = c.Now()
	}
	return h, changed || h.letGo || h.complete || h.modified
}

// troubled is since when there is trouble of this kind with a volume.
func (c *Controller) troubled(was cloud.VolumeObservation, said link.Volume) time.Time {
	switch {
	case said.Trouble == cloud.Trouble{}:
		return time.Time{}
	case was.Troubled.IsZero() || was.Trouble.Damaged != said.Trouble.Damaged:
		return c.Now()
	}
	return was.Troubled
}

// volumeSeen is what was last observed of the volume, zero where nothing was.
func volumeSeen(r state.Reader, id cloud.VolumeID) cloud.VolumeObservation {
	if o, _, ok := state.VolumeObservations.Get(r, id); ok {
		return *o
	}
	return cloud.VolumeObservation{}
}

func (c *Controller) observeVolume(tx *state.Tx, r link.Report, said link.Volume) {
	h, changed := c.heard(tx, r, said)
	if !changed {
		return
	}
	state.VolumeObservations.Put(tx, h.seen)
	if h.complete {
		h.volume.Source = nil
	}
	if h.modified {
		m := *h.volume.Modification
		m.Ended = c.Now()
		h.volume.Modification = &m
	}
	if h.complete || h.modified {
		state.ChangeVolume(tx, h.volume)
	}
	if h.letGo {
		state.LetGo(tx, h.volume)
	}
}

// deleted are the volumes of which nothing should be left, and of which the report
// proves that nothing is. One with snapshots to take was not assigned as deleted
// yet.
func (c *Controller) deleted(r state.Reader, report link.Report) (ids []cloud.VolumeID) {
	has := make(map[cloud.VolumeID]bool, len(report.Volumes))
	for _, v := range report.Volumes {
		has[v.Volume] = true
	}
	for v, revision := range state.VolumesByNode.By(r, report.Node) {
		if !v.Deleted.IsZero() && !has[v.ID] && report.Generation >= revision && !toBeTaken(r, v.ID) {
			ids = append(ids, v.ID)
		}
	}
	return ids
}

// toBeTaken says whether a node is still to take a snapshot of the volume.
func toBeTaken(r state.Reader, id cloud.VolumeID) bool {
	for s := range state.SnapshotsByVolume.By(r, id) {
		if s.Node != "" && s.State() == cloud.SnapshotPending {
			return true
		}
	}
	return false
}

// forgetVolume looks the volume up, so that whatever changes it meanwhile
// overtakes this transaction.
func (c *Controller) forgetVolume(tx *state.Tx, id cloud.VolumeID) {
	if v, _, ok := state.Volumes.Get(tx, id); ok && !v.Deleted.IsZero() {
		state.ForgetVolume(tx, v)
	}
}

// settleVolumes ends the launches that wait for a volume which can't be made.
func (c *Controller) settleVolumes(ctx context.Context) error {
	view := c.Store.View()
	for o := range state.VolumeObservationsByPhase.By(view, cloud.VolumeFailed) {
		v, _, ok := state.Volumes.Get(view, o.Volume)
		if !ok || v.Attachment == nil {
			continue
		}
		if err := c.settle(ctx, v.Attachment.Instance); err != nil {
			return fmt.Errorf("settle instance %s, whose volume %s failed: %w", v.Attachment.Instance, v.ID, err)
		}
	}
	return nil
}

// withoutVolume is why an instance can't start: a volume of its that can't be
// made. It is zero where there is none.
func withoutVolume(r state.Reader, i *cloud.Instance) cloud.Reason {
	for _, v := range state.VolumesOf(r, i.ID) {
		o := volumeSeen(r, v.ID)
		if o.Phase != cloud.VolumeFailed || !v.Attachment.Detaching.IsZero() {
			continue
		}
		why := o.Reason
		if why.Code == "" {
			why = cloud.Reason{Code: cloud.ReasonInternalError, Message: cloud.ReasonInternalError + ": its node did not say why"}
		}
		return cloud.Reason{Code: why.Code, Message: fmt.Sprintf("%s (volume %s, which was to be %s, can't be made)", why.Message, v.ID, v.Attachment.Device)}
	}
	return cloud.Reason{}
}
