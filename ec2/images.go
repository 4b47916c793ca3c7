package ec2

import (
	"iter"
	"slices"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// imageIDs are the prefixes of all kinds of images.
var imageIDs = []string{cloud.PrefixMachineImage, cloud.PrefixKernelImage, cloud.PrefixRamdiskImage}

// sees says whether the caller may know of an image that was named.
func (c *call) sees(i *cloud.Image) bool {
	return i.LaunchableFor(c.account()) || c.principal.System
}

// image finds an image that the caller may see; prefixes are of the kinds that
// are expected.
func (c *call) image(id string, prefixes ...string) (*cloud.Image, error) {
	parsed, ok := cloud.ParseID(id, prefixes...)
	if !ok {
		return nil, malformed("InvalidAMIID", id, strings.Join(prefixes, "-..., "))
	}
	i, _, ok := state.Images.Get(c.read, cloud.ImageID(parsed))
	if !ok || !c.sees(i) {
		return nil, wire.Errorf("InvalidAMIID.NotFound", "The image id '[%s]' does not exist", parsed)
	}
	return i, nil
}

// ownImage finds an image that the caller may change.
func (c *call) ownImage(id string) (*cloud.Image, error) {
	i, err := c.image(id, imageIDs...)
	if err != nil {
		return nil, err
	}
	if !c.owned(i.Account) {
		return nil, wire.Errorf("AuthFailure", "Not authorized for image:%s", i.ID)
	}
	return i, nil
}

// imageState of an image, and why it is failed.
func (c *call) imageState(i *cloud.Image) (cloud.ImageState, cloud.Reason) {
	return i.State(func(id cloud.SnapshotID) (*cloud.Snapshot, bool) {
		s, _, ok := state.Snapshots.Get(c.read, id)
		return s, ok
	})
}

// launchable finds an image of a kind that the caller may start instances from.
func (c *call) launchable(id string, kind cloud.ImageKind) (*cloud.Image, error) {
	i, err := c.image(id, kind.Prefix())
	if err != nil {
		return nil, err
	}
	if !i.LaunchableFor(c.account()) {
		return nil, wire.Errorf("AuthFailure", "Not authorized for images: [%s]", i.ID)
	}
	return i, c.available(i)
}

// available refuses an image that nothing can be launched from.
func (c *call) available(i *cloud.Image) error {
	switch at, why := c.imageState(i); at {
	case cloud.ImageAvailable:
		return nil
	case cloud.ImageDeregistered:
		return wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is no longer available", i.ID)
	case cloud.ImageFailed:
		return wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is not available: %s", i.ID, why.Message)
	default:
		return wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is not available: it is %s", i.ID, at)
	}
}

type describeImagesInput struct {
	common
	selection
	ImageID           []string `wire:"ImageId,max=1000"`
	Owner             []string `wire:"Owner,max=1000"`
	ExecutableBy      []string `wire:"ExecutableBy,max=1000"`
	IncludeDeprecated bool
	IncludeDisabled   bool
}

type describeImagesReply struct {
	Images    []imageReply `xml:"imagesSet>item"`
	NextToken string       `xml:"nextToken,omitempty"`
}

func describeImages(c *call, in *describeImagesInput) (*describeImagesReply, error) {
	candidates, err := c.imageCandidates(in)
	if err != nil {
		return nil, err
	}
	p, err := imageKind.page(c, &in.selection, candidates)
	if err != nil {
		return nil, err
	}
	out := &describeImagesReply{NextToken: p.next}
	for _, i := range p.items {
		out.Images = append(out.Images, c.imageReply(i))
	}
	return out, nil
}

// imageCandidates are the images that the caller may see and that ids, owners
// and the right to run them choose. One that is named is shown whatever its
// state, but for a deregistered one, which is shown to nobody but who runs the
// cloud and asks for it.
func (c *call) imageCandidates(in *describeImagesInput) (iter.Seq[*cloud.Image], error) {
	ids, everybody := c.everybody(in.ImageID)
	images := c.imagesOwned(in.Owner)
	if len(ids) > 0 {
		named, err := c.imagesNamed(ids)
		if err != nil {
			return nil, err
		}
		images = sorted(named, imageKind.key)
	}
	return func(yield func(*cloud.Image) bool) {
		for i := range images {
			shown := everybody || len(ids) > 0 || c.lists(i, in)
			if shown && c.ownedByAny(i, in.Owner) && c.executableByAny(i, in.ExecutableBy) && !yield(i) {
				return
			}
		}
	}, nil
}

// lists says whether an image is shown that wasn't asked for by its id: a
// deprecated one is still shown to its owner, a disabled one to nobody, unless
// they are to be included.
func (c *call) lists(i *cloud.Image, in *describeImagesInput) bool {
	switch {
	case !i.LaunchableFor(c.account()) || !i.Deregistered.IsZero():
		return false
	case i.Disabled && !in.IncludeDisabled:
		return false
	}
	return in.IncludeDeprecated || i.Account == c.account() || !i.Deprecated(c.Now())
}

// imagesOwned has all images that any of the owners can have, and perhaps more:
// for one account, which most ask for, by the index.
func (c *call) imagesOwned(owners []string) iter.Seq[*cloud.Image] {
	if len(owners) == 1 {
		if owners[0] == "self" {
			return firsts(state.ImagesByAccount.By(c.read, c.account()))
		}
		if _, _, ok := state.Accounts.Get(c.read, cloud.AccountID(owners[0])); ok {
			return firsts(state.ImagesByAccount.By(c.read, cloud.AccountID(owners[0])))
		}
	}
	return firsts(state.Images.All(c.read))
}

func (c *call) imagesNamed(ids []string) ([]*cloud.Image, error) {
	var found []*cloud.Image
	var missing []string
	for _, id := range ids {
		parsed, ok := cloud.ParseID(id, imageIDs...)
		if !ok {
			return nil, malformed("InvalidAMIID", id, cloud.PrefixMachineImage)
		}
		i, _, ok := state.Images.Get(c.read, cloud.ImageID(parsed))
		if ok && c.sees(i) && (i.Deregistered.IsZero() || c.principal.System) {
			found = append(found, i)
		} else {
			missing = append(missing, parsed)
		}
	}
	switch len(missing) {
	case 0:
		return found, nil
	case 1:
		return nil, wire.Errorf("InvalidAMIID.NotFound", "The image id '[%s]' does not exist", missing[0])
	}
	return nil, wire.Errorf("InvalidAMIID.NotFound", "The image ids '[%s]' do not exist", listed(missing))
}

// ownedByAny of self, account numbers and aliases; of none said, all.
func (c *call) ownedByAny(i *cloud.Image, owners []string) bool {
	return len(owners) == 0 || slices.ContainsFunc(owners, func(o string) bool {
		return o == "self" && i.Account == c.account() || o == string(i.Account) || o != "" && o == c.alias(i.Account)
	})
}

// executableByAny of self, all (who is meant by a public image) and account
// numbers; self and numbers mean those that the image was shared with by name.
func (c *call) executableByAny(i *cloud.Image, who []string) bool {
	return len(who) == 0 || slices.ContainsFunc(who, func(w string) bool {
		switch w {
		case "all":
			return i.Public
		case "self":
			return slices.Contains(i.LaunchableBy, c.account())
		}
		return slices.Contains(i.LaunchableBy, cloud.AccountID(w))
	})
}

// alias of an account; empty where it has none.
func (c *call) alias(id cloud.AccountID) string {
	a, _, ok := state.Accounts.Get(c.read, id)
	if !ok {
		return ""
	}
	return a.Alias
}
