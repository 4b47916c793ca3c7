package ec2

import (
	"slices"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

type describeIngressInput struct {
	common
	GroupID       string            `wire:"GroupId"`
	GroupName     string            `wire:"GroupName"`
	IPPermissions []permissionInput `wire:"IpPermissions,max=1000"`
	Descriptions  []ruleDescription `wire:"SecurityGroupRuleDescription,max=1000"`
}

type ruleDescription struct {
	RuleID      string `wire:"SecurityGroupRuleId"`
	Description string
}

func updateDescriptionsIngress(c *call, in *describeIngressInput) (*reply, error) {
	return c.describeAnew(in, false)
}

func updateDescriptionsEgress(c *call, in *describeIngressInput) (*reply, error) {
	return c.describeAnew(in, true)
}

// describeAnew rules that a group has: all of them, or none. An empty description
// removes it.
func (c *call) describeAnew(in *describeIngressInput, egress bool) (*reply, error) {
	g, err := c.groupToChange(in.GroupID, in.GroupName)
	if err != nil {
		return nil, err
	}
	if len(in.IPPermissions)+len(in.Descriptions) == 0 {
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter IpPermissions or SecurityGroupRuleDescription")
	}
	var ids, texts []string
	for _, d := range in.Descriptions {
		if err := checkGroupText("SecurityGroupRuleDescription.N.Description", d.Description); err != nil {
			return nil, err
		}
		ids, texts = append(ids, d.RuleID), append(texts, d.Description)
	}
	at, err := c.rulesNamed(g, ids, &flatInput{}, in.IPPermissions, egress)
	if err != nil {
		return nil, err
	}
	rules, err := c.rules(&flatInput{}, in.IPPermissions, egress)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		texts = append(texts, r.Description)
	}
	changed := *g
	changed.Rules = slices.Clone(g.Rules)
	for n, i := range at {
		changed.Rules[i].Description = texts[n]
	}
	state.PutGroup(c.tx, changed)
	return accepted()
}

type modifyRulesInput struct {
	common
	GroupID string       `wire:"GroupId,required"`
	Rules   []ruleUpdate `wire:"SecurityGroupRule,required,max=1000"`
}

type ruleUpdate struct {
	RuleID string      `wire:"SecurityGroupRuleId"`
	Rule   ruleRequest `wire:"SecurityGroupRule"`
}

type ruleRequest struct {
	IPProtocol      string `wire:"IpProtocol"`
	FromPort        *int
	ToPort          *int
	CidrIPv4        string `wire:"CidrIpv4"`
	CidrIPv6        string `wire:"CidrIpv6"`
	ReferencedGroup string `wire:"ReferencedGroupId"`
	Description     string
}

// modifyGroupRules replaces what rules allow; each keeps its id, its tags and its
// direction.
func modifyGroupRules(c *call, in *modifyRulesInput) (*reply, error) {
	g, err := c.groupToChange(in.GroupID, "")
	if err != nil {
		return nil, err
	}
	changed := *g
	changed.Rules = slices.Clone(g.Rules)
	for i := range in.Rules {
		if err := c.modifyRule(&changed, &in.Rules[i]); err != nil {
			return nil, err
		}
	}
	for i, r := range changed.Rules {
		if slices.ContainsFunc(changed.Rules[:i], r.Same) {
			return nil, wire.Errorf("InvalidPermission.Duplicate", "the specified rule %s already exists", ruleText(r))
		}
	}
	state.PutGroup(c.tx, changed)
	return accepted()
}

func (c *call) modifyRule(g *cloud.SecurityGroup, in *ruleUpdate) error {
	if in.RuleID == "" {
		return wire.MissingParameter("SecurityGroupRule.N.SecurityGroupRuleId")
	}
	known, err := c.ruleByID(in.RuleID)
	if err != nil {
		return err
	}
	n, err := ruleIn(g, in.RuleID, known.Egress)
	if err != nil {
		return err
	}
	rules, err := c.rulesOf(in.Rule.permission(), "SecurityGroupRule.N.SecurityGroupRule.", known.Egress)
	if err != nil {
		return err
	}
	if len(rules) > 1 {
		return wire.InvalidParameterCombination("A rule has one of CidrIpv4, CidrIpv6 and ReferencedGroupId, and SecurityGroupRule for %s has %d", known.ID, len(rules))
	}
	rules[0].ID = known.ID
	g.Rules[n] = rules[0]
	return nil
}

// permission that allows what the rule should.
func (in *ruleRequest) permission() *permissionInput {
	p := &permissionInput{IPProtocol: in.IPProtocol, FromPort: in.FromPort, ToPort: in.ToPort}
	if in.CidrIPv4 != "" {
		p.IPRanges = []ipRange{{in.CidrIPv4, in.Description}}
	}
	if in.CidrIPv6 != "" {
		p.IPv6Ranges = []ipv6Range{{in.CidrIPv6, in.Description}}
	}
	if in.ReferencedGroup != "" {
		p.Groups = []groupPairInput{{GroupID: in.ReferencedGroup, Description: in.Description}}
	}
	return p
}
