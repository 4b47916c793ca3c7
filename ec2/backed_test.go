package ec2

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"mallee/cloud"
	"mallee/state"
)

// backedImage registers an EBS-backed image of the user's.
func (c *aCloud) backedImage(name string, parameters ...string) string {
	c.tb.Helper()
	parameters = append([]string{"Name=" + name, "RootDeviceName=/dev/sda1", "BlockDeviceMapping.1.DeviceName=/dev/sda1", "BlockDeviceMapping.1.Ebs.SnapshotId=" + completeSnapshot}, parameters...)
	return get[registerImageReply](c, c.user, "RegisterImage", parameters...).ImageID
}

func TestRegisterFromASnapshot(t *testing.T) {
	c := ready(t).withSnapshots()
	id := c.backedImage("backed", "BlockDeviceMapping.1.Ebs.VolumeSize=20", "BlockDeviceMapping.1.Ebs.VolumeType=gp3", "Description=d",
		"BlockDeviceMapping.2.DeviceName=/dev/sdf", "BlockDeviceMapping.2.Ebs.SnapshotId="+publicSnapshot, "BlockDeviceMapping.2.Ebs.DeleteOnTermination=false",
		"BlockDeviceMapping.3.DeviceName=/dev/sdb", "BlockDeviceMapping.3.VirtualName=ephemeral0",
		"Architecture=x86_64", "BootMode=uefi-preferred", "EnaSupport=true", "SriovNetSupport=simple", "ImdsSupport=v2.0",
		"TagSpecification.1.ResourceType=image", "TagSpecification.1.Tag.1.Key=k")
	_, body := c.send(c.user, "DescribeImages", "ImageId.1="+id)
	compare(t, "DescribeImages-backed", strings.ReplaceAll(body, id, "emi-00000000"))
	for filter, want := range map[string]bool{
		"root-device-type=ebs": true, "root-device-type=instance-store": false, "block-device-mapping.snapshot-id=" + completeSnapshot: true,
		"block-device-mapping.snapshot-id=" + publicSnapshot: true, "block-device-mapping.snapshot-id=" + secretSnapshot: false,
		"block-device-mapping.volume-size=20": true, "block-device-mapping.volume-size=2": true, "block-device-mapping.volume-size=8": false,
		"block-device-mapping.volume-type=gp3": true, "block-device-mapping.delete-on-termination=true": true, "block-device-mapping.delete-on-termination=false": true,
		"block-device-mapping.encrypted=true": true, "block-device-mapping.device-name=/dev/sdb": true, "block-device-mapping.device-name=/dev/sdc": false,
		"boot-mode=uefi-preferred": true, "boot-mode=uefi": false, "ena-support=true": true, "sriov-net-support=simple": true,
		"manifest-location=" + string(ordinary) + "/backed": true, "image-type=machine": true, "state=available": true, "state=pending": false,
		"creation-date=2026-11-22T*": true, "hypervisor=xen": true, "product-code=x": false, "product-code.type=marketplace": false,
		"state-reason-code=*": false, "source-instance-id=*": false, "tag-key=k": true, "tag:k=": true, "free-tier-eligible=false": true,
		"name=back*": true, "description=d": true, "virtualization-type=hvm": true, "root-device-name=/dev/sda1": true,
	} {
		if got := strings.Contains(listedImages(c, false, asked(filter)...), id); got != want {
			t.Errorf("%s: %v", filter, got)
		}
	}
}

