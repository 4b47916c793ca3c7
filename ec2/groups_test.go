package ec2

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mallee/cloud"
	"mallee/state"
)

// What withGroups puts into the state, the user's own.
const (
	webGroup   = "sg-00000001"
	webIngress = "sgr-00000001"
	webEgress  = "sgr-00000002"
)

func (c *aCloud) withGroups() *aCloud {
	c.write(func(tx *state.Tx) {
		for _, guard := range []error{tx.Claim(state.GroupName, state.GroupNameGuard(ordinary, "a web"), webGroup)} {
			if guard != nil {
				c.tb.Fatal(guard)
			}
		}
		tx.Add(groupsMade, string(ordinary), 1)
		state.PutGroup(tx, cloud.SecurityGroup{
			ID: webGroup, Account: ordinary, Name: "a web", Description: "a web", CreatedAt: c.now,
			Rules: []cloud.GroupRule{
				{ID: webIngress, Protocol: cloud.TCP, From: 80, To: 80, Prefix: netip.MustParsePrefix("203.0.113.0/24")},
				cloud.OutgoingRule(webEgress),
			},
		})
	})
	return c
}

// group of the user's, as DescribeSecurityGroups shows it.
func (c *aCloud) group(id string) groupReply {
	c.tb.Helper()
	return get[describeGroupsReply](c, c.user, "DescribeSecurityGroups", "GroupId.1="+id).Groups[0]
}

func (c *aCloud) newGroup(name string) string {
	c.tb.Helper()
	return get[createGroupReply](c, c.user, "CreateSecurityGroup", "GroupName="+name, "GroupDescription=a group").ID
}

// TestDefaultGroup is there before anything made it, and has EC2's rules.
func TestDefaultGroup(t *testing.T) {
	c := ready(t)
	before := get[describeGroupsReply](c, c.user, "DescribeSecurityGroups").Groups
	if len(before) != 1 || before[0].Name != "default" || before[0].VPC != vpcOf(ordinary) {
		t.Fatalf("an account begins with %+v", before)
	}
	in, out := before[0].Ingress, before[0].Egress
	if len(in) != 1 || in[0].Protocol != "-1" || in[0].From != nil || in[0].Groups[0].ID != before[0].ID {
		t.Errorf("in: %+v", in)
	}
	if len(out) != 1 || out[0].Protocol != "-1" || out[0].Ranges[0].CIDR != "0.0.0.0/0" {
		t.Errorf("out: %+v", out)
	}
	c.run(c.user)
	get[authorizeReply](c, c.user, "AuthorizeSecurityGroupIngress", "GroupName=default", "IpProtocol=tcp", "FromPort=22", "ToPort=22", "CidrIp=0.0.0.0/0")
	if after := c.group(before[0].ID); len(after.Ingress) != 2 || *after.Ingress[1].From != 22 {
		t.Errorf("with ssh allowed it is %+v", after)
	}
	if n := len(get[describeGroupsReply](c, c.user, "DescribeSecurityGroups").Groups); n != 1 {
		t.Errorf("there are %d groups", n)
	}
}

