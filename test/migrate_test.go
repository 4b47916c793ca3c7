package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sys/unix"

	"mallee/test/cloud"
)

const blockSize = 512 << 10 // bytes, of the EBS direct API

func ebsOf(t *testing.T, c *cloud.Cloud) *ebs.Client {
	t.Helper()
	a, err := c.Access()
	if err != nil {
		t.Fatal(err)
	}
	return a.EBS()
}

// putBlock of a snapshot, with the checksum given or its own.
func putBlock(t *testing.T, c *cloud.Cloud, snapshot string, index int, data []byte, sum string) error {
	t.Helper()
	if sum == "" {
		sum = checksum(data)
	}
	_, err := ebsOf(t, c).PutSnapshotBlock(within(t, soon), &ebs.PutSnapshotBlockInput{
		SnapshotId: &snapshot, BlockIndex: aws.Int32(int32(index)), BlockData: bytes.NewReader(data), DataLength: aws.Int32(int32(len(data))),
		Checksum: &sum, ChecksumAlgorithm: ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
	})
	return err
}

func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// written is a snapshot of 1 GiB that begins with a disk, made block by block.
func written(t *testing.T, c *cloud.Cloud, disk []byte, parent *string) string {
	t.Helper()
	client, ctx := ebsOf(t, c), within(t, taskTime)
	out, err := client.StartSnapshot(ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1), Description: aws.String("by blocks"), ParentSnapshotId: parent})
	if err != nil {
		t.Fatal(err)
	}
	id, count := *out.SnapshotId, 0
	for at := 0; at < len(disk); at += blockSize {
		block := make([]byte, blockSize)
		if copy(block, disk[at:]); len(bytes.Trim(block, "\x00")) == 0 {
			continue
		}
		if err := putBlock(t, c, id, at/blockSize, block, ""); err != nil {
			t.Fatal(err)
		}
		count++
	}
	if _, err := client.CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{SnapshotId: &id, ChangedBlocksCount: aws.Int32(int32(count))}); err != nil {
		t.Fatal(err)
	}
	in := &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}}
	if err := ec2.NewSnapshotCompletedWaiter(ec2Of(t, c)).Wait(ctx, in, taskTime); err != nil {
		t.Fatal(err)
	}
	return id
}

// blocksOf a snapshot that hold something, by their indices.
func blocksOf(t *testing.T, c *cloud.Cloud, snapshot string) map[int32][]byte {
	t.Helper()
	client, ctx, all := ebsOf(t, c), within(t, taskTime), map[int32][]byte{}
	for pages := ebs.NewListSnapshotBlocksPaginator(client, &ebs.ListSnapshotBlocksInput{SnapshotId: &snapshot}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range page.Blocks {
			out, err := client.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &snapshot, BlockIndex: b.BlockIndex, BlockToken: b.BlockToken})
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(out.BlockData)
			if err != nil {
				t.Fatal(err)
			}
			if checksum(data) != aws.ToString(out.Checksum) || len(data) != int(aws.ToInt32(page.BlockSize)) {
				t.Errorf("block %d of %s has %d bytes, and its checksum is another", *b.BlockIndex, snapshot, len(data))
			}
			if len(bytes.Trim(data, "\x00")) > 0 {
				all[*b.BlockIndex] = data
			}
		}
	}
	return all
}

// sameBlocks fails the test unless the blocks make up the disk.
func sameBlocks(t *testing.T, what string, blocks map[int32][]byte, disk []byte) {
	t.Helper()
	whole := make([]byte, (len(disk)+blockSize-1)/blockSize*blockSize)
	for index, data := range blocks {
		if at := int(index) * blockSize; at+blockSize > len(whole) {
			t.Errorf("%s has a block %d, and the disk %d bytes", what, index, len(disk))
		} else {
			copy(whole[at:], data)
		}
	}
	if !bytes.Equal(whole[:len(disk)], disk) {
		t.Errorf("%s holds other bytes than were written", what)
	}
}

