package ec2

import (
	"cmp"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"io/fs"
	"regexp"
	"strings"

	"mallee/bundle"
	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

const windows = cloud.Windows

type registerImageInput struct {
	common
	tagged
	Name               string `wire:"Name"`
	Description        string `wire:"Description,max=255"`
	ImageLocation      string `wire:"ImageLocation,max=1024"`
	Architecture       string `wire:"Architecture,enum=i386|x86_64|arm64"`
	VirtualizationType string `wire:"VirtualizationType,enum=hvm|paravirtual"`
	KernelID           string `wire:"KernelId"`
	RamdiskID          string `wire:"RamdiskId"`
	Platform           string `wire:"Platform,enum=linux|windows"` // Eucalyptus's
	RootDeviceName     string `wire:"RootDeviceName"`
	BlockDeviceMapping []blockDevice
	BootMode           string `wire:"BootMode,enum=legacy-bios|uefi|uefi-preferred"`
	EnaSupport         bool
	SriovNetSupport    string `wire:"SriovNetSupport,enum=simple"`
	ImdsSupport        string `wire:"ImdsSupport,enum=v2.0"`
	TpmSupport         string
	UefiData           string
	BillingProduct     []string `wire:"BillingProduct,max=1000"`

	mappings []cloud.MappingRequest // of BlockDeviceMapping
	bundle   *foundBundle           // what prepare found; nil for an EBS-backed image
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

// prepareRegister is the step before the transaction: all that takes Walrus and
// cryptography.
func prepareRegister(c *call, in *registerImageInput) error {
	if err := c.may(c.arn(c.account(), "image", "*")); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	if in.ImageLocation == "" {
		return nil
	}
	bucket, key, err := in.where()
	if err != nil {
		return err
	}
	in.bundle, err = c.findBundle(bucket, key)
	return err
}

// findBundle reads and verifies the manifest of a bundle that is to be
// registered.
func (c *call) findBundle(bucket, key string) (*foundBundle, error) {
	location := bucket + "/" + key
	text, err := c.readManifest(bucket, key)
	if err != nil {
		return nil, err
	}
	m, err := bundle.ParseManifest(text)
	if err != nil {
		return nil, wire.Errorf("InvalidManifest", "The manifest at %s can't be registered: %v", location, err)
	}
	if err := c.verify(location, m); err != nil {
		return nil, err
	}
	kind, err := m.Kind(key)
	if err != nil {
		return nil, wire.Errorf("InvalidManifest", "The manifest at %s can't be registered: %v", location, err)
	}
	return &foundBundle{location, m, bundle.Pin(text), cloud.ImageKind(kind)}, nil
}

// nameForm is EC2's of an image's name.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9 ()\[\]./\-'@_]{3,128}$`)

// checkImageName holds a new image's name to EC2's form.
func checkImageName(name string) error {
	if name == "" {
		return wire.MissingParameter("Name")
	}
	if !nameForm.MatchString(name) {
		return malformedName(name)
	}
	return nil
}

func malformedName(name string) error {
	return wire.Errorf("InvalidAMIName.Malformed", "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, spaces and ( ) [ ] . / - ' @ _: '%s' is not one", wire.Shorten(name))
}

// checkDescription of an image; its length is in the parameter's tag.
func checkDescription(name, text string) error {
	if strings.ContainsFunc(text, unprintable) {
		return wire.InvalidParameterValue(name, text, "Control characters are not allowed.")
	}
	return nil
}

// check what the request alone shows.
func (in *registerImageInput) check() (err error) {
	if in.Platform == windows && in.VirtualizationType == string(cloud.Paravirtual) {
		return wire.InvalidParameterCombination("The Platform windows needs the VirtualizationType hvm")
	}
	if in.RootDeviceName != "" && !cloud.IsDevice(in.RootDeviceName) {
		return wire.InvalidParameterValue("RootDeviceName", in.RootDeviceName, "Expecting a device such as /dev/sda1.")
	}
	err = firstError(
		checkImageName(in.Name),
		checkDescription("Description", in.Description),
		never("TpmSupport", in.TpmSupport, "machines have no trusted platform module"),
		never("UefiData", in.UefiData, "machines keep no variables of their firmware"),
		never("BillingProduct", strings.Join(in.BillingProduct, ", "), "nothing is billed here"),
		in.checkBootMode(),
	)
	if err != nil {
		return err
	}
	in.mappings, err = mappingRequests(in.BlockDeviceMapping)
	return err
}

// checkBootMode against what it excludes.
func (in *registerImageInput) checkBootMode() error {
	switch {
	case in.BootMode == "":
	case in.VirtualizationType == string(cloud.Paravirtual):
		return wire.InvalidParameterCombination("BootMode can't be used with VirtualizationType paravirtual, whose images boot without firmware")
	case in.BootMode == string(cloud.LegacyBIOS) && in.Architecture == "arm64":
		return wire.InvalidParameterCombination("The BootMode legacy-bios can't be used with Architecture arm64, which boots by UEFI")
	}
	return nil
}

// where the manifest is: bucket/key, with or without a leading slash.
func (in *registerImageInput) where() (bucket, key string, err error) {
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
	if err := c.enroll(i); err != nil {
		return nil, err
	}
	return &registerImageReply{string(i.ID)}, c.tagNew("image", string(i.ID))
}

// enroll puts a new image into the state, if its name is free.
func (c *call) enroll(i *cloud.Image) error {
	err := state.Enroll(c.tx, i)
	var taken *state.TakenError
	if errors.As(err, &taken) {
		return wire.Errorf("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", i.Name, taken.Owner)
	}
	return err
}

func (c *call) newImage(in *registerImageInput) (*cloud.Image, error) {
	kind := cloud.MachineImage
	if in.bundle != nil {
		kind = in.bundle.kind
	}
	id, err := c.newID(kind.Prefix(), has(c.tx, state.Images))
	if err != nil {
		return nil, err
	}
	i := &cloud.Image{ID: cloud.ImageID(id), Account: c.account(), Kind: kind, Name: in.Name, Description: in.Description, CreatedAt: c.Now()}
	if in.bundle == nil {
		return i, c.backedMachine(in, i)
	}
	b := in.bundle
	i.Location, i.ManifestDigest, i.Digest, i.Size = b.location, b.pin, hex.EncodeToString(b.manifest.Digest[:]), b.manifest.Size
	if i.Architecture, err = in.architecture(); err != nil {
		return nil, err
	}
	if kind != cloud.MachineImage {
		return i, c.checkBootImage(in)
	}
	for _, code := range b.manifest.ProductCodes {
		i.ProductCodes = addProductCode(i.ProductCodes, code)
	}
	return i, c.storedMachine(in, i)
}

func (in *registerImageInput) architecture() (string, error) {
	switch a := in.bundle.manifest.Architecture; {
	case in.Architecture != "":
		return in.Architecture, nil
	case a == "":
		return "x86_64", nil
	case a == "i386" || a == "x86_64" || a == "arm64":
		return a, nil
	default:
		return "", wire.Errorf("InvalidManifest", "The manifest at %s is of architecture %s, and images are of i386, x86_64 or arm64", in.ImageLocation, wire.Shorten(a))
	}
}

// checkBootImage lets only who runs the cloud register kernels and ramdisks,
// because they run before anything that an owner of an image can control.
func (c *call) checkBootImage(in *registerImageInput) error {
	kind := in.bundle.kind
	if !c.principal.System {
		return wire.Errorf("UnauthorizedOperation", "Only administrators can register %s images.", kind)
	}
	if in.VirtualizationType == string(cloud.HVM) || in.KernelID != "" || in.RamdiskID != "" || len(in.BlockDeviceMapping) > 0 || in.BootMode != "" {
		return wire.InvalidParameterCombination("The bundle at %s is a %s: VirtualizationType, KernelId, RamdiskId, BlockDeviceMapping and BootMode are of machine images", in.ImageLocation, kind)
	}
	return nil
}

// storedMachine fills in what only machine images have, for an instance-store
// one.
func (c *call) storedMachine(in *registerImageInput, i *cloud.Image) (err error) {
	i.Virtualization = cloud.Paravirtual
	if in.VirtualizationType != "" {
		i.Virtualization = cloud.Virtualization(in.VirtualizationType)
	}
	if in.isWindows() {
		i.Platform, i.Virtualization = windows, cloud.HVM
	}
	i.RootDevice = in.RootDeviceName
	if i.RootDevice == "" {
		i.RootDevice = map[cloud.Virtualization]string{cloud.HVM: cloud.HVMRoot, cloud.Paravirtual: cloud.PVRoot}[i.Virtualization]
	}
	if i.Mappings, err = cloud.RegisterMappings(i, in.mappings, c.completedSnapshot); err != nil {
		return err
	}
	if i.Root() != nil {
		return wire.InvalidParameterCombination("The image is registered from the manifest at %s or from the snapshot %s of its root device, not both", in.ImageLocation, i.Root().Snapshot)
	}
	if i.Virtualization == cloud.HVM {
		in.firmware(i)
		return in.refuseBootPair()
	}
	if in.BootMode != "" {
		return wire.InvalidParameterCombination("BootMode can't be used with a paravirtual image, which boots without firmware")
	}
	if err := in.refuseWholeDisk(); err != nil {
		return err
	}
	return c.bootPair(in, i)
}

// backedMachine fills in an EBS-backed image, which is always HVM.
func (c *call) backedMachine(in *registerImageInput, i *cloud.Image) (err error) {
	if in.VirtualizationType == string(cloud.Paravirtual) {
		return wire.InvalidParameterCombination("An image that is registered from a snapshot boots by itself: its VirtualizationType is hvm, not paravirtual; a paravirtual one needs an ImageLocation")
	}
	i.Virtualization, i.Location = cloud.HVM, string(i.Account)+"/"+i.Name
	i.Architecture = cmp.Or(in.Architecture, "x86_64")
	i.RootDevice = cmp.Or(in.RootDeviceName, in.firstDevice(), cloud.HVMRoot)
	if in.Platform == windows {
		i.Platform = windows
	}
	if i.Mappings, err = cloud.RegisterMappings(i, in.mappings, c.completedSnapshot); err != nil {
		return err
	}
	root := i.Root()
	if root == nil {
		return wire.Errorf("MissingParameter", "The request must contain the parameter ImageLocation, the manifest of a bundle, or a BlockDeviceMapping of the root device %s with a SnapshotId", i.RootDevice)
	}
	i.Size = int64(root.SizeGiB) << 30
	in.firmware(i)
	return in.refuseBootPair()
}

// firstDevice is the mapping's own name of the first disk.
func (in *registerImageInput) firstDevice() string {
	for _, m := range in.mappings {
		if cloud.Slot(m.Device) == cloud.Slot(cloud.HVMRoot) {
			return m.Device
		}
	}
	return ""
}

// firmware fills in what an HVM image says to it, and of its drivers.
func (in *registerImageInput) firmware(i *cloud.Image) {
	i.BootMode, i.ENA, i.SRIOV, i.IMDS = cloud.BootMode(in.BootMode), in.EnaSupport, in.SriovNetSupport, in.ImdsSupport
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
