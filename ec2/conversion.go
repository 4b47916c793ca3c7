package ec2

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// Conversion tasks are EC2's older way of importing: the client uploads a disk in
// parts, and a manifest that says where they are.

var conversionWords = taskWords{"active", "active", "cancelling", "cancelled", "cancelled", "completed"}

// conversionTime is how long a disk may take to be uploaded and imported, from
// the task's making (Eucalyptus's figure).
const conversionTime = 168 * time.Hour

type diskImage struct {
	Description string `wire:"Description,max=255"`
	Image       diskDetail
	Volume      struct {
		Size int `wire:"Size,required,min=1,max=16384"`
	}
}

type diskDetail struct {
	Bytes             int64  `wire:"Bytes,required,min=1"`
	Format            string `wire:"Format,required,enum=RAW|VMDK|VHD"`
	ImportManifestURL string `wire:"ImportManifestUrl,required"`
}

type importVolumeInput struct {
	common
	AvailabilityZone string `wire:"AvailabilityZone,required"`
	Description      string `wire:"Description,max=255"`
	Image            diskDetail
	Volume           struct {
		Size int `wire:"Size,required,min=1,max=16384"`
	}
}

type importInstanceInput struct {
	common
	Description         string      `wire:"Description,max=255"`
	DiskImage           []diskImage `wire:"DiskImage,required,max=20"`
	Platform            string      `wire:"Platform"` // EC2 knows Windows alone; Linux is imported too
	LaunchSpecification struct {
		AdditionalInfo                    string
		Architecture                      string   `wire:"Architecture,enum=i386|x86_64"`
		GroupID                           []string `wire:"GroupId,max=100"`
		GroupName                         []string `wire:"GroupName,max=100"`
		InstanceInitiatedShutdownBehavior string   `wire:"InstanceInitiatedShutdownBehavior,enum=stop|terminate"`
		InstanceType                      string
		KeyName                           string // Eucalyptus's
		Monitoring                        bool
		Placement                         struct{ AvailabilityZone string }
		UserData                          struct{ Data string }
	}
}

type conversionReply struct {
	Task conversionTask `xml:"conversionTask"`
}

type conversionTask struct {
	ID            string              `xml:"conversionTaskId"`
	Expiration    *wire.Time          `xml:"expirationTime"`
	Instance      *importedInstance   `xml:"importInstance"`
	Volume        *importedVolumeTask `xml:"importVolume"`
	State         string              `xml:"state"`
	StatusMessage string              `xml:"statusMessage,omitempty"`
	Tags          []tag               `xml:"tagSet>item"`
}

type importedInstance struct {
	Description string           `xml:"description,omitempty"`
	InstanceID  string           `xml:"instanceId"`
	Platform    string           `xml:"platform,omitempty"`
	Volumes     []importedVolume `xml:"volumes>item"`
}

// importedVolumeTask and importedVolume differ by the state of each.
type importedVolumeTask struct {
	Zone        string          `xml:"availabilityZone"`
	Converted   int64           `xml:"bytesConverted"`
	Description string          `xml:"description,omitempty"`
	Image       convertedImage  `xml:"image"`
	Volume      convertedVolume `xml:"volume"`
}

type importedVolume struct {
	importedVolumeTask
	Status        string `xml:"status"`
	StatusMessage string `xml:"statusMessage,omitempty"`
}

type convertedImage struct {
	Format      string `xml:"format"`
	ManifestURL string `xml:"importManifestUrl"`
	Size        int64  `xml:"size"`
}

type convertedVolume struct {
	ID   string `xml:"id,omitempty"`
	Size int    `xml:"size"`
}

// source of a disk that a manifest tells of, checked as far as it can be here.
func (d *diskDetail) source(name, description string, gib int, device string) (cloud.DiskFile, error) {
	if err := checkURL(name+".ImportManifestUrl", d.ImportManifestURL); err != nil {
		return cloud.DiskFile{}, err
	}
	if gib == 0 {
		return cloud.DiskFile{}, wire.MissingParameter(strings.TrimSuffix(name, "Image") + "Volume.Size")
	}
	if int64(gib)<<30 < d.Bytes && d.Format == "RAW" {
		return cloud.DiskFile{}, wire.InvalidParameterValue(name+".Bytes", strconv.FormatInt(d.Bytes, 10), "The volume of %d GiB is smaller.", gib)
	}
	return cloud.DiskFile{
		URL: d.ImportManifestURL, Format: d.Format, Size: d.Bytes, VolumeGiB: gib, Device: device, Description: description,
	}, nil
}

