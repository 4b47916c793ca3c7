package cloud

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// Mapping is one block device that an image or an instance has: an ephemeral
// disk (VirtualName), a volume (EBS), or none where there else were one
// (NoDevice).
type Mapping struct {
	Device      string      `json:"device"` // as it was said: /dev/sda, sda1
	VirtualName string      `json:"virtual_name,omitempty"`
	NoDevice    bool        `json:"no_device,omitempty"`
	EBS         *EBSMapping `json:"ebs,omitempty"`
}

// EBSMapping is the volume of a mapping: one that is made at launch, empty or
// from a snapshot.
type EBSMapping struct {
	Snapshot            SnapshotID `json:"snapshot,omitempty"`
	SizeGiB             int        `json:"size_gib,omitempty"`
	DeleteOnTermination bool       `json:"delete_on_termination,omitempty"`
	VolumeType          string     `json:"volume_type,omitempty"` // a name of VolumeTypes
	IOPS                int        `json:"iops,omitempty"`        // per second; 0: not said
	Throughput          int        `json:"throughput,omitempty"`  // MiB/s; 0: not said
	Encrypted           bool       `json:"encrypted,omitempty"`
}

// MappingRequest is a mapping as a request says it. What it leaves open comes
// from the image or is a default.
type MappingRequest struct {
	Device      string
	VirtualName string
	NoDevice    bool
	EBS         *EBSRequest
}

// EBSRequest has zero and nil for what is not said.
type EBSRequest struct {
	Snapshot            SnapshotID
	SizeGiB             int
	DeleteOnTermination *bool
	VolumeType          string
	IOPS                int
	Throughput          int
	Encrypted           *bool
}

// FindSnapshot finds the snapshot of a mapping. An inherited one was named by
// the image, and who launches the image needs no right to it; the others are
// the request's own. Its errors are passed on.
type FindSnapshot func(id SnapshotID, inherited bool) (*Snapshot, error)

// Ephemeral0 is the one ephemeral disk that instances have. Images may name
// three more, as Amazon's do; no instance type has them, and they are left out
// of a launch without a word, as in EC2.
const Ephemeral0 = "ephemeral0"

// ephemerals are all that can be named.
var ephemerals = []string{Ephemeral0, "ephemeral1", "ephemeral2", "ephemeral3"}

// Where instance-store instances have their ephemeral disk, if nothing is said:
// Eucalyptus's layouts. A paravirtual instance's is a partition that can't move.
const (
	hvmEphemeral = "/dev/sdb"
	pvEphemeral  = "/dev/sda2"
)

// Default names of the device that a machine boots from.
const (
	HVMRoot = "/dev/sda"
	PVRoot  = "/dev/sda1"
)

// deviceForm is Eucalyptus's of a device's name.
var deviceForm = regexp.MustCompile(`^(?:/dev/)?(?:sd|vd|hd|xvd)([a-z])([0-9]*)$`)

// IsDevice says whether name is a block device's: /dev/sda1, xvdf.
func IsDevice(name string) bool { return deviceForm.MatchString(name) }

// Slot is where a device sits, whatever it is called: the letter of the disk.
// /dev/sda, sda1 and xvda are names of one.
func Slot(device string) string {
	if m := deviceForm.FindStringSubmatch(device); m != nil {
		return m[1]
	}
	return device
}

// partition of the device's name, empty where it names a whole disk.
func partition(device string) string {
	if m := deviceForm.FindStringSubmatch(device); m != nil {
		return m[2]
	}
	return ""
}

// RegisterMappings are the mappings of a new machine image whose requests are
// these, with all that a volume is filled in. The image is EBS-backed where the
// root is mapped to a snapshot.
func RegisterMappings(image *Image, requests []MappingRequest, find FindSnapshot) ([]Mapping, error) {
	if err := checkRequests(image, requests); err != nil {
		return nil, err
	}
	backed := slices.ContainsFunc(requests, func(r MappingRequest) bool { return r.at(image) && r.EBS != nil })
	var list []Mapping
	for _, r := range requests {
		m := Mapping{Device: r.Device, VirtualName: r.VirtualName, NoDevice: r.NoDevice}
		switch {
		case r.at(image) && (r.EBS == nil || image.Virtualization != HVM):
			return nil, broken(RuleDevice, "The device %s is the root, and can't be mapped to anything but a snapshot, for an image of virtualization hvm", r.Device)
		case r.at(image) && r.EBS.Snapshot == "":
			return nil, broken(RuleDevice, "The root device %s needs a snapshot that holds its data", r.Device)
		case r.NoDevice && backed:
			return nil, broken(RuleDevice, "The device %s can't be suppressed: an EBS-backed image has only what it maps", r.Device)
		}
		if r.at(image) {
			m.Device = image.RootDevice
		}
		if r.EBS != nil {
			volume, err := r.EBS.over(EBSMapping{DeleteOnTermination: true}, find)
			if err != nil {
				return nil, err
			}
			m.EBS = &volume
		}
		list = append(list, m)
	}
	if backed {
		return list, nil
	}
	return list, checkPartition(image, overlay(defaults(image), list))
}

