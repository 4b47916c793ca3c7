package ec2

import (
	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// imageName is the kind of the guards that make a name unique among an
// account's images.
const imageName = "image-name"

func imageNameGuard(account cloud.AccountID, name string) string {
	return string(account) + "/" + name
}

type deregisterImageInput struct {
	common
	ImageID                   string `wire:"ImageId,required"`
	DeleteAssociatedSnapshots bool   // there are none
}

// deregisterImage hides an image, whose instances live on, and gives its name
// back. Once more removes the record, unless an instance still refers to it. The
// bundle stays where it is.
func deregisterImage(c *call, in *deregisterImageInput) (*reply, error) {
	i, err := c.ownImage(in.ImageID)
	if err != nil {
		return nil, err
	}
	if err := c.may(c.arn(i.Account, "image", string(i.ID))); err != nil {
		return nil, err
	}
	if i.State() == cloud.ImageDeregistered {
		return c.removeImage(i)
	}
	gone := *i
	gone.Deregistered = c.Now()
	state.Images.Put(c.tx, gone)
	c.tx.Release(imageName, imageNameGuard(i.Account, i.Name))
	return accepted()
}

func (c *call) removeImage(i *cloud.Image) (*reply, error) {
	for range state.InstancesByImage.By(c.read, i.ID) {
		return nil, wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is no longer available", i.ID)
	}
	state.Images.Delete(c.tx, i.ID)
	state.TagSets.Delete(c.tx, string(i.ID))
	return accepted()
}
