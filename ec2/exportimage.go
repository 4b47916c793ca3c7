package ec2

import (
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

var exportWords = taskWords{"active", "active", "deleting", "deleted", "failed", "completed"}

// exportFormats are EC2's three, and two more that are as easy to write.
const exportFormats = "VMDK|RAW|VHD|VHDX|QCOW2|OVA"

type exportImageInput struct {
	common
	idempotent
	tagged
	Description      string `wire:"Description,max=255"`
	DiskImageFormat  string `wire:"DiskImageFormat,required"`
	ImageID          string `wire:"ImageId,required"`
	RoleName         string // the cloud writes with the caller's rights
	S3ExportLocation exportLocation
}

type exportLocation struct {
	S3Bucket string `wire:"S3Bucket" xml:"s3Bucket"`
	S3Prefix string `wire:"S3Prefix,max=512" xml:"s3Prefix,omitempty"`
}

type exportImageReply struct {
	Description   string         `xml:"description,omitempty"`
	Format        string         `xml:"diskImageFormat,omitempty"` // of ExportImage alone
	ID            string         `xml:"exportImageTaskId"`
	ImageID       string         `xml:"imageId"`
	Progress      string         `xml:"progress,omitempty"`
	Location      exportLocation `xml:"s3ExportLocation"`
	Status        string         `xml:"status"`
	StatusMessage string         `xml:"statusMessage,omitempty"`
	Tags          []tag          `xml:"tagSet>item"`
}

// checkExport looks at the bucket.
func checkExport(c *call, in *exportImageInput) error {
	if err := c.may(c.arn(c.account(), "export-image-task", "*")); err != nil {
		return err
	}
	at := &in.S3ExportLocation
	if at.S3Bucket == "" {
		return wire.MissingParameter("S3ExportLocation.S3Bucket")
	}
	if strings.ContainsFunc(at.S3Prefix, unprintable) || strings.HasPrefix(at.S3Prefix, "/") {
		return wire.InvalidParameterValue("S3ExportLocation.S3Prefix", at.S3Prefix, "Expecting the beginning of a key, such as exports/.")
	}
	_, err := c.Objects.KeysOf(c.ctx, c.principal, at.S3Bucket, at.S3Prefix, false)
	return objectError("S3ExportLocation.S3Bucket", at.S3Bucket, "", err)
}

// exportImage writes an image of the caller's own to a file in a bucket.
func exportImage(c *call, in *exportImageInput) (*exportImageReply, error) {
	format := strings.ToUpper(in.DiskImageFormat)
	if !strings.Contains("|"+exportFormats+"|", "|"+format+"|") {
		return nil, wire.InvalidParameterValue("DiskImageFormat", in.DiskImageFormat, "Expecting one of %s.", strings.ReplaceAll(exportFormats, "|", ", "))
	}
	i, err := c.ownImage(in.ImageID)
	if err != nil {
		return nil, err
	}
	if _, err := c.launchable(string(i.ID), i.Kind); err != nil {
		return nil, err
	}
	t, err := c.newTask(cloud.ExportImage, "")
	if err != nil {
		return nil, err
	}
	t.Description, t.Image = in.Description, i.ID
	t.Target = &cloud.DiskFile{Bucket: in.S3ExportLocation.S3Bucket, Key: in.S3ExportLocation.S3Prefix, Format: format}
	if err := c.bytesOf(i, t); err != nil {
		return nil, err
	}
	if err := c.add(t, "export-image-task"); err != nil {
		return nil, err
	}
	out := c.exportTask(t)
	out.Format = format
	return out, nil
}

// bytesOf an image, for a task that reads them: its bundle, or its root's
// content.
func (c *call) bytesOf(i *cloud.Image, t *cloud.Task) error {
	root := i.Root()
	if root == nil {
		ref := i.Ref()
		t.Ref = &ref
		return nil
	}
	if len(i.Snapshots()) > 1 {
		return wire.UnsupportedOperation("The image %s has %d volumes with something on them; one with its root alone can be exported", i.ID, len(i.Snapshots()))
	}
	s, _, ok := state.Snapshots.Get(c.read, root.Snapshot)
	if !ok || s.Content == nil {
		return wire.Errorf("InvalidAMIID.Unavailable", "The snapshot %s of the image ID '%s' is not completed", root.Snapshot, i.ID)
	}
	if s.Encrypted {
		return wire.UnsupportedOperation("The image %s has an encrypted volume, which is not written to a file that isn't", i.ID)
	}
	t.Contents = []cloud.Content{*s.Content}
	return nil
}

func exportedBefore(c *call, id string) (any, error) {
	t, err := c.task(id, "InvalidExportTaskId", cloud.ExportImage)
	if err != nil {
		return nil, err
	}
	return c.exportTask(t), nil
}

func (c *call) exportTask(t *cloud.Task) *exportImageReply {
	seen := c.seenOf(t)
	_, message := t.Seen(seen)
	return &exportImageReply{
		Description: t.Description, ID: string(t.ID), ImageID: string(t.Image), Progress: percent(t, seen),
		Location: exportLocation{t.Target.Bucket, t.Target.Key}, Status: exportWords.of(t, seen), StatusMessage: message,
		Tags: c.tagSet(string(t.ID)),
	}
}

type describeExportInput struct {
	common
	selection
	ExportImageTaskID []string `wire:"ExportImageTaskId,max=1000"`
}

type describeExportReply struct {
	Tasks     []*exportImageReply `xml:"exportImageTaskSet>item"`
	NextToken string              `xml:"nextToken,omitempty"`
}

func describeExportImageTasks(c *call, in *describeExportInput) (*describeExportReply, error) {
	list, err := c.tasks(in.ExportImageTaskID, "InvalidExportTaskId", cloud.ExportImage)
	if err != nil {
		return nil, err
	}
	p, err := taskKind.page(c, &in.selection, list)
	if err != nil {
		return nil, err
	}
	out := &describeExportReply{NextToken: p.next}
	for _, t := range p.items {
		out.Tasks = append(out.Tasks, c.exportTask(t))
	}
	return out, nil
}

type cancelExportInput struct {
	ExportTaskID string `wire:"ExportTaskId,required"`
}

// dry: EC2 has no dry run of this one.
func (*cancelExportInput) dry() bool { return false }

// cancelExportTask gives an export up; what it wrote is removed.
func cancelExportTask(c *call, in *cancelExportInput) (*reply, error) {
	t, err := c.task(in.ExportTaskID, "InvalidExportTaskId", cloud.ExportImage)
	if err != nil {
		return nil, err
	}
	if _, _, err := c.cancel(t, exportWords); err != nil {
		return nil, err
	}
	return accepted()
}
