package ec2

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mallee/cloud"
	"mallee/wire"
)

// blockDevice is an entry of a block device mapping, as requests have it.
type blockDevice struct {
	DeviceName  string
	VirtualName string
	NoDevice    *string // anything but false suppresses the device
	Ebs         *ebsDevice
}

// ebsDevice has EC2's parameters of volumes, none of which is served yet.
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

// deviceForm is Eucalyptus's of a device's name.
var deviceForm = regexp.MustCompile(`^(/dev/)?(sd|vd|hd|xvd)[a-z][0-9]*$`)

// ephemeral disks that can be named.
var ephemeral = []string{"ephemeral0", "ephemeral1", "ephemeral2", "ephemeral3"}

// checkMappings refuses what an instance-store image can't have.
func checkMappings(devices []blockDevice) error {
	seen := map[string]bool{}
	ephemerals := 0
	for n := range devices {
		d := &devices[n]
		name := "BlockDeviceMapping." + strconv.Itoa(n+1)
		if err := d.check(name); err != nil {
			return err
		}
		bare := strings.TrimPrefix(d.DeviceName, "/dev/")
		if seen[bare] {
			return wire.InvalidParameterValue(name+".DeviceName", d.DeviceName, "The device is mapped twice.")
		}
		seen[bare] = true
		if d.VirtualName != "" {
			ephemerals++
		}
	}
	if ephemerals > 1 {
		return wire.InvalidParameterCombination("BlockDeviceMapping names %d ephemeral disks; an instance has one", ephemerals)
	}
	return nil
}

func (b *blockDevice) check(name string) error {
	switch {
	case b.DeviceName == "":
		return wire.MissingParameter(name + ".DeviceName")
	case !deviceForm.MatchString(b.DeviceName):
		return wire.InvalidParameterValue(name+".DeviceName", b.DeviceName, "Expecting a device such as /dev/sdb.")
	case b.kinds() == 0:
		return wire.Errorf("MissingParameter", "The request must contain one of the parameters %s.VirtualName, %s.NoDevice and %s.Ebs", name, name, name)
	case b.kinds() > 1:
		return wire.InvalidParameterCombination("%s is one of VirtualName, NoDevice and Ebs, not several", name)
	case b.Ebs != nil:
		return wire.UnsupportedOperation("Ebs block device mappings are not supported: %s.Ebs (%s); this cloud has instance-store images only", name, b.DeviceName)
	case b.VirtualName != "" && !slices.Contains(ephemeral, b.VirtualName):
		return wire.InvalidParameterValue(name+".VirtualName", b.VirtualName, "Expecting one of %s.", strings.Join(ephemeral, ", "))
	}
	return nil
}

// checkEphemeral takes the ephemeral disk where every instance of the image has
// it, and refuses to move it or leave it away. It holds at registration as at
// launch, so that no image says what its instances haven't.
func checkEphemeral(devices []blockDevice, v cloud.Virtualization, image string) error {
	at := map[cloud.Virtualization]string{cloud.HVM: "b", cloud.Paravirtual: "a2"}[v]
	for _, d := range devices {
		if d.VirtualName != "ephemeral0" || !isDevice(d.DeviceName, at) {
			return wire.UnsupportedOperation("The block device mapping of %s is not supported: instances of %s have ephemeral0 at /dev/sd%s, and nothing else", d.DeviceName, image, at)
		}
	}
	return nil
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

// mappings as an image keeps them.
func mappings(devices []blockDevice) []cloud.Mapping {
	var out []cloud.Mapping
	for _, d := range devices {
		out = append(out, cloud.Mapping{Device: d.DeviceName, VirtualName: d.VirtualName, NoDevice: d.suppressed()})
	}
	return out
}
