package ec2

import (
	"context"
	"errors"
	"strings"

	"mallee/cloud"
	"mallee/peer"
	"mallee/state"
	"mallee/wire"
)

// Peers are the other clouds that CopyImage copies from, as the administrator
// named them.
type Peers interface {
	// Image of another region; ErrNoPeer where there is no such region.
	Image(ctx context.Context, region, id string) (*peer.Image, error)
}

// ErrNoPeer tells that no region of that name is known.
var ErrNoPeer = errors.New("no such region is known")

// noPeers is a cloud that knows no other.
type noPeers struct{}

func (noPeers) Image(context.Context, string, string) (*peer.Image, error) { return nil, ErrNoPeer }

// findAbroad looks the image of another region up. The key that this cloud has
// there may see more than the caller should: what isn't public there only
// whoever runs this cloud copies.
func (c *call) findAbroad(in *copyImageInput) error {
	i, err := c.Peers.Image(c.ctx, in.SourceRegion, in.SourceImageID)
	if errors.Is(err, ErrNoPeer) {
		return wire.InvalidParameterValue("SourceRegion", in.SourceRegion, "This cloud is %s, and its administrator has named no other cloud so (mallee peer add).", c.Region)
	}
	if err != nil {
		c.Log.Warn("an image of another region can't be copied", "region", in.SourceRegion, "image", wire.Shorten(in.SourceImageID), "err", err)
	}
	if err != nil || !i.Public && !c.principal.System {
		return wire.Errorf("InvalidAMIID.NotFound", "The image id '[%s]' does not exist in %s, or is not public there", wire.Shorten(in.SourceImageID), in.SourceRegion)
	}
	switch {
	case i.State != string(cloud.ImageAvailable):
		return wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is %s in %s", i.ID, i.State, in.SourceRegion)
	case i.RootDeviceType != string(cloud.EBS):
		return wire.Errorf("InvalidParameterValue", "The image %s of %s is instance-store backed; only EBS-backed images are copied from another region: use its bundle", i.ID, in.SourceRegion)
	}
	in.abroad = i
	return nil
}

// copyAbroad makes the image at once, pending until its snapshots are, and a task
// that completes them.
func (c *call) copyAbroad(in *copyImageInput) (*registerImageReply, error) {
	there := in.abroad
	id, err := c.newID(cloud.PrefixMachineImage, has(c.tx, state.Images))
	if err != nil {
		return nil, err
	}
	i := cloud.Image{
		ID: cloud.ImageID(id), Account: c.account(), Kind: cloud.MachineImage, Name: in.Name, Description: there.Description,
		Location: string(c.account()) + "/" + in.Name, Architecture: there.Architecture, Virtualization: cloud.HVM, BootMode: cloud.BootMode(there.BootMode),
		Platform: strings.ToLower(there.Platform), ENA: there.ENA, RootDevice: there.RootDevice, CreatedAt: c.Now(),
		Source: cloud.ImageSource{Image: cloud.ImageID(there.ID), Region: in.SourceRegion},
	}
	if in.Description != "" {
		i.Description = in.Description
	}
	t, err := c.newTask(cloud.CopyImage, "")
	if err != nil {
		return nil, err
	}
	t.Image, t.Params[cloud.ParamRegion] = i.ID, in.SourceRegion
	for n := range there.Devices {
		if err := c.deviceAbroad(&there.Devices[n], &i, t); err != nil {
			return nil, err
		}
	}
	if i.Root() == nil {
		return nil, wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' of %s has no root volume that can be copied", there.ID, in.SourceRegion)
	}
	i.Size = int64(i.Root().SizeGiB) << 30
	if err := firstError(c.enroll(&i), c.wish(t)); err != nil {
		return nil, err
	}
	c.made = id
	return &registerImageReply{id}, c.tagNew("image", id)
}

// deviceAbroad adds a device to the copy; a volume's snapshot is one of the
// caller's own that the task completes.
func (c *call) deviceAbroad(d *peer.Device, i *cloud.Image, t *cloud.Task) error {
	m := cloud.Mapping{Device: d.Name, VirtualName: d.VirtualName}
	if v := d.Volume; v != nil {
		m.EBS = &cloud.EBSMapping{
			SizeGiB: v.GiB, DeleteOnTermination: v.DeleteOnTermination, VolumeType: v.Type, IOPS: v.IOPS, Throughput: v.Throughput,
		}
		if v.Type == "gp2" || v.Type == "standard" || v.Type == "" {
			m.EBS.VolumeType, m.EBS.IOPS = cloud.DefaultVolumeType, 0 // it follows from the size
		}
		if v.Snapshot != "" {
			id, err := c.newID(cloud.PrefixSnapshot, has(c.tx, state.Snapshots))
			if err != nil {
				return err
			}
			m.EBS.Snapshot = cloud.SnapshotID(id)
			state.Snapshots.Put(c.tx, cloud.Snapshot{
				ID: m.EBS.Snapshot, Account: c.account(), SizeGiB: v.GiB, StartedAt: c.Now(),
				Description: "Copied for " + string(i.ID) + " from " + v.Snapshot + " of " + t.Params[cloud.ParamRegion],
			})
			t.Sources = append(t.Sources, cloud.DiskFile{Snapshot: m.EBS.Snapshot, Key: v.Snapshot, VolumeGiB: v.GiB})
		}
	}
	i.Mappings = append(i.Mappings, m)
	return nil
}