// TestPermissions of every form come out as they went in.
func TestPermissions(t *testing.T) {
	c := ready(t).withGroups()
	peer := c.newGroup("peer")
	for _, test := range []struct {
		in   string // after IpPermissions.1.
		want string
	}{
		{"IpProtocol=tcp FromPort=22 ToPort=22 IpRanges.1.CidrIp=10.1.2.3/8", `"peer: 10.0.0.0/8, TCP, from port: 22, to port: 22, ALLOW"`},
		{"IpProtocol=6 FromPort=1 ToPort=1024 IpRanges.1.CidrIp=192.0.2.1/32", `"peer: 192.0.2.1/32, TCP, from port: 1, to port: 1024, ALLOW"`},
		{"IpProtocol=UDP FromPort=-1 ToPort=-1 IpRanges.1.CidrIp=0.0.0.0/0", `"peer: 0.0.0.0/0, UDP, from port: 0, to port: 65535, ALLOW"`},
		{"IpProtocol=icmp FromPort=8 ToPort=-1 Groups.1.GroupName=peer", `"peer: ` + peer + `, ICMP, from port: 8, to port: -1, ALLOW"`},
		{"IpProtocol=icmp IpRanges.1.CidrIp=0.0.0.0/0", `"peer: 0.0.0.0/0, ICMP, from port: -1, to port: -1, ALLOW"`},
		{"IpProtocol=icmpv6 FromPort=128 ToPort=0 Ipv6Ranges.1.CidrIpv6=2001:db8::1/32", `"peer: 2001:db8::/32, ICMPV6, from port: 128, to port: 0, ALLOW"`},
		{"IpProtocol=50 FromPort=7 ToPort=9 IpRanges.1.CidrIp=0.0.0.0/0", `"peer: 0.0.0.0/0, 50, ALLOW"`},
		{"IpProtocol=-1 Groups.1.GroupId=" + peer + " Groups.1.UserId=" + string(ordinary), `"peer: ` + peer + `, ALL, ALLOW"`},
		{"IpProtocol=all Groups.1.GroupName=default Groups.1.UserId=" + string(c.admin.Account), `"peer: ` + string(cloud.NewDefaultGroup(c.admin.Account, c.now).ID) + `, ALL, ALLOW"`},
	} {
		parameters := []string{"GroupId=" + webGroup}
		for p := range strings.FieldsSeq(test.in) {
			parameters = append(parameters, "IpPermissions.1."+p)
		}
		made := get[authorizeReply](c, c.user, "AuthorizeSecurityGroupIngress", parameters...).Rules
		g, _, _ := state.SecurityGroups.Get(c.Store.View(), webGroup)
		last := g.Rules[len(g.Rules)-1]
		if got := ruleText(last); got != test.want || len(made) != 1 || made[0].ID != string(last.ID) {
			t.Errorf("%s: is %s, told as %+v", test.in, got, made)
		}
		if r := c.refused(c.user, "AuthorizeSecurityGroupIngress", parameters...); r.Code != "InvalidPermission.Duplicate" || !strings.Contains(r.Message, test.want) {
			t.Errorf("%s again: %+v", test.in, r)
		}
		get[reply](c, c.user, "RevokeSecurityGroupIngress", parameters...)
		if r := c.refused(c.user, "RevokeSecurityGroupIngress", parameters...); r.Code != "InvalidPermission.NotFound" || !strings.Contains(r.Message, test.want) {
			t.Errorf("%s revoked again: %+v", test.in, r)
		}
	}
	checkGroups(t, c)
}

// TestFlatSourceGroup without a protocol allows all of TCP, UDP and ICMP.
func TestFlatSourceGroup(t *testing.T) {
	c := ready(t).withGroups()
	rules := get[authorizeReply](c, c.user, "AuthorizeSecurityGroupIngress", "GroupName=a web", "SourceSecurityGroupName=default").Rules
	var protocols []string
	for _, r := range rules {
		protocols = append(protocols, r.Protocol+" "+strconv.Itoa(r.From)+" "+strconv.Itoa(r.To))
	}
	if want := []string{"tcp 0 65535", "udp 0 65535", "icmp -1 -1"}; !slices.Equal(protocols, want) {
		t.Errorf("it allows %v", protocols)
	}
	get[reply](c, c.user, "RevokeSecurityGroupIngress", "GroupName=a web", "SourceSecurityGroupName=default")
	if g := c.group(webGroup); len(g.Ingress) != 1 {
		t.Errorf("left: %+v", g.Ingress)
	}
}