// TestBlocksByAmazonsClient writes a snapshot and reads it.
func TestBlocksByAmazonsClient(t *testing.T) {
	w := theWorld(t)
	disk := helloDisk()
	first := written(t, w.Cloud, disk, nil)
	sameBlocks(t, first, blocksOf(t, w.Cloud, first), disk)
	image := fromSnapshot(t, w.Cloud, first)
	saysHello(t, w.Cloud, image)

	_, err := w.ec2(t).DeleteSnapshot(within(t, soon), &ec2.DeleteSnapshotInput{SnapshotId: &first})
	refused(t, err, "InvalidSnapshot.InUse", image)
	changed := append([]byte{}, disk...)
	copy(changed[blockSize:], "another block")
	second := written(t, w.Cloud, changed[:2*blockSize], &first)
	t.Cleanup(func() {
		if _, err := w.ec2(t).DeleteSnapshot(within(t, soon), &ec2.DeleteSnapshotInput{SnapshotId: &second}); err != nil {
			t.Error(err)
		}
	})
	sameBlocks(t, second, blocksOf(t, w.Cloud, second), changed)
	diff, err := ebsOf(t, w.Cloud).ListChangedBlocks(within(t, soon), &ebs.ListChangedBlocksInput{FirstSnapshotId: &first, SecondSnapshotId: &second})
	if err != nil || len(diff.ChangedBlocks) != 1 || *diff.ChangedBlocks[0].BlockIndex != 1 {
		t.Errorf("from the one to the other changed %+v: %v", diff, err)
	}
	if err := putBlock(t, w.Cloud, second, 0, disk[:blockSize], ""); err == nil {
		t.Error("a completed snapshot was written to")
	}
	refusedBlocks(t, w.Cloud, first)
}

func refusedBlocks(t *testing.T, c *cloud.Cloud, read string) {
	t.Helper()
	client, ctx := ebsOf(t, c), within(t, soon)
	out, err := client.StartSnapshot(ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})
	if err != nil {
		t.Fatal(err)
	}
	id := *out.SnapshotId
	block := someBytes(blockSize)
	refused(t, putBlock(t, c, id, 0, block, checksum(block[1:])), "ValidationException", "hecksum")
	refused(t, putBlock(t, c, id, 2048, block, ""), "ValidationException")
	refused(t, putBlock(t, c, id, 0, block[1:], ""), "ValidationException")
	_, err = client.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &read, BlockIndex: aws.Int32(0), BlockToken: aws.String("AAAB")})
	refused(t, err, "ValidationException")
	_, err = client.CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{SnapshotId: &id, ChangedBlocksCount: aws.Int32(7)})
	refused(t, err, "ValidationException")
	if _, err := ec2Of(t, c).DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &id}); err != nil {
		t.Errorf("a snapshot that was never completed: %v", err)
	}
}

// TestMigration takes images from one cloud to another and back: EBS-backed with
// two volumes, by their blocks, interrupted half way in each direction; and by a
// bundle.
func TestMigration(t *testing.T) {
	w := theWorld(t)
	there := secondCloud(t)
	disk := append(helloDisk(), someBytes(48<<20)...)
	more := someBytes(1 << 20)
	root, data := written(t, w.Cloud, disk, nil), written(t, w.Cloud, more, nil)
	out, err := w.ec2(t).RegisterImage(within(t, soon), &ec2.RegisterImageInput{
		Name: aws.String(folderOf(t)), RootDeviceName: aws.String("/dev/sda1"), VirtualizationType: aws.String("hvm"), Architecture: "x86_64",
		BlockDeviceMappings: []types.BlockDeviceMapping{
			{DeviceName: aws.String("/dev/sda1"), Ebs: &types.EbsBlockDevice{SnapshotId: &root, VolumeSize: aws.Int32(2)}},
			{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{SnapshotId: &data, DeleteOnTermination: aws.Bool(false)}},
			{DeviceName: aws.String("/dev/sdb"), VirtualName: aws.String("ephemeral0")},
		}})
	if err != nil {
		t.Fatal(err)
	}
	deregistered(t, w.Cloud, *out.ImageId)
	devices := map[string]string{"/dev/sda1": "2 GiB", "/dev/sdf": "1 GiB", "/dev/sdb": "ephemeral0"}

	brought := moved(t, there, w.Cloud, there, "import", *out.ImageId)
	compare := func(c *cloud.Cloud, id string) {
		t.Helper()
		i := imageNamed(t, c, id)
		sameDevices(t, i, devices)
		for _, m := range i.BlockDeviceMappings {
			switch aws.ToString(m.DeviceName) {
			case "/dev/sda1":
				sameBlocks(t, "the root of "+id, blocksOf(t, c, *m.Ebs.SnapshotId), disk)
			case "/dev/sdf":
				sameBlocks(t, "the other volume of "+id, blocksOf(t, c, *m.Ebs.SnapshotId), more)
				if aws.ToBool(m.Ebs.DeleteOnTermination) {
					t.Errorf("the other volume of %s would go with its instances", id)
				}
			}
		}
	}
	compare(there, brought)
	if n := snapshotCount(t, there); n != 2 {
		t.Errorf("the other cloud has %d snapshots, want the image's two", n)
	}
	saysHelloOn(t, there, brought)

	before := snapshotCount(t, w.Cloud)
	back := moved(t, there, w.Cloud, w.Cloud, "export", brought, "--name", folderOf(t)+"-back")
	deregistered(t, w.Cloud, back)
	compare(w.Cloud, back)
	if n := snapshotCount(t, w.Cloud); n != before+2 {
		t.Errorf("there were %d snapshots and are %d, want the image's two more", before, n)
	}

	vars, err := w.Eucarc()
	if err != nil {
		t.Fatal(err)
	}
	hello := migrate(t, there, w.Cloud, "import", w.hello, "--privatekey", vars["EC2_PRIVATE_KEY"])
	if i := imageNamed(t, there, hello); i.RootDeviceType != types.DeviceTypeInstanceStore {
		t.Errorf("what came by its bundle is %+v", i)
	}
	saysHelloOn(t, there, hello)
}

