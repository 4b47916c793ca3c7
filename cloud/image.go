package cloud

import (
	"errors"
	"slices"
	"time"
)

// ImageKind tells what an image is for: a whole machine, or one half of the
// pair a paravirtual machine image needs to boot.
type ImageKind string

const (
	MachineImage ImageKind = "machine" // EMI
	KernelImage  ImageKind = "kernel"  // EKI
	RamdiskImage ImageKind = "ramdisk" // ERI
)

// Prefix is the id prefix of images of this kind.
func (k ImageKind) Prefix() string {
	switch k {
	case KernelImage:
		return PrefixKernelImage
	case RamdiskImage:
		return PrefixRamdiskImage
	}
	return PrefixMachineImage
}

// Virtualization of a machine image: hvm is a raw bootable disk, paravirtual
// a root file system that is booted with an EKI and an ERI.
type Virtualization string

const (
	HVM         Virtualization = "hvm"
	Paravirtual Virtualization = "paravirtual"
)

// BootMode says which firmware a machine image boots by. An image that says
// nothing leaves it to its architecture.
type BootMode string

const (
	LegacyBIOS    BootMode = "legacy-bios"
	UEFI          BootMode = "uefi"
	UEFIPreferred BootMode = "uefi-preferred" // by either
)

// Image is a registered template: a pointer to a bundle or to the snapshots of
// volumes, pinned, and what was said of it at registration. What instances start
// from is fixed for life (Ref, Mappings, Kernel, Ramdisk, Architecture, BootMode);
// the owner may change who may run it, how it is spoken of (Description,
// ProductCodes), what its instances ask of programs (IMDS), and its end, which
// comes in steps: deprecated, disabled, deregistered.
type Image struct {
	ID             ImageID        `json:"id"`
	Account        AccountID      `json:"account"`
	Kind           ImageKind      `json:"kind"`
	Name           string         `json:"name"`
	Description    string         `json:"description,omitempty"`
	Location       string         `json:"location"`                  // bucket/key of the manifest; of an EBS-backed image account/name
	ManifestDigest string         `json:"manifest_digest,omitempty"` // SHA-256 of the manifest, base64 (bundle.Pin)
	Digest         string         `json:"digest,omitempty"`          // the bundle's own digest (SHA-1 of the tar), hex
	Size           int64          `json:"size"`                      // bytes of the raw image, or of the root volume
	Architecture   string         `json:"architecture"`
	Virtualization Virtualization `json:"virtualization"`
	Platform       string         `json:"platform,omitempty"` // "windows" or nothing
	BootMode       BootMode       `json:"boot_mode,omitempty"`
	ENA            bool           `json:"ena,omitempty"`   // EnaSupport, for clients that ask
	SRIOV          string         `json:"sriov,omitempty"` // SriovNetSupport: "simple" or nothing
	IMDS           string         `json:"imds,omitempty"`  // ImdsSupport: "v2.0" or nothing
	Kernel         ImageID        `json:"kernel,omitempty"`
	Ramdisk        ImageID        `json:"ramdisk,omitempty"`
	RootDevice     string         `json:"root_device"`
	Mappings       []Mapping      `json:"mappings,omitempty"` // the root's too, where it is a volume
	ProductCodes   []string       `json:"product_codes,omitempty"`
	Source         ImageSource    `json:"source,omitzero"`
	CreatedAt      time.Time      `json:"created_at"`
	Copying        TaskID         `json:"copying,omitempty"` // its bundle is being copied by this task
	CopyFailed     Reason         `json:"copy_failed,omitzero"`

	Public       bool        `json:"public,omitempty"`
	LaunchableBy []AccountID `json:"launchable_by,omitempty"` // sorted

	DeprecateAt    time.Time  `json:"deprecate_at,omitzero"` // from when it is no longer listed for others
	Disabled       bool       `json:"disabled,omitempty"`    // nothing can be launched from it, and it is its owner's alone
	Deregistered   time.Time  `json:"deregistered,omitzero"` // gone, but for the instances that run
	Protection     Protection `json:"protection,omitempty"`
	ProtectedUntil time.Time  `json:"protected_until,omitzero"` // the cooldown's end, once protection was taken off
	LastLaunched   time.Time  `json:"last_launched,omitzero"`   // not much before; see Launched
}

// ImageSource is what an image was made from, where that is known.
type ImageSource struct {
	Image    ImageID    `json:"image,omitempty"`
	Region   string     `json:"region,omitempty"`
	Instance InstanceID `json:"instance,omitempty"`
}

// Template is the image without its name, its owner, and what that one did with
// it: what a copy of it begins as.
func (i *Image) Template() Image {
	return Image{
		Kind: i.Kind, Description: i.Description, Location: i.Location, ManifestDigest: i.ManifestDigest, Digest: i.Digest, Size: i.Size,
		Architecture: i.Architecture, Virtualization: i.Virtualization, Platform: i.Platform, BootMode: i.BootMode, ENA: i.ENA, SRIOV: i.SRIOV, IMDS: i.IMDS,
		Kernel: i.Kernel, Ramdisk: i.Ramdisk, RootDevice: i.RootDevice, Mappings: slices.Clone(i.Mappings), ProductCodes: slices.Clone(i.ProductCodes),
	}
}

