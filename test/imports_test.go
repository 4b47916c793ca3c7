package test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
)

// fromBucket is a disk of an import that lies in the bucket.
func fromBucket(key, format string) types.ImageDiskContainer {
	return types.ImageDiskContainer{Format: &format, UserBucket: &types.UserBucket{S3Bucket: aws.String(bucket), S3Key: &key}}
}

// asked for an import, and not waited for.
func asked(t *testing.T, c *cloud.Cloud, disks ...types.ImageDiskContainer) (task string) {
	t.Helper()
	out, err := ec2Of(t, c).ImportImage(within(t, soon), &ec2.ImportImageInput{DiskContainers: disks, Description: aws.String("in with it")})
	if err != nil {
		t.Fatal(err)
	}
	if id := aws.ToString(out.ImportTaskId); !strings.HasPrefix(id, "import-ami-") || aws.ToString(out.Status) != "active" {
		t.Errorf("ImportImage replied %+v", out)
	}
	return *out.ImportTaskId
}

// followed polls an import until it is as wanted.
func followed(t *testing.T, c *cloud.Cloud, id string, wanted func(types.ImportImageTask) error) (task types.ImportImageTask) {
	t.Helper()
	ctx := within(t, taskTime)
	err := cloud.Poll(ctx, id, func() error {
		out, err := ec2Of(t, c).DescribeImportImageTasks(ctx, &ec2.DescribeImportImageTasksInput{ImportTaskIds: []string{id}})
		if err != nil {
			return cloud.Never(err)
		}
		task = out.ImportImageTasks[0]
		return wanted(task)
	})
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func becomes(status string) func(types.ImportImageTask) error {
	return func(task types.ImportImageTask) error {
		return ended(aws.ToString(task.Status), status, task.StatusMessage)
	}
}

// TestImportedImages: a disk in each format, as qemu-img writes it, from a bucket
// and from a presigned address, is an image that boots.
func TestImportedImages(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	disk := helloDisk()
	for format := range diskFormats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			file := inFormat(t, disk, format)
			key := stored(t, w.Cloud, "disk", file)
			container := fromBucket(key, format)
			if format == "QCOW2" || format == "VHD" || format == "OVA" {
				container = types.ImageDiskContainer{Format: &format, Url: aws.String(presigned(t, w.Cloud, key))}
			}
			done := followed(t, w.Cloud, asked(t, w.Cloud, container), becomes("completed"))
			deregistered(t, w.Cloud, aws.ToString(done.ImageId))
			if d := done.SnapshotDetails[0]; aws.ToString(d.Format) != format || aws.ToFloat64(d.DiskImageSize) != float64(len(file)) || !strings.HasPrefix(aws.ToString(d.SnapshotId), "snap-") {
				t.Errorf("the imported disk is %+v", d)
			}
			i := imageNamed(t, w.Cloud, *done.ImageId)
			if i.RootDeviceType != types.DeviceTypeEbs || i.VirtualizationType != types.VirtualizationTypeHvm || i.State != types.ImageStateAvailable || aws.ToBool(i.Public) {
				t.Errorf("the imported image is %+v", i)
			}
			saysHello(t, w.Cloud, *done.ImageId)
		})
	}
}

// TestImportOfSeveralDisks: the first is the root, the others volumes beside it.
func TestImportOfSeveralDisks(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	root := stored(t, w.Cloud, "root", helloDisk())
	data := someBytes(1 << 20)
	snapshot := importedSnapshot(t, w.Cloud, stored(t, w.Cloud, "data", data), "RAW")
	done := followed(t, w.Cloud, asked(t, w.Cloud, fromBucket(root, "raw"), types.ImageDiskContainer{SnapshotId: &snapshot, DeviceName: aws.String("/dev/sdf")}), becomes("completed"))
	deregistered(t, w.Cloud, *done.ImageId)
	devices := map[string]string{}
	for _, m := range imageNamed(t, w.Cloud, *done.ImageId).BlockDeviceMappings {
		devices[*m.DeviceName] = aws.ToString(m.Ebs.SnapshotId)
	}
	if len(devices) != 2 || devices["/dev/sda1"] == "" || devices["/dev/sdf"] != snapshot {
		t.Errorf("the image's devices are %v", devices)
	}
}

