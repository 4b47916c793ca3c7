package ec2

import (
	"slices"
	"strconv"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

type volumeStatusInput struct {
	common
	selection
	VolumeID []string `wire:"VolumeId,max=1000"`
}

type volumeStatusesReply struct {
	Statuses  []volumeStatusReply `xml:"volumeStatusSet>item"`
	NextToken string              `xml:"nextToken,omitempty"`
}

type volumeStatusReply struct {
	ID      string        `xml:"volumeId"`
	Zone    string        `xml:"availabilityZone"`
	Status  volumeChecks  `xml:"volumeStatus"`
	Events  []volumeEvent `xml:"eventsSet>item"`
	Actions []string      `xml:"actionsSet>item"`
}

type volumeEvent struct {
	Type        string     `xml:"eventType"`
	ID          string     `xml:"eventId"`
	Description string     `xml:"description"`
	NotBefore   *wire.Time `xml:"notBefore"`
	Instance    string     `xml:"instanceId,omitempty"`
}

// Types of events: the bytes that a volume was made from are damaged, or are away.
const (
	eventInconsistency = "potential-data-inconsistency"
	eventStalled       = "io-performance:stalled"
)

type volumeChecks struct {
	Status  string        `xml:"status"`
	Details []statusCheck `xml:"details>item"`
}

// There is no action on a volume that its owner could take: its I/O is never disabled.
var volumeStatusKind = kind[*cloud.Volume]{
	key:  volumeKind.key,
	tags: volumeKind.tags,
	fields: fields[*cloud.Volume]{
		"action.code":        fixed[*cloud.Volume](""),
		"action.description": fixed[*cloud.Volume](""),
		"action.event-id":    fixed[*cloud.Volume](""),
		"availability-zone":  text(func(v *cloud.Volume) string { return v.Zone }),
		"event.description":  ofEvents(func(e volumeEvent) string { return e.Description }),
		"event.event-id":     ofEvents(func(e volumeEvent) string { return e.ID }),
		"event.event-type":   ofEvents(func(e volumeEvent) string { return e.Type }),
		"event.not-after":    fixed[*cloud.Volume](""),
		"event.not-before":   ofEvents(func(e volumeEvent) string { return timestamp(e.NotBefore.Time) }),
		"volume-status.details-name": func(c *call, v *cloud.Volume) []string {
			return ofChecks(c.volumeChecks(v), func(s statusCheck) string { return s.Name })
		},
		"volume-status.details-status": func(c *call, v *cloud.Volume) []string {
			return ofChecks(c.volumeChecks(v), func(s statusCheck) string { return s.Status })
		},
		"volume-status.status": func(c *call, v *cloud.Volume) []string { return one(c.volumeChecks(v).Status) },
	},
}

func ofChecks(checks volumeChecks, of func(statusCheck) string) (values []string) {
	for _, check := range checks.Details {
		values = append(values, of(check))
	}
	return values
}

// ofEvents of a volume, for a filter.
func ofEvents(of func(volumeEvent) string) func(*call, *cloud.Volume) []string {
	return func(c *call, v *cloud.Volume) (values []string) {
		for _, e := range c.volumeEvents(v) {
			values = append(values, of(e))
		}
		return values
	}
}

func describeVolumeStatus(c *call, in *volumeStatusInput) (*volumeStatusesReply, error) {
	if err := in.noPages(in.VolumeID, "VolumeId"); err != nil {
		return nil, err
	}
	candidates, err := c.volumeCandidates(in.VolumeID)
	if err != nil {
		return nil, err
	}
	p, err := volumeStatusKind.page(c, &in.selection, candidates)
	if err != nil {
		return nil, err
	}
	out := &volumeStatusesReply{NextToken: p.next}
	for _, v := range p.items {
		out.Statuses = append(out.Statuses, volumeStatusReply{ID: string(v.ID), Zone: v.Zone, Status: c.volumeChecks(v), Events: c.volumeEvents(v)})
	}
	return out, nil
}

// volumeChecks follow from what its node says of a volume. One whose source is
// damaged has no I/O there; one whose source is away goes on when that is back.
func (c *call) volumeChecks(v *cloud.Volume) volumeChecks {
	status, enabled, performance := "insufficient-data", "", ""
	switch seen := c.volumeSeen(v.ID); {
	case seen.Phase == cloud.VolumeFailed, seen.Phase == cloud.VolumeReady && seen.Trouble.Damaged:
		status, enabled, performance = "impaired", "failed", "not-applicable"
	case seen.Phase == cloud.VolumeReady && seen.Trouble != cloud.Trouble{}:
		status, enabled, performance = "impaired", "passed", "stalled"
	case seen.Phase == cloud.VolumeReady:
		status, enabled, performance = "ok", "passed", "not-applicable"
	}
	out := volumeChecks{Status: status}
	if enabled != "" {
		out.Details = []statusCheck{{"io-enabled", enabled}, {"io-performance", performance}}
	}
	return out
}

// volumeEvents are one where a volume can't read what it was made from.
func (c *call) volumeEvents(v *cloud.Volume) []volumeEvent {
	seen := c.volumeSeen(v.ID)
	if seen.Trouble == (cloud.Trouble{}) {
		return nil
	}
	e := volumeEvent{ID: "evol-" + strings.TrimPrefix(string(v.ID), "vol-"), NotBefore: wire.At(seen.Troubled), Instance: string(seen.Attached)}
	if seen.Trouble.Damaged {
		e.Type = eventInconsistency
		e.Description = "The bytes that the volume was made from are damaged. A guest that reads them is stopped, and can't go on unless they are put back: " + seen.Trouble.Message
	} else {
		e.Type = eventStalled
		e.Description = "The bytes that the volume was made from can't be read now. A guest that reads them waits, and goes on when they can: " + seen.Trouble.Message
	}
	return []volumeEvent{e}
}

type volumeAttributeInput struct {
	common
	VolumeID  string `wire:"VolumeId,required"`
	Attribute string `wire:"Attribute,required"`
}

type volumeAttributeReply struct {
	ID           string             `xml:"volumeId"`
	AutoEnableIO *attribute         `xml:"autoEnableIO"`
	ProductCodes *productCodesReply `xml:"productCodes"`
}

func describeVolumeAttribute(c *call, in *volumeAttributeInput) (*volumeAttributeReply, error) {
	v, err := c.volume(in.VolumeID)
	if err != nil {
		return nil, err
	}
	out := &volumeAttributeReply{ID: string(v.ID)}
	switch in.Attribute {
	case "autoEnableIO":
		out.AutoEnableIO = &attribute{strconv.FormatBool(v.AutoEnableIO)}
	case "productCodes":
		out.ProductCodes = &productCodesReply{}
	default:
		return nil, wire.InvalidParameterValue("Attribute", in.Attribute, "Expecting one of autoEnableIO, productCodes.")
	}
	return out, nil
}

type modifyVolumeAttributeInput struct {
	common
	VolumeID     string `wire:"VolumeId,required"`
	AutoEnableIO *struct {
		Value *bool
	}
}

func modifyVolumeAttribute(c *call, in *modifyVolumeAttributeInput) (*reply, error) {
	v, err := c.volumeToChange(in.VolumeID)
	if err != nil {
		return nil, err
	}
	if in.AutoEnableIO == nil || in.AutoEnableIO.Value == nil {
		return nil, wire.MissingParameter("AutoEnableIO.Value")
	}
	if v.AutoEnableIO != *in.AutoEnableIO.Value {
		changed := *v
		changed.AutoEnableIO = *in.AutoEnableIO.Value
		state.ChangeVolume(c.tx, changed)
	}
	return accepted()
}

// enableVolumeIO has nothing to do: no volume's I/O is ever disabled. It can't have
// damaged bytes read.
func enableVolumeIO(c *call, in *volumeInput) (*reply, error) {
	v, err := c.volumeToChange(in.VolumeID)
	if err != nil {
		return nil, err
	}
	if seen := c.volumeSeen(v.ID); seen.Trouble.Damaged {
		return nil, wire.Errorf("IncorrectState", "The I/O of volume %s cannot be enabled: %s. What is damaged is never given to a guest; make a volume of another snapshot.", v.ID, seen.Trouble.Message)
	}
	return accepted()
}

type modifyVolumeInput struct {
	common
	VolumeID           string `wire:"VolumeId,required"`
	Size               *int
	VolumeType         string
	Iops               *int
	Throughput         *int
	MultiAttachEnabled *bool
}

type modifyVolumeReply struct {
	Modification modificationReply `xml:"volumeModification"`
}

type modificationReply struct {
	ID                 string     `xml:"volumeId"`
	State              string     `xml:"modificationState"`
	TargetSize         int        `xml:"targetSize"`
	TargetIOPS         int        `xml:"targetIops,omitempty"`
	TargetType         string     `xml:"targetVolumeType"`
	TargetThroughput   int        `xml:"targetThroughput,omitempty"`
	OriginalSize       int        `xml:"originalSize"`
	OriginalIOPS       int        `xml:"originalIops,omitempty"`
	OriginalType       string     `xml:"originalVolumeType"`
	OriginalThroughput int        `xml:"originalThroughput,omitempty"`
	Progress           int        `xml:"progress"`
	StartedAt          *wire.Time `xml:"startTime"`
	EndedAt            *wire.Time `xml:"endTime"`
}

// modifyVolume wishes for another size, type or figures. A volume only grows.
func modifyVolume(c *call, in *modifyVolumeInput) (*modifyVolumeReply, error) {
	v, err := c.volumeToChange(in.VolumeID)
	if err != nil {
		return nil, err
	}
	if in.MultiAttachEnabled != nil {
		if err := only("MultiAttachEnabled", strconv.FormatBool(*in.MultiAttachEnabled), "false"); err != nil {
			return nil, err
		}
	}
	if err := c.modifiable(v); err != nil {
		return nil, err
	}
	figures, err := in.figures(v)
	if err != nil {
		return nil, err
	}
	changed := *v
	changed.SizeGiB, changed.Type, changed.IOPS, changed.Throughput = figures.SizeGiB, figures.Type, figures.IOPS, figures.Throughput
	changed.Modification = &cloud.Modification{Was: v.Figures(), Now: figures, At: c.Now()}
	total := state.ChangeVolume(c.tx, changed)
	if err := c.checkVolumes(total, changed.SizeGiB-v.SizeGiB); err != nil {
		return nil, err
	}
	return &modifyVolumeReply{modificationReplyOf(&changed)}, nil
}

// modifiable says why the volume can't be changed now.
func (c *call) modifiable(v *cloud.Volume) error {
	if at := c.volumeState(v); at != cloud.VolumeAvailable && at != cloud.VolumeInUse {
		return wire.Errorf("IncorrectState", "Volume %s cannot be modified in state %s", v.ID, at)
	}
	if v.Modification != nil && v.Modification.Ended.IsZero() {
		return wire.Errorf("IncorrectModificationState", "Volume %s is being modified since %s; wait until that is completed", v.ID, timestamp(v.Modification.At))
	}
	return nil
}

// figures that the volume is to have. A change of type forgets those of the type
// before, unless they are said.
func (in *modifyVolumeInput) figures(v *cloud.Volume) (cloud.Figures, error) {
	if in.Size == nil && in.VolumeType == "" && in.Iops == nil && in.Throughput == nil {
		return cloud.Figures{}, wire.Errorf("MissingParameter", "The request must contain one of the parameters Size, VolumeType, Iops and Throughput")
	}
	size, kind, iops, throughput := v.SizeGiB, v.Type, in.Iops, in.Throughput
	if in.VolumeType != "" {
		kind = in.VolumeType
	}
	if in.Size != nil {
		size = *in.Size
	}
	if size < v.SizeGiB {
		return cloud.Figures{}, wire.InvalidParameterValue("Size", strconv.Itoa(size), "New size cannot be smaller than existing size, %d GiB.", v.SizeGiB)
	}
	if kind == v.Type {
		iops, throughput = said(iops, v.IOPS), said(throughput, v.Throughput)
	}
	return figuresFor(kind, size, iops, throughput)
}

// said is what was, unless something else is said; zero is nothing.
func said(now *int, was int) *int {
	if now == nil && was > 0 {
		return &was
	}
	return now
}

func modificationReplyOf(v *cloud.Volume) modificationReply {
	m := v.Modification
	at, progress := modificationState(v), 0
	if !m.Ended.IsZero() {
		progress = 100
	}
	return modificationReply{
		ID: string(v.ID), State: at, Progress: progress, StartedAt: wire.At(m.At), EndedAt: wire.At(m.Ended),
		TargetSize: m.Now.SizeGiB, TargetIOPS: shownIOPS(m.Now), TargetType: m.Now.Type, TargetThroughput: m.Now.Throughput,
		OriginalSize: m.Was.SizeGiB, OriginalIOPS: shownIOPS(m.Was), OriginalType: m.Was.Type, OriginalThroughput: m.Was.Throughput,
	}
}

func modificationState(v *cloud.Volume) string {
	if v.Modification.Ended.IsZero() {
		return "modifying"
	}
	return "completed"
}

type describeModificationsInput struct {
	common
	selection
	VolumeID []string `wire:"VolumeId,max=1000"`
}

type describeModificationsReply struct {
	Modifications []modificationReply `xml:"volumeModificationSet>item"`
	NextToken     string              `xml:"nextToken,omitempty"`
}

var modificationKind = kind[*cloud.Volume]{
	key: volumeKind.key,
	fields: fields[*cloud.Volume]{
		"modification-state":   text(modificationState),
		"original-iops":        text(func(v *cloud.Volume) string { return number(shownIOPS(v.Modification.Was)) }),
		"original-size":        text(func(v *cloud.Volume) string { return number(v.Modification.Was.SizeGiB) }),
		"original-volume-type": text(func(v *cloud.Volume) string { return v.Modification.Was.Type }),
		"start-time":           text(func(v *cloud.Volume) string { return timestamp(v.Modification.At) }),
		"target-iops":          text(func(v *cloud.Volume) string { return number(shownIOPS(v.Modification.Now)) }),
		"target-size":          text(func(v *cloud.Volume) string { return number(v.Modification.Now.SizeGiB) }),
		"target-volume-type":   text(func(v *cloud.Volume) string { return v.Modification.Now.Type }),
		"volume-id":            text(func(v *cloud.Volume) string { return string(v.ID) }),
	},
}

// number for a filter; zero is none.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// describeModifications lists the last modification of each volume that had one.
func describeModifications(c *call, in *describeModificationsInput) (*describeModificationsReply, error) {
	if err := in.noPages(in.VolumeID, "VolumeId"); err != nil {
		return nil, err
	}
	candidates, err := c.volumeCandidates(in.VolumeID)
	if err != nil {
		return nil, err
	}
	var modified []*cloud.Volume
	for v := range candidates {
		if v.Modification != nil {
			modified = append(modified, v)
		} else if len(in.VolumeID) > 0 {
			return nil, wire.Errorf("InvalidVolumeModification.NotFound", "Modification for volume '%s' does not exist.", v.ID)
		}
	}
	p, err := modificationKind.page(c, &in.selection, slices.Values(modified))
	if err != nil {
		return nil, err
	}
	out := &describeModificationsReply{NextToken: p.next}
	for _, v := range p.items {
		out.Modifications = append(out.Modifications, modificationReplyOf(v))
	}
	return out, nil
}
