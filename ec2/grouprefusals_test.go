package ec2

import (
	"strings"
	"testing"

	"mallee/cloud"
)

// TestGroupRefusals tells EC2's code, and what was wrong.
func TestGroupRefusals(t *testing.T) {
	c := ready(t).withGroups()
	standard, others := string(cloud.NewDefaultGroup(ordinary, c.now).ID), string(cloud.NewDefaultGroup(c.admin.Account, c.now).ID)
	c.run(c.admin) // puts its default group on record
	create := func(name, text string) []string {
		return []string{"CreateSecurityGroup", "GroupName=" + name, "GroupDescription=" + text}
	}
	allow := func(p ...string) []string {
		request := []string{"AuthorizeSecurityGroupIngress", "GroupId=" + webGroup}
		for _, one := range p {
			request = append(request, "IpPermissions.1."+one)
		}
		return request
	}
	for _, test := range []refusalCase{
		{create("default", "d"), "InvalidGroup.Reserved", "default"},
		{create("a web", "d"), "InvalidGroup.Duplicate", "a web"},
		{create("sg-x", "d"), "InvalidParameterValue", "sg-x"},
		{create("naïve", "d"), "InvalidParameterValue", "GroupName"},
		{create(strings.Repeat("x", 256), "d"), "InvalidParameterValue", "GroupName"},
		{create("x", "a\nb"), "InvalidParameterValue", "GroupDescription"},
		{append(create("x", "d"), "VpcId=vpc-1"), "InvalidVpcID.Malformed", "vpc-1"},
		{append(create("x", "d"), "VpcId=vpc-99999999"), "InvalidVpcID.NotFound", "vpc-99999999"},
		{[]string{"DeleteSecurityGroup", "GroupName=default"}, "CannotDelete", standard},
		{[]string{"DeleteSecurityGroup"}, "MissingParameter", "GroupId"},
		{[]string{"DeleteSecurityGroup", "GroupId=web"}, "InvalidGroupId.Malformed", "web"},
		{[]string{"DeleteSecurityGroup", "GroupId=" + others}, "InvalidGroup.NotFound", others},
		{[]string{"DeleteSecurityGroup", "GroupId=" + webGroup, "GroupName=default"}, "InvalidParameterCombination", webGroup},
		{[]string{"DescribeSecurityGroupRules", "SecurityGroupRuleId.1=sg-1"}, "InvalidSecurityGroupRuleId.Malformed", "sg-1"},
		{[]string{"DescribeSecurityGroupRules", "SecurityGroupRuleId.1=sgr-99999999"}, "InvalidSecurityGroupRuleId.NotFound", "sgr-99999999"},
		{allow("IpProtocol=gopher", "IpRanges.1.CidrIp=0.0.0.0/0"), "InvalidPermission.Malformed", "gopher"},
		{allow("IpProtocol=256", "IpRanges.1.CidrIp=0.0.0.0/0"), "InvalidPermission.Malformed", "256"},
		{allow("IpProtocol=-1", "IpRanges.1.CidrIp=1.2.3.4"), "InvalidPermission.Malformed", "1.2.3.4"},
		{allow("IpProtocol=-1", "IpRanges.1.CidrIp=::/0"), "InvalidPermission.Malformed", "::/0"},
		{allow("IpProtocol=-1", "Ipv6Ranges.1.CidrIpv6=0.0.0.0/0"), "InvalidPermission.Malformed", "0.0.0.0/0"},
		{allow("IpProtocol=-1", "Groups.1.UserId="+string(ordinary)), "InvalidPermission.Malformed", "GroupId"},
		{allow("IpProtocol=-1", "Groups.1.GroupId="+others), "InvalidGroup.NotFound", others},
		{allow("IpProtocol=-1", "Groups.1.GroupName=none"), "InvalidGroup.NotFound", "none"},
		{allow("IpProtocol=-1", "Groups.1.GroupName=default", "Groups.1.UserId=999999999999"), "InvalidGroup.NotFound", "sg-"},
		{allow("IpProtocol=-1", "PrefixListIds.1.PrefixListId=pl-1"), "UnknownParameter", "PrefixListId"},
		{allow("IpProtocol=tcp", "IpRanges.1.CidrIp=0.0.0.0/0"), "InvalidParameterValue", "portRange"},
		{allow("IpProtocol=tcp", "FromPort=5", "ToPort=4", "IpRanges.1.CidrIp=0.0.0.0/0"), "InvalidParameterValue", "5-4"},
		{allow("IpProtocol=udp", "FromPort=5", "ToPort=65536", "IpRanges.1.CidrIp=0.0.0.0/0"), "InvalidParameterValue", "65536"},
		{allow("IpProtocol=icmp", "FromPort=256", "IpRanges.1.CidrIp=0.0.0.0/0"), "InvalidParameterValue", "256"},
		{allow("IpProtocol=icmp", "FromPort=-1", "ToPort=3", "IpRanges.1.CidrIp=0.0.0.0/0"), "InvalidParameterValue", "(3)"},
		{allow("IpProtocol=-1", "IpRanges.1.CidrIp=0.0.0.0/0", "IpRanges.2.CidrIp=1.0.0.0/0"), "InvalidParameterValue", "multiple times"},
		{allow("IpProtocol=-1", "IpRanges.1.CidrIp=0.0.0.0/0", "IpRanges.1.Description=naïve"), "InvalidParameterValue", "Description"},
		{append(allow("IpProtocol=-1", "IpRanges.1.CidrIp=0.0.0.0/0"), "CidrIp=0.0.0.0/0"), "InvalidParameterCombination", "CidrIp"},
		{[]string{"RevokeSecurityGroupEgress", "GroupId=" + webGroup, "SecurityGroupRuleId.1=" + webIngress}, "InvalidSecurityGroupRuleId.NotFound", webIngress},
		{[]string{"RevokeSecurityGroupIngress", "GroupId=" + webGroup, "SecurityGroupRuleId.1=" + webIngress, "IpProtocol=tcp"}, "InvalidParameterCombination", "SecurityGroupRuleId"},
	} {
		before := c.Store.View().Revision()
		if r := c.refused(c.user, test.request[0], test.request[1:]...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%.120v: %+v", test.request, r)
		}
		if after := c.Store.View().Revision(); after != before {
			t.Errorf("%v, refused, wrote", test.request)
		}
	}
}
