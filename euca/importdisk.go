package euca

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mallee/wire/sigv4"
)

// importCommands are EC2's older way of importing disks: the client uploads a
// disk in parts, and a manifest that says where they are.
func importCommands() []command {
	return []command{
		{
			name: "import-volume", short: "Import a disk as a volume",
			takes: "FILE",
			options: slices.Concat([]option{
				text("z,availability-zone", "ZONE", "zone of the volume").to("AvailabilityZone").required(),
				text("d,description", "DESC", "what the task is").to("Description"),
			}, diskOptions, storeOptions),
			run: func(s *session) error { return s.importDisk("ImportVolume", "") },
		},
		{
			name: "import-instance", short: "Import a disk as a stopped instance's root",
			takes: "FILE",
			options: slices.Concat([]option{
				text("t,instance-type", "TYPE", "type of the instance").to("LaunchSpecification.InstanceType").required(),
				text("a,architecture", "ARCH", "what the disk's system runs on").to("LaunchSpecification.Architecture").required(),
				text("p,platform", "Windows|Linux", "the disk's system").to("Platform").required().among("Windows", "Linux"),
				text("d,description", "DESC", "what the task is").to("Description"),
				text("g,group", "GROUP", "security group of the instance").to("LaunchSpecification.GroupName.1"),
				text("z,availability-zone", "ZONE", "zone of the instance").to("LaunchSpecification.Placement.AvailabilityZone"),
				text("user-data", "DATA", "what the instance can read as its user data"),
				text("user-data-file", "FILE", "file that holds the user data"),
				text("subnet", "SUBNET", "subnet of the network interface").to("LaunchSpecification.SubnetId"),
				text("private-ip-address", "ADDRESS", "private address of the instance").to("LaunchSpecification.PrivateIpAddress"),
				toggle("monitor", "monitor it in detail").to("LaunchSpecification.Monitoring.Enabled"),
				text("instance-initiated-shutdown-behavior", "stop|terminate", "what happens when the guest powers off").
					to("LaunchSpecification.InstanceInitiatedShutdownBehavior").among("stop", "terminate"),
				text("key", "KEYPAIR", "key pair to log in with").to("LaunchSpecification.KeyName"),
			}, diskOptions, storeOptions),
			run: importInstance,
		},
		{
			name: "resume-import", short: "Upload what is missing of a disk that is imported",
			takes: "FILE",
			options: slices.Concat([]option{
				text("t,task", "TASK", "the import").required(),
				whole("x,expires", "DAYS", "how long the upload's addresses are good for (default and most 7)"),
				whole("part-size", "MiB", "size of a part, where the upload hasn't begun (default 10)"),
			}, storeOptions),
			run: resumeImport,
		},
		{
			name: "delete-disk-image", short: "Delete what was uploaded for an import",
			options: slices.Concat([]option{
				text("t,task", "TASK", "the import"),
				text("u,manifest-url", "URL", "address of the import's manifest"),
				toggle("ignore-active-task", "also while the import needs it"),
			}, storeOptions),
			run: deleteDiskImage,
		},
	}
}

// diskOptions say what is imported.
var diskOptions = []option{
	text("f,format", "FORMAT", "raw, vmdk or vhd").required(),
	whole("s,volume-size", "GiB", "size of the volume (default: what the disk needs)"),
	text("image-size", "BYTES", "size of the disk (default: what the file says)"),
	text("b,bucket", "BUCKET", "where the disk is uploaded to; the bucket is made if there is none"),
	text("manifest-url", "URL", "address of a manifest that is there already"),
	text("prefix", "PREFIX", "how the names of what is uploaded begin"),
	whole("x,expires", "DAYS", "how long the upload's addresses are good for (default and most 7)"),
	toggle("no-upload", "ask for the import only; euca-resume-import uploads"),
	toggle("dry-run", "do nothing"),
	toggle("ignore-region-affinity", "taken for euca2ools' sake"),
	toggle("dont-verify-format", "taken for euca2ools' sake"),
}

// storeOptions say whose object store it is; -U is EC2's endpoint.
var storeOptions = []option{
	text("s3-url", "URL", "endpoint of the object store"),
	text("o,owner-akid", "KEY_ID", "access key for the object store (default: the same)"),
	text("w,owner-sak", "KEY", "its secret"),
}

// store is the client of the object store.
func (s *session) store() (*Client, error) {
	if s.given("owner-akid") != s.given("owner-sak") {
		return nil, errors.New("arguments -o/--owner-akid and -w/--owner-sak belong together")
	}
	if url := s.text("s3-url"); url != "" {
		s.access.S3 = strings.TrimRight(url, "/")
	}
	client, err := s.cloud()
	if err != nil {
		return nil, err
	}
	own := *client
	if s.given("owner-akid") {
		own.Credentials = sigv4.Credentials{AccessKey: s.text("owner-akid"), Secret: s.text("owner-sak")}
	}
	return &own, own.store()
}

