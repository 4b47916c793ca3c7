package ec2

import (
	"fmt"
	"slices"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

type createImageInput struct {
	common
	tagged
	InstanceID         string `wire:"InstanceId,required"`
	Name               string `wire:"Name"`
	Description        string `wire:"Description,max=255"`
	NoReboot           bool
	BlockDeviceMapping []blockDevice
	SnapshotLocation   string

	mappings []cloud.MappingRequest // of BlockDeviceMapping
}

// checkCreateImage is the step before the transaction.
func checkCreateImage(_ *call, in *createImageInput) (err error) {
	err = firstError(checkImageName(in.Name), checkDescription("Description", in.Description), only("SnapshotLocation", in.SnapshotLocation, "", "regional"))
	if err != nil {
		return err
	}
	in.mappings, err = mappingRequests(in.BlockDeviceMapping)
	return err
}

// createImage of an EBS-backed instance: snapshots of its volumes at one instant,
// for which a running guest is shut down unless NoReboot is said, and an image that
// maps them, pending until they are complete.
func createImage(c *call, in *createImageInput) (*registerImageReply, error) {
	i, err := c.instanceToImage(in.InstanceID)
	if err != nil {
		return nil, err
	}
	id, err := c.newID(cloud.PrefixMachineImage, has(c.tx, state.Images))
	if err != nil {
		return nil, err
	}
	image := c.imageOf(i, cloud.ImageID(id), in)
	reboot := !in.NoReboot && c.stateOf(i) == cloud.Running
	taken, err := c.snapshotsFor(image, i, in, reboot)
	if err != nil {
		return nil, err
	}
	if err := c.enroll(image); err != nil {
		return nil, err
	}
	for _, s := range taken {
		c.wishSnapshot(*s)
		if err := c.tagNew("snapshot", string(s.ID)); err != nil {
			return nil, err
		}
	}
	return &registerImageReply{id}, c.tagNew("image", id)
}

// instanceToImage finds an instance that an image can be made of.
func (c *call) instanceToImage(id string) (*cloud.Instance, error) {
	i, err := c.instance(id)
	if err != nil {
		return nil, err
	}
	if err := c.may(c.arn(i.Account, "instance", string(i.ID)), c.arn(c.account(), "image", "*")); err != nil {
		return nil, err
	}
	if !i.EBS {
		return nil, wire.UnsupportedOperation("The instance '%s' does not have an 'ebs' root device type: bundle it instead", i.ID)
	}
	if at := c.stateOf(i); at != cloud.Running && at != cloud.Stopped {
		return nil, wire.Errorf("IncorrectInstanceState", "The instance '%s' is not 'running' or 'stopped': it is '%s'.", i.ID, at)
	}
	if _, err := c.keeperOf(i); err != nil {
		return nil, err
	}
	return i, nil
}

// imageOf an instance, but for its mappings.
func (c *call) imageOf(i *cloud.Instance, id cloud.ImageID, in *createImageInput) *cloud.Image {
	image := &cloud.Image{
		ID: id, Account: c.account(), Kind: cloud.MachineImage, Name: in.Name, Description: in.Description, Location: string(c.account()) + "/" + in.Name,
		Architecture: i.Architecture, Virtualization: i.Virtualization, Platform: i.Platform, RootDevice: i.RootDevice, CreatedAt: c.Now(),
		Source: cloud.ImageSource{Instance: i.ID},
	}
	if from, _, ok := state.Images.Get(c.read, i.Image.ID); ok {
		image.BootMode, image.ENA, image.SRIOV, image.IMDS, image.ProductCodes = from.BootMode, from.ENA, from.SRIOV, from.IMDS, slices.Clone(from.ProductCodes)
		image.Source.Image, image.Source.Region = from.ID, c.Region
	}
	return image
}

// snapshotsFor an image of the instance, and the mappings of it. Of a volume that
// the request leaves out, or puts another in the place of, none is taken.
func (c *call) snapshotsFor(image *cloud.Image, i *cloud.Instance, in *createImageInput, reboot bool) (taken []*cloud.Snapshot, err error) {
	if err := c.may(c.arn(c.account(), "snapshot", "*")); err != nil {
		return nil, err
	}
	drafts := map[cloud.SnapshotID]*cloud.Snapshot{}
	for _, v := range state.VolumesOf(c.read, i.ID) {
		if !v.Attachment.Detaching.IsZero() {
			continue
		}
		s, err := c.newSnapshot(v, fmt.Sprintf("Created by CreateImage(%s) for %s", i.ID, image.ID))
		if err != nil {
			return nil, err
		}
		s.Set, s.Reboot, drafts[s.ID] = string(image.ID), reboot, s
		image.Mappings = append(image.Mappings, mappingOf(image, v, s))
	}
	for _, m := range i.Mappings {
		if m.VirtualName != "" {
			image.Mappings = append(image.Mappings, m)
		}
	}
	find := func(id cloud.SnapshotID, inherited bool) (*cloud.Snapshot, error) {
		if s := drafts[id]; s != nil && inherited {
			return s, nil
		}
		return c.completedSnapshot(id, false)
	}
	if image.Mappings, err = cloud.MergeMappings(image, in.mappings, find); err != nil {
		return nil, err
	}
	image.Mappings = slices.DeleteFunc(image.Mappings, func(m cloud.Mapping) bool { return m.NoDevice })
	image.Size = int64(image.Root().SizeGiB) << 30
	for _, id := range image.Snapshots() {
		if s := drafts[id]; s != nil {
			taken = append(taken, s)
		}
	}
	return taken, nil
}

// mappingOf a volume of the instance in its image.
func mappingOf(image *cloud.Image, v *cloud.Volume, s *cloud.Snapshot) cloud.Mapping {
	device := v.Attachment.Device
	if cloud.Slot(device) == cloud.Slot(image.RootDevice) {
		device = image.RootDevice
	}
	return cloud.Mapping{Device: device, EBS: &cloud.EBSMapping{
		Snapshot: s.ID, SizeGiB: v.SizeGiB, DeleteOnTermination: v.Attachment.DeleteOnTermination,
		VolumeType: v.Type, IOPS: v.IOPS, Throughput: v.Throughput, Encrypted: v.Encrypted,
	}}
}

// awaitImage waits for the instant of its snapshots where the guest goes on
// writing.
func awaitImage(c *call, out any) {
	image, _, ok := state.Images.Get(c.Store.View(), cloud.ImageID(out.(*registerImageReply).ImageID))
	if !ok {
		return
	}
	var ids []string
	for _, id := range image.Snapshots() {
		if s, _, ok := state.Snapshots.Get(c.Store.View(), id); ok && !s.Reboot {
			ids = append(ids, string(id))
		}
	}
	c.awaitInstant(ids...)
}
