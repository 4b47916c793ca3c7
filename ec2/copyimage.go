package ec2

import (
	"errors"
	"io/fs"
	"path"

	"mallee/cloud"
	"mallee/peer"
	"mallee/state"
	"mallee/wire"
)

// copiesBucket is where an account's copies of bundles lie.
func copiesBucket(account cloud.AccountID) string { return "mallee-copies-" + string(account) }

type copyImageInput struct {
	common
	idempotent
	tagged
	CopyImageTags bool
	Description   string `wire:"Description,max=255"`
	Encrypted     bool
	Name          string `wire:"Name,required"`
	SourceImageID string `wire:"SourceImageId,required"`
	SourceRegion  string `wire:"SourceRegion,required"`

	abroad *peer.Image // of another region
}

// checkCopy makes the bucket that a bundle's copy will lie in.
func checkCopy(c *call, in *copyImageInput) error {
	if err := c.may(c.arn(c.account(), "image", "*")); err != nil {
		return err
	}
	if err := refuseEncryption(in.Encrypted); err != nil {
		return err
	}
	if in.SourceRegion != c.Region {
		return c.findAbroad(in)
	}
	i, err := c.launchable(in.SourceImageID, cloud.MachineImage)
	if err != nil || i.RootDeviceType() == cloud.EBS || in.dry() {
		return err
	}
	bucket := copiesBucket(c.account())
	err = c.Objects.OwnBucket(c.ctx, c.principal, bucket)
	if errors.Is(err, fs.ErrPermission) {
		return wire.Errorf("InvalidRequest", "The copy would lie in the bucket %s, which belongs to another account: ask whoever runs this cloud to remove it", bucket)
	}
	return err
}

// copyImage makes an image of the caller's own, which nothing that becomes of the
// original can harm. Of an EBS-backed one the copy is there at once: its snapshots
// share the blocks. A bundle is copied, and the image pending meanwhile.
func copyImage(c *call, in *copyImageInput) (*registerImageReply, error) {
	if err := checkImageName(in.Name); err != nil {
		return nil, err
	}
	if in.abroad != nil {
		return c.copyAbroad(in)
	}
	source, err := c.launchable(in.SourceImageID, cloud.MachineImage)
	if err != nil {
		return nil, err
	}
	id, err := c.newID(source.Kind.Prefix(), has(c.tx, state.Images))
	if err != nil {
		return nil, err
	}
	i := source.Template()
	i.ID, i.Account, i.Name, i.CreatedAt = cloud.ImageID(id), c.account(), in.Name, c.Now()
	i.Source = cloud.ImageSource{Image: source.ID, Region: c.Region}
	if in.Description != "" {
		i.Description = in.Description
	}
	if err := c.copyBytes(source, &i); err != nil {
		return nil, err
	}
	if err := c.enroll(&i); err != nil {
		return nil, err
	}
	c.made = id
	return &registerImageReply{id}, c.tagCopy(in, source, &i)
}

func (c *call) tagCopy(in *copyImageInput, source, i *cloud.Image) error {
	if in.CopyImageTags && c.owned(source.Account) {
		if err := c.setTags(resource{i.Account, "image", string(i.ID)}, c.tagSet(string(source.ID))); err != nil {
			return err
		}
	}
	return c.tagNew("image", string(i.ID))
}

// copyBytes of the source for the image i, which holds nothing of the source's
// owner's then.
func (c *call) copyBytes(source, i *cloud.Image) error {
	if source.RootDeviceType() == cloud.InstanceStore {
		t, err := c.newTask(cloud.CopyImage, "")
		if err != nil {
			return err
		}
		ref := source.Ref()
		key := path.Join(string(i.ID), path.Base(source.Location))
		t.Image, t.Ref, t.Target = i.ID, &ref, &cloud.DiskFile{Bucket: copiesBucket(i.Account), Key: key}
		i.Location, i.Copying = path.Join(t.Target.Bucket, key), t.ID
		return c.wish(t)
	}
	i.Location = string(i.Account) + "/" + i.Name
	for n, m := range i.Mappings {
		if m.EBS == nil || m.EBS.Snapshot == "" {
			continue
		}
		copied, err := c.copySnapshotOf(m.EBS.Snapshot, "Copied for "+string(i.ID)+" from "+string(source.ID))
		if err != nil {
			return err
		}
		volume := *m.EBS
		volume.Snapshot = copied
		i.Mappings[n].EBS = &volume
	}
	return nil
}

// copySnapshotOf an image that the caller may launch: one of his own, of the same
// content.
func (c *call) copySnapshotOf(id cloud.SnapshotID, description string) (cloud.SnapshotID, error) {
	s, _, ok := state.Snapshots.Get(c.tx, id)
	if !ok || s.Content == nil {
		return "", wire.Errorf("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist", id)
	}
	fresh, err := c.newID(cloud.PrefixSnapshot, has(c.tx, state.Snapshots))
	if err != nil {
		return "", err
	}
	state.Snapshots.Put(c.tx, cloud.Snapshot{
		ID: cloud.SnapshotID(fresh), Account: c.account(), SizeGiB: s.SizeGiB, Encrypted: s.Encrypted, Content: s.Content,
		StartedAt: c.Now(), CompletedAt: c.Now(), Description: description,
	})
	return cloud.SnapshotID(fresh), nil
}

func copiedBefore(_ *call, id string) (any, error) { return &registerImageReply{id}, nil }