// Protection of an image from deregistration. The zero value is none.
type Protection string

const (
	Protected         Protection = "enabled-without-cooldown"
	ProtectedCooldown Protection = "enabled-with-cooldown"
)

// ProtectionCooldown is how long an image that was protected with a cooldown
// stays protected when the protection is taken off.
const ProtectionCooldown = 24 * time.Hour

// Protects says whether the image can't be deregistered now.
func (i *Image) Protects(now time.Time) bool {
	return i.Protection != "" || now.Before(i.ProtectedUntil)
}

// Deprecated says whether the image's deprecation has come.
func (i *Image) Deprecated(now time.Time) bool {
	return !i.DeprecateAt.IsZero() && !now.Before(i.DeprecateAt)
}

// launchNoted is how exactly an image's last launch is known: a record that every
// launch wrote would make the launches wait for each other.
const launchNoted = time.Hour

// Launched notes a launch, and says whether the note is worth a write.
func (i *Image) Launched(now time.Time) bool {
	if now.Sub(i.LastLaunched) < launchNoted {
		return false
	}
	i.LastLaunched = now
	return true
}

// ErrDamaged tells that an image is not what was registered, and never will be
// again: trying once more can't help.
var ErrDamaged = errors.New("the image is damaged")

// ImageState is EC2's word for where an image stands.
type ImageState string

const (
	ImagePending      ImageState = "pending" // its snapshots aren't completed, or its bundle isn't copied yet
	ImageFailed       ImageState = "failed"  // nor will they be
	ImageAvailable    ImageState = "available"
	ImageDisabled     ImageState = "disabled"
	ImageDeregistered ImageState = "deregistered"
)

// State is derived: an image is available until it is disabled or deregistered,
// and as soon as its snapshots are completed, which find finds. The reason says
// why it failed.
func (i *Image) State(find func(SnapshotID) (*Snapshot, bool)) (ImageState, Reason) {
	switch {
	case !i.Deregistered.IsZero():
		return ImageDeregistered, Reason{}
	case i.Disabled:
		return ImageDisabled, Reason{}
	case i.CopyFailed != Reason{}:
		return ImageFailed, i.CopyFailed
	}
	state := ImageAvailable
	if i.Copying != "" {
		state = ImagePending
	}
	for _, id := range i.Snapshots() {
		s, ok := find(id)
		switch {
		case !ok:
			return ImageFailed, Reason{ReasonNoSnapshot, "The snapshot " + string(id) + " is gone"}
		case s.State() == SnapshotError:
			return ImageFailed, s.Failed
		case s.State() == SnapshotPending:
			state = ImagePending
		}
	}
	return state, Reason{}
}

// ReasonNoSnapshot is the code of a StateReason.
const ReasonNoSnapshot = "Client.InvalidSnapshot.NotFound"

// Root is the volume that an instance of the image boots from, nil where the
// image is instance-store.
func (i *Image) Root() *EBSMapping {
	for _, m := range i.Mappings {
		if m.EBS != nil && m.Device == i.RootDevice {
			return m.EBS
		}
	}
	return nil
}

// RootDeviceType is EC2's word for where an instance's root lies.
type RootDeviceType string

const (
	InstanceStore RootDeviceType = "instance-store" // it dies with the instance
	EBS           RootDeviceType = "ebs"            // a volume
)

// RootDeviceType of the image.
func (i *Image) RootDeviceType() RootDeviceType {
	if i.Root() != nil {
		return EBS
	}
	return InstanceStore
}

// Snapshots that volumes of the image's instances are made from, each once.
func (i *Image) Snapshots() []SnapshotID {
	var ids []SnapshotID
	for _, m := range i.Mappings {
		if m.EBS != nil && m.EBS.Snapshot != "" && !slices.Contains(ids, m.EBS.Snapshot) {
			ids = append(ids, m.EBS.Snapshot)
		}
	}
	return ids
}

// LaunchableFor says whether account may see and run the image: the owner,
// anybody if it is public, and those it was shared with. A disabled image is
// its owner's alone.
func (i *Image) LaunchableFor(account AccountID) bool {
	shared := i.Public || slices.Contains(i.LaunchableBy, account)
	return i.Account == account || shared && !i.Disabled
}

// ImageRef is what a node needs to obtain an image's bytes: where its bundle
// lies and which manifest was registered. It is copied into an instance at
// launch, so that the instance's baseline can't change after.
type ImageRef struct {
	ID             ImageID `json:"id"`
	Location       string  `json:"location"`
	ManifestDigest string  `json:"manifest_digest"`
	Size           int64   `json:"size"`
}

// Ref of the image.
func (i *Image) Ref() ImageRef {
	return ImageRef{ID: i.ID, Location: i.Location, ManifestDigest: i.ManifestDigest, Size: i.Size}
}