// MergeMappings are the devices that an instance of the image gets where its
// launch requests these: volumes with all that they are, the root first where
// it is one, and the ephemeral disk. Errors are *RuleErrors, or find's.
//
//	requested            mapped by the image       the instance has
//	nothing              anything                  what the image says
//	NoDevice             anything                  nothing; the mapping stays, to say so
//	ephemeral0           ephemeral0, elsewhere     it where it is requested
//	a volume             a volume                  the image's, with what is requested
//	a volume             anything else             the volume
//	the root             a volume                  the image's, grown or otherwise changed,
//	                                               but of the same snapshot
//	the root             instance-store            an error
func MergeMappings(image *Image, requests []MappingRequest, find FindSnapshot) ([]Mapping, error) {
	if err := checkRequests(image, requests); err != nil {
		return nil, err
	}
	list := image.Mappings
	if image.Root() == nil {
		list = overlay(defaults(image), image.Mappings)
	}
	for _, r := range requests {
		m, err := r.onto(image, list, find)
		if err != nil {
			return nil, err
		}
		list = overlay(list, []Mapping{m})
	}
	if image.Root() == nil {
		if err := checkPartition(image, list); err != nil {
			return nil, err
		}
	}
	list = slices.DeleteFunc(slices.Clone(list), func(m Mapping) bool { return m.VirtualName != "" && m.VirtualName != Ephemeral0 })
	slices.SortStableFunc(list, func(a, b Mapping) int { return cmp.Compare(rank(image, a), rank(image, b)) })
	return list, nil
}

// rank puts the root first.
func rank(image *Image, m Mapping) int {
	if m.Device == image.RootDevice {
		return 0
	}
	return 1
}

// onto makes of a request the mapping that takes the place of those in list.
func (r *MappingRequest) onto(image *Image, list []Mapping, find FindSnapshot) (Mapping, error) {
	if r.at(image) {
		return r.ontoRoot(image, find)
	}
	m := Mapping{Device: r.Device, VirtualName: r.VirtualName, NoDevice: r.NoDevice}
	if r.EBS == nil {
		return m, nil
	}
	base := EBSMapping{DeleteOnTermination: true}
	if at := slices.IndexFunc(list, func(m Mapping) bool { return m.EBS != nil && Slot(m.Device) == Slot(r.Device) }); at >= 0 {
		base = *list[at].EBS
	}
	volume, err := r.EBS.over(base, find)
	m.EBS = &volume
	return m, err
}

func (r *MappingRequest) ontoRoot(image *Image, find FindSnapshot) (Mapping, error) {
	root := image.Root()
	switch {
	case root == nil:
		return Mapping{}, broken(RuleDevice, "The device %s is the root of %s, an instance-store image, and can't be mapped", r.Device, image.ID)
	case r.NoDevice:
		return Mapping{}, broken(RuleDevice, "The device %s is the root of %s, and can't be suppressed", r.Device, image.ID)
	case r.EBS == nil:
		return Mapping{}, broken(RuleDevice, "The device %s is the root of %s, a volume, and can't be %s", r.Device, image.ID, r.VirtualName)
	case r.EBS.Snapshot != "" && r.EBS.Snapshot != root.Snapshot:
		return Mapping{}, broken(RuleDevice, "The snapshot of the root device %s of %s can't be changed to %s", r.Device, image.ID, r.EBS.Snapshot)
	}
	volume, err := r.EBS.over(*root, find)
	return Mapping{Device: image.RootDevice, EBS: &volume}, err
}

// over fills in what the request leaves open: from base, or else from defaults.
func (e *EBSRequest) over(base EBSMapping, find FindSnapshot) (EBSMapping, error) {
	out := base
	inherited := e.Snapshot == "" || e.Snapshot == base.Snapshot
	if !inherited {
		out.Snapshot, out.SizeGiB, out.Encrypted = e.Snapshot, 0, false
	}
	if e.VolumeType != "" && e.VolumeType != base.VolumeType {
		out.IOPS, out.Throughput = 0, 0
	}
	out.SizeGiB = cmp.Or(e.SizeGiB, out.SizeGiB)
	out.VolumeType = cmp.Or(e.VolumeType, base.VolumeType, DefaultVolumeType)
	out.IOPS = cmp.Or(e.IOPS, out.IOPS)
	out.Throughput = cmp.Or(e.Throughput, out.Throughput)
	if e.DeleteOnTermination != nil {
		out.DeleteOnTermination = *e.DeleteOnTermination
	}
	if e.Encrypted != nil {
		out.Encrypted = *e.Encrypted
	}
	if out.Snapshot != "" {
		s, err := find(out.Snapshot, inherited)
		if err != nil {
			return out, err
		}
		if err := out.from(s, e.Encrypted); err != nil {
			return out, err
		}
	}
	return out, out.check()
}

