package ec2

import (
	"slices"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

type authorizeIngressInput struct {
	common
	tagged
	flatInput
	GroupID       string            `wire:"GroupId"`
	GroupName     string            `wire:"GroupName"`
	IPPermissions []permissionInput `wire:"IpPermissions,max=1000"`
}

type authorizeEgressInput struct {
	common
	tagged
	flatInput
	GroupID       string            `wire:"GroupId,required"`
	IPPermissions []permissionInput `wire:"IpPermissions,max=1000"`
}

type authorizeReply struct {
	reply
	Rules []ruleReply `xml:"securityGroupRuleSet>item"`
}

func authorizeIngress(c *call, in *authorizeIngressInput) (*authorizeReply, error) {
	return c.authorize(in.GroupID, in.GroupName, &in.flatInput, in.IPPermissions, false)
}

func authorizeEgress(c *call, in *authorizeEgressInput) (*authorizeReply, error) {
	return c.authorize(in.GroupID, "", &in.flatInput, in.IPPermissions, true)
}

// authorize adds rules to a group: all of them, or none.
func (c *call) authorize(id, name string, flat *flatInput, list []permissionInput, egress bool) (*authorizeReply, error) {
	g, err := c.groupToChange(id, name)
	if err != nil {
		return nil, err
	}
	if !flat.given() && len(list) == 0 {
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter IpPermissions, or IpProtocol and CidrIp, or SourceSecurityGroupName")
	}
	rules, err := c.rules(flat, list, egress)
	if err != nil {
		return nil, err
	}
	changed, out := *g, &authorizeReply{reply: reply{true}}
	changed.Rules = slices.Clone(g.Rules)
	for _, r := range rules {
		if slices.ContainsFunc(g.Rules, r.Same) {
			return nil, wire.Errorf("InvalidPermission.Duplicate", "the specified rule %s already exists", ruleText(r))
		}
		if r.ID, err = c.newRuleID(); err != nil {
			return nil, err
		}
		changed.Rules = append(changed.Rules, r)
		if err := c.tagNew("security-group-rule", string(r.ID)); err != nil {
			return nil, err
		}
		out.Rules = append(out.Rules, c.ruleReply(g, r))
	}
	if count(changed.Rules, egress) > maxGroupRules {
		return nil, wire.Errorf("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached: %s would have %d, and %d are allowed in each direction", g.ID, count(changed.Rules, egress), maxGroupRules)
	}
	state.PutGroup(c.tx, changed)
	return out, nil
}

// count the rules of a direction.
func count(rules []cloud.GroupRule, egress bool) (n int) {
	for _, r := range rules {
		if r.Egress == egress {
			n++
		}
	}
	return n
}

type revokeIngressInput struct {
	common
	flatInput
	GroupID       string            `wire:"GroupId"`
	GroupName     string            `wire:"GroupName"`
	IPPermissions []permissionInput `wire:"IpPermissions,max=1000"`
	RuleID        []string          `wire:"SecurityGroupRuleId,max=1000"`
}

type revokeEgressInput struct {
	common
	flatInput
	GroupID       string            `wire:"GroupId,required"`
	IPPermissions []permissionInput `wire:"IpPermissions,max=1000"`
	RuleID        []string          `wire:"SecurityGroupRuleId,max=1000"`
}

func revokeIngress(c *call, in *revokeIngressInput) (*reply, error) {
	return c.disallow(in.GroupID, in.GroupName, in.RuleID, &in.flatInput, in.IPPermissions, false)
}

func revokeEgress(c *call, in *revokeEgressInput) (*reply, error) {
	return c.disallow(in.GroupID, "", in.RuleID, &in.flatInput, in.IPPermissions, true)
}

// disallow rules that a group has: all of them, or none.
func (c *call) disallow(id, name string, ids []string, flat *flatInput, list []permissionInput, egress bool) (*reply, error) {
	g, err := c.groupToChange(id, name)
	if err != nil {
		return nil, err
	}
	at, err := c.rulesNamed(g, ids, flat, list, egress)
	if err != nil {
		return nil, err
	}
	changed := *g
	changed.Rules = nil
	for i, r := range g.Rules {
		if slices.Contains(at, i) {
			state.TagSets.Delete(c.tx, string(r.ID))
			continue
		}
		changed.Rules = append(changed.Rules, r)
	}
	state.PutGroup(c.tx, changed)
	return accepted()
}

// rulesNamed of a group, by their ids or by what they allow: where they are.
func (c *call) rulesNamed(g *cloud.SecurityGroup, ids []string, flat *flatInput, list []permissionInput, egress bool) (at []int, err error) {
	switch byRule := flat.given() || len(list) > 0; {
	case byRule && len(ids) > 0:
		return nil, wire.InvalidParameterCombination("The parameter SecurityGroupRuleId cannot be used together with rules: name them by either")
	case !byRule && len(ids) == 0:
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter IpPermissions or SecurityGroupRuleId")
	}
	for _, id := range ids {
		n, err := ruleIn(g, id, egress)
		if err != nil {
			return nil, err
		}
		at = append(at, n)
	}
	rules, err := c.rules(flat, list, egress)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		n := slices.IndexFunc(g.Rules, r.Same)
		if n < 0 {
			return nil, wire.Errorf("InvalidPermission.NotFound", "The specified rule %s does not exist in this security group.", ruleText(r))
		}
		at = append(at, n)
	}
	return at, nil
}

// ruleIn a group and direction, by its id: where it is.
func ruleIn(g *cloud.SecurityGroup, id string, egress bool) (int, error) {
	parsed, ok := cloud.ParseID(id, cloud.PrefixRule)
	if !ok {
		return 0, malformed("InvalidSecurityGroupRuleId", id, cloud.PrefixRule)
	}
	n := slices.IndexFunc(g.Rules, func(r cloud.GroupRule) bool { return string(r.ID) == parsed && r.Egress == egress })
	if n < 0 {
		return 0, wire.Errorf("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist in %s", parsed, g.ID)
	}
	return n, nil
}
