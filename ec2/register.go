package ec2

import (
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"io/fs"
	"regexp"
	"strconv"
	"strings"

	"mallee/bundle"
	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

const windows = "windows"

type registerImageInput struct {
	common
	tagged
	Name               string `wire:"Name"`
	Description        string `wire:"Description,max=255"`
	ImageLocation      string `wire:"ImageLocation,max=1024"`
	Architecture       string `wire:"Architecture"`
	VirtualizationType string `wire:"VirtualizationType,enum=hvm|paravirtual"`
	KernelID           string `wire:"KernelId"`
	RamdiskID          string `wire:"RamdiskId"`
	Platform           string `wire:"Platform,enum=linux|windows"` // Eucalyptus's
	RootDeviceName     string `wire:"RootDeviceName"`
	BlockDeviceMapping []blockDevice
	BootMode           string
	EnaSupport         bool
	SriovNetSupport    string

	bundle *foundBundle // what prepare found
}

// foundBundle is a manifest that was read and may be registered.
type foundBundle struct {
	location string // bucket/key
	manifest *bundle.Manifest
	pin      string // by which the image holds on to it
	kind     cloud.ImageKind
}

type registerImageReply struct {
	ImageID string `xml:"imageId"`
}

// readBundle is the step before the transaction: all that takes Walrus and
// cryptography.
func readBundle(c *call, in *registerImageInput) error {
	if err := c.may(c.arn(c.account(), "image", "*")); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	bucket, key, err := in.where()
	if err != nil {
		return err
	}
	text, err := c.readManifest(bucket, key)
	if err != nil {
		return err
	}
	m, err := bundle.ParseManifest(text)
	if err != nil {
		return wire.Errorf("InvalidManifest", "The manifest at %s can't be registered: %v", in.ImageLocation, err)
	}
	if err := c.verify(in.ImageLocation, m); err != nil {
		return err
	}
	kind, err := m.Kind(key)
	if err != nil {
		return wire.Errorf("InvalidManifest", "The manifest at %s can't be registered: %v", in.ImageLocation, err)
	}
	in.bundle = &foundBundle{bucket + "/" + key, m, bundle.Pin(text), cloud.ImageKind(kind)}
	return nil
}

// nameForm is EC2's of an image's name.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9 ()\[\]./\-'@_]{3,128}$`)

// check what the request alone shows.
func (in *registerImageInput) check() error {
	if in.Name == "" {
		return wire.MissingParameter("Name")
	}
	if !nameForm.MatchString(in.Name) {
		return wire.Errorf("InvalidAMIName.Malformed", "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, spaces and ( ) [ ] . / - ' @ _: '%s' is not one", wire.Shorten(in.Name))
	}
	if strings.ContainsFunc(in.Description, unprintable) {
		return wire.InvalidParameterValue("Description", in.Description, "Control characters are not allowed.")
	}
	switch in.Architecture {
	case "", "i386", "x86_64":
	default:
		return wire.InvalidParameterValue("Architecture", in.Architecture, "Expecting one of i386, x86_64.")
	}
	if in.Platform == windows && in.VirtualizationType == string(cloud.Paravirtual) {
		return wire.InvalidParameterCombination("The Platform windows needs the VirtualizationType hvm")
	}
	return firstError(
		only("BootMode", in.BootMode, "", "legacy-bios"),
		only("EnaSupport", strconv.FormatBool(in.EnaSupport), "false"),
		only("SriovNetSupport", in.SriovNetSupport, ""),
		in.checkDevices(),
	)
}

func (in *registerImageInput) checkDevices() error {
	if in.RootDeviceName != "" && !deviceForm.MatchString(in.RootDeviceName) {
		return wire.InvalidParameterValue("RootDeviceName", in.RootDeviceName, "Expecting a device such as /dev/sda1.")
	}
	return checkMappings(in.BlockDeviceMapping)
}

// where the manifest is: bucket/key, with or without a leading slash.
func (in *registerImageInput) where() (bucket, key string, err error) {
	if in.ImageLocation == "" {
		return "", "", wire.Errorf("MissingParameter", "The request must contain the parameter ImageLocation: images are registered from a manifest in the object store (snapshots are not served yet)")
	}
	bucket, key, _ = strings.Cut(strings.TrimPrefix(in.ImageLocation, "/"), "/")
	if len(bucket) < 2 || key == "" || strings.ContainsFunc(in.ImageLocation, unprintable) {
		return "", "", wire.InvalidParameterValue("ImageLocation", in.ImageLocation, "Expecting the bucket and key of a manifest, such as bucket/image.manifest.xml.")
	}
	return bucket, key, nil
}

func (c *call) readManifest(bucket, key string) ([]byte, error) {
	text, err := c.Objects.ReadObject(c.ctx, c.principal, bucket, key, bundle.MaxManifestSize)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, wire.Errorf("InvalidManifest", "There is no manifest at %s/%s", bucket, wire.Shorten(key))
	case errors.Is(err, fs.ErrPermission):
		return nil, wire.Errorf("InvalidManifest", "The manifest at %s/%s may not be read by account %s", bucket, wire.Shorten(key), c.account())
	case errors.Is(err, ErrObjectTooLarge):
		return nil, wire.Errorf("InvalidManifest", "The manifest at %s/%s is longer than %d bytes", bucket, wire.Shorten(key), bundle.MaxManifestSize)
	}
	return text, err
}

