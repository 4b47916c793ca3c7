package ec2

import (
	"net/netip"
	"strconv"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// permissionInput asks for all rules of a protocol and ports at once.
type permissionInput struct {
	IPProtocol string `wire:"IpProtocol"`
	FromPort   *int
	ToPort     *int
	Groups     []groupPairInput `wire:"Groups,max=1000"`
	IPRanges   []ipRange        `wire:"IpRanges,max=1000"`
	IPv6Ranges []ipv6Range      `wire:"Ipv6Ranges,max=1000"`
}

type ipRange struct {
	CidrIP      string `wire:"CidrIp"`
	Description string
}

type ipv6Range struct {
	CidrIPv6    string `wire:"CidrIpv6"`
	Description string
}

type groupPairInput struct {
	UserID      string `wire:"UserId"`
	GroupID     string `wire:"GroupId"`
	GroupName   string
	VpcID       string `wire:"VpcId"`
	Description string
}

// flatInput is the oldest way to ask for a rule: it has parameters of its own.
type flatInput struct {
	IPProtocol  string `wire:"IpProtocol"`
	FromPort    *int
	ToPort      *int
	CidrIP      string `wire:"CidrIp"`
	SourceGroup string `wire:"SourceSecurityGroupName"`
	SourceOwner string `wire:"SourceSecurityGroupOwnerId"`
}

func (in *flatInput) given() bool { return *in != flatInput{} }

// permissions that the flat parameters stand for. A source group without a
// protocol means all of TCP, UDP and ICMP.
func (in *flatInput) permissions() []permissionInput {
	p := permissionInput{IPProtocol: in.IPProtocol, FromPort: in.FromPort, ToPort: in.ToPort}
	if in.CidrIP != "" {
		p.IPRanges = []ipRange{{CidrIP: in.CidrIP}}
	}
	if in.SourceGroup == "" && in.SourceOwner == "" {
		return []permissionInput{p}
	}
	p.Groups = []groupPairInput{{GroupName: in.SourceGroup, UserID: in.SourceOwner}}
	if in.IPProtocol != "" || in.CidrIP != "" {
		return []permissionInput{p}
	}
	none, last := 0, 65535
	tcp, udp, icmp := p, p, p
	tcp.IPProtocol, tcp.FromPort, tcp.ToPort = "tcp", &none, &last
	udp.IPProtocol, udp.FromPort, udp.ToPort = "udp", &none, &last
	icmp.IPProtocol = "icmp"
	return []permissionInput{tcp, udp, icmp}
}

// rules that a request asks for, in either way.
func (c *call) rules(flat *flatInput, list []permissionInput, egress bool) ([]cloud.GroupRule, error) {
	where := "IpPermissions.N."
	switch {
	case flat.given() && len(list) > 0:
		return nil, wire.InvalidParameterCombination("The parameter IpPermissions and the parameters IpProtocol, FromPort, ToPort, CidrIp, SourceSecurityGroupName and SourceSecurityGroupOwnerId cannot be used together")
	case flat.given():
		list, where = flat.permissions(), ""
	}
	var rules []cloud.GroupRule
	for i := range list {
		some, err := c.rulesOf(&list[i], where, egress)
		if err != nil {
			return nil, err
		}
		rules = append(rules, some...)
	}
	for i := range rules {
		for _, other := range rules[:i] {
			if rules[i].Same(other) {
				return nil, wire.Errorf("InvalidParameterValue", "The same permission must not appear multiple times: %s", ruleText(other))
			}
		}
	}
	return rules, nil
}

// rulesOf a permission: one for each peer. Its parameters' names begin with where.
func (c *call) rulesOf(p *permissionInput, where string, egress bool) (rules []cloud.GroupRule, err error) {
	base := cloud.GroupRule{Egress: egress}
	if p.IPProtocol == "" {
		return nil, wire.MissingParameter(where + "IpProtocol")
	}
	if base.Protocol, err = parseProtocol(p.IPProtocol); err != nil {
		return nil, err
	}
	if base.From, base.To, err = parsePorts(base.Protocol, p.FromPort, p.ToPort); err != nil {
		return nil, err
	}
	add := func(r cloud.GroupRule, description string, err error) error {
		r.Description = description
		rules = append(rules, r)
		return firstError(err, checkGroupText("Description", description))
	}
	for _, g := range p.Groups {
		r, err := c.withPeer(base, &g)
		if err := add(r, g.Description, err); err != nil {
			return nil, err
		}
	}
	for _, g := range p.IPRanges {
		r, err := withPrefix(base, g.CidrIP, false)
		if err := add(r, g.Description, err); err != nil {
			return nil, err
		}
	}
	for _, g := range p.IPv6Ranges {
		r, err := withPrefix(base, g.CidrIPv6, true)
		if err := add(r, g.Description, err); err != nil {
			return nil, err
		}
	}
	if len(rules) == 0 {
		return nil, wire.Errorf("MissingParameter", "The rule for protocol %s names no peer: give a CIDR (%sCidrIp, IpRanges, CidrIpv4, …) or a group", p.IPProtocol, where)
	}
	return rules, nil
}

func parseProtocol(name string) (int, error) {
	if p, ok := protocolNames[strings.ToLower(name)]; ok {
		return p, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n >= cloud.AnyOf && n <= 255 {
		return n, nil
	}
	return 0, wire.Errorf("InvalidPermission.Malformed", "Invalid value '%s' for IP protocol. Unknown protocol: expecting tcp, udp, icmp, icmpv6, a number from 0 to 255, or -1 for all.", wire.Shorten(name))
}

// parsePorts of a protocol, or types and codes. Those without either allow all,
// whatever ports are given, as in EC2.
func parsePorts(protocol int, from, to *int) (int, int, error) {
	if !hasPorts(protocol) {
		return cloud.AnyOf, cloud.AnyOf, nil
	}
	low, high := cloud.AnyOf, cloud.AnyOf
	if from != nil {
		low = *from
	}
	if to != nil {
		high = *to
	}
	if protocol == cloud.ICMP || protocol == cloud.ICMPv6 {
		return low, high, checkICMP(low, high)
	}
	switch {
	case from == nil || to == nil:
		return 0, 0, badPorts("Must specify both from and to ports with TCP/UDP.")
	case low == cloud.AnyOf && high == cloud.AnyOf:
		return 0, 65535, nil
	case low < 0 || high > 65535:
		return 0, 0, badPorts(strconv.Itoa(low) + "-" + strconv.Itoa(high) + ". Ports are from 0 to 65535.")
	case low > high:
		return 0, 0, badPorts(strconv.Itoa(low) + "-" + strconv.Itoa(high) + ". FromPort is greater than ToPort.")
	}
	return low, high, nil
}

func checkICMP(kind, code int) error {
	switch {
	case kind < cloud.AnyOf || kind > 255:
		return badPorts("ICMP type (" + strconv.Itoa(kind) + ") out of range: FromPort is from -1 to 255.")
	case code < cloud.AnyOf || code > 255:
		return badPorts("ICMP code (" + strconv.Itoa(code) + ") out of range: ToPort is from -1 to 255.")
	case kind == cloud.AnyOf && code != cloud.AnyOf:
		return badPorts("ICMP code (" + strconv.Itoa(code) + ") without a type.")
	}
	return nil
}

func badPorts(what string) error {
	return wire.Errorf("InvalidParameterValue", "Invalid value '%s' for portRange.", what)
}

// withPrefix takes what is given as its network, as EC2 does: 10.1.2.3/8 is
// 10.0.0.0/8.
func withPrefix(r cloud.GroupRule, cidr string, six bool) (cloud.GroupRule, error) {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil || prefix.Addr().Is6() != six || prefix.Addr().Is4In6() {
		return r, wire.Errorf("InvalidPermission.Malformed", "CIDR block %s is malformed", wire.Shorten(cidr))
	}
	r.Prefix = prefix.Masked()
	return r, nil
}

// withPeer of a group, of the caller's account or of that which is named.
func (c *call) withPeer(r cloud.GroupRule, in *groupPairInput) (cloud.GroupRule, error) {
	account := c.account()
	if in.UserID != "" {
		account = cloud.AccountID(in.UserID)
	}
	var g *cloud.SecurityGroup
	var err error
	switch {
	case in.GroupID != "":
		g, err = c.anyGroup(in.GroupID)
	case in.GroupName != "":
		g, err = c.groupOf(account, in.GroupName)
	default:
		return r, wire.Errorf("InvalidPermission.Malformed", "A group pair of the permission names no group: give its GroupId or GroupName")
	}
	switch {
	case err != nil:
		return r, err
	case g.Account != account || c.noAccount(account):
		return r, noGroup(g.ID)
	case in.VpcID != "" && in.VpcID != vpcOf(account):
		return r, wire.InvalidParameterValue("VpcId", in.VpcID, "The security group %s is of %s.", g.ID, vpcOf(account))
	}
	r.Group, r.GroupAccount = g.ID, g.Account
	return r, nil
}

// noAccount says that there is no such account, but for the caller's.
func (c *call) noAccount(id cloud.AccountID) bool {
	_, _, ok := state.Accounts.Get(c.read, id)
	return !ok && id != c.account()
}

// ruleText tells a rule as EC2's messages do.
func ruleText(r cloud.GroupRule) string {
	peer := string(r.Group)
	if r.Prefix.IsValid() {
		peer = r.Prefix.String()
	}
	ports := ""
	if hasPorts(r.Protocol) {
		ports = ", from port: " + strconv.Itoa(r.From) + ", to port: " + strconv.Itoa(r.To)
	}
	protocol := strings.ToUpper(protocolName(r.Protocol))
	if r.Protocol == cloud.AnyOf {
		protocol = "ALL"
	}
	return `"peer: ` + peer + ", " + protocol + ports + `, ALLOW"`
}
