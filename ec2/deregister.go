package ec2

import (
	"slices"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

type deregisterImageInput struct {
	common
	ImageID                   string `wire:"ImageId,required"`
	DeleteAssociatedSnapshots bool
}

type deregisterImageReply struct {
	Return    bool               `xml:"return"`
	Snapshots *[]deletedSnapshot `xml:"deleteSnapshotResultSet>item"`
}

// deletedSnapshot says what became of a snapshot that was to be deleted.
type deletedSnapshot struct {
	ID   string `xml:"snapshotId"`
	Code string `xml:"returnCode"`
}

// deregisterImage hides an image, whose instances live on, and gives its name
// back. Once more removes the record, unless an instance still refers to it. The
// bundle stays where it is, and so do the snapshots, unless they are to go.
func deregisterImage(c *call, in *deregisterImageInput) (*deregisterImageReply, error) {
	i, err := c.ownImage(in.ImageID)
	if err != nil {
		return nil, err
	}
	if err := c.may(c.arn(i.Account, "image", string(i.ID))); err != nil {
		return nil, err
	}
	out := &deregisterImageReply{Return: true}
	if !i.Deregistered.IsZero() {
		return out, c.removeImage(i)
	}
	if i.Protects(c.Now()) {
		return nil, wire.Errorf("OperationNotPermitted", "The image %s is protected from deregistration: DisableImageDeregistrationProtection takes the protection off%s", i.ID, cooldown(i))
	}
	if in.DeleteAssociatedSnapshots {
		deleted, err := c.deleteSnapshotsOf(i)
		if err != nil {
			return nil, err
		}
		out.Snapshots = &deleted
	}
	gone := *i
	gone.Deregistered = c.Now()
	state.Withdraw(c.tx, &gone)
	return out, nil
}

// cooldown tells until when an image is protected yet.
func cooldown(i *cloud.Image) string {
	if i.Protection != "" || i.ProtectedUntil.IsZero() {
		return ""
	}
	return ", and did so; its cooldown ends at " + timestamp(i.ProtectedUntil)
}

func (c *call) removeImage(i *cloud.Image) error {
	for range state.InstancesByImage.By(c.read, i.ID) {
		return wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is no longer available", i.ID)
	}
	state.Images.Delete(c.tx, i.ID)
	state.TagSets.Delete(c.tx, string(i.ID))
	return nil
}

// deleteSnapshotsOf an image that is being deregistered: those of its account
// that no other image needs.
func (c *call) deleteSnapshotsOf(i *cloud.Image) ([]deletedSnapshot, error) {
	deleted := []deletedSnapshot{}
	for _, id := range i.Snapshots() {
		s, _, ok := state.Snapshots.Get(c.read, id)
		if !ok {
			continue
		}
		others := func(o *cloud.Image) bool { return o.ID != i.ID }
		code := "success"
		switch {
		case s.Account != i.Account || c.IAM.Authorize(c.principal, "ec2:DeleteSnapshot", c.arn(s.Account, "snapshot", string(id))) != nil:
			code = "missing-permissions"
		case slices.ContainsFunc(slices.Collect(firsts(state.ImagesBySnapshot.By(c.read, id))), others):
			code = "skipped"
		default:
			state.ForgetSnapshot(c.tx, s)
		}
		deleted = append(deleted, deletedSnapshot{string(id), code})
	}
	return deleted, nil
}