// from checks the volume against its snapshot, and has its size where none is
// said.
func (e *EBSMapping) from(s *Snapshot, encrypted *bool) error {
	e.SizeGiB = cmp.Or(e.SizeGiB, s.SizeGiB)
	if e.SizeGiB < s.SizeGiB {
		return broken(RuleDevice, "Volume of size %dGB is smaller than snapshot '%s', expect size >= %dGB", e.SizeGiB, s.ID, s.SizeGiB)
	}
	if s.Encrypted && encrypted != nil && !*encrypted {
		return broken(RuleDevice, "The snapshot %s is encrypted, and so are the volumes that are made from it: Encrypted can't be false", s.ID)
	}
	e.Encrypted = e.Encrypted || s.Encrypted
	return nil
}

func (e *EBSMapping) check() error {
	if e.SizeGiB == 0 {
		return broken(RuleMissing, "A volume needs a size or a snapshot")
	}
	t, err := VolumeTypeNamed(e.VolumeType)
	if err != nil {
		return err
	}
	return t.Check(e.SizeGiB, e.IOPS, e.Throughput)
}

// at says whether the request is about the device that the image's instances
// boot from.
func (r *MappingRequest) at(image *Image) bool {
	same := Slot(r.Device) == Slot(image.RootDevice)
	if image.Virtualization == Paravirtual {
		return same && partition(r.Device) != partition(pvEphemeral)
	}
	return same
}

// namesRoot says whether the device's name, with its partition, is one of the
// root's.
func (r *MappingRequest) namesRoot(image *Image) bool {
	p := partition(r.Device)
	return r.at(image) && (p == "1" || p == partition(image.RootDevice))
}

// defaults are what an instance of an instance-store image has if nobody says
// otherwise.
func defaults(image *Image) []Mapping {
	if image.Virtualization == Paravirtual {
		return []Mapping{{Device: pvEphemeral, VirtualName: Ephemeral0}}
	}
	return []Mapping{{Device: hvmEphemeral, VirtualName: Ephemeral0}}
}

// overlay puts mappings over others: over those in the same slot, and over those
// of the same ephemeral disk.
func overlay(under, over []Mapping) []Mapping {
	list := slices.Clone(under)
	for _, m := range over {
		replaced := func(o Mapping) bool {
			return sameDevice(o.Device, m.Device) || m.VirtualName != "" && o.VirtualName == m.VirtualName
		}
		if at := slices.IndexFunc(list, replaced); at >= 0 {
			list[at] = m
			rest := slices.DeleteFunc(slices.Clone(list[at+1:]), replaced)
			list = append(list[:at+1], rest...)
		} else {
			list = append(list, m)
		}
	}
	return list
}

// sameDevice tells names of one device; a partition that is mapped by itself is
// the ephemeral one of a paravirtual instance.
func sameDevice(a, b string) bool {
	if partition(a) == partition(pvEphemeral) || partition(b) == partition(pvEphemeral) {
		return partition(a) == partition(b) && Slot(a) == Slot(b)
	}
	return Slot(a) == Slot(b)
}

// checkRequests refuses what no image can have.
func checkRequests(image *Image, requests []MappingRequest) error {
	for n, r := range requests {
		if err := r.check(image); err != nil {
			return err
		}
		for _, o := range requests[:n] {
			switch {
			case sameDevice(o.Device, r.Device):
				return broken(RuleDevice, "The device '%s' is used in more than one block-device mapping", r.Device)
			case r.VirtualName != "" && o.VirtualName == r.VirtualName:
				return broken(RuleDevice, "%s is mapped twice, to %s and to %s", r.VirtualName, o.Device, r.Device)
			}
		}
	}
	return nil
}

func (r *MappingRequest) check(image *Image) error {
	ephemeralPartition := image.Virtualization == Paravirtual && partition(r.Device) == partition(pvEphemeral) && Slot(r.Device) == Slot(pvEphemeral)
	switch {
	case !IsDevice(r.Device):
		return broken(RuleDevice, "Invalid device name %.40s; expecting one such as /dev/sdb", r.Device)
	case partition(r.Device) != "" && !ephemeralPartition && !r.namesRoot(image):
		return broken(RuleDevice, "Invalid device name %s: it is a partition's, and whole disks are mapped", r.Device)
	case r.VirtualName != "" && !slices.Contains(ephemerals, r.VirtualName):
		return broken(RuleDevice, "Invalid virtual name %.40s for %s; expecting one of %s", r.VirtualName, r.Device, strings.Join(ephemerals, ", "))
	case ephemeralPartition && r.EBS != nil:
		return broken(RuleDevice, "The device %s is a partition of the root's disk, and can't be a volume", r.Device)
	}
	return nil
}

// checkPartition refuses to move the ephemeral partition of a paravirtual
// instance or to leave it away: it is part of the disk that the instance boots
// from.
func checkPartition(image *Image, list []Mapping) error {
	if image.Virtualization != Paravirtual {
		return nil
	}
	for _, m := range list {
		if m.VirtualName == Ephemeral0 && sameDevice(m.Device, pvEphemeral) {
			return nil
		}
	}
	return broken(RuleDevice, "Instances of a paravirtual image have ephemeral0 at %s, which can't be moved or suppressed", pvEphemeral)
}
