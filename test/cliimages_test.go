package test

import (
	"fmt"
	"strings"
	"testing"

	"mallee/test/cloud"
)

// TestAWSCLIOnImages is what the documentation of AWS has one type to move an
// image: exported, imported as a snapshot and as an image, registered, copied,
// and given up.
func TestAWSCLIOnImages(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	a, err := w.Access()
	if err != nil {
		t.Fatal(err)
	}
	env, err := w.Environ()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found("aws") {
		t.Run(strings.ReplaceAll(path, "/", "-"), func(t *testing.T) {
			t.Parallel()
			aws := cli{path, a.Endpoint, env}
			aws.images(t, w)
		})
	}
}

// until a command prints what is wanted.
func (c cli) until(t *testing.T, wanted string, args ...string) {
	t.Helper()
	err := cloud.Poll(within(t, taskTime), strings.Join(args[:2], " "), func() error {
		out, err := c.run(t, args...)
		if err != nil {
			return cloud.Never(err)
		}
		if out != wanted {
			return fmt.Errorf("it printed %q, want %q", out, wanted)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c cli) images(t *testing.T, w *world) {
	folder := folderOf(t)
	export := c.must(t, "ec2", "export-image", "--image-id", w.hello, "--disk-image-format", "VMDK",
		"--s3-export-location", "S3Bucket="+bucket+",S3Prefix="+folder+"/", "--query", "ExportImageTaskId")
	c.until(t, "completed", "ec2", "describe-export-image-tasks", "--export-image-task-ids", export, "--query", "ExportImageTasks[].Status")
	from := "UserBucket={S3Bucket=" + bucket + ",S3Key=" + folder + "/" + export + ".vmdk}"

	task := c.must(t, "ec2", "import-snapshot", "--disk-container", "Format=VMDK,"+from, "--query", "ImportTaskId")
	c.until(t, "completed", "ec2", "describe-import-snapshot-tasks", "--import-task-ids", task, "--query", "ImportSnapshotTasks[].SnapshotTaskDetail.Status")
	snapshot := c.must(t, "ec2", "describe-import-snapshot-tasks", "--import-task-ids", task, "--query", "ImportSnapshotTasks[].SnapshotTaskDetail.SnapshotId")
	image := c.must(t, "ec2", "register-image", "--name", folder, "--root-device-name", "/dev/sda1", "--virtualization-type", "hvm",
		"--block-device-mappings", "DeviceName=/dev/sda1,Ebs={SnapshotId="+snapshot+",VolumeSize=2}", "--query", "ImageId")
	saysHello(t, w.Cloud, image)

	a, err := w.Access()
	if err != nil {
		t.Fatal(err)
	}
	copied := c.must(t, "ec2", "copy-image", "--name", folder+"-copy", "--source-image-id", image, "--source-region", a.Region, "--query", "ImageId")
	c.must(t, "ec2", "wait", "image-available", "--image-ids", copied)
	imported := c.must(t, "ec2", "import-image", "--disk-containers", "Format=VMDK,"+from, "--query", "ImportTaskId")
	c.until(t, "completed", "ec2", "describe-import-image-tasks", "--import-task-ids", imported, "--query", "ImportImageTasks[].Status")
	if _, err := c.run(t, "ec2", "cancel-import-task", "--import-task-id", imported); err == nil || !strings.Contains(err.Error(), "(IncorrectState)") {
		t.Errorf("cancelling what is done: %v", err)
	}
	made := c.must(t, "ec2", "describe-import-image-tasks", "--import-task-ids", imported, "--query", "ImportImageTasks[].ImageId")
	for _, id := range []string{image, copied, made} {
		below := c.must(t, "ec2", "describe-images", "--image-ids", id, "--query", "Images[].BlockDeviceMappings[].Ebs.SnapshotId")
		c.must(t, "ec2", "deregister-image", "--image-id", id)
		c.must(t, "ec2", "delete-snapshot", "--snapshot-id", below)
	}
	if _, err := c.run(t, "ec2", "describe-snapshots", "--snapshot-ids", snapshot); err == nil || !strings.Contains(err.Error(), "(InvalidSnapshot.NotFound)") {
		t.Errorf("the snapshot of a deregistered image: %v", err)
	}
}
