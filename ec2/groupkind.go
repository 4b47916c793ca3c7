package ec2

import (
	"maps"
	"strconv"

	"mallee/cloud"
)

var groupKind = kind[*cloud.SecurityGroup]{
	key:    func(g *cloud.SecurityGroup) string { return string(g.ID) },
	tags:   func(c *call, g *cloud.SecurityGroup) map[string]string { return c.tagsOf(string(g.ID)) },
	fields: groupFields(),
}

func groupFields() fields[*cloud.SecurityGroup] {
	all := fields[*cloud.SecurityGroup]{
		"description": text(func(g *cloud.SecurityGroup) string { return g.Description }),
		"group-id":    text(func(g *cloud.SecurityGroup) string { return string(g.ID) }),
		"group-name":  text(func(g *cloud.SecurityGroup) string { return g.Name }),
		"owner-id":    text(func(g *cloud.SecurityGroup) string { return string(g.Account) }),
		"vpc-id":      text(func(g *cloud.SecurityGroup) string { return vpcOf(g.Account) }),
	}
	maps.Copy(all, permissionFields("ip-permission.", false))
	maps.Copy(all, permissionFields("egress.ip-permission.", true))
	return all
}

// permissionFields are those of a group's rules in one direction.
func permissionFields(prefix string, egress bool) fields[*cloud.SecurityGroup] {
	of := func(value func(*call, cloud.GroupRule) string) func(*call, *cloud.SecurityGroup) []string {
		return func(c *call, g *cloud.SecurityGroup) (values []string) {
			for _, r := range g.Rules {
				if r.Egress == egress {
					values = append(values, one(value(c, r))...)
				}
			}
			return values
		}
	}
	return fields[*cloud.SecurityGroup]{
		prefix + "cidr":           of(func(_ *call, r cloud.GroupRule) string { return cidrOf(r, false) }),
		prefix + "ipv6-cidr":      of(func(_ *call, r cloud.GroupRule) string { return cidrOf(r, true) }),
		prefix + "prefix-list-id": of(func(*call, cloud.GroupRule) string { return "" }), // there are none
		prefix + "from-port":      of(func(_ *call, r cloud.GroupRule) string { return strconv.Itoa(r.From) }),
		prefix + "to-port":        of(func(_ *call, r cloud.GroupRule) string { return strconv.Itoa(r.To) }),
		prefix + "group-id":       of(func(_ *call, r cloud.GroupRule) string { return string(r.Group) }),
		prefix + "group-name":     of(func(c *call, r cloud.GroupRule) string { return c.groupName(r) }),
		prefix + "user-id":        of(func(_ *call, r cloud.GroupRule) string { return string(r.GroupAccount) }),
		prefix + "protocol":       of(func(_ *call, r cloud.GroupRule) string { return protocolName(r.Protocol) }),
	}
}

// groupName of the group that a rule names.
func (c *call) groupName(r cloud.GroupRule) string {
	if r.Group == "" {
		return ""
	}
	if g, err := c.anyGroup(string(r.Group)); err == nil {
		return g.Name
	}
	return ""
}

// groupRule is a rule with the group that has it.
type groupRule struct {
	cloud.GroupRule
	group *cloud.SecurityGroup
}

var ruleKind = kind[groupRule]{
	key:  func(r groupRule) string { return string(r.ID) },
	tags: func(c *call, r groupRule) map[string]string { return c.tagsOf(string(r.ID)) },
	fields: fields[groupRule]{
		"group-id":               text(func(r groupRule) string { return string(r.group.ID) }),
		"security-group-rule-id": text(func(r groupRule) string { return string(r.ID) }),
	},
}
