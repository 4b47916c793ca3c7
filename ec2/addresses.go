package ec2

import (
	"errors"
	"iter"
	"net/netip"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// maxAddresses that an account keeps.
const maxAddresses = 100

type allocateAddressInput struct {
	common
	tagged
	Domain             string `wire:"Domain,enum=vpc|standard"`
	PublicIPv4Pool     string `wire:"PublicIpv4Pool"`
	NetworkBorderGroup string
}

type allocateAddressReply struct {
	IP     string `xml:"publicIp"`
	ID     string `xml:"allocationId"`
	Pool   string `xml:"publicIpv4Pool"`
	Border string `xml:"networkBorderGroup"`
	Domain string `xml:"domain"`
}

// addressPool is what EC2 calls the pool that is its own.
const addressPool = "amazon"

func allocateAddress(c *call, in *allocateAddressInput) (*allocateAddressReply, error) {
	err := firstError(
		c.may(c.arn(c.account(), "elastic-ip", "*")),
		only("Domain", in.Domain, "", "vpc"),
		only("PublicIpv4Pool", in.PublicIPv4Pool, "", addressPool),
		only("NetworkBorderGroup", in.NetworkBorderGroup, "", c.Region),
	)
	if err != nil {
		return nil, err
	}
	if state.Count(c.tx, state.AddressesKept, string(c.account())) >= maxAddresses {
		return nil, wire.Errorf("AddressLimitExceeded", "The maximum number of addresses has been reached: an account keeps at most %d", maxAddresses)
	}
	id, err := c.newID(cloud.PrefixAllocation, has(c.tx, state.Addresses))
	if err != nil {
		return nil, err
	}
	a, err := state.KeepAddress(c.tx, c.Rand, c.Pools, cloud.Address{ID: cloud.AllocationID(id), Account: c.account(), AllocatedAt: c.Now()})
	var exhausted *state.NoAddressError
	if errors.As(err, &exhausted) {
		return nil, wire.Errorf("InsufficientAddressCapacity", "There are not enough free public addresses in %s for the request", exhausted.Pool)
	}
	if err != nil {
		return nil, err
	}
	return &allocateAddressReply{a.IP.String(), id, addressPool, c.Region, "vpc"}, c.tagNew("elastic-ip", id)
}

// address that the caller keeps, named in one of two ways, which the caller may
// change.
func (c *call) address(id, ip string) (a *cloud.Address, err error) {
	switch {
	case id != "" && ip != "":
		return nil, wire.InvalidParameterCombination("You may specify the parameter AllocationId or PublicIp, not both")
	case id != "":
		a, err = c.addressByID(id)
	case ip != "":
		a, err = c.addressByIP(ip)
	default:
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter AllocationId or PublicIp")
	}
	if err != nil {
		return nil, err
	}
	return a, c.may(c.arn(a.Account, "elastic-ip", string(a.ID)))
}

func (c *call) addressByID(id string) (*cloud.Address, error) {
	parsed, ok := cloud.ParseID(id, cloud.PrefixAllocation)
	if a, _, is := state.Addresses.Get(c.read, cloud.AllocationID(parsed)); ok && is && c.owned(a.Account) {
		return a, nil
	}
	return nil, wire.Errorf("InvalidAllocationID.NotFound", "The allocation ID '%s' does not exist", wire.Shorten(id))
}

func (c *call) addressByIP(ip string) (*cloud.Address, error) {
	parsed, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, wire.Errorf("InvalidAddress.Malformed", "Address %s is not an IP address", wire.Shorten(ip))
	}
	owner := state.Owner(c.read, state.PublicAddress, parsed.String())
	if a, _, is := state.Addresses.Get(c.read, cloud.AllocationID(owner)); is && c.owned(a.Account) {
		return a, nil
	}
	return nil, wire.Errorf("InvalidAddress.NotFound", "Address '%s' not found.", parsed)
}

type releaseAddressInput struct {
	common
	AllocationID       string `wire:"AllocationId"`
	PublicIP           string `wire:"PublicIp"`
	NetworkBorderGroup string
}

func releaseAddress(c *call, in *releaseAddressInput) (*reply, error) {
	if err := only("NetworkBorderGroup", in.NetworkBorderGroup, "", c.Region); err != nil {
		return nil, err
	}
	a, err := c.address(in.AllocationID, in.PublicIP)
	if err != nil {
		return nil, err
	}
	if a.Instance != "" {
		return nil, wire.Errorf("InvalidIPAddress.InUse", "Address %s is in use: %s has it.", a.IP, a.Instance)
	}
	if err := state.ReturnAddress(c.tx, a); err != nil {
		return nil, err
	}
	return accepted()
}