// verify that the caller's account made the bundle, for this cloud, and that
// the image isn't larger than allowed.
func (c *call) verify(location string, m *bundle.Manifest) error {
	if m.Account != string(c.account()) {
		return wire.Errorf("AuthFailure", "Manifest is not accessible: %s was bundled by account %s, not by %s", location, m.Account, c.account())
	}
	keys, err := c.signingKeys()
	if err != nil {
		return err
	}
	policy := bundle.RequireSignature
	if c.AllowUnsigned {
		policy = bundle.AllowUnsigned
	}
	if err := m.Verify(policy, keys...); err != nil {
		return wire.Errorf("InvalidManifest", "The manifest at %s can't be registered: %v", location, err)
	}
	if _, _, err := m.Keys(c.IAM.CloudKey()); err != nil {
		return wire.Errorf("InvalidManifest", "The bundle at %s can't be registered: %v", location, err)
	}
	if m.Size > c.MaxImageSize {
		return wire.Errorf("InvalidManifest", "The image of %s has %d bytes, and this cloud takes at most %d", location, m.Size, c.MaxImageSize)
	}
	return nil
}

// signingKeys are those of the account's certificates, and the cloud's own.
func (c *call) signingKeys() ([]*rsa.PublicKey, error) {
	certificates, err := c.IAM.SigningCertificates(c.account())
	if err != nil {
		return nil, err
	}
	keys := []*rsa.PublicKey{&c.IAM.CloudKey().PublicKey}
	for _, certificate := range certificates {
		if key, err := bundle.RSAKey(certificate); err == nil {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

func registerImage(c *call, in *registerImageInput) (*registerImageReply, error) {
	i, err := c.newImage(in)
	if err != nil {
		return nil, err
	}
	guard := imageNameGuard(i.Account, i.Name)
	if holder := state.Owner(c.tx, imageName, guard); holder != "" {
		return nil, wire.Errorf("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", i.Name, holder)
	}
	if err := c.tx.Claim(imageName, guard, string(i.ID)); err != nil {
		return nil, err
	}
	state.Images.Put(c.tx, *i)
	return &registerImageReply{string(i.ID)}, c.tagNew("image", string(i.ID))
}

func (c *call) newImage(in *registerImageInput) (*cloud.Image, error) {
	b := in.bundle
	id, err := c.newID(b.kind.Prefix(), has(c.tx, state.Images))
	if err != nil {
		return nil, err
	}
	i := &cloud.Image{
		ID: cloud.ImageID(id), Account: c.account(), Kind: b.kind, Name: in.Name, Description: in.Description,
		Location: b.location, ManifestDigest: b.pin, Digest: hex.EncodeToString(b.manifest.Digest[:]), Size: b.manifest.Size,
		CreatedAt: c.Now(),
	}
	if i.Architecture, err = in.architecture(); err != nil {
		return nil, err
	}
	if b.kind != cloud.MachineImage {
		return i, c.checkBootImage(in)
	}
	return i, c.machine(in, i)
}

func (in *registerImageInput) architecture() (string, error) {
	switch a := in.bundle.manifest.Architecture; {
	case in.Architecture != "":
		return in.Architecture, nil
	case a == "":
		return "x86_64", nil
	case a == "i386" || a == "x86_64":
		return a, nil
	default:
		return "", wire.Errorf("InvalidManifest", "The manifest at %s is of architecture %s, and this cloud runs i386 and x86_64", in.ImageLocation, a)
	}
}

// checkBootImage lets only who runs the cloud register kernels and ramdisks,
// because they run before anything that an owner of an image can control.
func (c *call) checkBootImage(in *registerImageInput) error {
	kind := in.bundle.kind
	if !c.principal.System {
		return wire.Errorf("UnauthorizedOperation", "Only administrators can register %s images.", kind)
	}
	if in.VirtualizationType == string(cloud.HVM) || in.KernelID != "" || in.RamdiskID != "" || len(in.BlockDeviceMapping) > 0 {
		return wire.InvalidParameterCombination("The bundle at %s is a %s: VirtualizationType, KernelId, RamdiskId and BlockDeviceMapping are of machine images", in.ImageLocation, kind)
	}
	return nil
}

// machine fills in what only machine images have.
func (c *call) machine(in *registerImageInput, i *cloud.Image) error {
	i.Virtualization = cloud.Paravirtual
	if in.VirtualizationType != "" {
		i.Virtualization = cloud.Virtualization(in.VirtualizationType)
	}
	if in.isWindows() {
		i.Platform, i.Virtualization = windows, cloud.HVM
	}
	if err := checkEphemeral(in.BlockDeviceMapping, i.Virtualization, in.ImageLocation); err != nil {
		return err
	}
	i.Mappings = mappings(in.BlockDeviceMapping)
	i.RootDevice = in.RootDeviceName
	if i.RootDevice == "" {
		i.RootDevice = map[cloud.Virtualization]string{cloud.HVM: "/dev/sda", cloud.Paravirtual: "/dev/sda1"}[i.Virtualization]
	}
	if i.Virtualization == cloud.HVM {
		return in.refuseBootPair()
	}
	if err := in.refuseWholeDisk(); err != nil {
		return err
	}
	return c.bootPair(in, i)
}

func (in *registerImageInput) isWindows() bool {
	_, key, _ := strings.Cut(in.bundle.location, "/")
	name := key[strings.LastIndexByte(key, '/')+1:]
	return in.Platform == windows || in.Platform == "" && in.VirtualizationType != string(cloud.Paravirtual) && strings.HasPrefix(name, windows)
}

// refuseBootPair tells who asks for an HVM image with a kernel that it would
// never be used.
func (in *registerImageInput) refuseBootPair() error {
	if in.KernelID != "" || in.RamdiskID != "" {
		return wire.InvalidParameterCombination("KernelId and RamdiskId can't be used with VirtualizationType hvm, whose images boot from their own disk")
	}
	return nil
}

// refuseWholeDisk as a paravirtual image, which is a bare file system to be put
// into a partition. By Eucalyptus's rule the manifest's ami mapping tells: it is
// empty or ends in a digit where the image is a partition.
func (in *registerImageInput) refuseWholeDisk() error {
	for _, m := range in.bundle.manifest.BlockDeviceMappings {
		if m.Virtual == "ami" && m.Device != "" && !strings.ContainsAny(m.Device[len(m.Device)-1:], "0123456789") {
			return wire.Errorf("InvalidManifest", "The manifest at %s maps ami to %s, a whole disk, and a paravirtual image is a file system on a partition such as sda1: register it with VirtualizationType hvm if it boots by itself",
				in.ImageLocation, wire.Shorten(m.Device))
		}
	}
	return nil
}

// bootPair resolves the kernel and ramdisk of a paravirtual image: those of the
// request, or else of the manifest.
func (c *call) bootPair(in *registerImageInput, i *cloud.Image) error {
	kernel, err := c.bootImage("Kernel", in.KernelID, in.bundle.manifest.KernelID, cloud.KernelImage)
	if err != nil {
		return err
	}
	ramdisk, err := c.bootImage("Ramdisk", in.RamdiskID, in.bundle.manifest.RamdiskID, cloud.RamdiskImage)
	if err != nil {
		return err
	}
	i.Kernel, i.Ramdisk = kernel.ID, ramdisk.ID
	return nil
}

func (c *call) bootImage(what, asked, written string, kind cloud.ImageKind) (*cloud.Image, error) {
	if asked == "" {
		asked = written
	}
	if asked == "" {
		return nil, wire.Errorf("MissingParameter", "%s ID must be specified: a paravirtual image needs the parameter %sId", what, what)
	}
	return c.launchable(asked, kind)
}
