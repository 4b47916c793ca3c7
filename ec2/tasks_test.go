package ec2

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/state"
)

// withFiles has disk files in the object store.
func (c *aCloud) withFiles() *aCloud {
	c.objects["disks/disk.vmdk"] = make([]byte, 1000)
	c.objects["disks/secret/disk.raw"] = make([]byte, 10)
	c.objects["full/taken.part.00"] = []byte("part")
	return c
}

// asTask observes a task as a node would.
func (c *aCloud) asTask(id string, o cloud.TaskObservation) {
	o.Task, o.At = cloud.TaskID(id), c.now
	c.write(func(tx *state.Tx) { state.TaskObservations.Put(tx, o) })
}

// ended finishes a task as the loops would.
func (c *aCloud) ended(id string, change func(*cloud.Task)) {
	c.write(func(tx *state.Tx) {
		t, _, ok := state.Tasks.Get(tx, cloud.TaskID(id))
		if !ok {
			c.tb.Fatalf("no task %s", id)
		}
		over := *t
		change(&over)
		state.FinishTask(tx, over, c.now)
	})
}

// TestTaskReplies compares the replies about tasks, as they stand at each step,
// with those in testdata.
func TestTaskReplies(t *testing.T) {
	c := ready(t).withSnapshots().withFiles()
	say := func(name, action string, parameters ...string) string {
		t.Helper()
		_, body := c.send(c.user, action, parameters...)
		compare(t, name, body)
		return body
	}
	id := func(body, element string) string {
		t.Helper()
		found := regexp.MustCompile("<" + element + ">([^<]+)<").FindStringSubmatch(body)
		if found == nil {
			t.Fatalf("no %s in %s", element, body)
		}
		return found[1]
	}
	snap := id(say("ImportSnapshot", "ImportSnapshot", "Description=from elsewhere", "DiskContainer.Format=vmdk", "DiskContainer.UserBucket.S3Bucket=disks", "DiskContainer.UserBucket.S3Key=disk.vmdk",
		"TagSpecification.1.ResourceType=import-snapshot-task", "TagSpecification.1.Tag.1.Key=a", "ClientToken=once"), "importTaskId")
	if again := get[importSnapshotReply](c, c.user, "ImportSnapshot", "Description=from elsewhere", "DiskContainer.Format=vmdk", "DiskContainer.UserBucket.S3Bucket=disks", "DiskContainer.UserBucket.S3Key=disk.vmdk",
		"TagSpecification.1.ResourceType=import-snapshot-task", "TagSpecification.1.Tag.1.Key=a", "ClientToken=once"); again.ID != snap {
		t.Errorf("the same client token made %s and %s", snap, again.ID)
	}
	c.asTask(snap, cloud.TaskObservation{Phase: cloud.TaskActive, Progress: 42, Message: "converting"})
	say("DescribeImportSnapshotTasks", "DescribeImportSnapshotTasks", "ImportTaskId.1="+snap)
	c.ended(snap, func(t *cloud.Task) { t.Made = map[string]string{"snapshot": "snap-0000abcd"} })
	say("DescribeImportSnapshotTasks-completed", "DescribeImportSnapshotTasks")

	image := id(say("ImportImage", "ImportImage", "Description=two disks", "BootMode=uefi-preferred", "DiskContainer.1.Url=https://example.com/disk.ova", "DiskContainer.1.Format=OVA",
		"DiskContainer.2.SnapshotId="+completeSnapshot), "importTaskId")
	say("CancelImportTask", "CancelImportTask", "ImportTaskId="+image)
	c.ended(image, func(t *cloud.Task) { t.Failed = cloud.Reason{Code: "Cancelled", Message: "Cancelled by the user"} })
	say("DescribeImportImageTasks", "DescribeImportImageTasks", "Filters.1.Name=task-state", "Filters.1.Value.1=deleted")

	export := id(say("ExportImage", "ExportImage", "ImageId="+privateImage, "DiskImageFormat=VMDK", "S3ExportLocation.S3Bucket=disks", "S3ExportLocation.S3Prefix=exports/"), "exportImageTaskId")
	say("DescribeExportImageTasks", "DescribeExportImageTasks", "ExportImageTaskId.1="+export)
	say("CancelExportTask", "CancelExportTask", "ExportTaskId="+export)

	running := c.run(c.user)[0]
	c.seenUp(running)
	bundle := id(say("BundleInstance", "BundleInstance", append([]string{"InstanceId=" + running}, storage("disks", "images/mine")...)...), "bundleId")
	c.asTask(bundle, cloud.TaskObservation{Phase: cloud.TaskActive, Progress: 7})
	say("DescribeBundleTasks", "DescribeBundleTasks")
	say("CancelBundleTask", "CancelBundleTask", "BundleId="+bundle)
	c.ended(bundle, func(t *cloud.Task) {
		t.Failed = cloud.Reason{Code: "ServerError", Message: "ServerError: the disk is on fire"}
	})
	say("DescribeBundleTasks-failed", "DescribeBundleTasks", "BundleId.1="+bundle)

	volume := id(say("ImportVolume", "ImportVolume", "AvailabilityZone=one", "Image.Format=RAW", "Image.Bytes=1000", "Image.ImportManifestUrl=https://example.com/m.xml", "Volume.Size=2"), "conversionTaskId")
	say("ImportInstance", "ImportInstance", "Platform=Linux", "LaunchSpecification.InstanceType=m1.small", "LaunchSpecification.Architecture=x86_64",
		"DiskImage.1.Image.Format=RAW", "DiskImage.1.Image.Bytes=1000", "DiskImage.1.Image.ImportManifestUrl=https://example.com/m.xml", "DiskImage.1.Volume.Size=1")
	c.ended(volume, func(t *cloud.Task) { t.Made = map[string]string{"volume0": "vol-0000abcd"} })
	say("DescribeConversionTasks", "DescribeConversionTasks")
	say("CopyImage", "CopyImage", "Name=a copy", "SourceImageId="+hvmImage, "SourceRegion=mallee")
}

