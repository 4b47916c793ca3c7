package test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
	"mallee/test/emi"
)

// exported image: the key of the file in the bucket.
func exported(t *testing.T, c *cloud.Cloud, image, format string) string {
	t.Helper()
	client, ctx := ec2Of(t, c), within(t, taskTime)
	made, err := client.ExportImage(ctx, &ec2.ExportImageInput{
		ImageId: &image, DiskImageFormat: types.DiskImageFormat(format), Description: aws.String("out with it"),
		S3ExportLocation: &types.ExportTaskS3LocationRequest{S3Bucket: aws.String(bucket), S3Prefix: aws.String(folderOf(t) + "/")},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := aws.ToString(made.ExportImageTaskId)
	if !strings.HasPrefix(id, "export-ami-") || aws.ToString(made.Status) != "active" || string(made.DiskImageFormat) != format {
		t.Errorf("ExportImage replied %+v", made)
	}
	err = cloud.Poll(ctx, id, func() error {
		out, err := client.DescribeExportImageTasks(ctx, &ec2.DescribeExportImageTasksInput{ExportImageTaskIds: []string{id}})
		if err != nil {
			return cloud.Never(err)
		}
		task := out.ExportImageTasks[0]
		return ended(aws.ToString(task.Status), "completed", task.StatusMessage)
	})
	if err != nil {
		t.Fatal(err)
	}
	return folderOf(t) + "/" + id + "." + strings.ToLower(format)
}

// ended as wanted, or not yet, or never.
func ended(status, wanted string, message *string) error {
	err := fmt.Errorf("it is %s: %s", status, aws.ToString(message))
	switch status {
	case wanted:
		return nil
	case "active", "pending", "deleting", "waiting-for-shutdown", "bundling", "storing", "cancelling":
		return err
	}
	return cloud.Never(err)
}

// importedSnapshot is what becomes of an object.
func importedSnapshot(t *testing.T, c *cloud.Cloud, key, format string) string {
	t.Helper()
	client, ctx := ec2Of(t, c), within(t, taskTime)
	made, err := client.ImportSnapshot(ctx, &ec2.ImportSnapshotInput{DiskContainer: &types.SnapshotDiskContainer{
		Format: &format, UserBucket: &types.UserBucket{S3Bucket: aws.String(bucket), S3Key: &key},
	}})
	if err != nil {
		t.Fatal(err)
	}
	in := &ec2.DescribeImportSnapshotTasksInput{ImportTaskIds: []string{*made.ImportTaskId}}
	err = ec2.NewSnapshotImportedWaiter(client, quickly[ec2.SnapshotImportedWaiterOptions]).Wait(ctx, in, taskTime)
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.DescribeImportSnapshotTasks(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	id := aws.ToString(out.ImportSnapshotTasks[0].SnapshotTaskDetail.SnapshotId)
	snapshots, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
	if err != nil || snapshots.Snapshots[0].State != types.SnapshotStateCompleted {
		t.Fatalf("the imported snapshot %q is %+v: %v", id, snapshots, err)
	}
	return id
}

// TestExportedImages: an image is given out in each format as the disk that it
// is, by qemu-img's judgement; and what was given out is taken in again, and boots.
func TestExportedImages(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	disk := helloDisk()
	_, location := bundled(t, w.Cloud, disk, emi.Options{})
	image := registered(t, w.Cloud, location)
	for format := range diskFormats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			key := exported(t, w.Cloud, image, format)
			got := outOfFormat(t, object(t, w.Cloud, key), format)
			if len(got) < len(disk) || !bytes.Equal(got[:len(disk)], disk) || len(bytes.Trim(got[len(disk):], "\x00")) > 0 {
				t.Fatalf("%s is another disk than was bundled, of %d bytes instead of %d", key, len(got), len(disk))
			}
			snapshot := importedSnapshot(t, w.Cloud, key, format)
			id := fromSnapshot(t, w.Cloud, snapshot)
			saysHello(t, w.Cloud, id)
			_, err := w.ec2(t).DeleteSnapshot(within(t, soon), &ec2.DeleteSnapshotInput{SnapshotId: &snapshot})
			refused(t, err, "InvalidSnapshot.InUse", snapshot, id)
			again := outOfFormat(t, object(t, w.Cloud, exported(t, w.Cloud, id, format)), format)
			if len(again) < len(disk) || !bytes.Equal(again[:len(disk)], disk) || len(bytes.Trim(again[len(disk):], "\x00")) > 0 {
				t.Errorf("the EBS-backed image is given out as another disk, of %d bytes", len(again))
			}
		})
	}
}

// fromSnapshot registers an image that is deregistered with the test, and its
// snapshots deleted.
func fromSnapshot(t *testing.T, c *cloud.Cloud, snapshot string) string {
	t.Helper()
	out, err := ec2Of(t, c).RegisterImage(within(t, soon), &ec2.RegisterImageInput{
		Name: aws.String(folderOf(t)), RootDeviceName: aws.String("/dev/sda1"), VirtualizationType: aws.String("hvm"), Architecture: "x86_64",
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sda1"), Ebs: &types.EbsBlockDevice{SnapshotId: &snapshot}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	deregistered(t, c, *out.ImageId)
	return *out.ImageId
}

// TestRefusedExports name what is wrong, and make no task.
func TestRefusedExports(t *testing.T) {
	w := theWorld(t)
	for _, test := range []struct {
		image, format, bucket string
		code, says            string
	}{
		{"emi-00000000", "RAW", bucket, "InvalidAMIID.NotFound", "emi-00000000"},
		{w.hello, "ISO", bucket, "InvalidParameterValue", "VMDK"},
		{w.hello, "RAW", "no-such-bucket", "InvalidParameterValue", "no-such-bucket"},
		{w.hello, "RAW", "", "MissingParameter", "S3Bucket"},
	} {
		_, err := w.ec2(t).ExportImage(within(t, soon), &ec2.ExportImageInput{
			ImageId: &test.image, DiskImageFormat: types.DiskImageFormat(test.format), S3ExportLocation: &types.ExportTaskS3LocationRequest{S3Bucket: &test.bucket},
		})
		refused(t, err, test.code, test.says)
	}
}

// quickly is how waiters poll a cloud that is near.
func quickly[O waiterOptions](o *O) {
	const shortest, longest = 100 * time.Millisecond, time.Second
	switch o := any(o).(type) {
	case *ec2.SnapshotImportedWaiterOptions:
		o.MinDelay, o.MaxDelay = shortest, longest
	case *ec2.ConversionTaskCompletedWaiterOptions:
		o.MinDelay, o.MaxDelay = shortest, longest
	case *ec2.BundleTaskCompleteWaiterOptions:
		o.MinDelay, o.MaxDelay = shortest, longest
	case *ec2.ImageAvailableWaiterOptions:
		o.MinDelay, o.MaxDelay = shortest, longest
	case *ec2.InstanceStoppedWaiterOptions:
		o.MinDelay, o.MaxDelay = shortest, longest
	case *ec2.VolumeAvailableWaiterOptions:
		o.MinDelay, o.MaxDelay = shortest, longest
	}
}

type waiterOptions interface {
	ec2.SnapshotImportedWaiterOptions | ec2.ConversionTaskCompletedWaiterOptions | ec2.BundleTaskCompleteWaiterOptions |
		ec2.ImageAvailableWaiterOptions | ec2.InstanceStoppedWaiterOptions | ec2.VolumeAvailableWaiterOptions
}
