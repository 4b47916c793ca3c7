package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
)

// TestVolumeInARunningInstance attaches a volume, which the guest then has; grows
// it, and gives it back. Meanwhile it is nobody else's, and can't be deleted. Then
// the instance is stopped, its root exchanged for another volume, and boots from that.
func TestVolumeInARunningInstance(t *testing.T) {
	w, g := theGuests(t)
	client, ctx, image := w.ec2(t), within(t, taskTime), tinyEBS(t, w)
	i := run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: &image, KeyName: aws.String(keyName), InstanceType: "m1.small"}).Instances[0]
	i = await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)[0]
	guest := login(t, w.Cloud, i, g.key)
	in(t, guest, "echo old >/root/mine; sync")

	volume := newVolume(t, w, &ec2.CreateVolumeInput{Size: aws.Int32(1), VolumeType: types.VolumeTypeGp3})
	attach := &ec2.AttachVolumeInput{VolumeId: &volume, InstanceId: i.InstanceId, Device: aws.String("/dev/sdf")}
	if _, err := client.AttachVolume(ctx, attach); err != nil {
		t.Fatal(err)
	}
	seen(t, guest, "1048576")
	_, err := client.AttachVolume(ctx, attach)
	refused(t, err, "VolumeInUse", volume)
	_, err = client.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &volume})
	refused(t, err, "VolumeInUse", volume)
	if _, err := client.ModifyVolume(ctx, &ec2.ModifyVolumeInput{VolumeId: &volume, Size: aws.Int32(2)}); err != nil {
		t.Fatal(err)
	}
	seen(t, guest, "2097152")
	giveBack(t, w, volume)
	seen(t, guest, "")
	_, err = client.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &volume})
	refused(t, err, "IncorrectState", volume)

	exchangeRoot(t, w, i, image)
	now := await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)[0]
	deletedWith(t, w, now, *i.RootDeviceName)
	if got := in(t, login(t, w.Cloud, now, g.key), "ls /root"); strings.Contains(got, "mine") {
		t.Errorf("the new root has what was written to the old one: %q", got)
	}
	for _, id := range []string{volume, *i.BlockDeviceMappings[0].Ebs.VolumeId} {
		if _, err := client.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &id}); err != nil {
			t.Fatal(err)
		}
	}
}

// exchangeRoot of an instance, stopped for it, for a fresh volume from the image.
func exchangeRoot(t *testing.T, w *world, i types.Instance, image string) {
	t.Helper()
	client, ctx, ids := w.ec2(t), within(t, taskTime), []string{*i.InstanceId}
	if _, err := client.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: ids}); err != nil {
		t.Fatal(err)
	}
	stopped := &ec2.DescribeInstancesInput{InstanceIds: ids}
	if err := ec2.NewInstanceStoppedWaiter(client, quickly[ec2.InstanceStoppedWaiterOptions]).Wait(ctx, stopped, taskTime); err != nil {
		t.Fatal(err)
	}
	giveBack(t, w, *i.BlockDeviceMappings[0].Ebs.VolumeId)
	_, err := client.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: ids})
	refused(t, err, "InvalidParameterValue", ids[0], *i.RootDeviceName)
	fresh := newVolume(t, w, &ec2.CreateVolumeInput{SnapshotId: imageNamed(t, w.Cloud, image).BlockDeviceMappings[0].Ebs.SnapshotId})
	if _, err := client.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &fresh, InstanceId: &ids[0], Device: i.RootDeviceName}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: ids}); err != nil {
		t.Fatal(err)
	}
}

// deletedWith its instance is the volume that it has there, from now on.
func deletedWith(t *testing.T, w *world, i types.Instance, device string) {
	t.Helper()
	_, err := w.ec2(t).ModifyInstanceAttribute(within(t, soon), &ec2.ModifyInstanceAttributeInput{InstanceId: i.InstanceId, BlockDeviceMappings: []types.InstanceBlockDeviceMappingSpecification{
		{DeviceName: &device, Ebs: &types.EbsInstanceBlockDeviceSpecification{DeleteOnTermination: aws.Bool(true)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	changed := await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)[0]
	if m := changed.BlockDeviceMappings[0]; *m.DeviceName != device || !*m.Ebs.DeleteOnTermination {
		t.Errorf("%s is %s of %s, to be deleted with it: %t", device, *m.DeviceName, *i.InstanceId, *m.Ebs.DeleteOnTermination)
	}
}

// newVolume in the zone that there is, which is available.
func newVolume(t *testing.T, w *world, wish *ec2.CreateVolumeInput) string {
	t.Helper()
	client, ctx := w.ec2(t), within(t, taskTime)
	zones, err := client.DescribeAvailabilityZones(ctx, &ec2.DescribeAvailabilityZonesInput{})
	if err != nil {
		t.Fatal(err)
	}
	wish.AvailabilityZone = zones.AvailabilityZones[0].ZoneName
	v, err := client.CreateVolume(ctx, wish)
	if err != nil {
		t.Fatal(err)
	}
	available(t, w, *v.VolumeId)
	return *v.VolumeId
}

func available(t *testing.T, w *world, volume string) {
	t.Helper()
	in := &ec2.DescribeVolumesInput{VolumeIds: []string{volume}}
	if err := ec2.NewVolumeAvailableWaiter(w.ec2(t), quickly[ec2.VolumeAvailableWaiterOptions]).Wait(within(t, taskTime), in, taskTime); err != nil {
		t.Fatal(err)
	}
}

// giveBack a volume from its instance, and wait until it is.
func giveBack(t *testing.T, w *world, volume string) {
	t.Helper()
	if _, err := w.ec2(t).DetachVolume(within(t, taskTime), &ec2.DetachVolumeInput{VolumeId: &volume}); err != nil {
		t.Fatal(err)
	}
	available(t, w, volume)
}

// seen waits until the guest has a second disk of that many KiB, or none.
func seen(t *testing.T, g *cloud.Guest, size string) {
	t.Helper()
	err := cloud.Poll(within(t, taskTime), "the guest's second disk", func() error {
		if now := strings.Join(disks(t, g)[1:], " "); now != size {
			return fmt.Errorf("it has %q KiB, want %q", now, size)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