// TestUnreachableImports: by no address does the cloud fetch what its host or the
// host's network alone can reach.
func TestUnreachableImports(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	var asks atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		asks.Add(1)
		rw.Write(helloDisk())
	}))
	defer server.Close()
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	tasks := map[string]string{}
	for _, url := range []string{
		server.URL + "/disk", "http://localhost" + port + "/disk", "http://[::1]" + port + "/", "http://[::ffff:127.0.0.1]" + port + "/",
		"http://0.0.0.0" + port + "/", "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/disk", "http://[fe80::1]/disk",
		"http://user@127.0.0.1" + port + "/disk",
	} {
		tasks[url] = asked(t, w.Cloud, types.ImageDiskContainer{Url: &url})
	}
	for url, id := range tasks {
		task := followed(t, w.Cloud, id, becomes("deleted"))
		if message := aws.ToString(task.StatusMessage); !strings.HasPrefix(message, "ClientError: ") || !strings.Contains(message, "is not a public one") {
			t.Errorf("%s: the message is %q", url, message)
		}
	}
	for _, url := range []string{"file:///etc/passwd", "ftp://example.com/disk", "/etc/passwd", "http://", "nbd://127.0.0.1:10809/x", "https://a\nb"} {
		_, err := w.ec2(t).ImportImage(within(t, soon), &ec2.ImportImageInput{DiskContainers: []types.ImageDiskContainer{{Url: &url}}})
		refused(t, err, "InvalidParameterValue", "http://")
	}
	if n := asks.Load(); n > 0 {
		t.Errorf("a server of the host's was asked %d times", n)
	}
}

