package ec2

import (
	"fmt"
	"strconv"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

type diskContainer struct {
	Description string `wire:"Description,max=255"`
	DeviceName  string
	Format      string
	SnapshotID  string `wire:"SnapshotId"`
	URL         string `wire:"Url"`
	UserBucket  *userBucket
}

type importImageInput struct {
	common
	idempotent
	tagged
	Architecture  string `wire:"Architecture,enum=i386|x86_64|arm64"`
	BootMode      string `wire:"BootMode,enum=legacy-bios|uefi|uefi-preferred"`
	ClientData    clientData
	Description   string          `wire:"Description,max=255"`
	DiskContainer []diskContainer `wire:"DiskContainer,required,max=20"`
	Encrypted     bool
	Hypervisor    string `wire:"Hypervisor,enum=xen"`
	LicenseType   string `wire:"LicenseType,enum=BYOL|AWS|Auto"`
	Platform      string `wire:"Platform,enum=Windows|Linux"`
	RoleName      string // the cloud reads with the caller's rights

	sources []cloud.DiskFile
}

type importImageReply struct {
	Architecture  string           `xml:"architecture,omitempty"`
	BootMode      string           `xml:"bootMode,omitempty"`
	Description   string           `xml:"description,omitempty"`
	Encrypted     bool             `xml:"encrypted"`
	ImageID       string           `xml:"imageId,omitempty"`
	ID            string           `xml:"importTaskId"`
	Platform      string           `xml:"platform,omitempty"`
	Progress      string           `xml:"progress,omitempty"`
	Details       []snapshotDetail `xml:"snapshotDetailSet>item"`
	Status        string           `xml:"status"`
	StatusMessage string           `xml:"statusMessage,omitempty"`
	Tags          []tag            `xml:"tagSet>item"`
}

type snapshotDetail struct {
	Description   string           `xml:"description,omitempty"`
	DeviceName    string           `xml:"deviceName,omitempty"`
	DiskImageSize float64          `xml:"diskImageSize"`
	Format        string           `xml:"format,omitempty"`
	SnapshotID    string           `xml:"snapshotId,omitempty"`
	Status        string           `xml:"status"`
	URL           string           `xml:"url,omitempty"`
	UserBucket    *userBucketReply `xml:"userBucket"`
}

// findDisks looks at the files that are to become an image's volumes.
func findDisks(c *call, in *importImageInput) error {
	if err := c.may(c.arn(c.account(), "import-image-task", "*")); err != nil {
		return err
	}
	if err := refuseEncryption(in.Encrypted); err != nil {
		return err
	}
	seen := map[string]bool{}
	for n := range in.DiskContainer {
		d := &in.DiskContainer[n]
		name := "DiskContainer." + strconv.Itoa(n+1)
		f, err := c.containedDisk(name, d)
		if err != nil {
			return err
		}
		f.Device, f.Description = importedDevice(d.DeviceName, n), d.Description
		if !cloud.IsDevice(f.Device) || seen[f.Device] {
			return wire.InvalidParameterValue(name+".DeviceName", d.DeviceName, "Expecting a device such as /dev/sdb that is named once.")
		}
		seen[f.Device] = true
		in.sources = append(in.sources, f)
	}
	return nil
}

// importedDevice is the name that a disk without one gets.
func importedDevice(name string, n int) string {
	if name != "" {
		return name
	}
	if n == 0 {
		return "/dev/sda1"
	}
	return fmt.Sprintf("/dev/sd%c", 'a'+n)
}

func (c *call) containedDisk(name string, d *diskContainer) (f cloud.DiskFile, err error) {
	if d.SnapshotID == "" {
		if f, err = c.diskSource(name, d.URL, d.UserBucket); err == nil {
			f.Format, err = checkFormat(name+".Format", d.Format)
		}
		return f, err
	}
	if d.URL != "" || d.UserBucket != nil || d.Format != "" {
		return f, wire.InvalidParameterCombination("%s has a SnapshotId, and so no Url, UserBucket and Format", name)
	}
	s, err := c.usableSnapshot(d.SnapshotID)
	if err != nil {
		return f, err
	}
	return cloud.DiskFile{Snapshot: s.ID, Size: int64(s.SizeGiB) << 30}, nil
}

func importImage(c *call, in *importImageInput) (*importImageReply, error) {
	t, err := c.newTask(cloud.ImportImage, "")
	if err != nil {
		return nil, err
	}
	t.Description, t.Sources = in.Description, in.sources
	t.Params = map[string]string{cloud.ParamArchitecture: in.Architecture, cloud.ParamBootMode: in.BootMode}
	if in.Platform == "Windows" {
		t.Params[cloud.ParamPlatform] = windows
	}
	for n, f := range in.sources {
		if f.Snapshot == "" {
			continue
		}
		if s, _, ok := state.Snapshots.Get(c.tx, f.Snapshot); !ok || s.Content == nil {
			return nil, wire.Errorf("InvalidSnapshot.NotFound", "The snapshot '%s' of DiskContainer.%d does not exist any more", f.Snapshot, n+1)
		}
	}
	if err := c.add(t, "import-image-task"); err != nil {
		return nil, err
	}
	return c.newImageTask(t), nil
}

// newImageTask is the reply to ImportImage, which says less than those that
// describe it.
func (c *call) newImageTask(t *cloud.Task) *importImageReply {
	out := c.imageTask(t)
	out.BootMode = ""
	return out
}

func importedImageBefore(c *call, id string) (any, error) {
	t, err := c.task(id, "InvalidConversionTaskId", cloud.ImportImage)
	if err != nil {
		return nil, err
	}
	return c.newImageTask(t), nil
}

func (c *call) imageTask(t *cloud.Task) *importImageReply {
	seen := c.seenOf(t)
	_, message := t.Seen(seen)
	status := importWords.of(t, seen)
	out := &importImageReply{
		Architecture: t.Params[cloud.ParamArchitecture], BootMode: t.Params[cloud.ParamBootMode], Description: t.Description,
		ImageID: t.Made["image"], ID: string(t.ID), Platform: t.Params[cloud.ParamPlatform], Progress: percent(t, seen),
		Status: status, StatusMessage: message, Tags: c.tagSet(string(t.ID)),
	}
	for n, f := range t.Sources {
		id := t.Made[fmt.Sprint("snapshot", n)]
		if f.Snapshot != "" {
			id = string(f.Snapshot)
		}
		out.Details = append(out.Details, snapshotDetail{
			Description: f.Description, DeviceName: f.Device, DiskImageSize: float64(f.Size), Format: f.Format,
			SnapshotID: id, Status: status, URL: shownURL(f.URL), UserBucket: bucketReply(f),
		})
	}
	return out
}

type describeImportImageReply struct {
	Tasks     []*importImageReply `xml:"importImageTaskSet>item"`
	NextToken string              `xml:"nextToken,omitempty"`
}

func describeImportImageTasks(c *call, in *describeImportInput) (*describeImportImageReply, error) {
	list, err := c.tasks(in.ImportTaskID, "InvalidConversionTaskId", cloud.ImportImage)
	if err != nil {
		return nil, err
	}
	p, err := taskKind.page(c, in.chosen(), list)
	if err != nil {
		return nil, err
	}
	out := &describeImportImageReply{NextToken: p.next}
	for _, t := range p.items {
		out.Tasks = append(out.Tasks, c.imageTask(t))
	}
	return out, nil
}
