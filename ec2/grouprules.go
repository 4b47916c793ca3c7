package ec2

import (
	"slices"
	"strconv"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// permissionShown is EC2's older way to show rules: all that have the same protocol
// and ports at once.
type permissionShown struct {
	Protocol string       `xml:"ipProtocol"`
	From     *int         `xml:"fromPort"`
	To       *int         `xml:"toPort"`
	Groups   []groupPair  `xml:"groups>item"`
	Ranges   []rangeReply `xml:"ipRanges>item"`
	Ranges6  []range6     `xml:"ipv6Ranges>item"`
	Prefixes []string     `xml:"prefixListIds>item"` // there are none
}

type groupPair struct {
	User        string `xml:"userId"`
	ID          string `xml:"groupId"`
	Name        string `xml:"groupName,omitempty"` // of another account's, as EC2 tells it
	Description string `xml:"description,omitempty"`
}

type rangeReply struct {
	CIDR        string `xml:"cidrIp"`
	Description string `xml:"description,omitempty"`
}

type range6 struct {
	CIDR        string `xml:"cidrIpv6"`
	Description string `xml:"description,omitempty"`
}

// permissions of a group in one direction, in the order in which they came.
func (c *call) permissions(g *cloud.SecurityGroup, egress bool) []permissionShown {
	var all []permissionShown
	at := map[[3]int]int{}
	for _, r := range g.Rules {
		if r.Egress != egress {
			continue
		}
		key := [3]int{r.Protocol, r.From, r.To}
		if _, ok := at[key]; !ok {
			at[key] = len(all)
			all = append(all, permissionOf(r))
		}
		c.show(&all[at[key]], g, r)
	}
	return all
}

func permissionOf(r cloud.GroupRule) permissionShown {
	p := permissionShown{Protocol: protocolName(r.Protocol)}
	if hasPorts(r.Protocol) {
		p.From, p.To = &r.From, &r.To
	}
	return p
}

// show a rule's peer.
func (c *call) show(p *permissionShown, g *cloud.SecurityGroup, r cloud.GroupRule) {
	switch {
	case r.Group != "":
		pair := groupPair{User: string(r.GroupAccount), ID: string(r.Group), Description: r.Description}
		if r.GroupAccount != g.Account {
			pair.Name = c.groupName(r)
		}
		p.Groups = append(p.Groups, pair)
	case r.Prefix.Addr().Is4():
		p.Ranges = append(p.Ranges, rangeReply{r.Prefix.String(), r.Description})
	default:
		p.Ranges6 = append(p.Ranges6, range6{r.Prefix.String(), r.Description})
	}
}

// ruleReply is EC2's newer way: each rule by itself.
type ruleReply struct {
	ID          string           `xml:"securityGroupRuleId"`
	Group       string           `xml:"groupId"`
	Owner       string           `xml:"groupOwnerId"`
	Egress      bool             `xml:"isEgress"`
	Protocol    string           `xml:"ipProtocol"`
	From        int              `xml:"fromPort"`
	To          int              `xml:"toPort"`
	CIDR        string           `xml:"cidrIpv4,omitempty"`
	CIDR6       string           `xml:"cidrIpv6,omitempty"`
	Referenced  *referencedGroup `xml:"referencedGroupInfo"`
	Description string           `xml:"description,omitempty"`
	Tags        []tag            `xml:"tagSet>item"`
}

type referencedGroup struct {
	ID   string `xml:"groupId"`
	User string `xml:"userId"`
}

func (c *call) ruleReply(g *cloud.SecurityGroup, r cloud.GroupRule) ruleReply {
	out := ruleReply{
		ID: string(r.ID), Group: string(g.ID), Owner: string(g.Account), Egress: r.Egress, Protocol: protocolName(r.Protocol),
		From: r.From, To: r.To, CIDR: cidrOf(r, false), CIDR6: cidrOf(r, true), Description: r.Description, Tags: c.tagSet(string(r.ID)),
	}
	if r.Group != "" {
		out.Referenced = &referencedGroup{string(r.Group), string(r.GroupAccount)}
	}
	return out
}

// cidrOf a rule whose peer is a prefix of that family.
func cidrOf(r cloud.GroupRule, six bool) string {
	if !r.Prefix.IsValid() || r.Prefix.Addr().Is6() != six {
		return ""
	}
	return r.Prefix.String()
}

var protocolNames = map[string]int{"tcp": cloud.TCP, "udp": cloud.UDP, "icmp": cloud.ICMP, "icmpv6": cloud.ICMPv6, "all": cloud.AnyOf}

// protocolName is EC2's name of a protocol, or its number.
func protocolName(p int) string {
	for name, number := range protocolNames {
		if number == p && name != "all" {
			return name
		}
	}
	return strconv.Itoa(p)
}

// hasPorts says whether a protocol has ports, or types and codes.
func hasPorts(p int) bool {
	return p == cloud.TCP || p == cloud.UDP || p == cloud.ICMP || p == cloud.ICMPv6
}

func (c *call) newRuleID() (cloud.RuleID, error) {
	id, err := c.newID(cloud.PrefixRule, func(id string) bool {
		for range state.GroupsByRule.By(c.read, cloud.RuleID(id)) {
			return true
		}
		return false
	})
	return cloud.RuleID(id), err
}

// ruleByID is a rule of a group that the caller may see.
func (c *call) ruleByID(id string) (groupRule, error) {
	parsed, ok := cloud.ParseID(id, cloud.PrefixRule)
	if !ok {
		return groupRule{}, malformed("InvalidSecurityGroupRuleId", id, cloud.PrefixRule)
	}
	groups := []*cloud.SecurityGroup{c.defaultGroup()}
	for g := range state.GroupsByRule.By(c.read, cloud.RuleID(parsed)) {
		groups = append(groups, g)
	}
	for _, g := range groups {
		at := slices.IndexFunc(g.Rules, func(r cloud.GroupRule) bool { return string(r.ID) == parsed })
		if at >= 0 && c.owned(g.Account) {
			return groupRule{g.Rules[at], g}, nil
		}
	}
	return groupRule{}, wire.Errorf("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", parsed)
}

type describeRulesInput struct {
	common
	selection
	RuleID []string `wire:"SecurityGroupRuleId,max=1000"`
}

type describeRulesReply struct {
	Rules     []ruleReply `xml:"securityGroupRuleSet>item"`
	NextToken string      `xml:"nextToken,omitempty"`
}

func describeGroupRules(c *call, in *describeRulesInput) (*describeRulesReply, error) {
	if err := in.noPages(in.RuleID, "SecurityGroupRuleId"); err != nil {
		return nil, err
	}
	var candidates []groupRule
	for _, id := range in.RuleID {
		r, err := c.ruleByID(id)
		if err != nil {
			return nil, err
		}
		candidates = append(candidates, r)
	}
	if len(in.RuleID) == 0 {
		for _, g := range c.accountGroups() {
			for _, r := range g.Rules {
				candidates = append(candidates, groupRule{r, g})
			}
		}
	}
	p, err := ruleKind.page(c, &in.selection, sorted(candidates, ruleKind.key))
	if err != nil {
		return nil, err
	}
	out := &describeRulesReply{NextToken: p.next}
	for _, r := range p.items {
		out.Rules = append(out.Rules, c.ruleReply(r.group, r.GroupRule))
	}
	return out, nil
}