func importVolume(c *call, in *importVolumeInput) (*conversionReply, error) {
	if err := c.may(c.arn(c.account(), "conversion-task", "*")); err != nil {
		return nil, err
	}
	source, err := in.Image.source("Image", in.Description, in.Volume.Size, "")
	if err != nil {
		return nil, err
	}
	node, err := c.nodeIn(in.AvailabilityZone)
	if err != nil {
		return nil, err
	}
	t, err := c.newTask(cloud.ImportVolume, node.ID)
	if err != nil {
		return nil, err
	}
	t.Description, t.Sources = in.Description, []cloud.DiskFile{source}
	t.Params[cloud.ParamZone] = node.Zone
	if err := c.roomFor(t); err != nil {
		return nil, err
	}
	if err := c.add(t, "conversion-task"); err != nil {
		return nil, err
	}
	return &conversionReply{c.conversion(t)}, nil
}

// roomFor the volumes of an import, among those that the account has and those that
// its other imports will make.
func (c *call) roomFor(t *cloud.Task) error {
	more, total := 0, state.Count(c.read, state.VolumeRoom, string(c.account()))
	for _, f := range t.Sources {
		more += f.VolumeGiB
	}
	for other := range state.TasksByAccount.By(c.read, c.account()) {
		for _, f := range other.Sources {
			if other.FinishedAt.IsZero() && (other.Kind == cloud.ImportVolume || other.Kind == cloud.ImportInstance) {
				total += int64(f.VolumeGiB)
			}
		}
	}
	return c.checkVolumes(total+int64(more), more)
}

// nodeIn a zone, or in any.
func (c *call) nodeIn(zone string) (*cloud.Node, error) {
	var nodes []cloud.Node
	for n := range state.Nodes.All(c.read) {
		nodes = append(nodes, *n)
	}
	if zone != "" {
		if _, err := findZone(cloud.Zones(nodes), zone); err != nil {
			return nil, err
		}
	}
	n := slices.IndexFunc(nodes, func(n cloud.Node) bool { return zone == "" || n.Zone == zone })
	if n < 0 {
		return nil, wire.Errorf("InsufficientCapacity", "No node of this cloud is there to do the work; ask whoever runs it")
	}
	return &nodes[n], nil
}

// importInstance makes a stopped instance at once, whose volumes come when they
// are imported.
func importInstance(c *call, in *importInstanceInput) (*conversionReply, error) {
	launch := &in.LaunchSpecification
	node, err := c.nodeIn(launch.Placement.AvailabilityZone)
	if err != nil {
		return nil, err
	}
	t, err := c.newTask(cloud.ImportInstance, node.ID)
	if err != nil {
		return nil, err
	}
	for n := range in.DiskImage {
		d := &in.DiskImage[n]
		source, err := d.Image.source(fmt.Sprintf("DiskImage.%d.Image", n+1), d.Description, d.Volume.Size, importedDevice("", n))
		if err != nil {
			return nil, err
		}
		t.Sources = append(t.Sources, source)
	}
	if err := firstError(c.may(c.arn(c.account(), "conversion-task", "*")), c.roomFor(t)); err != nil {
		return nil, err
	}
	i, err := c.importedInstance(in, node, t.Sources[0].Device)
	if err != nil {
		return nil, err
	}
	t.Description, t.Instance = in.Description, i.ID
	t.Params[cloud.ParamZone], t.Params[cloud.ParamPlatform] = node.Zone, i.Platform
	if err := c.add(t, "conversion-task"); err != nil {
		return nil, err
	}
	return &conversionReply{c.conversion(t)}, nil
}

