package test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"mallee/test/cloud"
	"mallee/test/emi"
)

// taskTime is for work on a disk of some megabytes, on a busy host.
const taskTime = 3 * time.Minute

// diskFormats are all that disks are taken in and given out as, and what
// qemu-img calls them. An OVA is an archive, of a VMDK.
var diskFormats = map[string]string{"RAW": "raw", "QCOW2": "qcow2", "VMDK": "vmdk", "VHD": "vpc", "VHDX": "vhdx", "OVA": "vmdk"}

// helloDisk boots and says helloLine; what follows is random, so that a byte that
// gets lost is missed.
func helloDisk() []byte { return append(emi.Hello(helloLine, 1<<20), someBytes(1<<20)...) }

// qemuImg runs Debian's tool, which shares nothing with the program under test.
func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(within(t, time.Minute), "qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// inFormat is a disk as a file of that format.
func inFormat(t *testing.T, disk []byte, format string) []byte {
	t.Helper()
	dir := t.TempDir()
	raw, file := filepath.Join(dir, "raw"), filepath.Join(dir, "file")
	write(t, raw, disk)
	options := []string{"convert", "-f", "raw", "-O", diskFormats[format]}
	if format == "OVA" {
		options = append(options, "-o", "subformat=streamOptimized")
	}
	qemuImg(t, append(options, raw, file)...)
	converted := read(t, file)
	if format == "OVA" {
		return ova(t, converted, "disk.vmdk", len(disk))
	}
	return converted
}

// outOfFormat is the disk of such a file.
func outOfFormat(t *testing.T, data []byte, format string) []byte {
	t.Helper()
	dir := t.TempDir()
	raw, file := filepath.Join(dir, "raw"), filepath.Join(dir, "file")
	if format == "OVA" {
		data = member(t, data, ".vmdk")
	}
	write(t, file, data)
	qemuImg(t, "convert", "-f", diskFormats[format], "-O", "raw", file, raw)
	return read(t, raw)
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// ova is an appliance of one disk, whose file it calls by that name.
func ova(t *testing.T, vmdk []byte, name string, capacity int) []byte {
	t.Helper()
	ovf := fmt.Sprintf(`<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References><File ovf:href="%s" ovf:id="file1" ovf:size="%d"/></References>
  <DiskSection><Info>disks</Info><Disk ovf:capacity="%d" ovf:diskId="disk1" ovf:fileRef="file1"
    ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
  <VirtualSystem ovf:id="vm"><Info>a machine</Info></VirtualSystem>
</Envelope>`, name, len(vmdk), capacity)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range []struct {
		name string
		data []byte
	}{{"vm.ovf", []byte(ovf)}, {name, vmdk}} {
		err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.data))})
		if err == nil {
			_, err = w.Write(f.data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// member of an archive, by how its name ends.
func member(t *testing.T, archive []byte, suffix string) []byte {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("no %s in the archive: %v", suffix, err)
		}
		if strings.HasSuffix(h.Name, suffix) {
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
	}
}

// stored puts an object into the test's folder of the bucket, and returns its key.
func stored(t *testing.T, c *cloud.Cloud, name string, data []byte) string {
	t.Helper()
	if name == "" {
		t.Fatal("an object without a name")
	}
	replace(t, c, name, data)
	return folderOf(t) + "/" + name
}

// object of the bucket.
func object(t *testing.T, c *cloud.Cloud, key string) []byte {
	t.Helper()
	out, err := s3Of(t, c).GetObject(within(t, soon), &s3.GetObjectInput{Bucket: aws.String(bucket), Key: &key})
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	defer out.Body.Close()
	data, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// keysUnder a prefix of the bucket.
func keysUnder(t *testing.T, c *cloud.Cloud, prefix string) (keys []string) {
	t.Helper()
	out, err := s3Of(t, c).ListObjectsV2(within(t, soon), &s3.ListObjectsV2Input{Bucket: aws.String(bucket), Prefix: &prefix})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out.Contents {
		keys = append(keys, *o.Key)
	}
	return keys
}

func s3Of(t *testing.T, c *cloud.Cloud) *s3.Client {
	t.Helper()
	a, err := c.Access()
	if err != nil {
		t.Fatal(err)
	}
	return a.S3()
}

// presigned address of an object, that whoever has it may read.
func presigned(t *testing.T, c *cloud.Cloud, key string) string {
	t.Helper()
	out, err := s3.NewPresignClient(s3Of(t, c)).PresignGetObject(within(t, soon), &s3.GetObjectInput{Bucket: aws.String(bucket), Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	return out.URL
}

// saysHello launches an instance of the image, whose guest has to be helloDisk's.
func saysHello(t *testing.T, c *cloud.Cloud, image string) {
	t.Helper()
	i := run(t, c, &ec2.RunInstancesInput{ImageId: &image}).Instances[0]
	await(t, c, types.InstanceStateNameRunning, *i.InstanceId)
	err := cloud.Poll(within(t, bootTime), "the guest's word", func() error {
		if text := console(t, c, *i.InstanceId); !strings.Contains(text, helloLine) {
			return fmt.Errorf("the console has %q", text)
		}
		return nil
	})
	if err != nil {
		t.Errorf("%s of %s: %v", *i.InstanceId, image, err)
	}
}

// deregistered image, when the test ends, with its snapshots.
func deregistered(t *testing.T, c *cloud.Cloud, id string) {
	t.Cleanup(func() {
		_, err := ec2Of(t, c).DeregisterImage(within(t, soon), &ec2.DeregisterImageInput{ImageId: &id, DeleteAssociatedSnapshots: aws.Bool(true)})
		if err != nil {
			t.Error(err)
		}
	})
}

// imageNamed is one image.
func imageNamed(t *testing.T, c *cloud.Cloud, id string) types.Image {
	t.Helper()
	out, err := ec2Of(t, c).DescribeImages(within(t, soon), &ec2.DescribeImagesInput{ImageIds: []string{id}})
	if err != nil || len(out.Images) != 1 {
		t.Fatalf("DescribeImages of %s: %v", id, err)
	}
	return out.Images[0]
}

// noTasksLeft: when the test and those within it have ended, no work that they
// asked for has left files or journals on the node. (Of a task that ends well the
// cloud takes the result in a moment later.)
func noTasksLeft(t *testing.T, c *cloud.Cloud) {
	t.Cleanup(func() {
		err := cloud.Poll(within(t, soon), "the node to tidy up", func() error { return errors.Join(empty(c.Path("node", "tasks")), noJournals(c)) })
		if err != nil {
			t.Error(err)
		}
	})
}

func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("there is still %s in %s", entries[0].Name(), dir)
	}
	return err
}

// noJournals of tasks: those of snapshots of volumes are other people's.
func noJournals(c *cloud.Cloud) error {
	entries, err := os.ReadDir(c.Path("node", "journals"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "import-") || strings.HasPrefix(e.Name(), "bun-") {
			return fmt.Errorf("there is still the journal %s", e.Name())
		}
	}
	return nil
}

// contextOf something that several tests share.
func contextOf(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
