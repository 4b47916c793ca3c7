package ec2

import (
	"cmp"
	"slices"
	"time"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// DefaultTakeWithin is how long a reply to CreateSnapshot waits for the instant of
// the snapshot, where Options don't say.
const DefaultTakeWithin = 10 * time.Second

type createSnapshotInput struct {
	common
	tagged
	VolumeID    string `wire:"VolumeId,required"`
	Description string `wire:"Description,max=255"`
	OutpostArn  string
	Location    string
}

type snapshotReply struct {
	ID          string     `xml:"snapshotId"`
	Volume      string     `xml:"volumeId"`
	State       string     `xml:"status"`
	Message     string     `xml:"statusMessage,omitempty"`
	StartedAt   *wire.Time `xml:"startTime"`
	CompletedAt *wire.Time `xml:"completionTime"`
	Progress    string     `xml:"progress"`
	Owner       string     `xml:"ownerId"`
	OwnerAlias  string     `xml:"ownerAlias,omitempty"`
	SizeGiB     int        `xml:"volumeSize"`
	Description string     `xml:"description"`
	Tags        []tag      `xml:"tagSet>item"`
	Encrypted   bool       `xml:"encrypted"`
	Tier        string     `xml:"storageTier"`
}

// createSnapshot wishes for one; awaitInstant then waits until what is written is
// in it no more.
func createSnapshot(c *call, in *createSnapshotInput) (*snapshotReply, error) {
	if err := regional(in.OutpostArn, in.Location); err != nil {
		return nil, err
	}
	v, err := c.volumeToChange(in.VolumeID)
	if err != nil {
		return nil, err
	}
	if err := c.may(c.arn(c.account(), "snapshot", "*")); err != nil {
		return nil, err
	}
	s, err := c.newSnapshot(v, in.Description)
	if err != nil {
		return nil, err
	}
	c.wishSnapshot(*s)
	if err := c.tagNew("snapshot", string(s.ID)); err != nil {
		return nil, err
	}
	out := c.snapshotReply(s)
	return &out, nil
}

// regional refuses to keep snapshots anywhere but in the object store.
func regional(outpost, location string) error {
	return firstError(never("OutpostArn", outpost, "there are no outposts"), only("Location", location, "", "regional"))
}

// newSnapshot of a volume, of which the last one before it is the parent.
func (c *call) newSnapshot(v *cloud.Volume, description string) (*cloud.Snapshot, error) {
	if at := c.volumeState(v); at != cloud.VolumeAvailable && at != cloud.VolumeInUse {
		return nil, wire.Errorf("IncorrectState", "The volume '%s' is '%s', and a snapshot is of an available volume or one in use.", v.ID, at)
	}
	id, err := c.newID(cloud.PrefixSnapshot, has(c.tx, state.Snapshots))
	if err != nil {
		return nil, err
	}
	s := &cloud.Snapshot{
		ID: cloud.SnapshotID(id), Account: c.account(), Volume: v.ID, SizeGiB: v.SizeGiB, StartedAt: c.Now(),
		Description: description, Encrypted: v.Encrypted, Node: v.Node,
	}
	if last := lastSnapshot(c.read, v.ID); last != nil {
		s.Parent, s.Base = last.ID, last.Content
	}
	return s, nil
}

// wishSnapshot of the node.
func (c *call) wishSnapshot(s cloud.Snapshot) { state.PutSnapshot(c.tx, s) }

// lastSnapshot that was taken of a volume, or is being taken; nil where there is
// none.
func lastSnapshot(r state.Reader, id cloud.VolumeID) (last *cloud.Snapshot) {
	for s := range state.SnapshotsByVolume.By(r, id) {
		if s.State() != cloud.SnapshotError && s.Node != "" && (last == nil || s.StartedAt.After(last.StartedAt)) {
			last = s
		}
	}
	return last
}

// awaitInstant of the snapshots that were wished for, for a while: who reads the
// reply and then writes to the volume doesn't find it in the snapshot. Where the
// node doesn't come to it the reply says no less: the snapshot is pending.
func (c *call) awaitInstant(ids ...string) {
	late := time.NewTimer(c.TakeWithin)
	defer late.Stop()
	for {
		changed := c.Store.Changed()
		if !slices.ContainsFunc(ids, c.untaken) {
			return
		}
		select {
		case <-changed:
		case <-late.C:
			return
		case <-c.ctx.Done():
			return
		case <-c.Store.Done():
			return
		}
	}
}

// untaken says whether the snapshot's instant is still to come.
func (c *call) untaken(id string) bool {
	view := c.Store.View()
	s, _, ok := state.Snapshots.Get(view, cloud.SnapshotID(id))
	if !ok || s.State() != cloud.SnapshotPending {
		return false
	}
	o, _, ok := state.SnapshotObservations.Get(view, s.ID)
	return !ok || !o.Taken
}

func awaitSnapshot(c *call, out any) { c.awaitInstant(out.(*snapshotReply).ID) }

func awaitSnapshots(c *call, out any) {
	var ids []string
	for _, s := range out.(*createSnapshotsReply).Snapshots {
		ids = append(ids, s.ID)
	}
	c.awaitInstant(ids...)
}

type createSnapshotsInput struct {
	common
	tagged
	InstanceSpecification struct {
		InstanceID          string   `wire:"InstanceId,required"`
		ExcludeBootVolume   bool     `wire:"ExcludeBootVolume"`
		ExcludeDataVolumeID []string `wire:"ExcludeDataVolumeId,max=1000"`
	} `wire:"InstanceSpecification,required"`
	Description        string `wire:"Description,max=255"`
	OutpostArn         string
	Location           string
	CopyTagsFromSource string `wire:"CopyTagsFromSource,enum=volume"`
}

type createSnapshotsReply struct {
	Snapshots []snapshotInfo `xml:"snapshotSet>item"`
}

// snapshotInfo is a snapshot as CreateSnapshots tells of it.
type snapshotInfo struct {
	ID          string     `xml:"snapshotId"`
	Volume      string     `xml:"volumeId"`
	State       string     `xml:"state"`
	StartedAt   *wire.Time `xml:"startTime"`
	Progress    string     `xml:"progress"`
	Owner       string     `xml:"ownerId"`
	SizeGiB     int        `xml:"volumeSize"`
	Description string     `xml:"description"`
	Tags        []tag      `xml:"tagSet>item"`
	Encrypted   bool       `xml:"encrypted"`
}

// createSnapshots of the volumes of an instance, all at one instant.
func createSnapshots(c *call, in *createSnapshotsInput) (*createSnapshotsReply, error) {
	if err := regional(in.OutpostArn, in.Location); err != nil {
		return nil, err
	}
	i, err := c.instance(in.InstanceSpecification.InstanceID)
	if err != nil {
		return nil, err
	}
	if err := c.may(c.arn(i.Account, "instance", string(i.ID)), c.arn(c.account(), "snapshot", "*")); err != nil {
		return nil, err
	}
	volumes, err := c.snapshotVolumes(in, i)
	if err != nil {
		return nil, err
	}
	list, err := c.snapshotSet(volumes, in.Description, false)
	if err != nil {
		return nil, err
	}
	out := &createSnapshotsReply{}
	for n, s := range list {
		if in.CopyTagsFromSource != "" {
			if err := c.setTags(resource{c.account(), "snapshot", string(s.ID)}, c.tagSet(string(volumes[n].ID))); err != nil {
				return nil, err
			}
		}
		if err := c.tagNew("snapshot", string(s.ID)); err != nil {
			return nil, err
		}
		r := c.snapshotReply(s)
		out.Snapshots = append(out.Snapshots, snapshotInfo{r.ID, r.Volume, r.State, r.StartedAt, r.Progress, r.Owner, r.SizeGiB, r.Description, r.Tags, r.Encrypted})
	}
	return out, nil
}

// snapshotVolumes of an instance: all that are not left out.
func (c *call) snapshotVolumes(in *createSnapshotsInput, i *cloud.Instance) ([]*cloud.Volume, error) {
	var left []cloud.VolumeID
	excluded, err := c.volumes(in.InstanceSpecification.ExcludeDataVolumeID)
	if err != nil {
		return nil, err
	}
	for _, v := range excluded {
		if v.Attachment == nil || v.Attachment.Instance != i.ID || isRoot(i, v) {
			return nil, wire.InvalidParameterValue("InstanceSpecification.ExcludeDataVolumeId", string(v.ID), "It is not a data volume of %s.", i.ID)
		}
		left = append(left, v.ID)
	}
	var volumes []*cloud.Volume
	for _, v := range state.VolumesOf(c.read, i.ID) {
		if !slices.Contains(left, v.ID) && !(in.InstanceSpecification.ExcludeBootVolume && isRoot(i, v)) {
			volumes = append(volumes, v)
		}
	}
	if len(volumes) == 0 {
		return nil, wire.InvalidParameterValue("InstanceSpecification.InstanceId", string(i.ID), "The instance has no volume, or none that isn't excluded.")
	}
	return volumes, nil
}

// snapshotSet wishes for snapshots of volumes at one instant.
func (c *call) snapshotSet(volumes []*cloud.Volume, description string, reboot bool) ([]*cloud.Snapshot, error) {
	var list []*cloud.Snapshot
	for _, v := range volumes {
		s, err := c.newSnapshot(v, description)
		if err != nil {
			return nil, err
		}
		if len(list) > 0 {
			s.Set = list[0].Set
		} else {
			s.Set = string(s.ID)
		}
		s.Reboot = reboot
		c.wishSnapshot(*s)
		list = append(list, s)
	}
	return list, nil
}

type deleteSnapshotInput struct {
	common
	SnapshotID string `wire:"SnapshotId,required"`
}

// deleteSnapshot that no image needs. Volumes that were made from it, and
// snapshots that were taken after it, have all that they need.
func deleteSnapshot(c *call, in *deleteSnapshotInput) (*reply, error) {
	s, err := c.ownSnapshot(in.SnapshotID)
	if err != nil {
		return nil, err
	}
	for i := range state.ImagesBySnapshot.By(c.read, s.ID) {
		name := "an image of another account"
		if c.sees(i) {
			name = string(i.ID)
		}
		return nil, wire.Errorf("InvalidSnapshot.InUse", "The snapshot %s is currently in use by %s", s.ID, name)
	}
	state.ForgetSnapshot(c.tx, s)
	return accepted()
}

type copySnapshotInput struct {
	common
	tagged
	SourceRegion      string `wire:"SourceRegion,required"`
	SourceSnapshotID  string `wire:"SourceSnapshotId,required"`
	Description       string `wire:"Description,max=255"`
	DestinationRegion string
	Encrypted         *bool
	KmsKeyID          string `wire:"KmsKeyId"`
	PresignedURL      string `wire:"PresignedUrl"` // for the other region, which is this one
}

type copySnapshotReply struct {
	ID   string `xml:"snapshotId"`
	Tags []tag  `xml:"tagSet>item"`
}

// copySnapshot into one's own account. The bytes are the same, so that nothing is
// copied.
func copySnapshot(c *call, in *copySnapshotInput) (*copySnapshotReply, error) {
	s, err := c.snapshotToUse(in.SourceSnapshotID)
	if err != nil {
		return nil, err
	}
	err = firstError(
		only("SourceRegion", in.SourceRegion, c.Region), only("DestinationRegion", in.DestinationRegion, "", c.Region),
		never("KmsKeyId", in.KmsKeyID, "snapshots are encrypted with keys of the cloud's own"),
		c.may(c.arn(c.account(), "snapshot", "*")),
	)
	if err != nil {
		return nil, err
	}
	if in.Encrypted != nil && *in.Encrypted != s.Encrypted {
		return nil, wire.UnsupportedOperation("A copy of %s is encrypted as it is itself: Encrypted is %t", s.ID, s.Encrypted)
	}
	id, err := c.newID(cloud.PrefixSnapshot, has(c.tx, state.Snapshots))
	if err != nil {
		return nil, err
	}
	state.PutSnapshot(c.tx, cloud.Snapshot{
		ID: cloud.SnapshotID(id), Account: c.account(), SizeGiB: s.SizeGiB, StartedAt: c.Now(), Encrypted: s.Encrypted,
		Description: cmp.Or(in.Description, "[Copied "+string(s.ID)+" from "+c.Region+"]"), Content: s.Content, CompletedAt: c.Now(),
	})
	if err := c.tagNew("snapshot", id); err != nil {
		return nil, err
	}
	return &copySnapshotReply{id, c.tagSet(id)}, nil
}

// snapshot finds a snapshot that the caller may see.
func (c *call) snapshot(id string) (*cloud.Snapshot, error) {
	list, err := c.snapshots([]string{id})
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// ownSnapshot finds a snapshot that the caller may change.
func (c *call) ownSnapshot(id string) (*cloud.Snapshot, error) {
	s, err := c.snapshot(id)
	if err != nil {
		return nil, err
	}
	if !c.owned(s.Account) {
		return nil, wire.Errorf("AuthFailure", "Not authorized for snapshot:%s", s.ID)
	}
	return s, c.may(c.arn(s.Account, "snapshot", string(s.ID)))
}

// snapshotToUse finds a snapshot that is complete, and may be used by the caller.
func (c *call) snapshotToUse(id string) (*cloud.Snapshot, error) {
	s, err := c.snapshot(id)
	if err != nil {
		return nil, err
	}
	return c.completedSnapshot(s.ID, true)
}

// snapshots finds snapshots by their ids: all of them, or an error that names
// those that aren't there.
func (c *call) snapshots(ids []string) (found []*cloud.Snapshot, err error) {
	var missing []string
	for _, id := range ids {
		parsed, ok := cloud.ParseID(id, cloud.PrefixSnapshot)
		if !ok {
			return nil, malformed("InvalidSnapshotID", id, cloud.PrefixSnapshot)
		}
		s, _, ok := state.Snapshots.Get(c.read, cloud.SnapshotID(parsed))
		if !ok || !s.UsableBy(c.account()) && !c.principal.System {
			missing = append(missing, parsed)
			continue
		}
		found = append(found, s)
	}
	switch len(missing) {
	case 0:
		return found, nil
	case 1:
		return nil, wire.Errorf("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", missing[0])
	}
	return nil, wire.Errorf("InvalidSnapshot.NotFound", "The snapshots '%s' do not exist.", listed(missing))
}
