package ec2

import (
	"iter"
	"slices"
	"strconv"
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

// launchable finds an image of a kind that the caller may start instances from.
func (c *call) launchable(id string, kind cloud.ImageKind) (*cloud.Image, error) {
	i, err := c.image(id, kind.Prefix())
	if err != nil {
		return nil, err
	}
	if !i.LaunchableFor(c.account()) {
		return nil, wire.Errorf("AuthFailure", "Not authorized for images: [%s]", i.ID)
	}
	if i.State() != cloud.ImageAvailable {
		return nil, wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is no longer available", i.ID)
	}
	return i, nil
}

type describeImagesInput struct {
	common
	selection
	ImageID           []string `wire:"ImageId,max=1000"`
	Owner             []string `wire:"Owner,max=1000"`
	ExecutableBy      []string `wire:"ExecutableBy,max=1000"`
	IncludeDeprecated bool     // no image is
	IncludeDisabled   bool     // no image is
}

type describeImagesReply struct {
	Images    []imageReply `xml:"imagesSet>item"`
	NextToken string       `xml:"nextToken,omitempty"`
}

type imageReply struct {
	ID              string         `xml:"imageId"`
	Location        string         `xml:"imageLocation"`
	State           string         `xml:"imageState"`
	Owner           string         `xml:"imageOwnerId"`
	OwnerAlias      string         `xml:"imageOwnerAlias,omitempty"`
	Public          bool           `xml:"isPublic"`
	ProductCodes    []string       `xml:"productCodes>item"`
	Architecture    string         `xml:"architecture"`
	Type            string         `xml:"imageType"`
	Kernel          string         `xml:"kernelId,omitempty"`
	Ramdisk         string         `xml:"ramdiskId,omitempty"`
	Platform        string         `xml:"platform,omitempty"`
	PlatformDetails string         `xml:"platformDetails"`
	UsageOperation  string         `xml:"usageOperation"`
	CreationDate    *wire.Time     `xml:"creationDate"`
	Name            string         `xml:"name"`
	Description     string         `xml:"description,omitempty"`
	RootDeviceType  string         `xml:"rootDeviceType"`
	RootDevice      string         `xml:"rootDeviceName,omitempty"`
	Mappings        []mappingReply `xml:"blockDeviceMapping>item"`
	Virtualization  string         `xml:"virtualizationType,omitempty"`
	Tags            []tag          `xml:"tagSet>item"`
	Hypervisor      string         `xml:"hypervisor"`
}

type mappingReply struct {
	Device      string  `xml:"deviceName"`
	VirtualName string  `xml:"virtualName,omitempty"`
	NoDevice    *string `xml:"noDevice"`
}

const (
	instanceStore = "instance-store" // the root device type, until volumes are there
	hypervisor    = "xen"            // what EC2 says of every machine; clients know no other word but ovm
)

var imageKind = kind[*cloud.Image]{
	key:  func(i *cloud.Image) string { return string(i.ID) },
	tags: func(c *call, i *cloud.Image) map[string]string { return c.tagsOf(string(i.ID)) },
	fields: fields[*cloud.Image]{
		"architecture":                               text(func(i *cloud.Image) string { return i.Architecture }),
		"block-device-mapping.device-name":           imageDevices,
		"block-device-mapping.delete-on-termination": fixed[*cloud.Image](""), // of volumes, which no image has yet
		"block-device-mapping.snapshot-id":           fixed[*cloud.Image](""),
		"block-device-mapping.volume-size":           fixed[*cloud.Image](""),
		"block-device-mapping.volume-type":           fixed[*cloud.Image](""),
		"creation-date":                              text(func(i *cloud.Image) string { return timestamp(i.CreatedAt) }),
		"description":                                text(func(i *cloud.Image) string { return i.Description }),
		"hypervisor":                                 fixed[*cloud.Image](hypervisor),
		"image-id":                                   text(func(i *cloud.Image) string { return string(i.ID) }),
		"image-type":                                 text(func(i *cloud.Image) string { return string(i.Kind) }),
		"is-public":                                  text(func(i *cloud.Image) string { return strconv.FormatBool(i.Public) }),
		"kernel-id":                                  text(func(i *cloud.Image) string { return string(i.Kernel) }),
		"manifest-location":                          text(func(i *cloud.Image) string { return i.Location }),
		"name":                                       text(func(i *cloud.Image) string { return i.Name }),
		"owner-alias":                                func(c *call, i *cloud.Image) []string { return one(c.alias(i.Account)) },
		"owner-id":                                   text(func(i *cloud.Image) string { return string(i.Account) }),
		"platform":                                   text(func(i *cloud.Image) string { return i.Platform }),
		"product-code":                               fixed[*cloud.Image](""),
		"ramdisk-id":                                 text(func(i *cloud.Image) string { return string(i.Ramdisk) }),
		"root-device-name":                           text(func(i *cloud.Image) string { return i.RootDevice }),
		"root-device-type":                           fixed[*cloud.Image](instanceStore),
		"state":                                      text(func(i *cloud.Image) string { return string(i.State()) }),
		"virtualization-type":                        text(func(i *cloud.Image) string { return string(i.Virtualization) }),
	},
}

func imageDevices(_ *call, i *cloud.Image) []string {
	var names []string
	for _, m := range i.Mappings {
		names = append(names, m.Device)
	}
	return names
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
// and the right to run them choose. A deregistered one is shown to nobody but
// who runs the cloud and asks for it.
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
			shown := everybody || len(ids) > 0 || i.LaunchableFor(c.account()) && i.State() == cloud.ImageAvailable
			if shown && c.ownedByAny(i, in.Owner) && c.executableByAny(i, in.ExecutableBy) && !yield(i) {
				return
			}
		}
	}, nil
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
		if ok && c.sees(i) && (i.State() == cloud.ImageAvailable || c.principal.System) {
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

func (c *call) imageReply(i *cloud.Image) imageReply {
	r := imageReply{
		ID: string(i.ID), Location: i.Location, State: string(i.State()), Owner: string(i.Account), OwnerAlias: c.alias(i.Account),
		Public: i.Public, Architecture: i.Architecture, Type: string(i.Kind), Kernel: string(i.Kernel), Ramdisk: string(i.Ramdisk),
		Platform: i.Platform, PlatformDetails: "Linux/UNIX", UsageOperation: "RunInstances", CreationDate: wire.At(i.CreatedAt),
		Name: i.Name, Description: i.Description, RootDeviceType: instanceStore, RootDevice: i.RootDevice,
		Virtualization: string(i.Virtualization), Tags: c.tagSet(string(i.ID)), Hypervisor: hypervisor,
	}
	if i.Platform == windows {
		r.PlatformDetails = "Windows"
	}
	for _, m := range i.Mappings {
		item := mappingReply{Device: m.Device, VirtualName: m.VirtualName}
		if m.NoDevice {
			item.NoDevice = new(string)
		}
		r.Mappings = append(r.Mappings, item)
	}
	return r
}
