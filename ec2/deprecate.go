package ec2

import (
	"time"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// The end of an image comes in steps, each of which can be taken back but the
// last: deprecated it isn't listed for others, disabled nothing can be launched
// from it, deregistered it is gone. Protection stands before the last.

// Limits of deprecation, as EC2 has them.
const (
	longestDeprecation       = 10 // years from now
	longestPublicDeprecation = 2  // years from the image's creation
)

type imageInput struct {
	common
	ImageID string `wire:"ImageId,required"`
}

// changeImage changes an image of the caller's that isn't deregistered.
func (c *call) changeImage(id string, change func(*cloud.Image) error) (*reply, error) {
	i, err := c.ownImage(id)
	if err != nil {
		return nil, err
	}
	if err := c.may(c.arn(i.Account, "image", string(i.ID))); err != nil {
		return nil, err
	}
	if !i.Deregistered.IsZero() {
		return nil, c.available(i)
	}
	changed := *i
	if err := change(&changed); err != nil {
		return nil, err
	}
	state.Images.Put(c.tx, changed)
	return accepted()
}

type deprecateInput struct {
	common
	ImageID     string     `wire:"ImageId,required"`
	DeprecateAt *time.Time `wire:"DeprecateAt,required"`
}

func enableDeprecation(c *call, in *deprecateInput) (*reply, error) {
	return c.changeImage(in.ImageID, func(i *cloud.Image) error {
		at := in.DeprecateAt.UTC().Round(time.Minute)
		last := c.Now().AddDate(longestDeprecation, 0, 0)
		if i.Public {
			last = i.CreatedAt.AddDate(longestPublicDeprecation, 0, 0)
		}
		switch {
		case at.Before(c.Now().Truncate(time.Minute)):
			return wire.InvalidParameterValue("DeprecateAt", timestamp(*in.DeprecateAt), "It is in the past.")
		case at.After(last):
			return wire.InvalidParameterValue("DeprecateAt", timestamp(*in.DeprecateAt), "For %s it can be %s at the latest.", i.ID, timestamp(last))
		}
		i.DeprecateAt = at
		return nil
	})
}

func disableDeprecation(c *call, in *imageInput) (*reply, error) {
	return c.changeImage(in.ImageID, func(i *cloud.Image) error {
		i.DeprecateAt = time.Time{}
		return nil
	})
}

// disableImage keeps anybody from launching the image, and ends its sharing.
func disableImage(c *call, in *imageInput) (*reply, error) {
	return c.changeImage(in.ImageID, func(i *cloud.Image) error {
		i.Disabled, i.Public, i.LaunchableBy = true, false, nil
		return nil
	})
}

// enableImage takes that back; with whom the image was shared is forgotten.
func enableImage(c *call, in *imageInput) (*reply, error) {
	return c.changeImage(in.ImageID, func(i *cloud.Image) error {
		i.Disabled = false
		return nil
	})
}

type protectInput struct {
	common
	ImageID      string `wire:"ImageId,required"`
	WithCooldown bool
}

func enableProtection(c *call, in *protectInput) (*reply, error) {
	return c.changeImage(in.ImageID, func(i *cloud.Image) error {
		i.Protection, i.ProtectedUntil = cloud.Protected, time.Time{}
		if in.WithCooldown {
			i.Protection = cloud.ProtectedCooldown
		}
		return nil
	})
}

// disableProtection of an image, at once or when its cooldown has passed. A
// cooldown that runs already isn't made longer.
func disableProtection(c *call, in *imageInput) (*reply, error) {
	return c.changeImage(in.ImageID, func(i *cloud.Image) error {
		if i.Protection == cloud.ProtectedCooldown {
			i.ProtectedUntil = c.Now().Add(cloud.ProtectionCooldown)
		}
		i.Protection = ""
		return nil
	})
}

// protection of an image, in EC2's words.
func (c *call) protection(i *cloud.Image) string {
	switch {
	case i.Protection != "":
		return string(i.Protection)
	case i.Protects(c.Now()):
		return "disabled-with-cooldown"
	}
	return "disabled"
}
