package ec2

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

const (
	// maxLaunch is how many instances one call may ask for: one transaction of
	// the state makes them all.
	maxLaunch = 1000
	// maxUserData is EC2's limit, in bytes, before base64.
	maxUserData = 16 << 10
)

type runInput struct {
	common
	idempotent
	tagged
	ImageID            string `wire:"ImageId,required"`
	MinCount           *int   `wire:"MinCount,min=1,max=1000"`
	MaxCount           *int   `wire:"MaxCount,min=1,max=1000"`
	InstanceType       string
	KeyName            string
	UserData           string
	KernelID           string   `wire:"KernelId"`
	RamdiskID          string   `wire:"RamdiskId"`
	SecurityGroup      []string `wire:"SecurityGroup,max=100"`
	SecurityGroupID    []string `wire:"SecurityGroupId,max=100"`
	AddressingType     string   `wire:"AddressingType,enum=public|private"` // Eucalyptus's
	Placement          placementInput
	BlockDeviceMapping []blockDevice
	NetworkInterface   []launchInterface `wire:"NetworkInterface,max=100"`
	unserved

	least, most int                    // MinCount and MaxCount, with their defaults
	userData    []byte                 // decoded
	mappings    []cloud.MappingRequest // of BlockDeviceMapping
	volumes     []cloud.Mapping        // that each instance gets, the image's included
}

type placementInput struct {
	AvailabilityZone   string
	Affinity           string
	GroupName          string
	GroupID            string `wire:"GroupId"`
	HostID             string `wire:"HostId"`
	SpreadDomain       string
	Tenancy            string
	PartitionNumber    *int
	AvailabilityZoneID string `wire:"AvailabilityZoneId"`
}

// unserved are the parameters of which, but for the metadata's tokens, one value
// only is served: what happens anyway. Common clients send them.
type unserved struct {
	Monitoring                        struct{ Enabled bool }
	EbsOptimized                      bool
	DisableApiTermination             bool
	DisableApiStop                    bool
	EnablePrimaryIpv6                 bool
	InstanceInitiatedShutdownBehavior string `wire:"InstanceInitiatedShutdownBehavior,enum=stop|terminate"`
	HibernationOptions                struct{ Configured bool }
	EnclaveOptions                    struct{ Enabled bool }
	MetadataOptions                   metadataInput
	CreditSpecification               struct{ CpuCredits string }
	SubnetID                          string `wire:"SubnetId"`
	PrivateIPAddress                  string `wire:"PrivateIpAddress"`
	IamInstanceProfile                struct{ Arn, Name string }
}

func (in *runInput) check() error {
	p, u := &in.Placement, &in.unserved
	err := firstError(
		only("Monitoring.Enabled", strconv.FormatBool(u.Monitoring.Enabled), "false"),
		only("EbsOptimized", strconv.FormatBool(u.EbsOptimized), "false"),
		only("DisableApiTermination", strconv.FormatBool(u.DisableApiTermination), "false"),
		only("DisableApiStop", strconv.FormatBool(u.DisableApiStop), "false"),
		only("EnablePrimaryIpv6", strconv.FormatBool(u.EnablePrimaryIpv6), "false"),
		only("HibernationOptions.Configured", strconv.FormatBool(u.HibernationOptions.Configured), "false"),
		only("EnclaveOptions.Enabled", strconv.FormatBool(u.EnclaveOptions.Enabled), "false"),
		u.MetadataOptions.check("MetadataOptions."),
		only("CreditSpecification.CpuCredits", u.CreditSpecification.CpuCredits, "", "standard", "unlimited"), // processors aren't metered
		only("Placement.Tenancy", p.Tenancy, "", "default"),
		never("Placement.Affinity", p.Affinity, "there are no dedicated hosts"),
		never("Placement.HostId", p.HostID, "there are no dedicated hosts"),
		never("Placement.SpreadDomain", p.SpreadDomain, "there are no placement groups yet"),
		never("Placement.GroupName", p.GroupName, "there are no placement groups yet"),
		never("Placement.GroupId", p.GroupID, "there are no placement groups yet"),
		never("Placement.AvailabilityZoneId", p.AvailabilityZoneID, "name the zone by Placement.AvailabilityZone"),
		never("PrivateIpAddress", u.PrivateIPAddress, "addresses are chosen by the cloud"),
		never("IamInstanceProfile.Arn", u.IamInstanceProfile.Arn, "there are no instance profiles yet"),
		never("IamInstanceProfile.Name", u.IamInstanceProfile.Name, "there are no instance profiles yet"),
	)
	if err != nil {
		return err
	}
	if p.PartitionNumber != nil {
		return never("Placement.PartitionNumber", strconv.Itoa(*p.PartitionNumber), "there are no placement groups yet")
	}
	if err := firstError(in.checkCounts(), in.checkUserData()); err != nil {
		return err
	}
	if err := in.checkInterface(); err != nil {
		return err
	}
	in.mappings, err = mappingRequests(in.BlockDeviceMapping)
	return err
}