func storage(bucket, prefix string) []string {
	return []string{"Storage.S3.Bucket=" + bucket, "Storage.S3.Prefix=" + prefix}
}

// TestTaskRefusals of everything that can be known before the work begins.
func TestTaskRefusals(t *testing.T) {
	c := ready(t).withSnapshots().withFiles()
	running := c.run(c.user)
	c.seenUp(running...)
	others := get[importSnapshotReply](c, c.admin, "ImportSnapshot", "DiskContainer.Url=https://example.com/d.raw").ID
	busy := c.run(c.user)[0]
	c.seenUp(busy)
	bundling := get[bundleTaskReply](c, c.user, "BundleInstance", append([]string{"InstanceId=" + busy}, storage("disks", "busy")...)...).Task.ID
	over := get[importSnapshotReply](c, c.user, "ImportSnapshot", "DiskContainer.Url=https://example.com/d.raw").ID
	c.ended(over, func(*cloud.Task) {})
	pending := c.run(c.user)[0]
	before := c.Store.View().Revision()
	for _, test := range taskRefusals(running[0], busy, pending, others, bundling, over) {
		if r := c.refused(c.user, test.request[0], test.request[1:]...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%.120v: %+v", test.request, r)
		}
	}
	if after := c.Store.View().Revision(); after != before {
		t.Errorf("a refused request wrote: revision %d became %d", before, after)
	}
}