func TestRegisterFromASnapshotRefuses(t *testing.T) {
	c := ready(t).withSnapshots()
	c.backedImage("taken")
	root := func(p ...string) []string { return mapped("/dev/sda1", p...) }
	good := root("Ebs.SnapshotId=" + completeSnapshot)
	for _, test := range []struct {
		parameters []string
		code, says string
	}{
		{nil, "MissingParameter", "ImageLocation"},
		{[]string{"Name="}, "MissingParameter", "Name"},
		{append(slices.Clone(good), "Name=taken"), "InvalidAMIName.Duplicate", "taken"},
		{append(mapped("/dev/sda", "Ebs.SnapshotId="+completeSnapshot), "RootDeviceName=/dev/sdb"), "MissingParameter", "the root device /dev/sdb"},
		{append(slices.Clone(good), "VirtualizationType=paravirtual"), "InvalidParameterCombination", "hvm"},
		{append(slices.Clone(good), "KernelId="+kernelImage), "InvalidParameterCombination", "KernelId"},
		{root("Ebs.VolumeSize=8"), "InvalidBlockDeviceMapping", "needs a snapshot"},
		{root("VirtualName=ephemeral0"), "InvalidBlockDeviceMapping", "is the root"},
		{root("Ebs.SnapshotId="+completeSnapshot, "Ebs.VolumeSize=7"), "InvalidBlockDeviceMapping", "expect size >= 8GB"},
		{root("Ebs.SnapshotId="+completeSnapshot, "Ebs.VolumeType=io1"), "MissingParameter", "iops"},
		{root("Ebs.SnapshotId="+completeSnapshot, "Ebs.VolumeType=io1", "Ebs.Iops=1000"), "InvalidParameterValue", "ratio"},
		{root("Ebs.SnapshotId=" + pendingSnapshot), "IncorrectState", "pending"},
		{root("Ebs.SnapshotId=" + errorSnapshot), "IncorrectState", "error"},
		{root("Ebs.SnapshotId=" + secretSnapshot), "InvalidSnapshot.NotFound", "The snapshot '" + secretSnapshot + "' does not exist."},
		{root("Ebs.SnapshotId=snap-99999999"), "InvalidSnapshot.NotFound", "The snapshot 'snap-99999999' does not exist."},
		{root("Ebs.SnapshotId="+publicSnapshot, "Ebs.Encrypted=false"), "InvalidBlockDeviceMapping", "encrypted"},
		{append(slices.Clone(good), "BlockDeviceMapping.2.DeviceName=/dev/sdb", "BlockDeviceMapping.2.NoDevice="), "InvalidBlockDeviceMapping", "/dev/sdb"},
		{append(slices.Clone(good), "BlockDeviceMapping.2.DeviceName=xvda", "BlockDeviceMapping.2.NoDevice="), "InvalidBlockDeviceMapping", "more than one"},
	} {
		parameters := append([]string{"Name=fresh"}, test.parameters...)
		if r := c.refused(c.user, "RegisterImage", parameters...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%.200v: %+v", test.parameters, r)
		}
	}
}

// launched are an instance's record, and its volumes in short, by device.
func launched(c *aCloud, id string) (*cloud.Instance, string) {
	view := c.Store.View()
	i, _, _ := state.Instances.Get(view, cloud.InstanceID(id))
	var volumes []string
	for _, v := range state.VolumesOf(view, i.ID) {
		source := int64(0)
		if v.Source != nil {
			source = v.Source.Size >> 30
		}
		volumes = append(volumes, fmt.Sprintf("%s:%d:%s:%d:%s:%v:%v", v.Attachment.Device, v.SizeGiB, v.Type, source, v.Snapshot, v.Attachment.DeleteOnTermination, v.Encrypted))
		if v.Node != i.Node || v.Zone != i.Zone || v.Account != i.Account {
			c.tb.Errorf("volume %+v of instance %+v", v, i)
		}
	}
	slices.Sort(volumes)
	return i, strings.Join(volumes, " ")
}

func TestRunEBSBacked(t *testing.T) {
	c := ready(t).withSnapshots()
	image := c.backedImage("backed", "BlockDeviceMapping.2.DeviceName=/dev/sdf", "BlockDeviceMapping.2.Ebs.SnapshotId="+publicSnapshot)
	ephemeral := c.backedImage("with an ephemeral disk", "BlockDeviceMapping.2.DeviceName=/dev/sdb", "BlockDeviceMapping.2.VirtualName=ephemeral0")
	const root, data = "/dev/sda1:8:gp2:8:" + completeSnapshot + ":true:false", "/dev/sdf:2:gp2:2:" + publicSnapshot + ":true:true"
	for _, test := range []struct {
		name       string
		parameters []string
		volumes    string
		disk       int // GiB of the type's
		others     int // mappings on the record
	}{
		{"as it is", []string{"ImageId=" + image}, root + " " + data, 0, 0},
		{"the root grown and kept", append(mapped("/dev/sda1", "Ebs.VolumeSize=30", "Ebs.DeleteOnTermination=false"), "ImageId="+image), "/dev/sda1:30:gp2:8:" + completeSnapshot + ":false:false " + data, 0, 0},
		{"a volume suppressed", append(mapped("/dev/sdf", "NoDevice="), "ImageId="+image), root, 0, 1},
		{"an empty volume more", append(mapped("/dev/sdg", "Ebs.VolumeSize=1"), "ImageId="+image), root + " " + data + " /dev/sdg:1:gp2:0::true:false", 0, 0},
		{"an ephemeral disk", []string{"ImageId=" + ephemeral}, root, 5, 1},
		{"an ephemeral disk suppressed", append(mapped("/dev/sdb", "NoDevice="), "ImageId="+ephemeral), root, 0, 1},
	} {
		r := get[reservationReply](c, c.user, "RunInstances", append(test.parameters, "InstanceType=m1.small")...)
		i, volumes := launched(c, r.Instances[0].ID)
		if volumes != test.volumes || i.Size.DiskGiB != test.disk || len(i.Mappings) != test.others || !i.EBS || i.Shutdown != cloud.ShutdownStop {
			t.Errorf("%s: volumes %s; instance %+v", test.name, volumes, i)
		}
	}
	checkBooks(t, c)
}