// shutdown is what becomes of an instance that powers itself off: EC2's default
// for what its image is. Nothing can be stopped that has no root that would
// outlive the stop.
func (in *runInput) shutdown(i *cloud.Image) (cloud.ShutdownBehavior, error) {
	asked := cloud.ShutdownBehavior(in.InstanceInitiatedShutdownBehavior)
	switch {
	case asked == "" && i.Root() != nil:
		return cloud.ShutdownStop, nil
	case asked == "":
		return cloud.ShutdownTerminate, nil
	case asked == cloud.ShutdownStop && i.Root() == nil:
		return "", wire.InvalidParameterCombination("InstanceInitiatedShutdownBehavior stop is for EBS-backed images; %s is instance-store backed: use terminate", i.ID)
	}
	return asked, nil
}

// checkCounts: a count that isn't given is the other one, and one instance
// where neither is.
func (in *runInput) checkCounts() error {
	in.least, in.most = 1, 1
	if in.MinCount != nil {
		in.least, in.most = *in.MinCount, *in.MinCount
	}
	if in.MaxCount != nil {
		in.most = *in.MaxCount
	}
	if in.least > in.most {
		return wire.InvalidParameterCombination("MinCount (%d) is greater than MaxCount (%d)", in.least, in.most)
	}
	return nil
}

func (in *runInput) checkUserData() error {
	data, err := decodeUserData(in.UserData)
	in.userData = data
	return err
}

// checkRun is the step before the transaction.
func checkRun(_ *call, in *runInput) error { return in.check() }

// runInstances launches a reservation: everything it takes is taken in the one
// transaction, and the loops and nodes do the rest.
func runInstances(c *call, in *runInput) (*reservationReply, error) {
	model, err := c.model(in)
	if err != nil {
		return nil, err
	}
	nodes, err := c.place(in, model)
	if err != nil {
		return nil, err
	}
	r, err := c.newReservation(model)
	if err != nil {
		return nil, err
	}
	var list []*cloud.Instance
	for index, node := range nodes {
		i, err := c.launch(in, model, r.ID, index, node)
		if err != nil {
			return nil, err
		}
		r.Instances = append(r.Instances, i.ID)
		list = append(list, i)
	}
	state.Reservations.Put(c.tx, r)
	c.made = string(r.ID)
	out := c.reservationReply(&r, list)
	return &out, nil
}

// ranBefore is the reply to a client token that was used before.
func ranBefore(c *call, made string) (any, error) {
	r, _, ok := state.Reservations.Get(c.read, cloud.ReservationID(made))
	if !ok {
		return nil, wire.Errorf("IdempotentInstanceTerminated", "The instances that were launched with this client token are gone; use another")
	}
	var list []*cloud.Instance
	for _, id := range r.Instances {
		if i, _, ok := state.Instances.Get(c.read, id); ok {
			list = append(list, i)
		}
	}
	out := c.reservationReply(r, list)
	return &out, nil
}

