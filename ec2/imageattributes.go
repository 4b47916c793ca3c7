package ec2

import (
	"regexp"
	"slices"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// maxShares is with how many accounts an image may be shared by name: EC2's
// limit.
const maxShares = 1000

type imageAttributeInput struct {
	common
	ImageID   string `wire:"ImageId,required"`
	Attribute string `wire:"Attribute,required"`
}

// imageAttributeReply has one of its attributes.
type imageAttributeReply struct {
	ID           string             `xml:"imageId"`
	Description  *attribute         `xml:"description"`
	Kernel       *attribute         `xml:"kernel"`
	Ramdisk      *attribute         `xml:"ramdisk"`
	BootMode     *attribute         `xml:"bootMode"`
	SRIOV        *attribute         `xml:"sriovNetSupport"`
	IMDS         *attribute         `xml:"imdsSupport"`
	TPM          *attribute         `xml:"tpmSupport"`
	UEFI         *attribute         `xml:"uefiData"`
	LastLaunched *attribute         `xml:"lastLaunchedTime"`
	Protection   *attribute         `xml:"deregistrationProtection"`
	Permissions  *permissionsReply  `xml:"launchPermission"`
	ProductCodes *productCodesReply `xml:"productCodes"`
	Mappings     *deviceReply       `xml:"blockDeviceMapping"`
}

type permissionsReply struct {
	Items []permissionReply `xml:"item"`
}

type permissionReply struct {
	UserID string `xml:"userId,omitempty"`
	Group  string `xml:"group,omitempty"`
}

type productCodesReply struct {
	Items []productCode `xml:"item"`
}

type deviceReply struct {
	Items []mappingReply `xml:"item"`
}

// imageAttributes are those that are served, by name.
var imageAttributes = map[string]func(*call, *imageAttributeReply, *cloud.Image){
	"description":              func(_ *call, r *imageAttributeReply, i *cloud.Image) { r.Description = &attribute{i.Description} },
	"kernel":                   func(_ *call, r *imageAttributeReply, i *cloud.Image) { r.Kernel = &attribute{string(i.Kernel)} },
	"ramdisk":                  func(_ *call, r *imageAttributeReply, i *cloud.Image) { r.Ramdisk = &attribute{string(i.Ramdisk)} },
	"bootMode":                 func(_ *call, r *imageAttributeReply, i *cloud.Image) { r.BootMode = &attribute{string(i.BootMode)} },
	"sriovNetSupport":          func(_ *call, r *imageAttributeReply, i *cloud.Image) { r.SRIOV = &attribute{i.SRIOV} },
	"imdsSupport":              func(_ *call, r *imageAttributeReply, i *cloud.Image) { r.IMDS = &attribute{i.IMDS} },
	"tpmSupport":               func(_ *call, r *imageAttributeReply, _ *cloud.Image) { r.TPM = &attribute{} },
	"uefiData":                 func(_ *call, r *imageAttributeReply, _ *cloud.Image) { r.UEFI = &attribute{} },
	"deregistrationProtection": func(c *call, r *imageAttributeReply, i *cloud.Image) { r.Protection = &attribute{c.protection(i)} },
	"launchPermission":         func(_ *call, r *imageAttributeReply, i *cloud.Image) { r.Permissions = permissions(i) },
	"productCodes": func(_ *call, r *imageAttributeReply, i *cloud.Image) {
		r.ProductCodes = &productCodesReply{productCodes(i)}
	},
	"blockDeviceMapping": func(_ *call, r *imageAttributeReply, i *cloud.Image) { r.Mappings = &deviceReply{deviceNames(i)} },
	"lastLaunchedTime": func(_ *call, r *imageAttributeReply, i *cloud.Image) {
		r.LastLaunched = &attribute{}
		if !i.LastLaunched.IsZero() {
			r.LastLaunched.Value = timestamp(i.LastLaunched)
		}
	},
}

func permissions(i *cloud.Image) *permissionsReply {
	out := &permissionsReply{}
	if i.Public {
		out.Items = append(out.Items, permissionReply{Group: "all"})
	}
	for _, account := range i.LaunchableBy {
		out.Items = append(out.Items, permissionReply{UserID: string(account)})
	}
	return out
}

// deviceNames are how a guest of the image knows its disks: of an instance-store
// image by what they are for, as its metadata has it, before those that it maps.
func deviceNames(i *cloud.Image) []mappingReply {
	named := func(pairs ...string) (list []mappingReply) {
		for n := 0; n < len(pairs); n += 2 {
			list = append(list, mappingReply{Device: pairs[n+1], VirtualName: pairs[n]})
		}
		return list
	}
	var layout []mappingReply
	switch {
	case i.Kind != cloud.MachineImage || i.Root() != nil:
	case i.Virtualization == cloud.Paravirtual:
		layout = named("emi", "sda1", "ephemeral0", "sda2", "swap", "sda3", "root", i.RootDevice)
	default:
		layout = named("emi", strings.TrimPrefix(i.RootDevice, "/dev/"), "ephemeral0", "sdb", "root", i.RootDevice)
	}
	mapped := mappingReplies(i.Mappings)
	layout = slices.DeleteFunc(layout, func(l mappingReply) bool {
		return slices.ContainsFunc(mapped, func(m mappingReply) bool {
			return l.VirtualName == cloud.Ephemeral0 && (m.VirtualName == cloud.Ephemeral0 || cloud.Slot(m.Device) == cloud.Slot(l.Device))
		})
	})
	return append(layout, mapped...)
}

func describeImageAttribute(c *call, in *imageAttributeInput) (*imageAttributeReply, error) {
	i, err := c.ownImage(in.ImageID)
	if err != nil {
		return nil, err
	}
	set, ok := imageAttributes[in.Attribute]
	if !ok {
		return nil, wire.InvalidParameterValue("Attribute", in.Attribute, "Images have no such attribute.")
	}
	out := &imageAttributeReply{ID: string(i.ID)}
	set(c, out, i)
	return out, nil
}

// modifyImageInput has the forms of old and new clients: an attribute that is
// named, or one that is a parameter of its own.
type modifyImageInput struct {
	common
	ImageID            string `wire:"ImageId,required"`
	Attribute          string
	Value              *string
	OperationType      string   `wire:"OperationType,enum=add|remove"`
	UserID             []string `wire:"UserId,max=1000"`
	UserGroup          []string `wire:"UserGroup,max=1000"`
	ProductCode        []string `wire:"ProductCode,max=1000"`
	OrganizationArn    []string `wire:"OrganizationArn,max=1000"`
	OrganizationalUnit []string `wire:"OrganizationalUnitArn,max=1000"`
	Description        *attributeInput
	ImdsSupport        *attributeInput
	LaunchPermission   *permissionsInput
}

type attributeInput struct{ Value string }

type permissionsInput struct {
	Add    []permission `wire:"Add,max=1000"`
	Remove []permission `wire:"Remove,max=1000"`
}

// permission to launch an image: of an account, or of everybody.
type permission struct {
	UserID             string `wire:"UserId"`
	Group              string
	OrganizationArn    string
	OrganizationalUnit string `wire:"OrganizationalUnitArn"`
}

func modifyImageAttribute(c *call, in *modifyImageInput) (*reply, error) {
	return c.changeImage(in.ImageID, func(i *cloud.Image) error {
		change, err := in.change()
		if err != nil {
			return err
		}
		return change(c, i)
	})
}

// imageChange is what becomes of one attribute.
type imageChange func(*call, *cloud.Image) error

// change that the request asks for: one.
func (in *modifyImageInput) change() (imageChange, error) {
	var changes []imageChange
	if in.Description != nil {
		changes = append(changes, describeAs("Description.Value", in.Description.Value))
	}
	if in.ImdsSupport != nil {
		changes = append(changes, supportIMDS("ImdsSupport.Value", in.ImdsSupport.Value))
	}
	if p := in.LaunchPermission; p != nil {
		changes = append(changes, share(p))
	}
	if in.Attribute != "" || len(changes) == 0 {
		change, err := in.named()
		if err != nil {
			return nil, err
		}
		changes = append(changes, change)
	} else if in.Value != nil || in.lists() > 0 || in.OperationType != "" {
		return nil, wire.InvalidParameterCombination("Value, OperationType, UserId, UserGroup and ProductCode go with Attribute, and not with the attribute as a parameter of its own")
	}
	if len(changes) > 1 {
		return nil, wire.InvalidParameterCombination("One attribute can be modified at a time; the request names %d", len(changes))
	}
	return changes[0], nil
}

func (in *modifyImageInput) lists() int {
	return len(in.UserID) + len(in.UserGroup) + len(in.ProductCode) + len(in.OrganizationArn) + len(in.OrganizationalUnit)
}

// named change: the older form. Eucalyptus's and EC2's oldest clients name no
// attribute where a list tells it.
func (in *modifyImageInput) named() (imageChange, error) {
	attribute := in.Attribute
	switch {
	case attribute != "":
	case len(in.ProductCode) > 0:
		attribute = "productCodes"
	case in.lists() > 0 || in.OperationType != "":
		attribute = "launchPermission"
	default:
		return nil, wire.Errorf("MissingParameter", "The request must contain one of the parameters Attribute, Description, ImdsSupport and LaunchPermission")
	}
	switch attribute {
	case "launchPermission":
		return in.namedPermissions()
	case "productCodes":
		if in.OperationType == "remove" || len(in.ProductCode) == 0 {
			return nil, wire.InvalidParameterCombination("Product codes can be added only: the Attribute productCodes needs a ProductCode.1 and no OperationType remove")
		}
		return addProductCodes(in.ProductCode), nil
	case "description", "imdsSupport":
		if in.Value == nil {
			return nil, wire.MissingParameter("Value")
		}
		if attribute == "description" {
			return describeAs("Value", *in.Value), nil
		}
		return supportIMDS("Value", *in.Value), nil
	}
	if _, ok := imageAttributes[attribute]; ok {
		return nil, wire.InvalidParameterValue("Attribute", attribute, "It is fixed when the image is registered; description, imdsSupport, launchPermission and productCodes can be modified.")
	}
	return nil, wire.InvalidParameterValue("Attribute", attribute, "Images have no such attribute.")
}

func (in *modifyImageInput) namedPermissions() (imageChange, error) {
	var list []permission
	for _, id := range in.UserID {
		list = append(list, permission{UserID: id})
	}
	for _, group := range in.UserGroup {
		list = append(list, permission{Group: group})
	}
	for _, arn := range slices.Concat(in.OrganizationArn, in.OrganizationalUnit) {
		list = append(list, permission{OrganizationArn: arn})
	}
	switch in.OperationType {
	case "add":
		return share(&permissionsInput{Add: list}), nil
	case "remove":
		return share(&permissionsInput{Remove: list}), nil
	}
	return nil, wire.MissingParameter("OperationType")
}

func describeAs(name, text string) imageChange {
	return func(_ *call, i *cloud.Image) error {
		if len([]rune(text)) > maxDescription {
			return wire.InvalidParameterValue(name, text, "Expecting at most %d characters.", maxDescription)
		}
		i.Description = text
		return checkDescription(name, text)
	}
}

// maxDescription is how long an image's description may be, in characters.
const maxDescription = 255

// supportIMDS can be said once and not taken back, as in EC2.
func supportIMDS(name, value string) imageChange {
	return func(_ *call, i *cloud.Image) error {
		if value != "v2.0" {
			return wire.InvalidParameterValue(name, value, "Expecting v2.0.")
		}
		i.IMDS = value
		return nil
	}
}

// productCodeForm is of product codes; EC2's own are 25 letters and digits.
var productCodeForm = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

// maxProductCodes of one image.
const maxProductCodes = 100

func addProductCodes(codes []string) imageChange {
	return func(_ *call, i *cloud.Image) error {
		list := slices.Clone(i.ProductCodes)
		for _, code := range codes {
			if !productCodeForm.MatchString(code) {
				return wire.Errorf("InvalidAMIAttributeItemValue", "Invalid attribute item value %q for the product codes: they are up to 64 letters, digits and hyphens", wire.Shorten(code))
			}
			list = addProductCode(list, code)
		}
		if len(list) > maxProductCodes {
			return wire.InvalidParameterValue("ProductCode", codes[0], "The image %s would have %d product codes, and %d are allowed.", i.ID, len(list), maxProductCodes)
		}
		i.ProductCodes = list
		return nil
	}
}

func addProductCode(codes []string, code string) []string {
	if slices.Contains(codes, code) {
		return codes
	}
	return append(codes, code)
}

// share an image with accounts or with everybody, and take that back.
func share(p *permissionsInput) imageChange {
	return func(c *call, i *cloud.Image) error {
		if len(p.Add)+len(p.Remove) == 0 {
			return wire.Errorf("MissingParameter", "The request must contain a UserId or Group to be added to the launch permission, or removed")
		}
		if i.Disabled && len(p.Add) > 0 {
			return wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is disabled, and can't be shared", i.ID)
		}
		i.LaunchableBy = slices.Clone(i.LaunchableBy)
		for _, add := range p.Add {
			if err := c.grant(i, add); err != nil {
				return err
			}
		}
		for _, remove := range p.Remove {
			if err := c.revoke(i, remove); err != nil {
				return err
			}
		}
		slices.Sort(i.LaunchableBy)
		if i.LaunchableBy = slices.Compact(i.LaunchableBy); len(i.LaunchableBy) > maxShares {
			return wire.Errorf("ResourceLimitExceeded", "The image %s would be shared with %d accounts; at most %d are allowed", i.ID, len(i.LaunchableBy), maxShares)
		}
		return nil
	}
}

func (c *call) grant(i *cloud.Image, p permission) error {
	if err := p.check(); err != nil {
		return err
	}
	if p.Group != "" {
		i.Public = true
		return nil
	}
	if _, _, ok := state.Accounts.Get(c.read, cloud.AccountID(p.UserID)); !ok {
		return badUserID(p.UserID)
	}
	i.LaunchableBy = append(i.LaunchableBy, cloud.AccountID(p.UserID))
	return nil
}

// revoke a permission; one that an account has is taken also when the account is
// gone.
func (c *call) revoke(i *cloud.Image, p permission) error {
	if err := p.check(); err != nil {
		return err
	}
	if p.Group != "" {
		i.Public = false
		return nil
	}
	if !accountForm.MatchString(p.UserID) {
		return badUserID(p.UserID)
	}
	i.LaunchableBy = slices.DeleteFunc(i.LaunchableBy, func(a cloud.AccountID) bool { return a == cloud.AccountID(p.UserID) })
	return nil
}

var accountForm = regexp.MustCompile(`^[0-9]{12}$`)

// badUserID is refused in Eucalyptus's words with EC2's code.
func badUserID(id string) error {
	return wire.Errorf("InvalidAMIAttributeItemValue", "Not a valid userId : %s", wire.Shorten(id))
}

// check that the permission is one, and one that there is.
func (p *permission) check() error {
	switch {
	case p.OrganizationArn != "" || p.OrganizationalUnit != "":
		return wire.UnsupportedOperation("The launch permission of organizations is not supported: there are none")
	case p.Group != "" && p.UserID != "":
		return wire.InvalidParameterCombination("A launch permission is one of UserId and Group, not both")
	case p.Group != "" && p.Group != "all":
		return wire.Errorf("InvalidAMIAttributeItemValue", "Invalid attribute item value %q for userGroup item type: expecting all", wire.Shorten(p.Group))
	case p.Group == "" && p.UserID == "":
		return wire.Errorf("MissingParameter", "A launch permission must contain a UserId or a Group")
	}
	return nil
}

type resetImageInput struct {
	common
	ImageID   string `wire:"ImageId,required"`
	Attribute string `wire:"Attribute,required,enum=launchPermission"`
}

// resetImageAttribute makes the image its owner's alone.
func resetImageAttribute(c *call, in *resetImageInput) (*reply, error) {
	return c.changeImage(in.ImageID, func(i *cloud.Image) error {
		i.Public, i.LaunchableBy = false, nil
		return nil
	})
}
