package ec2

import (
	"cmp"
	"slices"
	"strconv"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// An instance has one network interface, whose id follows from its own. It comes
// and goes with the instance.

// interfaceReply is one as it is shown beside its instance.
type interfaceReply struct {
	ID          string              `xml:"networkInterfaceId"`
	Subnet      string              `xml:"subnetId"`
	VPC         string              `xml:"vpcId"`
	Description string              `xml:"description"`
	Owner       string              `xml:"ownerId"`
	Status      string              `xml:"status"`
	MAC         string              `xml:"macAddress"`
	PrivateIP   string              `xml:"privateIpAddress"`
	PrivateDNS  string              `xml:"privateDnsName"`
	SourceCheck bool                `xml:"sourceDestCheck"`
	Groups      []groupRef          `xml:"groupSet>item"`
	Attachment  interfaceAttachment `xml:"attachment"`
	Association *publicAssociation  `xml:"association"`
	Addresses   []interfaceAddress  `xml:"privateIpAddressesSet>item"`
	Type        string              `xml:"interfaceType"`
}

type interfaceAttachment struct {
	ID       string     `xml:"attachmentId"`
	Instance string     `xml:"instanceId,omitempty"` // where it isn't shown beside it
	Owner    string     `xml:"instanceOwnerId,omitempty"`
	Index    int        `xml:"deviceIndex"`
	Status   string     `xml:"status"`
	Time     *wire.Time `xml:"attachTime"`
	Delete   bool       `xml:"deleteOnTermination"`
}

type publicAssociation struct {
	IP         string `xml:"publicIp"`
	DNS        string `xml:"publicDnsName"`
	Owner      string `xml:"ipOwnerId"`
	Allocation string `xml:"allocationId,omitempty"` // where it isn't shown beside the instance
	ID         string `xml:"associationId,omitempty"`
}

type interfaceAddress struct {
	IP          string             `xml:"privateIpAddress"`
	DNS         string             `xml:"privateDnsName"`
	Primary     bool               `xml:"primary"`
	Association *publicAssociation `xml:"association"`
}

// interfaceOf an instance that isn't gone.
func (c *call) interfaceOf(i *cloud.Instance) interfaceReply {
	association := c.publicAssociation(i)
	return interfaceReply{
		ID: string(i.Interface()), Subnet: subnetOf(i.Account, i.Zone), VPC: vpcOf(i.Account), Owner: string(i.Account), Status: "in-use",
		MAC: i.MAC, PrivateIP: i.Local.String(), PrivateDNS: i.PrivateName(), SourceCheck: true, Groups: groupRefs(i.Groups),
		Attachment: interfaceAttachment{
			ID: cloud.DerivedID("eni-attach", string(i.ID)), Status: "attached", Time: wire.At(i.LaunchedAt), Delete: true,
		},
		Association: association, Addresses: []interfaceAddress{{i.Local.String(), i.PrivateName(), true, association}}, Type: "interface",
	}
}

// publicAssociation of an instance; an address that isn't kept is Amazon's, as
// EC2 says it.
func (c *call) publicAssociation(i *cloud.Instance) *publicAssociation {
	if !i.Public.IsValid() {
		return nil
	}
	p := &publicAssociation{IP: publicOf(i), DNS: publicOf(i), Owner: addressPool}
	if c.keptBy(i) != nil {
		p.Owner = string(i.Account)
	}
	return p
}

// keptBy the account is the instance's public address, or else nil.
func (c *call) keptBy(i *cloud.Instance) *cloud.Address {
	for a := range state.AddressesByInstance.By(c.read, i.ID) {
		return a
	}
	return nil
}

type describeInterfacesInput struct {
	common
	selection
	ID []string `wire:"NetworkInterfaceId,max=1000"`
}

type describeInterfacesReply struct {
	Interfaces []interfaceDescription `xml:"networkInterfaceSet>item"`
	NextToken  string                 `xml:"nextToken,omitempty"`
}

// interfaceDescription is one as it is shown by itself.
type interfaceDescription struct {
	interfaceReply
	Zone      string `xml:"availabilityZone"`
	Requester bool   `xml:"requesterManaged"`
	Tags      []tag  `xml:"tagSet>item"`
}

var interfaceKind = derivedKind[interfaceDescription]("addresses.association.owner-id", "addresses.association.public-ip", "addresses.primary",
	"addresses.private-ip-address", "association.allocation-id", "association.association-id", "association.ip-owner-id",
	"association.public-dns-name", "association.public-ip", "attachment.attach-time", "attachment.attachment-id",
	"attachment.delete-on-termination", "attachment.device-index", "attachment.instance-id", "attachment.instance-owner-id",
	"attachment.status", "availability-zone", "description", "group-id", "group-name", "interface-type", "mac-address", "network-interface-id",
	"owner-id", "private-dns-name", "private-ip-address", "requester-managed", "source-dest-check", "status", "subnet-id", "vpc-id")

// interfaces of the caller's account.
func (c *call) interfaces() (all []derived[interfaceDescription]) {
	for i := range c.instancesOf(firsts(state.ReservationsByAccount.By(c.read, c.account()))) {
		if c.stateOf(i) == cloud.Terminated {
			continue
		}
		d := interfaceDescription{interfaceReply: c.interfaceOf(i), Zone: i.Zone, Tags: c.tagSet(string(i.Interface()))}
		d.Attachment.Instance, d.Attachment.Owner = string(i.ID), string(i.Account)
		if a := c.keptBy(i); a != nil {
			whole := *d.Association
			whole.Allocation, whole.ID = string(a.ID), string(a.Association)
			d.Association, d.Addresses[0].Association = &whole, &whole
		}
		all = append(all, derived[interfaceDescription]{d.ID, d, d.values(i)})
	}
	return all
}

// values for filters.
func (d *interfaceDescription) values(i *cloud.Instance) map[string][]string {
	p := cmp.Or(d.Association, &publicAssociation{})
	values := map[string][]string{
		"addresses.association.owner-id": one(p.Owner), "addresses.association.public-ip": one(p.IP), "addresses.primary": {"true"},
		"addresses.private-ip-address": {d.PrivateIP}, "association.allocation-id": one(p.Allocation), "association.association-id": one(p.ID),
		"association.ip-owner-id": one(p.Owner), "association.public-dns-name": one(p.DNS), "association.public-ip": one(p.IP),
		"attachment.attach-time": {timestamp(i.LaunchedAt)}, "attachment.attachment-id": {d.Attachment.ID}, "attachment.delete-on-termination": {"true"},
		"attachment.device-index": {strconv.Itoa(d.Attachment.Index)}, "attachment.instance-id": {string(i.ID)}, "attachment.instance-owner-id": {d.Owner},
		"attachment.status": {d.Attachment.Status}, "availability-zone": {d.Zone}, "interface-type": {d.Type}, "mac-address": {d.MAC},
		"network-interface-id": {d.ID}, "owner-id": {d.Owner}, "private-dns-name": {d.PrivateDNS}, "private-ip-address": {d.PrivateIP},
		"requester-managed": {"false"}, "source-dest-check": {"true"}, "status": {d.Status}, "subnet-id": {d.Subnet}, "vpc-id": {d.VPC},
	}
	for _, g := range i.Groups {
		values["group-id"] = append(values["group-id"], string(g.ID))
		values["group-name"] = append(values["group-name"], g.Name)
	}
	return values
}

func describeInterfaces(c *call, in *describeInterfacesInput) (*describeInterfacesReply, error) {
	p, err := interfaceKind.among(c, &in.selection, in.ID, naming{"NetworkInterfaceId", cloud.PrefixInterface, "InvalidNetworkInterfaceID", "networkInterface"}, c.interfaces())
	return &describeInterfacesReply{replies(p), p.next}, err
}

// launchInterface is the interface that a launch asks for.
type launchInterface struct {
	DeviceIndex         *int
	SubnetID            string   `wire:"SubnetId"`
	SecurityGroupID     []string `wire:"SecurityGroupId,max=100"`
	AssociatePublicIP   *bool    `wire:"AssociatePublicIpAddress"`
	DeleteOnTermination *bool
	Description         string
	InterfaceType       string
	NetworkCardIndex    *int
}

// checkInterface takes what NetworkInterface.1 says for the launch.
func (in *runInput) checkInterface() error {
	if len(in.NetworkInterface) == 0 {
		return nil
	}
	n := &in.NetworkInterface[0]
	switch {
	case len(in.NetworkInterface) > 1:
		return wire.UnsupportedOperation("The parameter NetworkInterface.2 is not supported: an instance has one network interface")
	case n.DeviceIndex == nil:
		return wire.MissingParameter("NetworkInterface.N.DeviceIndex")
	case *n.DeviceIndex != 0:
		return wire.InvalidParameterValue("NetworkInterface.N.DeviceIndex", strconv.Itoa(*n.DeviceIndex), "The one interface has index 0.")
	case in.SubnetID != "" || len(in.SecurityGroup)+len(in.SecurityGroupID) > 0:
		return wire.InvalidParameterCombination("Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request")
	case n.DeleteOnTermination != nil && !*n.DeleteOnTermination:
		return wire.UnsupportedOperation("The value false of the parameter NetworkInterface.N.DeleteOnTermination is not supported: an interface goes with its instance")
	case n.NetworkCardIndex != nil && *n.NetworkCardIndex != 0:
		return wire.InvalidParameterValue("NetworkInterface.N.NetworkCardIndex", strconv.Itoa(*n.NetworkCardIndex), "The one card has index 0.")
	}
	in.SubnetID, in.SecurityGroupID = n.SubnetID, slices.Clone(n.SecurityGroupID)
	if n.AssociatePublicIP != nil && in.AddressingType == "" {
		in.AddressingType = map[bool]string{true: "public", false: "private"}[*n.AssociatePublicIP]
	}
	return firstError(
		only("NetworkInterface.N.InterfaceType", n.InterfaceType, "", "interface"),
		never("NetworkInterface.N.Description", n.Description, "interfaces of launches have none yet"),
	)
}

// subnetZone places the launch into the zone of the subnet that it names.
func (c *call) subnetZone(in *runInput) (string, error) {
	zone := in.Placement.AvailabilityZone
	if in.SubnetID == "" {
		return zone, nil
	}
	of, err := c.zoneOfSubnet(in.SubnetID)
	if err == nil && zone != "" && zone != of {
		err = wire.Errorf("InvalidParameterValue", "The subnet %s is in the availability zone %s, and Placement.AvailabilityZone is %s", in.SubnetID, of, wire.Shorten(zone))
	}
	return of, err
}