func TestRunInstanceStoreWithVolumes(t *testing.T) {
	c := ready(t).withSnapshots()
	for _, test := range []struct {
		name       string
		parameters []string
		volumes    string
		others     string
	}{
		{"as it is", nil, "", "[{/dev/sdb ephemeral0 false <nil>}]"},
		{"an empty volume", mapped("/dev/sdf", "Ebs.VolumeSize=1", "Ebs.VolumeType=gp3"), "/dev/sdf:1:gp3:0::true:false", "[{/dev/sdb ephemeral0 false <nil>}]"},
		{"a volume from a snapshot", mapped("/dev/sdf", "Ebs.SnapshotId="+completeSnapshot), "/dev/sdf:8:gp2:8:" + completeSnapshot + ":true:false", "[{/dev/sdb ephemeral0 false <nil>}]"},
		{"without an ephemeral disk", mapped("/dev/sdb", "NoDevice="), "", "[{/dev/sdb  true <nil>}]"},
		{"with one elsewhere", mapped("/dev/sdc", "VirtualName=ephemeral0"), "", "[{/dev/sdc ephemeral0 false <nil>}]"},
		{"with more than there are", mapped("/dev/sdc", "VirtualName=ephemeral1"), "", "[{/dev/sdb ephemeral0 false <nil>}]"},
	} {
		id := c.run(c.user, append(test.parameters, "MinCount=2", "MaxCount=2", "TagSpecification.1.ResourceType=volume", "TagSpecification.1.Tag.1.Key=k")...)[1]
		i, volumes := launched(c, id)
		if others := fmt.Sprint(i.Mappings); volumes != test.volumes || others != test.others || i.EBS || i.Size.DiskGiB == 0 || i.Shutdown != cloud.ShutdownTerminate {
			t.Errorf("%s: volumes %s, mappings %s; instance %+v", test.name, volumes, others, i)
		}
		for _, v := range state.VolumesOf(c.Store.View(), i.ID) {
			if tags, _, ok := state.TagSets.Get(c.Store.View(), string(v.ID)); !ok || tags.Type != "volume" {
				t.Errorf("%s: the volume's tags are %+v", test.name, tags)
			}
		}
	}
	checkBooks(t, c)
}

func TestRunBackedRefuses(t *testing.T) {
	c := ready(t).withSnapshots()
	image := c.backedImage("backed")
	c.write(func(tx *state.Tx) {
		change := func(id, name string, change func(*cloud.Image)) {
			i, _, _ := state.Images.Get(tx, cloud.ImageID(image))
			other := *i
			other.ID, other.Name, other.Mappings = cloud.ImageID(id), name, slices.Clone(i.Mappings)
			volume := *i.Mappings[0].EBS
			other.Mappings[0].EBS = &volume
			change(&other)
			state.Images.Put(tx, other)
		}
		change("emi-0000000a", "pending", func(i *cloud.Image) { i.Mappings[0].EBS.Snapshot = pendingSnapshot })
		change("emi-0000000b", "failed", func(i *cloud.Image) { i.Mappings[0].EBS.Snapshot = errorSnapshot })
		change("emi-0000000c", "arm", func(i *cloud.Image) { i.Architecture = "arm64" })
		change("emi-0000000d", "uefi", func(i *cloud.Image) { i.BootMode = cloud.UEFI })
		change("emi-0000000e", "lost", func(i *cloud.Image) { i.Mappings[0].EBS.Snapshot = "snap-99999999" })
	})
	for _, test := range []struct {
		parameters []string
		code, says string
	}{
		{[]string{"ImageId=emi-0000000a"}, "InvalidAMIID.Unavailable", "pending"},
		{[]string{"ImageId=emi-0000000b"}, "InvalidAMIID.Unavailable", "the disk is on fire"},
		{[]string{"ImageId=emi-0000000c"}, "InvalidParameterValue", "arm64"},
		{[]string{"ImageId=emi-0000000d"}, "UnsupportedOperation", "uefi"},
		{[]string{"ImageId=emi-0000000e"}, "InvalidAMIID.Unavailable", "snap-99999999 is gone"},
		{mapped("/dev/sda1", "Ebs.VolumeSize=7"), "InvalidBlockDeviceMapping", "expect size >= 8GB"},
		{mapped("/dev/sda1", "NoDevice="), "InvalidBlockDeviceMapping", "can't be suppressed"},
		{mapped("/dev/sda", "VirtualName=ephemeral0"), "InvalidBlockDeviceMapping", "can't be ephemeral0"},
		{mapped("/dev/sda1", "Ebs.SnapshotId="+publicSnapshot), "InvalidBlockDeviceMapping", "can't be changed"},
		{mapped("/dev/sdf", "Ebs.SnapshotId="+secretSnapshot), "InvalidSnapshot.NotFound", secretSnapshot},
		{mapped("/dev/sdf", "Ebs.SnapshotId="+pendingSnapshot), "IncorrectState", "pending"},
		{mapped("/dev/sdf", "Ebs.VolumeSize=99999"), "InvalidParameterValue", "too large"},
		{[]string{"KernelId=" + kernelImage}, "InvalidParameterCombination", "KernelId"},
	} {
		if r := c.refused(c.user, "RunInstances", append([]string{"ImageId=" + image}, test.parameters...)...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%v: %+v", test.parameters, r)
		}
	}
	for v := range state.Volumes.All(c.Store.View()) {
		t.Errorf("a refused launch left %+v", v)
	}
	failed := get[describeImagesReply](c, c.user, "DescribeImages", asked("state-reason-message=*fire*")...).Images
	if len(failed) != 1 || failed[0].State != "failed" || failed[0].StateReason.Code != "Server.InternalError" {
		t.Errorf("the failed image is told as %+v", failed)
	}
}

