package test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
)

// tinyEBS is the EBS-backed image of the catalogue's smallest system, which the
// shared cloud gets when somebody asks for it.
func tinyEBS(t *testing.T, w *world) string {
	t.Helper()
	id, err := tinyInstalled()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

var tinyInstalled = sync.OnceValues(func() (string, error) {
	ctx, cancel := contextOf(buildTime)
	defer cancel()
	r, err := started.Succeed(ctx, "image", "install", "tiny", "--ebs")
	if err != nil {
		return "", err
	}
	id, ok := strings.CutPrefix(strings.TrimSpace(r.Out), "IMAGE\t")
	if !ok {
		return "", fmt.Errorf("image install tiny --ebs printed %q", r.Out)
	}
	return id, nil
})

// devicesOf an image: its mapping in words.
func devicesOf(i types.Image) map[string]string {
	devices := map[string]string{}
	for _, m := range i.BlockDeviceMappings {
		what := aws.ToString(m.VirtualName)
		if m.Ebs != nil {
			what = fmt.Sprintf("%d GiB", aws.ToInt32(m.Ebs.VolumeSize))
		}
		devices[aws.ToString(m.DeviceName)] = what
	}
	return devices
}

// sameDevices fails the test where a mapping is another than was wanted.
func sameDevices(t *testing.T, i types.Image, want map[string]string) {
	t.Helper()
	if got := devicesOf(i); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s has the devices %v, want %v", *i.ImageId, got, want)
	}
}

// imaged makes an image of an instance, and waits until it can be launched.
func imaged(t *testing.T, c *cloud.Cloud, instance, name string, reboot bool) types.Image {
	t.Helper()
	client, ctx := ec2Of(t, c), within(t, taskTime)
	out, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &instance, Name: &name, NoReboot: aws.Bool(!reboot), Description: aws.String("of an instance")})
	if err != nil {
		t.Fatal(err)
	}
	if i := imageNamed(t, c, *out.ImageId); i.State != types.ImageStatePending && i.State != types.ImageStateAvailable {
		t.Errorf("an image that is being made is %s", i.State)
	}
	in := &ec2.DescribeImagesInput{ImageIds: []string{*out.ImageId}}
	if err := ec2.NewImageAvailableWaiter(client, quickly[ec2.ImageAvailableWaiterOptions]).Wait(ctx, in, taskTime); err != nil {
		t.Fatal(err)
	}
	return imageNamed(t, c, *out.ImageId)
}

// disks of a guest in KiB, in the order of their names.
func disks(t *testing.T, g *cloud.Guest) (sizes []string) {
	t.Helper()
	return strings.Fields(in(t, g, `sed -n 's/.* \([0-9]*\) vd[a-z]$/\1/p' /proc/partitions`))
}

const gib = "1048576" // in KiB

// TestEBSBackedLife follows an instance whose root is a volume: launched with
// more and larger volumes than the image has, written to, stopped and started,
// made an image of twice; what is launched from that has what was written.
func TestEBSBackedLife(t *testing.T) {
	w, g := theGuests(t)
	client, image := w.ec2(t), tinyEBS(t, w)
	i := run(t, w.Cloud, &ec2.RunInstancesInput{
		ImageId: &image, KeyName: aws.String(keyName), InstanceType: "m1.small", BlockDeviceMappings: []types.BlockDeviceMapping{
			{DeviceName: aws.String("/dev/sda1"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(2)}},
			{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(1), DeleteOnTermination: aws.Bool(true)}},
			{DeviceName: aws.String("/dev/sdb"), VirtualName: aws.String("ephemeral0")},
		}}).Instances[0]
	i = await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)[0]
	guest := login(t, w.Cloud, i, g.key)
	sizes := disks(t, guest)
	if len(sizes) != 3 || sizes[0] != "2097152" || !slices.Contains(sizes[1:], gib) {
		t.Fatalf("the guest's disks have %v KiB, want 2 GiB, an ephemeral disk and 1 GiB", sizes)
	}
	extra := "/dev/vd" + string(rune('a'+slices.Index(sizes, gib)))
	in(t, guest, "echo root >/root/mine; mke2fs "+extra+" >/dev/null 2>&1; mkdir /data; mount "+extra+" /data; echo extra >/data/mine; sync; umount /data; sync")

	stopAndStart(t, w, &i)
	guest = login(t, w.Cloud, i, g.key)
	const look = "cat /root/mine; mkdir -p /data; mount %s /data; cat /data/mine; umount /data"
	if got := in(t, guest, fmt.Sprintf(look, extra)); got != "root\nextra\n" {
		t.Fatalf("after stop and start its disks hold %q", got)
	}

	boot := in(t, guest, bootID)
	fuzzy := imaged(t, w.Cloud, *i.InstanceId, folderOf(t)+"-fuzzy", false)
	if now := in(t, guest, bootID); now != boot {
		t.Error("the guest has booted again, though the image was to be made without a reboot")
	}
	in(t, guest, "echo unwritten >/root/unwritten") // and no sync: the reboot is one
	consistent := imaged(t, w.Cloud, *i.InstanceId, folderOf(t), true)
	want := map[string]string{"/dev/sda1": "2 GiB", "/dev/sdf": "1 GiB", "/dev/sdb": "ephemeral0"}
	sameDevices(t, fuzzy, want)
	sameDevices(t, consistent, want)
	if now := in(t, login(t, w.Cloud, i, g.key), bootID+"; cat /root/unwritten"); strings.HasPrefix(now, boot) || !strings.HasSuffix(now, "unwritten\n") {
		t.Errorf("after the image the guest is that of boot %q, and before it was that of %q", now, boot)
	}

	t.Run("launches", func(t *testing.T) {
		t.Run("without a reboot", func(t *testing.T) {
			t.Parallel()
			guest := launched(t, w, fuzzy, g.key)
			if got := in(t, guest, fmt.Sprintf(look, extra)+"; ls /root"); got != "root\nextra\nmine\n" {
				t.Errorf("an instance of the image holds %q", got)
			}
		})
		t.Run("with a reboot, and other devices", func(t *testing.T) {
			t.Parallel()
			guest := launched(t, w, consistent, g.key,
				types.BlockDeviceMapping{DeviceName: aws.String("/dev/sdf"), NoDevice: aws.String("")},
				types.BlockDeviceMapping{DeviceName: aws.String("/dev/sdb"), NoDevice: aws.String("")},
				types.BlockDeviceMapping{DeviceName: aws.String("/dev/sdg"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(3)}})
			if got := in(t, guest, "cat /root/mine /root/unwritten"); got != "root\nunwritten\n" {
				t.Errorf("an instance of the image holds %q", got)
			}
			if sizes := disks(t, guest); len(sizes) != 2 || sizes[0] != "2097152" || sizes[1] != "3145728" {
				t.Errorf("its disks have %v KiB, want 2 GiB and 3 GiB", sizes)
			}
		})
	})
	withSnapshots(t, client, fuzzy)
	withSnapshots(t, client, consistent)
}

