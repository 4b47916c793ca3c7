package ec2

import (
	"slices"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// instanceVolume is a volume of an instance, as replies about the instance have it.
type instanceVolume struct {
	Device              string     `xml:"deviceName"`
	Volume              string     `xml:"ebs>volumeId"`
	State               string     `xml:"ebs>status"`
	AttachedAt          *wire.Time `xml:"ebs>attachTime"`
	DeleteOnTermination bool       `xml:"ebs>deleteOnTermination"`
}

// volumesReply of an instance, by device.
func (c *call) volumesReply(i *cloud.Instance) []instanceVolume {
	var out []instanceVolume
	for _, v := range state.VolumesOf(c.read, i.ID) {
		a := v.Attachment
		out = append(out, instanceVolume{a.Device, string(v.ID), string(c.attachmentState(v)), wire.At(a.At), a.DeleteOnTermination})
	}
	slices.SortFunc(out, func(a, b instanceVolume) int { return strings.Compare(a.Device, b.Device) })
	return out
}

// rootDeviceType is EC2's word for where the instance's root lies.
func rootDeviceType(i *cloud.Instance) string {
	if i.EBS {
		return string(cloud.EBS)
	}
	return instanceStore
}

// ofVolumes makes a filter's field of what is said of each volume of an instance.
func ofVolumes(of func(instanceVolume) string) func(*call, *cloud.Instance) []string {
	return func(c *call, i *cloud.Instance) []string {
		var values []string
		for _, v := range c.volumesReply(i) {
			values = append(values, of(v))
		}
		return values
	}
}
