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

// Image is a registered template: a pointer to a bundle, pinned by digest, and
// what was said of it at registration. Everything but Permissions and
// Deregistered is fixed for life.
type Image struct {
	ID             ImageID        `json:"id"`
	Account        AccountID      `json:"account"`
	Kind           ImageKind      `json:"kind"`
	Name           string         `json:"name"`
	Description    string         `json:"description,omitempty"`
	Location       string         `json:"location"`        // bucket/key of the manifest
	ManifestDigest string         `json:"manifest_digest"` // SHA-256 of the manifest, base64 (bundle.Pin)
	Digest         string         `json:"digest"`          // the bundle's own digest (SHA-1 of the tar), hex
	Size           int64          `json:"size"`            // bytes of the raw image
	Architecture   string         `json:"architecture"`
	Virtualization Virtualization `json:"virtualization"`
	Platform       string         `json:"platform,omitempty"` // "windows" or nothing
	Kernel         ImageID        `json:"kernel,omitempty"`
	Ramdisk        ImageID        `json:"ramdisk,omitempty"`
	RootDevice     string         `json:"root_device"`
	Mappings       []Mapping      `json:"mappings,omitempty"`
	Public         bool           `json:"public,omitempty"`
	LaunchableBy   []AccountID    `json:"launchable_by,omitempty"`
	CreatedAt      time.Time      `json:"created_at"`
	Deregistered   time.Time      `json:"deregistered,omitzero"`
}

// ErrDamaged tells that an image is not what was registered, and never will be
// again: trying once more can't help.
var ErrDamaged = errors.New("the image is damaged")

// ImageState is EC2's word for where an image stands.
type ImageState string

const (
	ImageAvailable    ImageState = "available"
	ImageDeregistered ImageState = "deregistered"
)

// State is derived: an image is available until it is deregistered.
func (i *Image) State() ImageState {
	if i.Deregistered.IsZero() {
		return ImageAvailable
	}
	return ImageDeregistered
}

// LaunchableFor says whether account may see and run the image: the owner,
// anybody if it is public, and those it was shared with.
func (i *Image) LaunchableFor(account AccountID) bool {
	return i.Account == account || i.Public || slices.Contains(i.LaunchableBy, account)
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
