package ec2

import (
	"strconv"

	"mallee/cloud"
	"mallee/wire"
)

type imageReply struct {
	ID              string         `xml:"imageId"`
	Location        string         `xml:"imageLocation"`
	State           string         `xml:"imageState"`
	StateReason     *stateReason   `xml:"stateReason"`
	Owner           string         `xml:"imageOwnerId"`
	OwnerAlias      string         `xml:"imageOwnerAlias,omitempty"`
	Public          bool           `xml:"isPublic"`
	ProductCodes    []productCode  `xml:"productCodes>item"`
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
	BootMode        string         `xml:"bootMode,omitempty"`
	ENA             bool           `xml:"enaSupport,omitempty"`
	SRIOV           string         `xml:"sriovNetSupport,omitempty"`
	IMDS            string         `xml:"imdsSupport,omitempty"`
	SourceImage     string         `xml:"sourceImageId,omitempty"`
	SourceRegion    string         `xml:"sourceImageRegion,omitempty"`
	SourceInstance  string         `xml:"sourceInstanceId,omitempty"`
	DeprecateAt     *wire.Time     `xml:"deprecationTime"`
	Protection      string         `xml:"deregistrationProtection,omitempty"`
	LastLaunched    *wire.Time     `xml:"lastLaunchedTime"`
	Tags            []tag          `xml:"tagSet>item"`
	Hypervisor      string         `xml:"hypervisor"`
}

// productCode of an image. They mean nothing to the cloud.
type productCode struct {
	Code string `xml:"productCode"`
}

const hypervisor = "xen" // what EC2 says of every machine; clients know no other word but ovm

// imageReply shows an image to the caller. What tells of the owner's doings is
// for the owner.
func (c *call) imageReply(i *cloud.Image) imageReply {
	at, why := c.imageState(i)
	r := imageReply{
		ID: string(i.ID), Location: i.Location, State: string(at), Owner: string(i.Account), OwnerAlias: c.alias(i.Account),
		Public: i.Public, ProductCodes: productCodes(i), Architecture: i.Architecture, Type: string(i.Kind), Kernel: string(i.Kernel), Ramdisk: string(i.Ramdisk),
		Platform: i.Platform, PlatformDetails: "Linux/UNIX", UsageOperation: "RunInstances", CreationDate: wire.At(i.CreatedAt),
		Name: i.Name, Description: i.Description, RootDeviceType: string(i.RootDeviceType()), RootDevice: i.RootDevice, Mappings: mappingReplies(i.Mappings),
		Virtualization: string(i.Virtualization), BootMode: string(i.BootMode), ENA: i.ENA, SRIOV: i.SRIOV, IMDS: i.IMDS,
		SourceImage: string(i.Source.Image), SourceRegion: i.Source.Region, DeprecateAt: wire.At(i.DeprecateAt),
		Tags: c.tagSet(string(i.ID)), Hypervisor: hypervisor,
	}
	if i.Platform == windows {
		r.PlatformDetails = "Windows"
	}
	if why != (cloud.Reason{}) {
		r.StateReason = &stateReason{why.Code, why.Message}
	}
	if c.owned(i.Account) {
		r.SourceInstance, r.LastLaunched, r.Protection = string(i.Source.Instance), wire.At(i.LastLaunched), c.protection(i)
	}
	return r
}

func productCodes(i *cloud.Image) []productCode {
	var codes []productCode
	for _, code := range i.ProductCodes {
		codes = append(codes, productCode{code})
	}
	return codes
}

var imageKind = kind[*cloud.Image]{
	key:  func(i *cloud.Image) string { return string(i.ID) },
	tags: func(c *call, i *cloud.Image) map[string]string { return c.tagsOf(string(i.ID)) },
	fields: fields[*cloud.Image]{
		"architecture":                               text(func(i *cloud.Image) string { return i.Architecture }),
		"block-device-mapping.device-name":           imageDevices,
		"block-device-mapping.delete-on-termination": volumeFields(func(e *cloud.EBSMapping) string { return strconv.FormatBool(e.DeleteOnTermination) }),
		"block-device-mapping.encrypted":             volumeFields(func(e *cloud.EBSMapping) string { return strconv.FormatBool(e.Encrypted) }),
		"block-device-mapping.snapshot-id":           volumeFields(func(e *cloud.EBSMapping) string { return string(e.Snapshot) }),
		"block-device-mapping.volume-size":           volumeFields(func(e *cloud.EBSMapping) string { return strconv.Itoa(e.SizeGiB) }),
		"block-device-mapping.volume-type":           volumeFields(func(e *cloud.EBSMapping) string { return e.VolumeType }),
		"boot-mode":                                  text(func(i *cloud.Image) string { return string(i.BootMode) }),
		"creation-date":                              text(func(i *cloud.Image) string { return timestamp(i.CreatedAt) }),
		"description":                                text(func(i *cloud.Image) string { return i.Description }),
		"ena-support":                                text(func(i *cloud.Image) string { return strconv.FormatBool(i.ENA) }),
		"free-tier-eligible":                         fixed[*cloud.Image]("false"),
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
		"product-code":                               func(_ *call, i *cloud.Image) []string { return i.ProductCodes },
		"product-code.type":                          fixed[*cloud.Image](""), // of a market place, which is not here
		"ramdisk-id":                                 text(func(i *cloud.Image) string { return string(i.Ramdisk) }),
		"root-device-name":                           text(func(i *cloud.Image) string { return i.RootDevice }),
		"root-device-type":                           text(func(i *cloud.Image) string { return string(i.RootDeviceType()) }),
		"source-image-id":                            text(func(i *cloud.Image) string { return string(i.Source.Image) }),
		"source-image-region":                        text(func(i *cloud.Image) string { return i.Source.Region }),
		"source-instance-id":                         sourceInstance,
		"sriov-net-support":                          text(func(i *cloud.Image) string { return i.SRIOV }),
		"state":                                      func(c *call, i *cloud.Image) []string { at, _ := c.imageState(i); return one(string(at)) },
		"state-reason-code":                          func(c *call, i *cloud.Image) []string { _, why := c.imageState(i); return one(why.Code) },
		"state-reason-message":                       func(c *call, i *cloud.Image) []string { _, why := c.imageState(i); return one(why.Message) },
		"virtualization-type":                        text(func(i *cloud.Image) string { return string(i.Virtualization) }),
	},
}

// sourceInstance is told as in the reply: to the owner.
func sourceInstance(c *call, i *cloud.Image) []string {
	if !c.owned(i.Account) {
		return nil
	}
	return one(string(i.Source.Instance))
}

func imageDevices(_ *call, i *cloud.Image) []string {
	var names []string
	for _, m := range i.Mappings {
		names = append(names, m.Device)
	}
	return names
}