// secondCloud that goes with the test.
func secondCloud(t *testing.T) *cloud.Cloud {
	t.Helper()
	c, err := cloud.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the other cloud's log ends with:\n%s", c.LogTail(20))
		}
		if err := c.Destroy(within(t, soon)); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.Up(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	return c
}

// saysHelloOn another cloud than the shared one: its instances go with it.
func saysHelloOn(t *testing.T, c *cloud.Cloud, image string) {
	t.Helper()
	t.Run("boots "+strings.ReplaceAll(folderOf(t), "-", ""), func(t *testing.T) { saysHello(t, c, image) })
}

// migration by a command on the folder of one cloud that is told of another.
func migration(t *testing.T, c, other *cloud.Cloud, way, image string, flags ...string) *exec.Cmd {
	t.Helper()
	a, err := other.Access()
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"image", way, "aws", image, "--endpoint", a.Endpoint, "--region", a.Region, "--data", c.Dir}, flags...)
	cmd := exec.CommandContext(within(t, taskTime), c.Binary, args...)
	cmd.Env = append(cloud.Environ(), "AWS_ACCESS_KEY_ID="+a.AccessKey, "AWS_SECRET_ACCESS_KEY="+a.Secret, "HOME="+t.TempDir())
	return cmd
}

// migrate to the end: the image's new id.
func migrate(t *testing.T, c, other *cloud.Cloud, way, image string, flags ...string) string {
	t.Helper()
	cmd := migration(t, c, other, way, image, flags...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("image %s aws %s: %v: %s", way, image, err, said.String())
	}
	id, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "IMAGE\t")
	if !ok || strings.Contains(id, "\n") {
		t.Fatalf("image %s aws %s printed %q", way, image, out)
	}
	return id
}

// moved like migrate, but the command is killed while the cloud that takes the
// blocks is writing a snapshot, and given again.
func moved(t *testing.T, c, other, taker *cloud.Cloud, way, image string, flags ...string) string {
	t.Helper()
	cmd := migration(t, c, other, way, image, flags...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	arriving := cloud.PollEvery(within(t, taskTime), time.Millisecond, "blocks to arrive", func() error { return arrived(taker) })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatalf("the %s was over before it was killed: %v: %s", way, err, said.String())
	}
	if err := cmd.Wait(); arriving != nil || err == nil {
		t.Fatalf("%v, %v: %s", arriving, err, said.String())
	}
	return migrate(t, c, other, way, image, flags...)
}

// arrived: a snapshot is being written by its blocks, of which some are noted.
func arrived(c *cloud.Cloud) error {
	files, err := filepath.Glob(c.Path("node", "journals", "direct-*"))
	if err != nil {
		return cloud.Never(err)
	}
	for _, f := range files {
		var s unix.Stat_t
		if err := unix.Stat(f, &s); err == nil && s.Blocks*512 > 4096 { // more than a header
			return nil
		}
	}
	return fmt.Errorf("the journals are %q", files)
}