// model is what all instances of the reservation have in common.
func (c *call) model(in *runInput) (*cloud.Instance, error) {
	if err := c.may(c.arn(c.account(), "instance", "*")); err != nil {
		return nil, err
	}
	m := &cloud.Instance{
		Account: c.account(), LaunchedAt: c.Now(), UserData: in.userData, ClientToken: in.ClientToken,
		Wish: cloud.WishRunning, Wishes: 1, WishedAt: c.Now(),
	}
	if err := c.modelImage(in, m); err != nil {
		return nil, err
	}
	if err := c.modelType(in, m); err != nil {
		return nil, err
	}
	if err := c.modelKey(in, m); err != nil {
		return nil, err
	}
	var err error
	m.Groups, err = c.launchGroups(in)
	return m, err
}

func (c *call) modelImage(in *runInput, m *cloud.Instance) error {
	i, err := c.launchable(in.ImageID, cloud.MachineImage)
	if err != nil {
		return err
	}
	if err := firstError(c.may(c.arn(i.Account, "image", string(i.ID))), refuseMachine(i)); err != nil {
		return err
	}
	m.Image, m.Architecture, m.Virtualization = i.Ref(), i.Architecture, i.Virtualization
	m.Platform, m.RootDevice, m.EBS = i.Platform, i.RootDevice, i.Root() != nil
	imageDefaults(i, m)
	in.MetadataOptions.apply(m)
	if m.Shutdown, err = in.shutdown(i); err != nil {
		return err
	}
	devices, err := cloud.MergeMappings(i, in.mappings, c.completedSnapshot)
	if err != nil {
		return err
	}
	m.Mappings, in.volumes = splitVolumes(devices)
	if err := c.modelBoot(in, i, m); err != nil {
		return err
	}
	c.noteLaunch(i)
	return nil
}

// modelBoot: a paravirtual image boots with a kernel and a ramdisk, any other by
// itself.
func (c *call) modelBoot(in *runInput, i *cloud.Image, m *cloud.Instance) (err error) {
	if i.Virtualization == cloud.HVM {
		return in.refuseBootPair(i)
	}
	if m.Kernel, err = c.launchWith("KernelId", in.KernelID, i.Kernel, cloud.KernelImage); err != nil {
		return err
	}
	m.Ramdisk, err = c.launchWith("RamdiskId", in.RamdiskID, i.Ramdisk, cloud.RamdiskImage)
	return err
}

// refuseMachine that no node has: images of other machines can be registered, so
// that they can be kept and moved on, but not launched.
func refuseMachine(i *cloud.Image) error {
	switch {
	case !slices.Contains(architectures, i.Architecture):
		return wire.InvalidParameterValue("ImageId", string(i.ID), "The image is of architecture %s, and the instance types of this cloud are of %s.", i.Architecture, strings.Join(architectures, ", "))
	case i.BootMode == cloud.UEFI:
		return wire.UnsupportedOperation("The image %s boots by uefi only, and the instance types of this cloud by legacy-bios", i.ID)
	}
	return nil
}

// noteLaunch of an image, for its owner.
func (c *call) noteLaunch(i *cloud.Image) {
	launched := *i
	if launched.Launched(c.Now()) {
		state.Images.Put(c.tx, launched)
	}
}

func (in *runInput) refuseBootPair(i *cloud.Image) error {
	if in.KernelID != "" || in.RamdiskID != "" {
		return wire.InvalidParameterCombination("KernelId and RamdiskId can't be used with %s, an HVM image, which boots from its own disk", i.ID)
	}
	return nil
}

// launchWith resolves a kernel or ramdisk: the request's, or else the image's.
// The image's own serves though its owner shares it with nobody by name.
func (c *call) launchWith(name, asked string, own cloud.ImageID, kind cloud.ImageKind) (*cloud.ImageRef, error) {
	if asked != "" {
		i, err := c.launchable(asked, kind)
		if err != nil {
			return nil, err
		}
		ref := i.Ref()
		return &ref, c.may(c.arn(i.Account, "image", string(i.ID)))
	}
	i, _, ok := state.Images.Get(c.read, own)
	if !ok || c.available(i) != nil {
		return nil, wire.Errorf("InvalidAMIID.NotFound", "The image id '[%s]' does not exist: it is the %s of the image; name another by %s", own, kind, name)
	}
	ref := i.Ref()
	return &ref, nil
}