func taskRefusals(running, busy, pending, others, bundling, over string) []refusalCase {
	bundle := func(id string, p ...string) []string {
		return append([]string{"BundleInstance", "InstanceId=" + id}, p...)
	}
	disk := func(p ...string) []string { return append([]string{"ImportSnapshot"}, p...) }
	export := func(p ...string) []string {
		return append([]string{"ExportImage", "ImageId=" + privateImage, "DiskImageFormat=RAW", "S3ExportLocation.S3Bucket=disks"}, p...)
	}
	volume := func(p ...string) []string {
		return append([]string{"ImportVolume", "AvailabilityZone=one", "Image.Format=RAW", "Image.Bytes=1000", "Image.ImportManifestUrl=https://h/m", "Volume.Size=1"}, p...)
	}
	return []refusalCase{
		{disk(), "MissingParameter", "DiskContainer.Url"},
		{disk("DiskContainer.Url=ftp://example.com/d"), "InvalidParameterValue", "DiskContainer.Url"},
		{disk("DiskContainer.Url=file:///etc/passwd"), "InvalidParameterValue", "file:///etc/passwd"},
		{disk("DiskContainer.Url=s3://disks/absent"), "InvalidParameterValue", "disks/absent"},
		{disk("DiskContainer.UserBucket.S3Bucket=disks"), "MissingParameter", "S3Key"},
		{disk("DiskContainer.UserBucket.S3Bucket=disks", "DiskContainer.UserBucket.S3Key=secret/disk.raw"), "InvalidParameterValue", "may not be used"},
		{disk("DiskContainer.Url=https://h/d", "DiskContainer.UserBucket.S3Bucket=disks", "DiskContainer.UserBucket.S3Key=disk.vmdk"), "InvalidParameterCombination", "Url"},
		{disk("DiskContainer.Url=https://h/d", "DiskContainer.Format=ISO"), "InvalidParameterValue", "ISO"},
		{disk("DiskContainer.Url=https://h/d", "Encrypted=true"), "UnsupportedOperation", "Encrypted"},
		{[]string{"ImportImage"}, "MissingParameter", "DiskContainer"},
		{[]string{"ImportImage", "DiskContainer.1.SnapshotId=snap-99999999"}, "InvalidSnapshot.NotFound", "snap-99999999"},
		{[]string{"ImportImage", "DiskContainer.1.SnapshotId=" + secretSnapshot}, "InvalidSnapshot.NotFound", secretSnapshot},
		{[]string{"ImportImage", "DiskContainer.1.SnapshotId=" + completeSnapshot, "DiskContainer.1.Format=RAW"}, "InvalidParameterCombination", "SnapshotId"},
		{[]string{"ImportImage", "DiskContainer.1.Url=https://h/d", "DiskContainer.1.DeviceName=floppy"}, "InvalidParameterValue", "floppy"},
		{[]string{"ImportImage", "DiskContainer.1.Url=https://h/d", "DiskContainer.1.DeviceName=/dev/sdb", "DiskContainer.2.Url=https://h/d", "DiskContainer.2.DeviceName=/dev/sdb"}, "InvalidParameterValue", "DiskContainer.2.DeviceName"},
		{[]string{"ImportImage", "DiskContainer.1.Url=https://h/d", "Architecture=vax"}, "InvalidParameterValue", "vax"},
		{[]string{"DescribeImportSnapshotTasks", "ImportTaskId.1=" + others}, "InvalidConversionTaskId.NotFound", others},
		{[]string{"DescribeImportSnapshotTasks", "ImportTaskId.1=import-snap-1"}, "InvalidConversionTaskId.Malformed", "import-snap-1"},
		{[]string{"CancelImportTask", "ImportTaskId=" + others}, "InvalidConversionTaskId.NotFound", others},
		{[]string{"CancelImportTask", "ImportTaskId=" + over}, "IncorrectState", "completed"},
		{export("S3ExportLocation.S3Bucket=others"), "InvalidParameterValue", "others"},
		{export("S3ExportLocation.S3Bucket=missing"), "InvalidParameterValue", "missing"},
		{export("S3ExportLocation.S3Prefix=/root"), "InvalidParameterValue", "S3Prefix"},
		{export("DiskImageFormat=GIF"), "InvalidParameterValue", "GIF"},
		{export("ImageId=" + hvmImage), "AuthFailure", hvmImage},
		{export("ImageId=emi-99999999"), "InvalidAMIID.NotFound", "emi-99999999"},
		{bundle(running, "Storage.S3.Prefix=x"), "MissingParameter", "Storage.S3.Bucket"},
		{bundle(running, "Storage.S3.Bucket=disks"), "MissingParameter", "Storage.S3.Prefix"},
		{bundle(running, storage("disks", "../up")...), "InvalidParameterValue", "../up"},
		{bundle(running, storage("full", "taken")...), "InvalidParameterValue", "taken.part.00"},
		{bundle(running, storage("others", "x")...), "InvalidParameterValue", "others"},
		{bundle(busy, storage("disks", "twice")...), "BundlingInProgress", bundling},
		{bundle(pending, storage("disks", "early")...), "IncorrectInstanceState", "pending"},
		{bundle("i-99999999", storage("disks", "x")...), "InvalidInstanceID.NotFound", "i-99999999"},
		{[]string{"CancelBundleTask", "BundleId=bun-99999999"}, "InvalidBundleID.NotFound", "bun-99999999"},
		{volume("AvailabilityZone=nowhere"), "InvalidParameterValue", "nowhere"},
		{volume("Volume.Size=0"), "InvalidParameterValue", "Volume.Size"},
		{volume("Image.Bytes=2147483648"), "InvalidParameterValue", "Image.Bytes"},
		{volume("Image.ImportManifestUrl=m.xml"), "InvalidParameterValue", "ImportManifestUrl"},
		{volume("Image.Format=QCOW2"), "InvalidParameterValue", "QCOW2"},
		{[]string{"ImportInstance", "Platform=Linux"}, "MissingParameter", "DiskImage"},
		{[]string{"CopyImage", "Name=copy", "SourceImageId=" + hvmImage, "SourceRegion=us-east-1"}, "InvalidParameterValue", "us-east-1"},
		{[]string{"CopyImage", "Name=x", "SourceImageId=" + hvmImage, "SourceRegion=mallee"}, "InvalidAMIName.Malformed", "'x'"},
		{[]string{"CopyImage", "Name=copy", "SourceImageId=emi-99999999", "SourceRegion=mallee"}, "InvalidAMIID.NotFound", "emi-99999999"},
	}
}