// importedInstance is what will have the volumes.
func (c *call) importedInstance(in *importInstanceInput, node *cloud.Node, root string) (*cloud.Instance, error) {
	l := &in.LaunchSpecification
	like := &runInput{InstanceType: l.InstanceType, KeyName: l.KeyName, SecurityGroup: l.GroupName, SecurityGroupID: l.GroupID, UserData: l.UserData.Data}
	if err := firstError(only("LaunchSpecification.Monitoring", strconv.FormatBool(l.Monitoring), "false"), like.checkUserData(),
		c.may(c.arn(c.account(), "instance", "*"))); err != nil {
		return nil, err
	}
	i := &cloud.Instance{
		Account: c.account(), LaunchedAt: c.Now(), UserData: like.userData, EBS: true, RootDevice: root,
		Architecture: "x86_64", Virtualization: cloud.HVM, Shutdown: cloud.ShutdownStop, Node: node.ID, Zone: node.Zone,
		Wish: cloud.WishStopped, Wishes: 1, WishedAt: c.Now(),
	}
	if in.Platform == "Windows" {
		i.Platform = windows
	}
	if l.Architecture != "" {
		i.Architecture = l.Architecture
	}
	if l.InstanceInitiatedShutdownBehavior != "" {
		i.Shutdown = cloud.ShutdownBehavior(l.InstanceInitiatedShutdownBehavior)
	}
	err := firstError(c.modelType(like, i), c.modelKey(like, i))
	if err == nil {
		i.Groups, err = c.launchGroups(like)
	}
	if err != nil {
		return nil, err
	}
	return i, c.enterStopped(i)
}

// enterStopped puts an instance into the state that is yet to be started.
func (c *call) enterStopped(i *cloud.Instance) error {
	r, err := c.newReservation(i)
	if err != nil {
		return err
	}
	id, err := c.newID(cloud.PrefixInstance, has(c.tx, state.Instances))
	if err != nil {
		return err
	}
	i.ID, i.Reservation = cloud.InstanceID(id), r.ID
	r.Instances = []cloud.InstanceID{i.ID}
	err = state.AllocateStopped(c.tx, c.Rand, c.Pools, i, true, c.Now())
	var exhausted *state.NoAddressError
	if errors.As(err, &exhausted) {
		return wire.Errorf("InsufficientFreeAddressesInSubnet", "There are not enough free private addresses in %s for the instance", exhausted.Pool)
	}
	state.Instances.Put(c.tx, *i)
	state.Reservations.Put(c.tx, r)
	return err
}

func (c *call) conversion(t *cloud.Task) conversionTask {
	seen := c.seenOf(t)
	_, message := t.Seen(seen)
	out := conversionTask{
		ID: string(t.ID), Expiration: wire.At(t.CreatedAt.Add(conversionTime)), State: conversionWords.of(t, seen),
		StatusMessage: message, Tags: c.tagSet(string(t.ID)),
	}
	if t.Kind == cloud.ImportVolume {
		v := convertedOf(t, seen, 0)
		out.Volume = &v
		return out
	}
	i := &importedInstance{Description: t.Description, InstanceID: string(t.Instance)}
	if t.Params[cloud.ParamPlatform] == windows {
		i.Platform = "Windows"
	}
	for n := range t.Sources {
		i.Volumes = append(i.Volumes, importedVolume{convertedOf(t, seen, n), out.State, message})
	}
	out.Instance = i
	return out
}

func convertedOf(t *cloud.Task, seen cloud.TaskObservation, n int) importedVolumeTask {
	f := t.Sources[n]
	percent, _ := t.Seen(seen)
	return importedVolumeTask{
		Zone: t.Params[cloud.ParamZone], Converted: f.Size * int64(percent) / 100, Description: f.Description,
		Image:  convertedImage{f.Format, f.URL, f.Size},
		Volume: convertedVolume{t.Made["volume"+strconv.Itoa(n)], f.VolumeGiB},
	}
}

type describeConversionInput struct {
	common
	ConversionTaskID []string `wire:"ConversionTaskId,max=1000"`
}

type describeConversionReply struct {
	Tasks []conversionTask `xml:"conversionTasks>item"`
}

func describeConversionTasks(c *call, in *describeConversionInput) (*describeConversionReply, error) {
	list, err := c.tasks(in.ConversionTaskID, "InvalidConversionTaskId", cloud.ImportVolume, cloud.ImportInstance)
	if err != nil {
		return nil, err
	}
	out := &describeConversionReply{}
	for t := range list {
		out.Tasks = append(out.Tasks, c.conversion(t))
	}
	return out, nil
}

type cancelConversionInput struct {
	common
	ConversionTaskID string `wire:"ConversionTaskId,required"`
	ReasonMessage    string
}

// cancelConversionTask gives an import up; an instance that waited for it ends.
func cancelConversionTask(c *call, in *cancelConversionInput) (*reply, error) {
	t, err := c.task(in.ConversionTaskID, "InvalidConversionTaskId", cloud.ImportVolume, cloud.ImportInstance)
	if err != nil {
		return nil, err
	}
	if _, _, err := c.cancel(t, conversionWords); err != nil {
		return nil, err
	}
	return accepted()
}