// TestRulesByID are found, tagged, described anew, changed and revoked.
func TestRulesByID(t *testing.T) {
	c := ready(t).withGroups()
	id := get[authorizeReply](c, c.user, "AuthorizeSecurityGroupIngress", "GroupId="+webGroup, "IpPermissions.1.IpProtocol=tcp",
		"IpPermissions.1.FromPort=443", "IpPermissions.1.ToPort=443", "IpPermissions.1.IpRanges.1.CidrIp=0.0.0.0/0",
		"IpPermissions.1.IpRanges.1.Description=all of them", "TagSpecification.1.ResourceType=security-group-rule", "TagSpecification.1.Tag.1.Key=for").Rules[0].ID
	one := func(parameters ...string) ruleReply {
		t.Helper()
		rules := get[describeRulesReply](c, c.user, "DescribeSecurityGroupRules", parameters...).Rules
		if len(rules) != 1 {
			t.Fatalf("%v finds %+v", parameters, rules)
		}
		return rules[0]
	}
	if r := one(asked("tag-key=for", "group-id="+webGroup)...); r.ID != id || r.Description != "all of them" || r.Tags[0].Key != "for" {
		t.Errorf("found by its tag: %+v", r)
	}
	get[reply](c, c.user, "UpdateSecurityGroupRuleDescriptionsIngress", "GroupId="+webGroup, "SecurityGroupRuleDescription.1.SecurityGroupRuleId="+id, "SecurityGroupRuleDescription.1.Description=new")
	get[reply](c, c.user, "UpdateSecurityGroupRuleDescriptionsEgress", "GroupId="+webGroup, "IpPermissions.1.IpProtocol=-1", "IpPermissions.1.IpRanges.1.CidrIp=0.0.0.0/0", "IpPermissions.1.IpRanges.1.Description=out")
	if r := one("SecurityGroupRuleId.1=" + id); r.Description != "new" {
		t.Errorf("described anew: %+v", r)
	}
	if r := one("SecurityGroupRuleId.1=" + webEgress); r.Description != "out" || !r.Egress {
		t.Errorf("described anew: %+v", r)
	}
	modify := []string{"GroupId=" + webGroup, "SecurityGroupRule.1.SecurityGroupRuleId=" + id, "SecurityGroupRule.1.SecurityGroupRule.IpProtocol=udp",
		"SecurityGroupRule.1.SecurityGroupRule.FromPort=53", "SecurityGroupRule.1.SecurityGroupRule.ToPort=53", "SecurityGroupRule.1.SecurityGroupRule.CidrIpv6=::/0"}
	get[reply](c, c.user, "ModifySecurityGroupRules", modify...)
	if r := one("SecurityGroupRuleId.1=" + id); r.Protocol != "udp" || r.CIDR6 != "::/0" || r.CIDR != "" || r.Tags[0].Key != "for" {
		t.Errorf("changed: %+v", r)
	}
	modify[1] = "SecurityGroupRule.1.SecurityGroupRuleId=" + webIngress
	if r := c.refused(c.user, "ModifySecurityGroupRules", modify...); r.Code != "InvalidPermission.Duplicate" {
		t.Errorf("two of the same: %+v", r)
	}
	get[reply](c, c.user, "RevokeSecurityGroupIngress", "GroupId="+webGroup, "SecurityGroupRuleId.1="+id)
	get[reply](c, c.user, "RevokeSecurityGroupEgress", "GroupId="+webGroup, "SecurityGroupRuleId.1="+webEgress)
	if g := c.group(webGroup); len(g.Ingress) != 1 || len(g.Egress) != 0 {
		t.Errorf("left: %+v", g)
	}
	if n := len(get[describeTagsReply](c, c.user, "DescribeTags").Tags); n != 0 {
		t.Errorf("%d tags are left", n)
	}
}

// TestGroupFilters each find the one group that has what they name.
func TestGroupFilters(t *testing.T) {
	c := ready(t).withGroups()
	peer := c.newGroup("peer")
	get[authorizeReply](c, c.user, "AuthorizeSecurityGroupIngress", "GroupId="+webGroup, "IpPermissions.1.IpProtocol=icmp", "IpPermissions.1.Groups.1.GroupId="+peer)
	get[authorizeReply](c, c.user, "AuthorizeSecurityGroupEgress", "GroupId="+webGroup, "IpPermissions.1.IpProtocol=udp", "IpPermissions.1.FromPort=5",
		"IpPermissions.1.ToPort=6", "IpPermissions.1.Ipv6Ranges.1.CidrIpv6=2001:db8::/32")
	for _, f := range []string{
		"description=a web", "group-id=" + webGroup, "group-name=a w*", "ip-permission.cidr=203.0.113.0/24", "ip-permission.from-port=80", "ip-permission.to-port=80",
		"ip-permission.protocol=icmp", "ip-permission.group-id=" + peer, "ip-permission.group-name=peer", "egress.ip-permission.ipv6-cidr=2001:db8::/32",
		"egress.ip-permission.from-port=5", "egress.ip-permission.to-port=6", "egress.ip-permission.protocol=udp",
	} {
		found := get[describeGroupsReply](c, c.user, "DescribeSecurityGroups", asked(f)...).Groups
		if len(found) != 1 || found[0].ID != webGroup {
			t.Errorf("%s finds %+v", f, found)
		}
	}
	for f, want := range map[string]int{"vpc-id=" + vpcOf(ordinary): 3, "owner-id=" + string(ordinary): 3, "ip-permission.user-id=" + string(ordinary): 2, "egress.ip-permission.cidr=0.0.0.0/0": 3, "ip-permission.prefix-list-id=*": 0} {
		if n := len(get[describeGroupsReply](c, c.user, "DescribeSecurityGroups", asked(f)...).Groups); n != want {
			t.Errorf("%s finds %d", f, n)
		}
	}
}

