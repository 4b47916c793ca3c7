package ec2

import (
	"slices"
	"strconv"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// blockDevice is an entry of a block device mapping, as requests have it.
type blockDevice struct {
	DeviceName  string
	VirtualName string
	NoDevice    *string // anything but false suppresses the device
	Ebs         *ebsDevice
}

// ebsDevice is a volume of a block device mapping.
type ebsDevice struct {
	SnapshotID          string `wire:"SnapshotId"`
	VolumeSize          *int
	VolumeType          string
	DeleteOnTermination *bool
	Encrypted           *bool
	Iops                *int
	Throughput          *int
	KmsKeyID            string `wire:"KmsKeyId"`
}

func (b *blockDevice) suppressed() bool { return b.NoDevice != nil && *b.NoDevice != "false" }

// mappingRequests translates a block device mapping, and refuses what has not
// the form of one. What the entries mean together is judged by package cloud.
func mappingRequests(devices []blockDevice) ([]cloud.MappingRequest, error) {
	var out []cloud.MappingRequest
	for n := range devices {
		r, err := devices[n].request("BlockDeviceMapping." + strconv.Itoa(n+1))
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (b *blockDevice) request(name string) (cloud.MappingRequest, error) {
	r := cloud.MappingRequest{Device: b.DeviceName, VirtualName: b.VirtualName, NoDevice: b.suppressed()}
	switch {
	case b.DeviceName == "":
		return r, wire.MissingParameter(name + ".DeviceName")
	case b.kinds() == 0:
		return r, wire.Errorf("MissingParameter", "The request must contain one of the parameters %s.VirtualName, %s.NoDevice and %s.Ebs", name, name, name)
	case b.kinds() > 1:
		return r, wire.InvalidParameterCombination("%s is one of VirtualName, NoDevice and Ebs, not several", name)
	case b.Ebs == nil:
		return r, nil
	}
	var err error
	r.EBS, err = b.Ebs.request(name + ".Ebs")
	return r, err
}

// kinds counts what the entry says it is.
func (b *blockDevice) kinds() (n int) {
	for _, is := range []bool{b.suppressed(), b.VirtualName != "", b.Ebs != nil} {
		if is {
			n++
		}
	}
	return n
}

func (e *ebsDevice) request(name string) (*cloud.EBSRequest, error) {
	r := &cloud.EBSRequest{VolumeType: e.VolumeType, DeleteOnTermination: e.DeleteOnTermination, Encrypted: e.Encrypted}
	if err := never(name+".KmsKeyId", e.KmsKeyID, "volumes are encrypted with keys of the cloud's own"); err != nil {
		return nil, err
	}
	if e.SnapshotID != "" {
		id, ok := cloud.ParseID(e.SnapshotID, cloud.PrefixSnapshot)
		if !ok {
			return nil, malformed("InvalidSnapshotID", e.SnapshotID, cloud.PrefixSnapshot)
		}
		r.Snapshot = cloud.SnapshotID(id)
	}
	for _, figure := range []struct {
		name  string
		given *int
		out   *int
	}{{".VolumeSize", e.VolumeSize, &r.SizeGiB}, {".Iops", e.Iops, &r.IOPS}, {".Throughput", e.Throughput, &r.Throughput}} {
		if figure.given == nil {
			continue
		}
		if *figure.out = *figure.given; *figure.given < 1 {
			return nil, wire.InvalidParameterValue(name+figure.name, strconv.Itoa(*figure.given), "Expecting a number from 1 upwards.")
		}
	}
	return r, nil
}

// ruleCodes are EC2's codes of the rules of package cloud; wireError uses them.
var ruleCodes = map[cloud.Rule]string{
	cloud.RuleDevice:      "InvalidBlockDeviceMapping",
	cloud.RuleVolumeType:  "UnknownVolumeType",
	cloud.RuleMissing:     "MissingParameter",
	cloud.RuleCombination: "InvalidParameterCombination",
	cloud.RuleValue:       "InvalidParameterValue",
}

// completedSnapshot finds a snapshot that volumes can be made from. An inherited
// one needs no right of the caller's.
func (c *call) completedSnapshot(id cloud.SnapshotID, inherited bool) (*cloud.Snapshot, error) {
	s, _, ok := state.Snapshots.Get(c.read, id)
	if !ok || !inherited && !s.UsableBy(c.account()) {
		return nil, wire.Errorf("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", id)
	}
	if at := s.State(); at != cloud.SnapshotCompleted {
		return nil, wire.Errorf("IncorrectState", "Snapshot %s is in invalid state - %s", id, at)
	}
	return s, nil
}

// instanceStore is EC2's word for a root that dies with its instance.
const instanceStore = string(cloud.InstanceStore)

// usableSnapshot finds a completed snapshot that the caller may make things of, by
// the id that he gave.
func (c *call) usableSnapshot(id string) (*cloud.Snapshot, error) {
	parsed, ok := cloud.ParseID(id, cloud.PrefixSnapshot)
	if !ok {
		return nil, malformed("InvalidSnapshotID", id, cloud.PrefixSnapshot)
	}
	return c.completedSnapshot(cloud.SnapshotID(parsed), false)
}

// mappingReply is a block device in a reply.
type mappingReply struct {
	Device      string    `xml:"deviceName"`
	VirtualName string    `xml:"virtualName,omitempty"`
	NoDevice    *string   `xml:"noDevice"`
	EBS         *ebsReply `xml:"ebs"`
}

type ebsReply struct {
	Snapshot            string `xml:"snapshotId,omitempty"`
	SizeGiB             int    `xml:"volumeSize"`
	DeleteOnTermination bool   `xml:"deleteOnTermination"`
	VolumeType          string `xml:"volumeType"`
	IOPS                int    `xml:"iops,omitempty"`
	Throughput          int    `xml:"throughput,omitempty"`
	Encrypted           bool   `xml:"encrypted"`
}

func mappingReplies(list []cloud.Mapping) []mappingReply {
	var out []mappingReply
	for _, m := range list {
		item := mappingReply{Device: m.Device, VirtualName: m.VirtualName}
		if m.NoDevice {
			item.NoDevice = new(string)
		}
		if e := m.EBS; e != nil {
			item.EBS = &ebsReply{string(e.Snapshot), e.SizeGiB, e.DeleteOnTermination, e.VolumeType, e.IOPS, e.Throughput, e.Encrypted}
		}
		out = append(out, item)
	}
	return out
}

// volumeFields makes a filter's field of what is said of each volume of an image.
func volumeFields(of func(*cloud.EBSMapping) string) func(*call, *cloud.Image) []string {
	return func(_ *call, i *cloud.Image) []string {
		var values []string
		for _, m := range i.Mappings {
			if m.EBS == nil {
				continue
			}
			if v := of(m.EBS); v != "" && !slices.Contains(values, v) {
				values = append(values, v)
			}
		}
		return values
	}
}