func (c *call) modelType(in *runInput, m *cloud.Instance) error {
	m.Type = cloud.TypeName(in.InstanceType)
	if m.Type == "" {
		m.Type = cloud.DefaultType
	}
	t, ok := cloud.TypeNamed(m.Type)
	if !ok {
		return wire.Errorf("InvalidParameterValue", "Invalid value '%s' for InstanceType: DescribeInstanceTypes lists those there are", wire.Shorten(in.InstanceType))
	}
	m.Size = t.Size
	if m.EBS {
		if !slices.ContainsFunc(m.Mappings, func(m cloud.Mapping) bool { return m.VirtualName == cloud.Ephemeral0 }) {
			m.Size.DiskGiB = 0 // it has no disk but its volumes
		}
		return nil
	}
	need := cloud.DiskNeeded(m.Virtualization, m.Image.Size)
	if disk := int64(t.Size.DiskGiB) << 30; need > disk {
		return wire.InvalidParameterCombination("The image %s (%d bytes, %d with what the cloud adds) is larger than the disk of instance type %s (%d bytes): choose a larger InstanceType",
			m.Image.ID, m.Image.Size, need, t.Name, disk)
	}
	return nil
}

func (c *call) modelKey(in *runInput, m *cloud.Instance) error {
	if in.KeyName == "" {
		return nil
	}
	k, err := c.keyPairByName(in.KeyName)
	if err != nil {
		return err
	}
	m.KeyName, m.PublicKey = k.Name, k.PublicKey
	return c.may(c.arn(c.account(), "key-pair", k.Name))
}

// place chooses a node for each instance.
func (c *call) place(in *runInput, m *cloud.Instance) ([]cloud.NodeID, error) {
	var nodes []cloud.Node
	for n := range state.Nodes.All(c.read) {
		nodes = append(nodes, *n)
	}
	zone, err := c.subnetZone(in)
	if err != nil {
		return nil, err
	}
	if zone != "" {
		if _, err := findZone(cloud.Zones(nodes), zone); err != nil {
			return nil, err
		}
	}
	chosen, err := cloud.Place(nodes, m.Size, zone, in.least, in.most)
	var full *cloud.NoRoomError
	if errors.As(err, &full) {
		return nil, wire.Errorf("InsufficientInstanceCapacity", "Not enough resources (%d in %s < %d): vm instances.", full.Free, full.Zone, full.Wanted)
	}
	return chosen, err
}

func (c *call) newReservation(m *cloud.Instance) (cloud.Reservation, error) {
	id, err := c.newID(cloud.PrefixReservation, has(c.tx, state.Reservations))
	return cloud.Reservation{ID: cloud.ReservationID(id), Account: m.Account, Groups: m.Groups}, err
}

// launch makes one instance of the reservation.
func (c *call) launch(in *runInput, m *cloud.Instance, r cloud.ReservationID, index int, node cloud.NodeID) (*cloud.Instance, error) {
	id, err := c.newID(cloud.PrefixInstance, has(c.tx, state.Instances))
	if err != nil {
		return nil, err
	}
	n, _, ok := state.Nodes.Get(c.tx, node)
	if !ok {
		return nil, errors.New("the node " + string(node) + " was there a moment ago")
	}
	i := *m
	i.ID, i.Reservation, i.LaunchIndex, i.Node, i.Zone = cloud.InstanceID(id), r, index, node, n.Zone
	err = state.Allocate(c.tx, c.Rand, c.Pools, &i, in.AddressingType != "private")
	var exhausted *state.NoAddressError
	if errors.As(err, &exhausted) {
		return nil, wire.Errorf("InsufficientFreeAddressesInSubnet", "There are not enough free private addresses in %s for the launch", exhausted.Pool)
	}
	if err != nil {
		return nil, err
	}
	state.Instances.Put(c.tx, i)
	if err := c.makeVolumes(&i, in.volumes); err != nil {
		return nil, err
	}
	return &i, c.tagNew("instance", id)
}