// hostileDisks, and what is to be said of each.
func hostileDisks(t *testing.T) map[string]struct {
	data []byte
	says string
} {
	dir := t.TempDir()
	disk := func(name string, options ...string) []byte {
		file := filepath.Join(dir, name)
		qemuImg(t, append(append([]string{"create", "-q"}, options...), file, "1M")...)
		return read(t, file)
	}
	link := filepath.Join(dir, "outside")
	write(t, link, bytes.Repeat([]byte("a secret of the host's"), 60000))
	absurd := disk("absurd", "-f", "qcow2")
	binary.BigEndian.PutUint64(absurd[24:], 1<<62)
	flat := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\nRW 2048 FLAT \"%s\" 0\n", link)
	whole := inFormat(t, helloDisk(), "QCOW2")
	return map[string]struct {
		data []byte
		says string
	}{
		"a backing file":                   {disk("backed", "-f", "qcow2", "-F", "raw", "-b", link), "backing file"},
		"a backing file beyond":            {disk("passwd", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd"), "backing file"},
		"a server behind it":               {disk("json", "-u", "-f", "qcow2", "-F", "raw", "-b", "nbd://127.0.0.1:10809/x"), "backing file"},
		"a data file":                      {disk("external", "-f", "qcow2", "-o", "data_file="+filepath.Join(dir, "data"), "-o", "data_file_raw=on"), "in another file"},
		"absurd size":                      {absurd, "4611686018427387904 bytes"},
		"a flat VMDK":                      {[]byte(flat), ""},
		"cut short":                        {whole[:len(whole)/2], ""},
		"nothing":                          {nil, ""},
		"noise":                            {someBytes(1 << 20), "boot"},
		"an OVA that leads out":            {ova(t, inFormat(t, helloDisk(), "VMDK"), "../../../disk.vmdk", 2<<20), "../"},
		"an OVA with a disk of the host's": {ova(t, []byte(flat), "disk.vmdk", 1<<20), ""},
	}
}

// TestHostileImports end with a message that says why, make no image and no
// snapshot, and leave nothing.
func TestHostileImports(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	before := imageCount(t, w.Cloud) + snapshotCount(t, w.Cloud)
	for name, hostile := range hostileDisks(t) {
		key := stored(t, w.Cloud, "disk", append([]byte{}, hostile.data...))
		task := followed(t, w.Cloud, asked(t, w.Cloud, fromBucket(key, "")), becomes("deleted"))
		message := aws.ToString(task.StatusMessage)
		t.Logf("%s: %s", name, message)
		if !strings.HasPrefix(message, "ClientError: ") || !strings.Contains(message, hostile.says) || strings.Contains(message, w.Dir) || len(message) > 500 {
			t.Errorf("%s: the message is %q, want ClientError, %q and nothing of the host's", name, message, hostile.says)
		}
	}
	if after := imageCount(t, w.Cloud) + snapshotCount(t, w.Cloud); after != before {
		t.Errorf("there were %d images and snapshots, and now there are %d", before, after)
	}
}

func snapshotCount(t *testing.T, c *cloud.Cloud) int {
	t.Helper()
	out, err := ec2Of(t, c).DescribeSnapshots(within(t, soon), &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	if err != nil {
		t.Fatal(err)
	}
	return len(out.Snapshots)
}

// TestImportOfWhatIsGone: the object was there when the import was asked for.
func TestImportOfWhatIsGone(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	_, err := w.ec2(t).ImportImage(within(t, soon), &ec2.ImportImageInput{DiskContainers: []types.ImageDiskContainer{fromBucket("no/such/disk", "RAW")}})
	refused(t, err, "InvalidParameterValue", "no/such/disk")
	key := stored(t, w.Cloud, "disk", helloDisk())
	slow := stored(t, w.Cloud, "slow", slowDisk(t))
	occupied := []string{asked(t, w.Cloud, fromBucket(slow, "")), asked(t, w.Cloud, fromBucket(slow, ""))} // all that are done at once
	task := asked(t, w.Cloud, fromBucket(key, "RAW"))
	replace(t, w.Cloud, "disk", nil)
	for _, id := range occupied {
		cancelImport(t, w.Cloud, id)
	}
	gone := followed(t, w.Cloud, task, becomes("deleted"))
	if message := aws.ToString(gone.StatusMessage); !strings.Contains(message, key) {
		t.Errorf("the message is %q", message)
	}
	for _, id := range occupied {
		if task := followed(t, w.Cloud, id, becomes("deleted")); aws.ToString(task.StatusMessage) != "Cancelled by the user" || task.ImageId != nil {
			t.Errorf("the cancelled import is %+v", task)
		}
	}
	_, err = w.ec2(t).CancelImportTask(within(t, soon), &ec2.CancelImportTaskInput{ImportTaskId: &task})
	refused(t, err, "IncorrectState", task)
}

func cancelImport(t *testing.T, c *cloud.Cloud, id string) {
	t.Helper()
	out, err := ec2Of(t, c).CancelImportTask(within(t, soon), &ec2.CancelImportTaskInput{ImportTaskId: &id})
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(out.PreviousState) != "active" || aws.ToString(out.State) != "deleting" {
		t.Errorf("CancelImportTask of %s replied %+v", id, out)
	}
}

// slowDisk is small as a file, and so large when it is unpacked that there is time
// to do something to its import: 768 MiB of the same letter behind helloDisk.
func slowDisk(t *testing.T) []byte {
	t.Helper()
	var first, more bytes.Buffer
	for into, data := range map[*bytes.Buffer][]byte{&first: helloDisk(), &more: bytes.Repeat([]byte("x"), 64<<20)} {
		z := gzip.NewWriter(into)
		if _, err := z.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return append(first.Bytes(), bytes.Repeat(more.Bytes(), 12)...)
}

// TestKilledImport: the program dies in the middle of an import, and the next one
// brings it to its end.
func TestKilledImport(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	task := asked(t, w.Cloud, fromBucket(stored(t, w.Cloud, "slow", slowDisk(t)), ""))
	followed(t, w.Cloud, task, func(task types.ImportImageTask) error {
		if entries, err := os.ReadDir(w.Path("node", "tasks", *task.ImportTaskId, "0")); err != nil || len(entries) == 0 {
			return fmt.Errorf("it has not begun: %v, %w", err, ended(aws.ToString(task.Status), "", task.StatusMessage))
		}
		return nil
	})
	if err := w.Kill(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	if empty(w.Path("node", "tasks")) == nil {
		t.Error("the import was over before the program was killed")
	}
	upAgain(t, w.Cloud)
	done := followed(t, w.Cloud, task, becomes("completed"))
	deregistered(t, w.Cloud, *done.ImageId)
	saysHello(t, w.Cloud, *done.ImageId)
}
