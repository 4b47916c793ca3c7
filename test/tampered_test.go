package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
	"mallee/test/emi"
)

// blobsOf the snapshots of a cloud: its files.
func blobsOf(t *testing.T, c *cloud.Cloud) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(c.Path("snapshots"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			paths = append(paths, path)
		}
		return nil // they come and go
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// tampered with is a snapshot of a disk that nobody else has: a bit of each of its
// new files that is chosen is turned over.
func tampered(t *testing.T, c *cloud.Cloud, chosen func(data []byte) bool) (snapshot, image string) {
	t.Helper()
	before := strings.Join(blobsOf(t, c), "\n")
	disk := append(emi.Hello(helloLine+" "+folderOf(t), 1<<20), someBytes(1<<20)...)
	snapshot = written(t, c, disk, nil)
	image = fromSnapshot(t, c, snapshot)
	count := 0
	for _, path := range blobsOf(t, c) {
		if data := read(t, path); !strings.Contains(before, path) && chosen(data) {
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			write(t, path, data)
			count++
		}
	}
	if count == 0 {
		t.Fatal("no file of the snapshot was found")
	}
	return snapshot, image
}

const blobOfBlock = 100 << 10 // bytes: larger files hold blocks, others say which

// TestTamperedSnapshots: what was written over is given to nobody.
func TestTamperedSnapshots(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	t.Run("its list of blocks", func(t *testing.T) {
		_, image := tampered(t, w.Cloud, func(data []byte) bool { return len(data) < blobOfBlock })
		launchFails(t, w.Cloud, image, "damaged")
	})
	t.Run("its blocks", func(t *testing.T) {
		snapshot, image := tampered(t, w.Cloud, func(data []byte) bool { return len(data) >= blobOfBlock })
		client, ctx := ebsOf(t, w.Cloud), within(t, soon)
		list, err := client.ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: &snapshot})
		if err != nil || len(list.Blocks) == 0 {
			t.Fatalf("%+v, %v", list, err)
		}
		b := list.Blocks[0]
		if out, err := client.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &snapshot, BlockIndex: b.BlockIndex, BlockToken: b.BlockToken}); err == nil {
			t.Errorf("a block that was written over is given out: %+v", out)
		}
		made, err := w.ec2(t).ExportImage(ctx, &ec2.ExportImageInput{
			ImageId: &image, DiskImageFormat: "RAW", S3ExportLocation: &types.ExportTaskS3LocationRequest{S3Bucket: aws.String(bucket), S3Prefix: aws.String(folderOf(t) + "/")},
		})
		if err != nil {
			t.Fatal(err)
		}
		err = cloud.Poll(within(t, taskTime), "the export to fail", func() error {
			out, err := w.ec2(t).DescribeExportImageTasks(ctx, &ec2.DescribeExportImageTasksInput{ExportImageTaskIds: []string{*made.ExportImageTaskId}})
			if err != nil {
				return cloud.Never(err)
			}
			task := out.ExportImageTasks[0]
			if err := ended(aws.ToString(task.Status), "failed", task.StatusMessage); err != nil {
				return err
			}
			if message := aws.ToString(task.StatusMessage); !strings.Contains(message, "damaged") {
				t.Errorf("the export's message is %q", message)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if keys := keysUnder(t, w.Cloud, folderOf(t)+"/"); len(keys) > 0 {
			t.Errorf("the export left %v", keys)
		}
	})
}
