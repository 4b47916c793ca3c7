package ec2

import (
	"testing"

	"mallee/cloud"
	"mallee/state"
)

// TestImageReplies of the actions about images, whole, so that Amazon's model
// judges them too (TestAgainstAmazonsModel).
func TestImageReplies(t *testing.T) {
	c := ready(t).withAccounts().withSnapshots()
	const image = "emi-0000000f"
	c.write(func(tx *state.Tx) {
		i := &cloud.Image{
			ID: image, Account: ordinary, Kind: cloud.MachineImage, Name: "all of it", Description: "an image", Location: "111122223333/all of it",
			Size: 8 << 30, Architecture: "arm64", Virtualization: cloud.HVM, BootMode: cloud.UEFI, ENA: true, SRIOV: "simple", IMDS: "v2.0",
			RootDevice: "/dev/sda1", ProductCodes: []string{"A1", "B2"}, Source: cloud.ImageSource{Image: hvmImage, Region: "mallee", Instance: "i-00000001"},
			CreatedAt: c.now, Public: true, LaunchableBy: []cloud.AccountID{other}, DeprecateAt: c.now, Protection: cloud.ProtectedCooldown, LastLaunched: c.now,
			Mappings: []cloud.Mapping{
				{Device: "/dev/sda1", EBS: &cloud.EBSMapping{Snapshot: completeSnapshot, SizeGiB: 10, DeleteOnTermination: true, VolumeType: "gp3", IOPS: 4000, Throughput: 200}},
				{Device: "/dev/sdb", VirtualName: "ephemeral0"},
				{Device: "/dev/sdf", EBS: &cloud.EBSMapping{SizeGiB: 1, VolumeType: "gp2", Encrypted: true}},
			},
		}
		if err := state.Enroll(tx, i); err != nil {
			t.Error(err)
		}
	})
	say := func(name, action string, parameters ...string) {
		t.Helper()
		_, body := c.send(c.user, action, append(parameters, "ImageId="+image)...)
		compare(t, name, body)
	}
	_, body := c.send(c.user, "DescribeImages", "ImageId.1="+image)
	compare(t, "DescribeImages-all", body)
	for attribute := range imageAttributes {
		say("DescribeImageAttribute-"+attribute, "DescribeImageAttribute", "Attribute="+attribute)
	}
	say("ModifyImageAttribute", "ModifyImageAttribute", "LaunchPermission.Remove.1.Group=all")
	say("ResetImageAttribute", "ResetImageAttribute", "Attribute=launchPermission")
	say("EnableImageDeprecation", "EnableImageDeprecation", "DeprecateAt=2027-01-01T00:00:00Z")
	say("DisableImageDeprecation", "DisableImageDeprecation")
	say("DisableImage", "DisableImage")
	say("EnableImage", "EnableImage")
	say("EnableImageDeregistrationProtection", "EnableImageDeregistrationProtection")
	say("DisableImageDeregistrationProtection", "DisableImageDeregistrationProtection")
	say("DeregisterImage-snapshots", "DeregisterImage", "DeleteAssociatedSnapshots=true")
}
