package ec2

import (
	"cmp"
	"iter"
	"strconv"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// DefaultMaxVolumes is how many GiB the volumes of an account may come to, where
// Options don't say: EC2's for each type.
const DefaultMaxVolumes = 50 << 10

type createVolumeInput struct {
	common
	idempotent
	tagged
	AvailabilityZone   string
	AvailabilityZoneID string `wire:"AvailabilityZoneId"`
	Size               *int
	SnapshotID         string `wire:"SnapshotId"`
	VolumeType         string
	Iops               *int
	Throughput         *int
	Encrypted          *bool
	KmsKeyID           string `wire:"KmsKeyId"`
	MultiAttachEnabled bool
}

type volumeReply struct {
	ID          string            `xml:"volumeId"`
	SizeGiB     int               `xml:"size"`
	Snapshot    string            `xml:"snapshotId"`
	Zone        string            `xml:"availabilityZone"`
	State       string            `xml:"status"`
	CreatedAt   *wire.Time        `xml:"createTime"`
	Attachments []attachmentReply `xml:"attachmentSet>item"`
	Tags        []tag             `xml:"tagSet>item"`
	Type        string            `xml:"volumeType"`
	IOPS        int               `xml:"iops,omitempty"`
	Throughput  int               `xml:"throughput,omitempty"`
	Encrypted   bool              `xml:"encrypted"`
	MultiAttach bool              `xml:"multiAttachEnabled"`
}

// createVolume on the node of the zone that keeps the least.
func createVolume(c *call, in *createVolumeInput) (*volumeReply, error) {
	if err := c.may(c.arn(c.account(), "volume", "*")); err != nil {
		return nil, err
	}
	v, err := c.newVolume(in)
	if err != nil {
		return nil, err
	}
	if v.Node, err = c.storageIn(in.AvailabilityZone); err != nil {
		return nil, err
	}
	if err := c.makeVolume(*v); err != nil {
		return nil, err
	}
	if err := c.tagNew("volume", string(v.ID)); err != nil {
		return nil, err
	}
	c.made = string(v.ID)
	out := c.volumeReply(v)
	return &out, nil
}

// createdBefore is the reply to a client token that was used before.
func createdBefore(c *call, made string) (any, error) {
	v, err := c.volume(made)
	if err != nil {
		return nil, err
	}
	out := c.volumeReply(v)
	return &out, nil
}

func (c *call) newVolume(in *createVolumeInput) (*cloud.Volume, error) {
	err := firstError(
		never("AvailabilityZoneId", in.AvailabilityZoneID, "name the zone by AvailabilityZone"),
		never("KmsKeyId", in.KmsKeyID, "volumes are encrypted with keys of the cloud's own"),
		only("MultiAttachEnabled", strconv.FormatBool(in.MultiAttachEnabled), "false"),
	)
	if err != nil {
		return nil, err
	}
	if in.AvailabilityZone == "" {
		return nil, wire.MissingParameter("AvailabilityZone")
	}
	id, err := c.newID(cloud.PrefixVolume, has(c.tx, state.Volumes))
	if err != nil {
		return nil, err
	}
	v := &cloud.Volume{
		ID: cloud.VolumeID(id), Account: c.account(), Zone: in.AvailabilityZone, CreatedAt: c.Now(),
		Encrypted: in.Encrypted != nil && *in.Encrypted,
	}
	size, err := c.startFrom(v, in)
	if err != nil {
		return nil, err
	}
	figures, err := figuresFor(cmp.Or(in.VolumeType, cloud.DefaultVolumeType), size, in.Iops, in.Throughput)
	v.SizeGiB, v.Type, v.IOPS, v.Throughput = figures.SizeGiB, figures.Type, figures.IOPS, figures.Throughput
	return v, err
}

// startFrom the snapshot, if one is named, and say the size that is wished for.
func (c *call) startFrom(v *cloud.Volume, in *createVolumeInput) (sizeGiB int, err error) {
	switch {
	case in.SnapshotID == "" && in.Size == nil:
		return 0, wire.Errorf("MissingParameter", "The request must contain the parameter Size or SnapshotId")
	case in.SnapshotID == "":
		return *in.Size, nil
	}
	s, err := c.snapshotToUse(in.SnapshotID)
	if err != nil {
		return 0, err
	}
	if in.Size != nil && *in.Size < s.SizeGiB {
		return 0, wire.InvalidParameterValue("Size", strconv.Itoa(*in.Size), "A volume of the snapshot %s has at least its size, %d GiB.", s.ID, s.SizeGiB)
	}
	if s.Encrypted && in.Encrypted != nil && !*in.Encrypted {
		return 0, wire.InvalidParameterCombination("The snapshot %s is encrypted, and so are the volumes that are made from it: Encrypted can't be false", s.ID)
	}
	v.Snapshot, v.Source, v.Encrypted = s.ID, s.Content, v.Encrypted || s.Encrypted
	if in.Size != nil {
		return *in.Size, nil
	}
	return s.SizeGiB, nil
}

// figuresFor a volume of the type, with the type's defaults for what isn't said.
func figuresFor(typeName string, sizeGiB int, iops, throughput *int) (cloud.Figures, error) {
	f := cloud.Figures{SizeGiB: sizeGiB, Type: typeName}
	t, err := cloud.VolumeTypeNamed(typeName)
	if err != nil {
		return f, err
	}
	for name, given := range map[string]*int{"Iops": iops, "Throughput": throughput} {
		if given != nil && *given < 1 {
			return f, wire.InvalidParameterValue(name, strconv.Itoa(*given), "Expecting a number from 1 upwards.")
		}
	}
	if iops != nil {
		f.IOPS = *iops
	}
	if throughput != nil {
		f.Throughput = *throughput
	}
	if err := t.Check(f.SizeGiB, f.IOPS, f.Throughput); err != nil {
		return f, err
	}
	f.IOPS, f.Throughput = cmp.Or(f.IOPS, t.DefaultIOPS), cmp.Or(f.Throughput, t.DefaultThroughput)
	return f, nil
}

// storageIn a zone: the node that keeps the fewest GiB of volumes.
func (c *call) storageIn(zone string) (cloud.NodeID, error) {
	best, least := cloud.NodeID(""), 0
	for n := range state.Nodes.All(c.read) {
		if n.Zone != zone {
			continue
		}
		kept := 0
		for v := range state.VolumesByNode.By(c.read, n.ID) {
			kept += v.SizeGiB
		}
		if best == "" || kept < least {
			best, least = n.ID, kept
		}
	}
	if best == "" {
		return "", wire.Errorf("InvalidZone.NotFound", "The zone '%s' does not exist.", wire.Shorten(zone))
	}
	return best, nil
}

// makeVolume within what the account may have.
func (c *call) makeVolume(v cloud.Volume) error {
	total, err := state.MakeVolume(c.tx, v)
	if err != nil {
		return err
	}
	return c.checkVolumes(total, v.SizeGiB)
}

func (c *call) checkVolumes(totalGiB int64, moreGiB int) error {
	if totalGiB <= c.MaxVolumes {
		return nil
	}
	return wire.Errorf("VolumeLimitExceeded", "You have exceeded your maximum volume storage of %d GiB: %d GiB more would be %d GiB", c.MaxVolumes, moreGiB, totalGiB)
}

type volumeInput struct {
	common
	VolumeID string `wire:"VolumeId,required"`
}

// deleteVolume that nothing has. Its snapshots live on.
func deleteVolume(c *call, in *volumeInput) (*reply, error) {
	v, err := c.volumeToChange(in.VolumeID)
	if err != nil {
		return nil, err
	}
	switch at := c.volumeState(v); at {
	case cloud.VolumeInUse:
		return nil, wire.Errorf("VolumeInUse", "Volume %s is currently attached to %s", v.ID, v.Attachment.Instance)
	case cloud.VolumeDeleting:
		return nil, wire.Errorf("IncorrectState", "The volume '%s' is '%s'.", v.ID, at)
	}
	state.DeleteVolume(c.tx, *v, c.Now())
	return accepted()
}

// volume finds a volume of the caller's by its id.
func (c *call) volume(id string) (*cloud.Volume, error) {
	list, err := c.volumes([]string{id})
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// volumeToChange is a volume, with the right to act on it.
func (c *call) volumeToChange(id string) (*cloud.Volume, error) {
	v, err := c.volume(id)
	if err != nil {
		return nil, err
	}
	return v, c.may(c.arn(v.Account, "volume", string(v.ID)))
}

// volumes finds volumes by their ids: all of them, or an error that names those
// that aren't there.
func (c *call) volumes(ids []string) (found []*cloud.Volume, err error) {
	var missing []string
	for _, id := range ids {
		parsed, ok := cloud.ParseID(id, cloud.PrefixVolume)
		if !ok {
			return nil, malformed("InvalidVolumeID", id, cloud.PrefixVolume)
		}
		v, _, ok := state.Volumes.Get(c.read, cloud.VolumeID(parsed))
		if !ok || !c.owned(v.Account) {
			missing = append(missing, parsed)
			continue
		}
		found = append(found, v)
	}
	switch len(missing) {
	case 0:
		return found, nil
	case 1:
		return nil, wire.Errorf("InvalidVolume.NotFound", "The volume '%s' does not exist.", missing[0])
	}
	return nil, wire.Errorf("InvalidVolume.NotFound", "The volumes '%s' do not exist.", listed(missing))
}

// volumeSeen is what is known of a volume.
func (c *call) volumeSeen(id cloud.VolumeID) cloud.VolumeObservation {
	if o, _, ok := state.VolumeObservations.Get(c.read, id); ok {
		return *o
	}
	return cloud.VolumeObservation{}
}

func (c *call) volumeState(v *cloud.Volume) cloud.VolumeState { return v.State(c.volumeSeen(v.ID)) }

func (c *call) volumeReply(v *cloud.Volume) volumeReply {
	r := volumeReply{
		ID: string(v.ID), SizeGiB: v.SizeGiB, Snapshot: string(v.Snapshot), Zone: v.Zone, State: string(c.volumeState(v)), CreatedAt: wire.At(v.CreatedAt),
		Tags: c.tagSet(string(v.ID)), Type: v.Type, IOPS: shownIOPS(v.Figures()), Throughput: v.Throughput, Encrypted: v.Encrypted,
	}
	if v.Attachment != nil {
		r.Attachments = append(r.Attachments, c.attachmentReply(v))
	}
	return r
}

// shownIOPS of a volume; those of a gp2 volume follow from its size.
func shownIOPS(f cloud.Figures) int {
	if f.Type == "gp2" {
		return cloud.GP2IOPS(f.SizeGiB)
	}
	return f.IOPS
}

type describeVolumesInput struct {
	common
	selection
	VolumeID []string `wire:"VolumeId,max=1000"`
}

type describeVolumesReply struct {
	Volumes   []volumeReply `xml:"volumeSet>item"`
	NextToken string        `xml:"nextToken,omitempty"`
}

var volumeKind = kind[*cloud.Volume]{
	key:  func(v *cloud.Volume) string { return string(v.ID) },
	tags: func(c *call, v *cloud.Volume) map[string]string { return c.tagsOf(string(v.ID)) },
	fields: fields[*cloud.Volume]{
		"attachment.attach-time": ofAttachment(func(a attachmentReply) string { return timestamp(a.At.Time) }),
		"attachment.delete-on-termination": ofAttachment(func(a attachmentReply) string {
			return strconv.FormatBool(a.DeleteOnTermination)
		}),
		"attachment.device":      ofAttachment(func(a attachmentReply) string { return a.Device }),
		"attachment.instance-id": ofAttachment(func(a attachmentReply) string { return a.Instance }),
		"attachment.status":      ofAttachment(func(a attachmentReply) string { return a.State }),
		"availability-zone":      text(func(v *cloud.Volume) string { return v.Zone }),
		"create-time":            text(func(v *cloud.Volume) string { return timestamp(v.CreatedAt) }),
		"encrypted":              text(func(v *cloud.Volume) string { return strconv.FormatBool(v.Encrypted) }),
		"fast-restored":          fixed[*cloud.Volume]("false"),
		"multi-attach-enabled":   fixed[*cloud.Volume]("false"),
		"size":                   text(func(v *cloud.Volume) string { return strconv.Itoa(v.SizeGiB) }),
		"snapshot-id":            text(func(v *cloud.Volume) string { return string(v.Snapshot) }),
		"status":                 func(c *call, v *cloud.Volume) []string { return one(string(c.volumeState(v))) },
		"volume-id":              text(func(v *cloud.Volume) string { return string(v.ID) }),
		"volume-type":            text(func(v *cloud.Volume) string { return v.Type }),
	},
}

// ofAttachment makes a filter's field of a volume's attachment.
func ofAttachment(of func(attachmentReply) string) func(*call, *cloud.Volume) []string {
	return func(c *call, v *cloud.Volume) []string {
		if v.Attachment == nil {
			return nil
		}
		return one(of(c.attachmentReply(v)))
	}
}

func describeVolumes(c *call, in *describeVolumesInput) (*describeVolumesReply, error) {
	if err := in.noPages(in.VolumeID, "VolumeId"); err != nil {
		return nil, err
	}
	candidates, err := c.volumeCandidates(in.VolumeID)
	if err != nil {
		return nil, err
	}
	p, err := volumeKind.page(c, &in.selection, candidates)
	if err != nil {
		return nil, err
	}
	out := &describeVolumesReply{NextToken: p.next}
	for _, v := range p.items {
		out.Volumes = append(out.Volumes, c.volumeReply(v))
	}
	return out, nil
}

// volumeCandidates are those named, or the account's, or everybody's.
func (c *call) volumeCandidates(ids []string) (iter.Seq[*cloud.Volume], error) {
	ids, everybody := c.everybody(ids)
	switch {
	case everybody:
		return firsts(state.Volumes.All(c.read)), nil
	case len(ids) == 0:
		return firsts(state.VolumesByAccount.By(c.read, c.account())), nil
	}
	named, err := c.volumes(ids)
	if err != nil {
		return nil, err
	}
	return sorted(named, volumeKind.key), nil
}