func importInstance(s *session) error {
	if s.given("user-data") || s.given("user-data-file") {
		if err := userData(s); err != nil {
			return err
		}
		s.params.Set("LaunchSpecification.UserData.Data", s.params.Get("UserData"))
		s.params.Del("UserData")
	}
	return s.importDisk("ImportInstance", "DiskImage.1.")
}

// importDisk uploads the manifest, asks for the import, and uploads the disk. A
// manifest whose import is refused is removed.
func (s *session) importDisk(action, where string) error {
	if err := s.oneOf("bucket", "manifest-url"); err != nil {
		return err
	}
	d, err := s.disk()
	if err != nil {
		return err
	}
	defer d.file.Close()
	store, err := s.store()
	if err != nil || s.given("dry-run") {
		return err
	}
	up, err := s.prepareImport(store, d)
	if err != nil {
		return err
	}
	s.params.Set(where+"Image.Format", d.format)
	s.params.Set(where+"Image.Bytes", strconv.FormatInt(d.virtual, 10))
	s.params.Set(where+"Image.ImportManifestUrl", up.address)
	s.params.Set(where+"Volume.Size", strconv.FormatInt(d.gib, 10))
	reply, err := s.call(action)
	if err != nil {
		if s.given("bucket") {
			err = errors.Join(err, store.DeleteObject(context.WithoutCancel(s.ctx), up.bucket, up.key))
		}
		return err
	}
	task := reply.at("conversionTask")
	if !s.given("no-upload") {
		if err := up.parts(s, d); err != nil {
			id := task.get("conversionTaskId")
			return fmt.Errorf("%s waits for the rest of the disk (go on by euca-resume-import -t %s %s): %w", id, id, s.args[0], err)
		}
	}
	return s.show(reply, func() { printConversion(s, task) })
}

// disk to be imported.
type disk struct {
	file    *os.File
	name    string // without folders
	format  string // by EC2's word
	size    int64  // of the file, in bytes
	virtual int64  // of the disk that it holds, in bytes
	gib     int64  // of the volume
}

func (s *session) disk() (*disk, error) {
	f, size, err := openDisk(s.args[0])
	if err != nil {
		return nil, err
	}
	d := &disk{file: f, name: filepath.Base(s.args[0]), format: strings.ToUpper(s.text("format")), size: size}
	if err := d.measure(s); err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// measure the disk by the options, or by what its file says.
func (d *disk) measure(s *session) (err error) {
	if d.size == 0 {
		return fmt.Errorf("%s is empty", d.name)
	}
	if d.virtual, err = s.bytes("image-size"); err != nil {
		return err
	}
	if d.virtual == 0 {
		if d.virtual, err = virtualSize(d.file, d.format, d.size); err != nil {
			return err
		}
	}
	d.gib, _ = strconv.ParseInt(s.text("volume-size"), 10, 64) // checked to be a number
	d.gib = cmp.Or(d.gib, (d.virtual+1<<30-1)>>30)
	return nil
}

// importUpload is a disk on its way into the object store.
type importUpload struct {
	client      *Client
	bucket, key string // of the manifest
	address     string // of the manifest, for the cloud to read
	manifest    *importManifest
}

// prepareImport has the manifest in the object store.
func (s *session) prepareImport(store *Client, d *disk) (*importUpload, error) {
	if address := s.text("manifest-url"); address != "" {
		up, err := s.findImport(store, address)
		if err != nil || s.given("no-upload") {
			return up, err
		}
		return up, up.read(s.ctx, d.size)
	}
	lifetime, err := s.lifetime()
	if err != nil {
		return nil, err
	}
	folder := rand.Text()
	if prefix := strings.Trim(s.text("prefix"), "/"); prefix != "" {
		folder = prefix + "/" + folder
	}
	up := &importUpload{client: store, bucket: s.text("bucket"), key: folder + "/" + d.name + ".manifest.xml"}
	if up.address, err = up.presign("GET", up.key, lifetime); err != nil {
		return nil, err
	}
	there, err := store.HeadBucket(s.ctx, up.bucket)
	if err == nil && !there {
		err = store.CreateBucket(s.ctx, up.bucket)
	}
	if err != nil {
		return nil, err
	}
	return up, up.write(s.ctx, d, lifetime, importPart)
}

// importPart is the size of a part in bytes, where the disk isn't too large for it.
const importPart = 10 << 20

// lifetime of presigned addresses by --expires.
func (s *session) lifetime() (time.Duration, error) {
	most := int(sigv4.MaxLifetime / (24 * time.Hour))
	days, _ := strconv.Atoi(cmp.Or(s.text("expires"), strconv.Itoa(most))) // checked to be a number
	if days < 1 {
		return 0, errors.New("argument -x/--expires: 0 days is no time")
	}
	if days > most {
		s.note("addresses are good for %d days at most, and an import takes no longer", most)
	}
	return time.Duration(min(days, most)) * 24 * time.Hour, nil
}

// findImport of the manifest at an address.
func (s *session) findImport(store *Client, address string) (*importUpload, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("the import manifest's address: %w", err)
	}
	base, err := url.Parse(store.S3)
	if err != nil {
		return nil, err
	}
	path, ours := strings.CutPrefix(u.Path, base.Path+"/")
	bucket, key, ok := strings.Cut(path, "/")
	if !ours || !ok || u.Host != base.Host {
		return nil, fmt.Errorf("the import manifest %s://%s%s is not in the object store %s", u.Scheme, u.Host, u.Path, store.S3)
	}
	return &importUpload{client: store, bucket: bucket, key: key, address: address}, nil
}