// TestUploadPolicies: who has the secret may say what is written where, and
// nothing else is believed.
func TestUploadPolicies(t *testing.T) {
	c := ready(t).withFiles()
	running := c.run(c.admin)[0]
	c.seenUp(running)
	_, secret, _ := c.IAM.Principal(c.admin.AccessKey)
	const good = `{"expiration": "2026-11-23T00:00:00Z", "conditions": [{"bucket": "disks"}, {"acl": "ec2-bundle-read"}, ["starts-with", "$key", "mine"]]}`
	request := func(policy, key, signature string) []string {
		encoded := base64.StdEncoding.EncodeToString([]byte(policy))
		if signature == "" {
			mac := hmac.New(sha1.New, []byte(secret))
			mac.Write([]byte(encoded))
			signature = base64.StdEncoding.EncodeToString(mac.Sum(nil))
		}
		return append(storage("disks", "mine"), "InstanceId="+running, "DryRun=true", "Storage.S3.AWSAccessKeyId="+key,
			"Storage.S3.UploadPolicy="+encoded, "Storage.S3.UploadPolicySignature="+signature)
	}
	for _, test := range []struct{ name, policy, key, signature, code, says string }{
		{"good", good, c.admin.AccessKey, "", "DryRunOperation", ""},
		{"somebody's key", good, "AKIDNOBODY", "", "InvalidParameterValue", "AWSAccessKeyId"},
		{"a wrong signature", good, c.admin.AccessKey, "AAAA", "InvalidParameterValue", "UploadPolicySignature"},
		{"expired", strings.Replace(good, "11-23", "11-21", 1), c.admin.AccessKey, "", "InvalidParameterValue", "expired"},
		{"another bucket", strings.Replace(good, "disks", "b2", 1), c.admin.AccessKey, "", "InvalidParameterValue", "b2"},
		{"another ACL", strings.Replace(good, "ec2-bundle-read", "public-read", 1), c.admin.AccessKey, "", "InvalidParameterValue", "ec2-bundle-read"},
		{"another prefix", strings.Replace(good, `"mine"`, `"yours"`, 1), c.admin.AccessKey, "", "InvalidParameterValue", "yours"},
		{"an exact key, of which a bundle has several", strings.Replace(good, `["starts-with", "$key", "mine"]`, `{"key": "mine"}`, 1), c.admin.AccessKey, "", "InvalidParameterValue", "key"},
		{"a shorter prefix", strings.Replace(good, `"mine"`, `"mi"`, 1), c.admin.AccessKey, "", "DryRunOperation", ""},
		{"a bucket by its beginning", strings.Replace(good, `{"bucket": "disks"}`, `["starts-with", "$bucket", "di"]`, 1), c.admin.AccessKey, "", "DryRunOperation", ""},
		{"two buckets", strings.Replace(good, `{"bucket": "disks"}`, `{"bucket": "b2"}, {"bucket": "disks"}`, 1), c.admin.AccessKey, "", "InvalidParameterValue", "b2"},
		{"nothing of the key", strings.Replace(good, `, ["starts-with", "$key", "mine"]`, "", 1), c.admin.AccessKey, "", "InvalidParameterValue", "nothing of the key"},
		{"no conditions", `{"expiration": "2026-11-23T00:00:00Z"}`, c.admin.AccessKey, "", "InvalidParameterValue", "nothing of the bucket"},
		{"a field that bundles don't have", strings.Replace(good, `{"bucket"`, `{"x-amz-meta-a": "b"}, {"bucket"`, 1), c.admin.AccessKey, "", "InvalidParameterValue", "x-amz-meta-a"},
		{"a length", strings.Replace(good, `{"bucket"`, `["content-length-range", 0, 1000], {"bucket"`, 1), c.admin.AccessKey, "", "InvalidParameterValue", "content-length-range"},
		{"no JSON", "{", c.admin.AccessKey, "", "InvalidParameterValue", "JSON"},
		{"too long", good + strings.Repeat(" ", 4096), c.admin.AccessKey, "", "InvalidParameterValue", "4096"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if r := c.refused(c.admin, "BundleInstance", request(test.policy, test.key, test.signature)...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestCopiesOfVolumes: a copy of an EBS-backed image has snapshots of its own, and
// is there at once.
func TestCopiesOfVolumes(t *testing.T) {
	c := ready(t).withSnapshots()
	c.write(func(tx *state.Tx) {
		state.Images.Put(tx, cloud.Image{
			ID: "emi-000000eb", Account: c.admin.Account, Kind: cloud.MachineImage, Name: "backed", Architecture: "x86_64", Virtualization: cloud.HVM,
			Public: true, RootDevice: "/dev/sda1", Mappings: []cloud.Mapping{{Device: "/dev/sda1", EBS: &cloud.EBSMapping{Snapshot: secretSnapshot, SizeGiB: 4}}},
		})
	})
	id := get[registerImageReply](c, c.user, "CopyImage", "Name=my copy", "SourceImageId=emi-000000eb", "SourceRegion=mallee").ImageID
	i, _, ok := state.Images.Get(c.Store.View(), cloud.ImageID(id))
	if !ok || i.Account != ordinary || i.Public || i.Name != "my copy" {
		t.Fatalf("the copy is %+v", i)
	}
	s, _, ok := state.Snapshots.Get(c.Store.View(), i.Root().Snapshot)
	if !ok || s.ID == secretSnapshot || s.Account != ordinary || s.State() != cloud.SnapshotCompleted || *s.Content != (cloud.Content{Manifest: fmt.Sprintf("%064x", 4), Size: 4 << 30}) {
		t.Errorf("its snapshot is %+v", s)
	}
	if original, _, _ := state.Images.Get(c.Store.View(), "emi-000000eb"); original.Root().Snapshot != secretSnapshot {
		t.Error("the original was changed")
	}
}

// TestTaskLimit: an account has so many tasks at once, and others have theirs.
func TestTaskLimit(t *testing.T) {
	c := ready(t).withFiles()
	c.MaxTasks = 2
	disk := "DiskContainer.Url=https://example.com/d.raw"
	first := get[importSnapshotReply](c, c.user, "ImportSnapshot", disk).ID
	get[registerImageReply](c, c.user, "CopyImage", "Name=a copy", "SourceImageId="+hvmImage, "SourceRegion=mallee")
	for _, request := range [][]string{
		{"ImportSnapshot", disk},
		{"ImportImage", "DiskContainer.1.Url=https://example.com/d.raw"},
		{"CopyImage", "Name=another copy", "SourceImageId=" + hvmImage, "SourceRegion=mallee"},
		{"ExportImage", "ImageId=" + privateImage, "DiskImageFormat=RAW", "S3ExportLocation.S3Bucket=disks"},
	} {
		if r := c.refused(c.user, request[0], request[1:]...); r.Code != "ResourceCountLimitExceeded" || !strings.Contains(r.Message, "2 unfinished") {
			t.Errorf("%v: %+v", request, r)
		}
	}
	get[importSnapshotReply](c, c.admin, "ImportSnapshot", disk)
	c.ended(first, func(*cloud.Task) {})
	get[importSnapshotReply](c, c.user, "ImportSnapshot", disk)
}

// TestCopiesOfBundles lie in a bucket of the account's own: one that another has
// made under its name, and opened to it, would give the bundle away.
func TestCopiesOfBundles(t *testing.T) {
	c := ready(t)
	c.objects[copiesBucket(ordinary)+"/taken"] = nil
	request := []string{"Name=a copy", "SourceImageId=" + hvmImage, "SourceRegion=mallee"}
	if r := c.refused(c.user, "CopyImage", request...); r.Code != "InvalidRequest" || !strings.Contains(r.Message, "another account") {
		t.Errorf("%+v", r)
	}
	delete(c.objects, copiesBucket(ordinary)+"/taken")
	id := get[registerImageReply](c, c.user, "CopyImage", request...).ImageID
	if i, _, ok := state.Images.Get(c.Store.View(), cloud.ImageID(id)); !ok || !strings.HasPrefix(i.Location, copiesBucket(ordinary)+"/") {
		t.Errorf("%+v", i)
	}
}

func FuzzUploadPolicy(f *testing.F) {
	f.Add(`{"expiration": "2026-11-23T00:00:00Z", "conditions": [{"bucket": "disks"}, {"acl": "ec2-bundle-read"}, ["starts-with", "$key", "mine"]]}`)
	f.Add(`{"conditions": [["eq", "$", ""], [], {}, null, ["content-length-range", 1, 2]]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var p uploadPolicy
		if json.Unmarshal([]byte(text), &p) != nil {
			return
		}
		refused := func(string, ...any) error { return errors.New("refused") }
		err := p.allows(&bundleStorage{Bucket: "disks", Prefix: "mine"}, time.Time{}, refused)
		// A bundle has several keys, which no text allows that names one.
		if lower := strings.ToLower(text); err == nil && !strings.Contains(lower, "starts-with") && !strings.Contains(lower, `\`) {
			t.Errorf("%s allows it", text)
		}
	})
}

// TestAddressesInReplies are without what lets anybody have what is there.
func TestAddressesInReplies(t *testing.T) {
	c := ready(t)
	for _, action := range []string{"ImportSnapshot", "ImportImage"} {
		container := "DiskContainer"
		if action == "ImportImage" {
			container += ".1"
		}
		for _, request := range [][]string{{action, container + ".Url=https://anna:word@example.com/d.raw?X-Amz-Signature=5ec4e7"}, {"Describe" + action + "Tasks"}} {
			status, body := c.send(c.user, request[0], request[1:]...)
			if status != 200 || !strings.Contains(body, "<url>https://example.com/d.raw</url>") || strings.Contains(body, "5ec4e7") || strings.Contains(body, "word") {
				t.Errorf("%s: %d %s", request[0], status, body)
			}
		}
	}
}

// TestFailedImports are found by the state that is told of them.
func TestFailedImports(t *testing.T) {
	c := ready(t)
	snap := get[importSnapshotReply](c, c.user, "ImportSnapshot", "DiskContainer.Url=https://example.com/d.raw").ID
	c.ended(snap, func(t *cloud.Task) { t.Failed = cloud.Reason{Code: "ClientError", Message: "ClientError: no disk"} })
	for state, want := range map[string]int{"error": 1, "deleted": 0, "completed": 0} {
		got := get[describeImportSnapshotReply](c, c.user, "DescribeImportSnapshotTasks", "Filters.1.Name=task-state", "Filters.1.Value.1="+state).Tasks
		if len(got) != want || want > 0 && got[0].Detail.Status != state {
			t.Errorf("%s: %+v", state, got)
		}
	}
}

// TestExportsThatLose something are refused.
func TestExportsThatLose(t *testing.T) {
	c := ready(t).withSnapshots().withFiles()
	c.write(func(tx *state.Tx) {
		state.Snapshots.Put(tx, cloud.Snapshot{ID: "snap-000000ec", Account: ordinary, SizeGiB: 1, Encrypted: true, Content: &cloud.Content{Manifest: "m", Size: 1 << 30}})
		for id, snapshots := range map[cloud.ImageID][]cloud.SnapshotID{"emi-000000e1": {"snap-000000ec"}, "emi-000000e2": {completeSnapshot, "snap-000000ec"}, "emi-000000e3": {completeSnapshot}} {
			i := cloud.Image{ID: id, Account: ordinary, Kind: cloud.MachineImage, Architecture: "x86_64", Virtualization: cloud.HVM, RootDevice: "/dev/sda1"}
			for n, s := range snapshots {
				i.Mappings = append(i.Mappings, cloud.Mapping{Device: []string{"/dev/sda1", "/dev/sdb"}[n], EBS: &cloud.EBSMapping{Snapshot: s, SizeGiB: 1}})
			}
			state.Images.Put(tx, i)
		}
	})
	request := func(id string) []string {
		return []string{"ImageId=" + id, "DiskImageFormat=RAW", "S3ExportLocation.S3Bucket=disks"}
	}
	for id, says := range map[string]string{"emi-000000e1": "encrypted", "emi-000000e2": "2 volumes"} {
		if r := c.refused(c.user, "ExportImage", request(id)...); r.Code != "UnsupportedOperation" || !strings.Contains(r.Message, says) {
			t.Errorf("%+v", r)
		}
	}
	get[exportImageReply](c, c.user, "ExportImage", request("emi-000000e3")...)
}

// TestImportedVolumesCount among those that the account may have, before they are
// there.
func TestImportedVolumesCount(t *testing.T) {
	c := ready(t)
	c.MaxVolumes = state.Count(c.Store.View(), state.VolumeRoom, string(ordinary)) + 10
	request := func(gib int) []string {
		return []string{"AvailabilityZone=one", "Image.Format=RAW", "Image.Bytes=1000", "Image.ImportManifestUrl=https://h/m", fmt.Sprint("Volume.Size=", gib)}
	}
	get[conversionReply](c, c.user, "ImportVolume", request(6)...)
	if r := c.refused(c.user, "ImportVolume", request(5)...); r.Code != "VolumeLimitExceeded" {
		t.Errorf("%+v", r)
	}
	if r := c.refused(c.user, "ImportInstance", "Platform=Linux", "LaunchSpecification.InstanceType=m1.small",
		"DiskImage.1.Image.Format=RAW", "DiskImage.1.Image.Bytes=1000", "DiskImage.1.Image.ImportManifestUrl=https://h/m", "DiskImage.1.Volume.Size=5"); r.Code != "VolumeLimitExceeded" {
		t.Errorf("%+v", r)
	}
	get[conversionReply](c, c.user, "ImportVolume", request(4)...)
}
