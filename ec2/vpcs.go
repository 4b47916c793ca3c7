package ec2

import (
	"strconv"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// The default network of an account is there before anything made it: one VPC
// with a subnet in each zone, an internet gateway, a main route table, a network
// ACL that allows all, and DHCP options. All of it is derived, their ids too, from
// the account, the cloud's pool of private addresses and its zones. The zones
// share the pool, so that each subnet has the whole of the VPC's block.

// vpcOf an account.
func vpcOf(account cloud.AccountID) string { return partOf(account, cloud.PrefixVPC) }

// partOf an account's default network: the one of that prefix.
func partOf(account cloud.AccountID, prefix string) string {
	return cloud.DerivedID(prefix, prefix+" default of "+string(account))
}

// subnetOf an account in a zone.
func subnetOf(account cloud.AccountID, zone string) string {
	return cloud.DerivedID(cloud.PrefixSubnet, "subnet of "+string(account)+" in "+zone)
}

// checkVPC refuses any but the account's own; none stands for that.
func (c *call) checkVPC(id string) error {
	if id == "" {
		return nil
	}
	parsed, ok := cloud.ParseID(id, cloud.PrefixVPC)
	switch {
	case !ok:
		return malformed("InvalidVpcID", id, cloud.PrefixVPC)
	case parsed != vpcOf(c.account()):
		return wire.Errorf("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", parsed)
	}
	return nil
}

// zoneOfSubnet finds the zone that a subnet of the caller's is in.
func (c *call) zoneOfSubnet(id string) (string, error) {
	parsed, ok := cloud.ParseID(id, cloud.PrefixSubnet)
	if !ok {
		return "", malformed("InvalidSubnetID", id, cloud.PrefixSubnet)
	}
	for _, zone := range cloud.Zones(c.nodes()) {
		if subnetOf(c.account(), zone) == parsed {
			return zone, nil
		}
	}
	return "", wire.Errorf("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", parsed)
}

// networkParts are the types of resources of a default network, by their prefixes.
var networkParts = map[string]string{
	cloud.PrefixVPC: "vpc", cloud.PrefixSubnet: "subnet", cloud.PrefixGateway: "internet-gateway", cloud.PrefixRoutes: "route-table",
	cloud.PrefixACL: "network-acl", cloud.PrefixOptions: "dhcp-options", cloud.PrefixInterface: "network-interface",
}

// networkPart of the caller's account, for its tags.
func (c *call) networkPart(kind, prefix, id string) (resource, error) {
	parsed, _ := cloud.ParseID(id, prefix)
	switch {
	case prefix == cloud.PrefixInterface:
		i, err := c.instanceOfInterface(id)
		if err != nil {
			return resource{}, err
		}
		return resource{i.Account, kind, parsed}, nil
	case prefix == cloud.PrefixSubnet:
		_, err := c.zoneOfSubnet(id)
		return resource{c.account(), kind, parsed}, err
	case parsed != partOf(c.account(), prefix):
		return resource{}, wire.Errorf("InvalidID", "The ID '%s' is not of a %s of this account", wire.Shorten(id), kind)
	}
	return resource{c.account(), kind, parsed}, nil
}

// derived is a part of a default network: its id, its reply, and its values for
// filters.
type derived[R any] struct {
	id     string
	reply  R
	values map[string][]string
}

// derivedKind has filters of these names.
func derivedKind[R any](names ...string) kind[derived[R]] {
	k := kind[derived[R]]{
		key:    func(d derived[R]) string { return d.id },
		tags:   func(c *call, d derived[R]) map[string]string { return c.tagsOf(d.id) },
		fields: fields[derived[R]]{},
	}
	for _, name := range names {
		k.fields[name] = func(_ *call, d derived[R]) []string { return d.values[name] }
	}
	return k
}

// naming is how a request names parts: by which parameter, and what is said of
// one that isn't there.
type naming struct {
	parameter, prefix, code, what string
}

// among chooses from the parts that there are.
func (k *kind[T]) among(c *call, s *selection, ids []string, n naming, all []T) (page[T], error) {
	if err := s.noPages(ids, n.parameter); err != nil {
		return page[T]{}, err
	}
	byID := map[string]T{}
	for _, d := range all {
		byID[k.key(d)] = d
	}
	if len(ids) > 0 {
		all = nil
	}
	for _, id := range ids {
		parsed, ok := cloud.ParseID(id, n.prefix)
		if !ok {
			return page[T]{}, malformed(n.code, id, n.prefix)
		}
		d, ok := byID[parsed]
		if !ok {
			return page[T]{}, wire.Errorf(n.code+".NotFound", "The %s ID '%s' does not exist", n.what, parsed)
		}
		all = append(all, d)
	}
	return k.page(c, s, sorted(all, k.key))
}

// replies of a page.
func replies[R any](p page[derived[R]]) []R {
	var all []R
	for _, d := range p.items {
		all = append(all, d.reply)
	}
	return all
}

type describeVpcsInput struct {
	common
	selection
	VpcID []string `wire:"VpcId,max=1000"`
}

type describeVpcsReply struct {
	Vpcs      []vpcReply `xml:"vpcSet>item"`
	NextToken string     `xml:"nextToken,omitempty"`
}

type vpcReply struct {
	ID      string      `xml:"vpcId"`
	Owner   string      `xml:"ownerId"`
	State   string      `xml:"state"`
	CIDR    string      `xml:"cidrBlock"`
	Blocks  []cidrBlock `xml:"cidrBlockAssociationSet>item"`
	Options string      `xml:"dhcpOptionsId"`
	Tenancy string      `xml:"instanceTenancy"`
	Default bool        `xml:"isDefault"`
	Tags    []tag       `xml:"tagSet>item"`
}

type cidrBlock struct {
	ID    string `xml:"associationId"`
	CIDR  string `xml:"cidrBlock"`
	State string `xml:"cidrBlockState>state"`
}

var vpcKind = derivedKind[vpcReply]("cidr", "cidr-block-association.association-id", "cidr-block-association.cidr-block",
	"cidr-block-association.state", "dhcp-options-id", "is-default", "isDefault", "owner-id", "state", "vpc-id")

// vpc of the caller's account.
func (c *call) vpc() derived[vpcReply] {
	account, cidr := c.account(), c.Pools.Local.String()
	block := cidrBlock{partOf(account, "vpc-cidr-assoc"), cidr, "associated"}
	r := vpcReply{
		ID: vpcOf(account), Owner: string(account), State: available, CIDR: cidr, Blocks: []cidrBlock{block},
		Options: partOf(account, cloud.PrefixOptions), Tenancy: "default", Default: true, Tags: c.tagSet(vpcOf(account)),
	}
	return derived[vpcReply]{r.ID, r, map[string][]string{
		"cidr": {cidr}, "cidr-block-association.association-id": {block.ID}, "cidr-block-association.cidr-block": {cidr},
		"cidr-block-association.state": {block.State}, "dhcp-options-id": {r.Options}, "is-default": {"true"}, "isDefault": {"true"},
		"owner-id": {r.Owner}, "state": {r.State}, "vpc-id": {r.ID},
	}}
}

func describeVpcs(c *call, in *describeVpcsInput) (*describeVpcsReply, error) {
	p, err := vpcKind.among(c, &in.selection, in.VpcID, naming{"VpcId", cloud.PrefixVPC, "InvalidVpcID", "vpc"}, []derived[vpcReply]{c.vpc()})
	return &describeVpcsReply{replies(p), p.next}, err
}

type vpcAttributeInput struct {
	common
	VpcID     string `wire:"VpcId,required"`
	Attribute string `wire:"Attribute,required,enum=enableDnsSupport|enableDnsHostnames|enableNetworkAddressUsageMetrics"`
}

type vpcAttributeReply struct {
	ID      string     `xml:"vpcId"`
	Support *attribute `xml:"enableDnsSupport"`
	Names   *attribute `xml:"enableDnsHostnames"`
	Metrics *attribute `xml:"enableNetworkAddressUsageMetrics"`
}

// describeVpcAttribute as it is in EC2's default VPC.
func describeVpcAttribute(c *call, in *vpcAttributeInput) (*vpcAttributeReply, error) {
	if err := c.checkVPC(in.VpcID); err != nil {
		return nil, err
	}
	out := &vpcAttributeReply{ID: vpcOf(c.account())}
	switch in.Attribute {
	case "enableDnsSupport":
		out.Support = &attribute{"true"}
	case "enableDnsHostnames":
		out.Names = &attribute{"true"}
	default:
		out.Metrics = falseAttribute()
	}
	return out, nil
}

type describeSubnetsInput struct {
	common
	selection
	SubnetID []string `wire:"SubnetId,max=1000"`
}

type describeSubnetsReply struct {
	Subnets   []subnetReply `xml:"subnetSet>item"`
	NextToken string        `xml:"nextToken,omitempty"`
}

type subnetReply struct {
	ID        string `xml:"subnetId"`
	ARN       string `xml:"subnetArn"`
	State     string `xml:"state"`
	Owner     string `xml:"ownerId"`
	VPC       string `xml:"vpcId"`
	CIDR      string `xml:"cidrBlock"`
	Available int    `xml:"availableIpAddressCount"`
	Zone      string `xml:"availabilityZone"`
	ZoneID    string `xml:"availabilityZoneId"`
	Default   bool   `xml:"defaultForAz"`
	MapPublic bool   `xml:"mapPublicIpOnLaunch"`
	Assign6   bool   `xml:"assignIpv6AddressOnCreation"`
	Tags      []tag  `xml:"tagSet>item"`
}

var subnetKind = derivedKind[subnetReply]("availability-zone", "availabilityZone", "availability-zone-id", "availabilityZoneId",
	"available-ip-address-count", "cidr", "cidr-block", "cidrBlock", "default-for-az", "defaultForAz", "ipv6-native", "map-public-ip-on-launch",
	"owner-id", "state", "subnet-arn", "subnet-id", "vpc-id")

// subnets of the caller's account, one in each zone.
func (c *call) subnets() (all []derived[subnetReply]) {
	free := c.freeAddresses()
	for _, zone := range cloud.Zones(c.nodes()) {
		id, cidr := subnetOf(c.account(), zone), c.Pools.Local.String()
		r := subnetReply{
			ID: id, ARN: c.arn(c.account(), "subnet", id), State: available, Owner: string(c.account()), VPC: vpcOf(c.account()), CIDR: cidr,
			Available: free, Zone: zone, ZoneID: zone, Default: true, MapPublic: true, Tags: c.tagSet(id),
		}
		all = append(all, derived[subnetReply]{id, r, map[string][]string{
			"availability-zone": {zone}, "availabilityZone": {zone}, "availability-zone-id": {zone}, "availabilityZoneId": {zone},
			"available-ip-address-count": {strconv.Itoa(free)}, "cidr": {cidr}, "cidr-block": {cidr}, "cidrBlock": {cidr},
			"default-for-az": {"true"}, "defaultForAz": {"true"}, "ipv6-native": {"false"}, "map-public-ip-on-launch": {"true"},
			"owner-id": {r.Owner}, "state": {r.State}, "subnet-arn": {r.ARN}, "subnet-id": {id}, "vpc-id": {r.VPC},
		}})
	}
	return all
}

// freeAddresses of the pool of private ones, which all share.
func (c *call) freeAddresses() int {
	taken := 0
	for i := range state.Instances.All(c.read) {
		if state.Owner(c.read, state.LocalAddress, i.Local.String()) == string(i.ID) {
			taken++
		}
	}
	return 1<<(32-c.Pools.Local.Bits()) - reservedAddresses - taken
}

// reservedAddresses of a pool: its first four, and the last, as in EC2.
const reservedAddresses = 5

func describeSubnets(c *call, in *describeSubnetsInput) (*describeSubnetsReply, error) {
	p, err := subnetKind.among(c, &in.selection, in.SubnetID, naming{"SubnetId", cloud.PrefixSubnet, "InvalidSubnetID", "subnet"}, c.subnets())
	return &describeSubnetsReply{replies(p), p.next}, err
}