// task that --task names: its reply, and its one disk.
func (s *session) importTask(id string) (task, disk *element, err error) {
	s.params = url.Values{"ConversionTaskId.1": {id}}
	reply, err := s.call("DescribeConversionTasks")
	if err != nil {
		return nil, nil, err
	}
	for t := range reply.each("conversionTasks") {
		if t.get("conversionTaskId") != id {
			continue
		}
		if v := t.at("importVolume"); v != nil {
			return t, v, nil
		}
		for v := range t.each("importInstance/volumes") {
			return t, v, nil
		}
	}
	return nil, nil, fmt.Errorf("the cloud tells nothing of the import %s", id)
}

func resumeImport(s *session) error {
	store, err := s.store()
	if err != nil {
		return err
	}
	task, image, err := s.importTask(s.text("task"))
	if err != nil {
		return err
	}
	if state := task.get("state"); state != "active" && state != "pending" {
		return fmt.Errorf("%s is %s, and takes no more of its disk", s.text("task"), state)
	}
	f, size, err := openDisk(s.args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	d := &disk{file: f, name: filepath.Base(s.args[0]), format: image.get("image/format"), size: size}
	d.gib, _ = strconv.ParseInt(image.get("volume/size"), 10, 64)
	up, err := s.findImport(store, image.get("image/importManifestUrl"))
	if err != nil {
		return err
	}
	err = up.read(s.ctx, size)
	if absent(err) {
		lifetime, timeErr := s.lifetime()
		mib, _ := strconv.ParseInt(cmp.Or(s.text("part-size"), "10"), 10, 32) // checked to be a number
		if err = timeErr; err == nil {
			err = up.write(s.ctx, d, lifetime, max(mib, 1)<<20)
		}
	}
	if err == nil {
		err = up.parts(s, d)
	}
	if err != nil {
		return err
	}
	return s.show(task, nil)
}

// parts that aren't there yet are uploaded.
func (up *importUpload) parts(s *session, d *disk) error {
	show := s.progress()
	defer show.end()
	u := newUpload(up.client, up.bucket, "")
	u.acl, u.retries = "", retries
	for _, p := range up.manifest.Import.Parts.List {
		show.show("uploading "+d.name, p.Range.Start, d.size)
		if err := up.part(s.ctx, u, d, p); err != nil {
			return err
		}
	}
	show.show("uploading "+d.name, d.size, d.size)
	return nil
}

func (up *importUpload) part(ctx context.Context, u *upload, d *disk, p importedPart) error {
	length := p.Range.End - p.Range.Start + 1
	there, ok, err := up.client.HeadObject(ctx, up.bucket, p.Key)
	if err != nil || ok && there.Size == length {
		return err
	}
	section := io.NewSectionReader(d.file, p.Range.Start, length)
	sum := sha256.New()
	if n, err := io.Copy(sum, &interrupted{ctx, section}); err != nil || n != length {
		return fmt.Errorf("read %s at %d: %w", d.name, p.Range.Start, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	return u.object(ctx, p.Key, section, length, hex.EncodeToString(sum.Sum(nil)))
}

func deleteDiskImage(s *session) error {
	if err := s.oneOf("task", "manifest-url"); err != nil {
		return err
	}
	if s.given("ignore-active-task") && !s.given("task") {
		return errors.New("argument --ignore-active-task: only with -t/--task")
	}
	store, err := s.store()
	if err != nil {
		return err
	}
	address := s.text("manifest-url")
	if id := s.text("task"); id != "" {
		task, image, err := s.importTask(id)
		if err != nil {
			return err
		}
		if task.get("state") == "active" && !s.given("ignore-active-task") {
			return fmt.Errorf("%s is active and needs its disk; cancel it by euca-cancel-conversion-task, or give --ignore-active-task", id)
		}
		address = image.get("image/importManifestUrl")
	}
	up, err := s.findImport(store, address)
	if err == nil {
		err = up.read(s.ctx, 0)
	}
	if err != nil {
		return err
	}
	deleted := []string{}
	for _, key := range append(up.manifest.keys(), up.key) {
		if err := store.DeleteObject(s.ctx, up.bucket, key); err != nil {
			return err
		}
		deleted = append(deleted, up.bucket+"/"+key)
	}
	return s.show(map[string][]string{"deleted": deleted}, nil)
}