// TestGroupsInUse are not deleted: those with an instance, and those that others'
// rules name.
func TestGroupsInUse(t *testing.T) {
	c := ready(t).withGroups()
	peer := c.newGroup("peer")
	rule := []string{"GroupId=" + webGroup, "IpPermissions.1.IpProtocol=-1", "IpPermissions.1.Groups.1.GroupId=" + peer}
	get[authorizeReply](c, c.user, "AuthorizeSecurityGroupIngress", rule...)
	if r := c.refused(c.user, "DeleteSecurityGroup", "GroupId="+peer); r.Code != "DependencyViolation" || !strings.Contains(r.Message, peer) {
		t.Errorf("named by a rule: %+v", r)
	}
	if r := c.refused(c.user, "DeleteSecurityGroup", "GroupName=peer"); r.Code != "InvalidGroup.InUse" {
		t.Errorf("by its name: %+v", r)
	}
	id := c.run(c.user, "SecurityGroupId.1="+peer, "SecurityGroup.1=default")[0]
	get[reply](c, c.user, "RevokeSecurityGroupIngress", rule...)
	if r := c.refused(c.user, "DeleteSecurityGroup", "GroupId="+peer); r.Code != "DependencyViolation" {
		t.Errorf("with an instance: %+v", r)
	}
	get[terminateReply](c, c.user, "TerminateInstances", "InstanceId.1="+id)
	if r := c.refused(c.user, "DeleteSecurityGroup", "GroupId="+peer); r.Code != "DependencyViolation" {
		t.Errorf("with an instance that isn't gone yet: %+v", r)
	}
	c.write(func(tx *state.Tx) {
		i, _, _ := state.Instances.Get(tx, cloud.InstanceID(id))
		state.Release(tx, i)
	})
	checkGroups(t, c)
	get[deleteGroupReply](c, c.user, "DeleteSecurityGroup", "GroupId="+peer)
	if r := c.refused(c.user, "DescribeSecurityGroups", "GroupId.1="+peer); r.Code != "InvalidGroup.NotFound" {
		t.Errorf("deleted: %+v", r)
	}
	c.newGroup("peer") // its name is free again
}

// TestRuleLimit is EC2's, in each direction.
func TestRuleLimit(t *testing.T) {
	c := ready(t).withGroups()
	parameters := []string{"GroupId=" + webGroup, "IpPermissions.1.IpProtocol=-1"}
	for n := range maxGroupRules {
		parameters = append(parameters, "IpPermissions.1.IpRanges."+strconv.Itoa(n+1)+".CidrIp=10.0.0."+strconv.Itoa(n)+"/32")
	}
	if r := c.refused(c.user, "AuthorizeSecurityGroupIngress", parameters...); r.Code != "RulesPerSecurityGroupLimitExceeded" || !strings.Contains(r.Message, "61") {
		t.Errorf("one too many: %+v", r)
	}
	get[authorizeReply](c, c.user, "AuthorizeSecurityGroupIngress", parameters[:len(parameters)-1]...)
}

// checkGroups holds what guards count against the groups there are.
func checkGroups(t *testing.T, c *aCloud) {
	t.Helper()
	view := c.Store.View()
	uses, names := map[string]int64{}, map[string]string{}
	for g := range state.SecurityGroups.All(view) {
		if g.Name != cloud.DefaultGroup {
			names[state.GroupNameGuard(g.Account, g.Name)] = string(g.ID)
		}
		for _, id := range state.PeersOf(g) {
			if peer, _, ok := state.SecurityGroups.Get(view, id); ok && id != g.ID && peer.Account == g.Account {
				uses[string(id)]++
			}
		}
	}
	for i := range state.Instances.All(view) {
		for _, g := range i.Groups {
			if state.Owner(view, state.LocalAddress, i.Local.String()) == string(i.ID) {
				uses[string(g.ID)]++
			}
		}
	}
	for g := range state.Guards.All(view) {
		switch {
		case g.Kind == state.GroupUse && uses[g.Name] != g.Count:
			t.Errorf("group %s is counted to be used %d times, and is %d times", g.Name, g.Count, uses[g.Name])
		case g.Kind == state.GroupName && names[g.Name] != g.Owner:
			t.Errorf("the name %s belongs to %q, and %q has it", g.Name, g.Owner, names[g.Name])
		}
	}
}