type describeAddressesInput struct {
	common
	filtered
	AllocationID []string `wire:"AllocationId,max=1000"`
	PublicIP     []string `wire:"PublicIp,max=1000"`
}

type describeAddressesReply struct {
	Addresses []addressReply `xml:"addressesSet>item"`
}

type addressReply struct {
	Instance       string `xml:"instanceId,omitempty"`
	IP             string `xml:"publicIp"`
	ID             string `xml:"allocationId"`
	Association    string `xml:"associationId,omitempty"`
	Domain         string `xml:"domain"`
	Interface      string `xml:"networkInterfaceId,omitempty"`
	InterfaceOwner string `xml:"networkInterfaceOwnerId,omitempty"`
	PrivateIP      string `xml:"privateIpAddress,omitempty"`
	Tags           []tag  `xml:"tagSet>item"`
	Pool           string `xml:"publicIpv4Pool"`
	Border         string `xml:"networkBorderGroup"`
}

func (c *call) addressReply(a *cloud.Address) addressReply {
	r := addressReply{
		IP: a.IP.String(), ID: string(a.ID), Domain: "vpc", Tags: c.tagSet(string(a.ID)), Pool: addressPool, Border: c.Region,
	}
	if i := c.having(a); i != nil {
		r.Instance, r.Association, r.Interface = string(i.ID), string(a.Association), string(i.Interface())
		r.InterfaceOwner, r.PrivateIP = string(i.Account), i.Local.String()
	}
	return r
}

// having an address is an instance, or none.
func (c *call) having(a *cloud.Address) *cloud.Instance {
	if i, _, ok := state.Instances.Get(c.read, a.Instance); ok {
		return i
	}
	return nil
}

var addressKind = kind[*cloud.Address]{
	key:  func(a *cloud.Address) string { return string(a.ID) },
	tags: func(c *call, a *cloud.Address) map[string]string { return c.tagsOf(string(a.ID)) },
	fields: fields[*cloud.Address]{
		"allocation-id":              text(func(a *cloud.Address) string { return string(a.ID) }),
		"association-id":             text(func(a *cloud.Address) string { return string(a.Association) }),
		"domain":                     fixed[*cloud.Address]("vpc"),
		"instance-id":                text(func(a *cloud.Address) string { return string(a.Instance) }),
		"network-border-group":       func(c *call, _ *cloud.Address) []string { return one(c.Region) },
		"network-interface-id":       func(c *call, a *cloud.Address) []string { return one(c.addressReply(a).Interface) },
		"network-interface-owner-id": func(c *call, a *cloud.Address) []string { return one(c.addressReply(a).InterfaceOwner) },
		"private-ip-address":         func(c *call, a *cloud.Address) []string { return one(c.addressReply(a).PrivateIP) },
		"public-ip":                  text(func(a *cloud.Address) string { return a.IP.String() }),
	},
}

func describeAddresses(c *call, in *describeAddressesInput) (*describeAddressesReply, error) {
	candidates, err := c.addressCandidates(in)
	if err != nil {
		return nil, err
	}
	list, err := addressKind.all(c, in.filtered, candidates)
	if err != nil {
		return nil, err
	}
	out := &describeAddressesReply{}
	for _, a := range list {
		out.Addresses = append(out.Addresses, c.addressReply(a))
	}
	return out, nil
}

// addressCandidates are those named, or all.
func (c *call) addressCandidates(in *describeAddressesInput) (iter.Seq[*cloud.Address], error) {
	ips, everybody := c.everybody(in.PublicIP)
	switch {
	case everybody:
		return firsts(state.Addresses.All(c.read)), nil
	case len(ips)+len(in.AllocationID) == 0:
		return firsts(state.AddressesByAccount.By(c.read, c.account())), nil
	}
	var named []*cloud.Address
	for _, ip := range ips {
		a, err := c.addressByIP(ip)
		if err != nil {
			return nil, err
		}
		named = append(named, a)
	}
	for _, id := range in.AllocationID {
		a, err := c.addressByID(id)
		if err != nil {
			return nil, err
		}
		named = append(named, a)
	}
	return sorted(named, addressKind.key), nil
}