// stopAndStart an instance, which keeps its private address and is not billed a
// public one meanwhile.
func stopAndStart(t *testing.T, w *world, i *types.Instance) {
	t.Helper()
	client, ctx, ids := w.ec2(t), within(t, taskTime), []string{*i.InstanceId}
	if _, err := client.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: ids}); err != nil {
		t.Fatal(err)
	}
	in := &ec2.DescribeInstancesInput{InstanceIds: ids}
	if err := ec2.NewInstanceStoppedWaiter(client, quickly[ec2.InstanceStoppedWaiterOptions]).Wait(ctx, in, taskTime); err != nil {
		t.Fatal(err)
	}
	if _, err := client.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: ids}); err != nil {
		t.Fatal(err)
	}
	now := await(t, w.Cloud, types.InstanceStateNameRunning, ids...)[0]
	if aws.ToString(now.PrivateIpAddress) != aws.ToString(i.PrivateIpAddress) {
		t.Errorf("the private address was %s and is %s", aws.ToString(i.PrivateIpAddress), aws.ToString(now.PrivateIpAddress))
	}
	*i = now
}

// launched from an image, with changes to its devices: a login.
func launched(t *testing.T, w *world, image types.Image, key string, devices ...types.BlockDeviceMapping) *cloud.Guest {
	t.Helper()
	i := run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: image.ImageId, KeyName: aws.String(keyName), InstanceType: "m1.small", BlockDeviceMappings: devices}).Instances[0]
	return login(t, w.Cloud, await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)[0], key)
}

// withSnapshots an image is deregistered, which holds them until then.
func withSnapshots(t *testing.T, client *ec2.Client, image types.Image) {
	t.Helper()
	ctx := within(t, soon)
	var ids []string
	for _, m := range image.BlockDeviceMappings {
		if m.Ebs != nil {
			ids = append(ids, *m.Ebs.SnapshotId)
		}
	}
	for _, id := range ids {
		_, err := client.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &id})
		refused(t, err, "InvalidSnapshot.InUse", id, *image.ImageId)
	}
	if _, err := client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: image.ImageId, DeleteAssociatedSnapshots: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		_, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
		refused(t, err, "InvalidSnapshot.NotFound", id)
	}
}

// TestRefusedDevices of launches.
func TestRefusedDevices(t *testing.T) {
	w := theWorld(t)
	image := tinyEBS(t, w)
	size := func(device string, n int32) types.BlockDeviceMapping {
		return types.BlockDeviceMapping{DeviceName: &device, Ebs: &types.EbsBlockDevice{VolumeSize: &n}}
	}
	for _, test := range []struct {
		name, code string
		devices    []types.BlockDeviceMapping
	}{
		{"no device", "MissingParameter", []types.BlockDeviceMapping{{Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(1)}}}},
		{"no size", "MissingParameter", []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{}}}},
		{"one device twice", "InvalidBlockDeviceMapping", []types.BlockDeviceMapping{size("/dev/sdf", 1), size("/dev/sdf", 2)}},
		{"nobody's snapshot", "InvalidSnapshot.NotFound", []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{SnapshotId: aws.String("snap-00000000")}}}},
		{"no root", "InvalidBlockDeviceMapping", []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sda1"), NoDevice: aws.String("")}}},
		{"a fifth ephemeral disk", "InvalidBlockDeviceMapping", []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sdb"), VirtualName: aws.String("ephemeral4")}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, err := w.ec2(t).RunInstances(within(t, soon), &ec2.RunInstancesInput{ImageId: &image, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), BlockDeviceMappings: test.devices})
			if err == nil {
				terminate(t, w.Cloud, idsOf(out.Instances)...)
			}
			refused(t, err, test.code)
		})
	}
}