// TestGroupReplies compares whole replies with those in testdata/replies.
func TestGroupReplies(t *testing.T) {
	c := ready(t).withGroups()
	say := func(name, action string, parameters ...string) {
		t.Helper()
		_, body := c.send(c.user, action, parameters...)
		compare(t, name, body)
	}
	say("CreateSecurityGroup", "CreateSecurityGroup", "GroupName=db", "GroupDescription=of databases", "VpcId="+vpcOf(ordinary),
		"TagSpecification.1.ResourceType=security-group", "TagSpecification.1.Tag.1.Key=for")
	say("AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupIngress", "GroupName=db", "IpPermissions.1.IpProtocol=tcp", "IpPermissions.1.FromPort=5432",
		"IpPermissions.1.ToPort=5432", "IpPermissions.1.Groups.1.GroupName=a web", "IpPermissions.1.Ipv6Ranges.1.CidrIpv6=2001:db8::/32",
		"IpPermissions.1.IpRanges.1.CidrIp=192.0.2.0/24", "IpPermissions.1.IpRanges.1.Description=the office",
		"TagSpecification.1.ResourceType=security-group-rule", "TagSpecification.1.Tag.1.Key=by", "TagSpecification.1.Tag.1.Value=me")
	say("AuthorizeSecurityGroupEgress", "AuthorizeSecurityGroupEgress", "GroupId="+webGroup, "IpProtocol=icmp", "FromPort=8", "ToPort=-1", "CidrIp=0.0.0.0/0")
	say("DescribeSecurityGroups-rules", "DescribeSecurityGroups")
	say("DescribeSecurityGroupRules", "DescribeSecurityGroupRules", asked("group-id="+webGroup)...)
	first := get[describeRulesReply](c, c.user, "DescribeSecurityGroupRules", "MaxResults=5")
	rest := get[describeRulesReply](c, c.user, "DescribeSecurityGroupRules", "MaxResults=5", "NextToken="+first.NextToken)
	if len(first.Rules) != 5 || len(rest.Rules) != 4 || rest.NextToken != "" {
		t.Errorf("pages of %d and %d rules", len(first.Rules), len(rest.Rules))
	}
	say("ModifySecurityGroupRules", "ModifySecurityGroupRules", "GroupId="+webGroup, "SecurityGroupRule.1.SecurityGroupRuleId="+webIngress,
		"SecurityGroupRule.1.SecurityGroupRule.IpProtocol=-1", "SecurityGroupRule.1.SecurityGroupRule.ReferencedGroupId="+webGroup)
	say("UpdateSecurityGroupRuleDescriptionsIngress", "UpdateSecurityGroupRuleDescriptionsIngress", "GroupId="+webGroup, "SecurityGroupRuleDescription.1.SecurityGroupRuleId="+webIngress)
	say("RevokeSecurityGroupIngress", "RevokeSecurityGroupIngress", "GroupId="+webGroup, "SecurityGroupRuleId.1="+webIngress)
	say("RevokeSecurityGroupEgress", "RevokeSecurityGroupEgress", "GroupId="+webGroup, "IpProtocol=-1", "CidrIp=0.0.0.0/0")
	say("DeleteSecurityGroup", "DeleteSecurityGroup", "GroupId="+webGroup)
}

// TestGroupsOfAnInstance can be changed while it runs.
func TestGroupsOfAnInstance(t *testing.T) {
	c := ready(t).withGroups()
	id, db := c.run(c.user)[0], c.newGroup("db")
	get[reply](c, c.user, "ModifyInstanceAttribute", "InstanceId="+id, "GroupId.1="+db, "GroupId.2="+webGroup, "GroupId.3="+db)
	got := get[instanceAttributeReply](c, c.user, "DescribeInstanceAttribute", "InstanceId="+id, "Attribute=groupSet").Groups.Items
	if want := []groupRef{{db, "db"}, {webGroup, "a web"}}; !slices.Equal(got, want) {
		t.Errorf("it is in %v, want %v", got, want)
	}
	checkGroups(t, c)
	for _, bad := range []refusalCase{
		{[]string{"GroupId.1=sg-99999999"}, "InvalidGroup.NotFound", "sg-99999999"},
		{[]string{"GroupId.1=web"}, "InvalidGroupId.Malformed", "web"},
		{nil, "MissingParameter", "GroupId"},
	} {
		if r := c.refused(c.user, "ModifyInstanceAttribute", append(bad.request, "InstanceId="+id)...); r.Code != bad.code || !strings.Contains(r.Message, bad.says) {
			t.Errorf("%v: %+v", bad.request, r)
		}
	}
	get[reply](c, c.user, "ModifyInstanceAttribute", "InstanceId="+id, "GroupId.1="+db)
	get[deleteGroupReply](c, c.user, "DeleteSecurityGroup", "GroupId="+webGroup)
	if r := c.refused(c.user, "DeleteSecurityGroup", "GroupId="+db); r.Code != "DependencyViolation" {
		t.Errorf("the one that it is in: %+v", r)
	}
}