// TestSharedImagesBringTheirSnapshots: who may launch an image needs no right to
// its snapshots, and gets none.
func TestSharedImagesBringTheirSnapshots(t *testing.T) {
	c := ready(t).withSnapshots()
	image := c.backedImage("backed")
	c.write(func(tx *state.Tx) {
		state.Images.Edit(tx, cloud.ImageID(image), func(i *cloud.Image) { i.Public = true })
	})
	r := get[reservationReply](c, c.admin, "RunInstances", append(mapped("/dev/sda1", "Ebs.VolumeSize=10"), "ImageId="+image)...)
	if _, volumes := launched(c, r.Instances[0].ID); volumes != "/dev/sda1:10:gp2:8:"+completeSnapshot+":true:false" {
		t.Errorf("launched with %s", volumes)
	}
	if r := c.refused(c.admin, "RunInstances", append(mapped("/dev/sdf", "Ebs.SnapshotId="+completeSnapshot), "ImageId="+image)...); r.Code != "InvalidSnapshot.NotFound" {
		t.Errorf("its snapshot for another device: %+v", r)
	}
}

// TestTokensForMetadata are required where the launch says so, or else the image.
func TestTokensForMetadata(t *testing.T) {
	c := ready(t).withSnapshots()
	strict := c.backedImage("strict", "ImdsSupport=v2.0")
	for _, test := range []struct {
		image, asked, want string
	}{
		{hvmImage, "", "optional"}, {hvmImage, "required", "required"}, {hvmImage, "optional", "optional"},
		{strict, "", "required"}, {strict, "optional", "optional"},
	} {
		parameters := []string{"ImageId=" + test.image}
		if test.asked != "" {
			parameters = append(parameters, "MetadataOptions.HttpTokens="+test.asked)
		}
		i := get[reservationReply](c, c.user, "RunInstances", parameters...).Instances[0]
		if stored, _ := launched(c, i.ID); i.Metadata.Tokens != test.want || stored.TokensRequired != (test.want == "required") {
			t.Errorf("%s with %q: tokens are %s", test.image, test.asked, i.Metadata.Tokens)
		}
	}
}

// TestCopiesHaveNothingOfTheOwner but what instances start from.
func TestCopiesHaveNothingOfTheOwner(t *testing.T) {
	c := ready(t).withSnapshots()
	image := c.backedImage("of the user", "ImdsSupport=v2.0")
	c.run(c.user, "ImageId="+image)
	c.write(func(tx *state.Tx) {
		state.Images.Edit(tx, cloud.ImageID(image), func(i *cloud.Image) {
			i.Public, i.DeprecateAt, i.ProtectedUntil, i.Source.Instance = true, c.now, c.now, "i-00000001"
		})
	})
	copied := get[registerImageReply](c, c.admin, "CopyImage", "Name=copy", "SourceRegion=mallee", "SourceImageId="+image).ImageID
	i, _, _ := state.Images.Get(c.Store.View(), cloud.ImageID(copied))
	if i.Public || !i.DeprecateAt.IsZero() || !i.ProtectedUntil.IsZero() || !i.LastLaunched.IsZero() || i.Source.Instance != "" || i.IMDS != "v2.0" {
		t.Errorf("the copy is %+v", i)
	}
	if of := i.Snapshots(); len(of) != 1 || of[0] == completeSnapshot {
		t.Errorf("the copy is of %v", of)
	}
}
