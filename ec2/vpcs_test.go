package ec2

import (
	"slices"
	"strings"
	"testing"

	"mallee/cloud"
)

// TestDefaultNetwork is there before anything made it, and its parts name each
// other.
func TestDefaultNetwork(t *testing.T) {
	c := stocked(t).withAddresses()
	say := func(action string, parameters ...string) {
		t.Helper()
		_, body := c.send(c.user, action, parameters...)
		compare(t, action, body)
	}
	for _, action := range []string{"DescribeVpcs", "DescribeSubnets", "DescribeInternetGateways", "DescribeRouteTables", "DescribeNetworkAcls", "DescribeDhcpOptions"} {
		say(action)
	}
	say("DescribeNetworkInterfaces", asked("attachment.instance-id="+backedInstance)...)
	say("DescribeVpcAttribute", "VpcId="+vpcOf(ordinary), "Attribute=enableDnsHostnames")
	vpc := get[describeVpcsReply](c, c.user, "DescribeVpcs", asked("isDefault=true")...).Vpcs[0]
	subnets := get[describeSubnetsReply](c, c.user, "DescribeSubnets", asked("vpc-id="+vpc.ID, "default-for-az=true")...).Subnets
	if len(subnets) != 2 || subnets[0].Zone == subnets[1].Zone || vpc.CIDR != "172.31.0.0/16" {
		t.Errorf("%+v has %+v", vpc, subnets)
	}
	if other := get[describeVpcsReply](c, c.admin, "DescribeVpcs").Vpcs; len(other) != 1 || other[0].ID == vpc.ID {
		t.Errorf("another account has %+v", other)
	}
	table := get[describeRouteTablesReply](c, c.user, "DescribeRouteTables", asked("association.main=true", "vpc-id="+vpc.ID)...).Tables[0]
	gateway := get[describeGatewaysReply](c, c.user, "DescribeInternetGateways", asked("attachment.vpc-id="+vpc.ID)...).Gateways[0]
	if table.Routes[1].Gateway != gateway.ID {
		t.Errorf("routes %+v, gateway %s", table.Routes, gateway.ID)
	}
}

// everyValue finds its thing by the filter that it is for.
func everyValue[R any](t *testing.T, c *aCloud, k kind[derived[R]], all []derived[R]) {
	t.Helper()
	request := c.aCall("DescribeVpcs")
	for _, d := range all {
		for name, values := range d.values {
			for _, v := range values {
				found, err := k.all(request, filtered{[]filter{{name, []string{v}}}}, slices.Values(all))
				if err != nil || !slices.ContainsFunc(found, func(f derived[R]) bool { return f.id == d.id }) {
					t.Errorf("%s=%s doesn't find %s: %v", name, v, d.id, err)
				}
			}
		}
		if found, err := k.all(request, filtered{[]filter{{"vpc-id", []string{"vpc-none"}}}}, slices.Values(all)); err == nil && len(found) > 0 {
			t.Errorf("another VPC has %d of those", len(found))
		}
	}
}

func TestNetworkFilters(t *testing.T) {
	c := stocked(t).withAddresses()
	call := c.aCall("DescribeVpcs")
	everyValue(t, c, vpcKind, []derived[vpcReply]{call.vpc()})
	everyValue(t, c, subnetKind, call.subnets())
	everyValue(t, c, gatewayKind, []derived[gatewayReply]{call.gateway()})
	everyValue(t, c, routeTableKind, []derived[routeTableReply]{call.routeTable()})
	everyValue(t, c, aclKind, []derived[aclReply]{call.acl()})
	everyValue(t, c, optionsKind, []derived[optionsReply]{call.dhcpOptions()})
	if all := call.interfaces(); len(all) != 2 {
		t.Errorf("%d interfaces of two instances", len(all))
	} else {
		everyValue(t, c, interfaceKind, all)
	}
}

// TestLaunchIntoSubnet goes to its zone, by either way to name it.
func TestLaunchIntoSubnet(t *testing.T) {
	c := ready(t).withGroups().withNodes("two", 1, cloud.Size{VCPUs: 1000, MemoryMiB: 1 << 20, DiskGiB: 100_000})
	two := subnetOf(ordinary, "two")
	for _, parameters := range [][]string{
		{"SubnetId=" + two, "SecurityGroupId.1=" + webGroup},
		{"NetworkInterface.1.DeviceIndex=0", "NetworkInterface.1.SubnetId=" + two, "NetworkInterface.1.SecurityGroupId.1=" + webGroup, "NetworkInterface.1.AssociatePublicIpAddress=false"},
	} {
		i := get[reservationReply](c, c.user, "RunInstances", append(parameters, "ImageId="+hvmImage)...).Instances[0]
		if i.Placement.Zone != "two" || i.Subnet != two || i.VPC != vpcOf(ordinary) || i.Groups[0].ID != webGroup || i.Interfaces[0].Subnet != two {
			t.Errorf("%v: %+v", parameters, i)
		}
		if private := strings.HasSuffix(parameters[len(parameters)-1], "false"); private != (i.PublicIP == "") {
			t.Errorf("%v: its public address is %q", parameters, i.PublicIP)
		}
	}
	launch := func(p ...string) []string { return append([]string{"RunInstances", "ImageId=" + hvmImage}, p...) }
	for _, test := range []refusalCase{
		{launch("SubnetId=" + subnetOf(c.admin.Account, "two")), "InvalidSubnetID.NotFound", subnetOf(c.admin.Account, "two")},
		{launch("SubnetId=two"), "InvalidSubnetID.Malformed", `"two"`},
		{launch("SubnetId="+two, "Placement.AvailabilityZone=one"), "InvalidParameterValue", "one"},
		{launch("NetworkInterface.1.DeviceIndex=1"), "InvalidParameterValue", "DeviceIndex"},
		{launch("NetworkInterface.1.SubnetId=" + two), "MissingParameter", "DeviceIndex"},
		{launch("NetworkInterface.1.DeviceIndex=0", "SubnetId="+two), "InvalidParameterCombination", "subnet ID"},
		{launch("NetworkInterface.1.DeviceIndex=0", "NetworkInterface.1.DeleteOnTermination=false"), "UnsupportedOperation", "DeleteOnTermination"},
		{launch("NetworkInterface.1.DeviceIndex=0", "NetworkInterface.2.DeviceIndex=1"), "UnsupportedOperation", "NetworkInterface.2"},
		{launch("NetworkInterface.1.DeviceIndex=0", "NetworkInterface.1.InterfaceType=efa"), "UnsupportedOperation", "efa"},
		{[]string{"DescribeVpcs", "VpcId.1=vpc-99999999"}, "InvalidVpcID.NotFound", "vpc-99999999"},
		{[]string{"DescribeVpcs", "VpcId.1=x"}, "InvalidVpcID.Malformed", `"x"`},
		{[]string{"DescribeNetworkInterfaces", "NetworkInterfaceId.1=eni-99999999"}, "InvalidNetworkInterfaceID.NotFound", "eni-99999999"},
		{[]string{"CreateTags", "ResourceId.1=vpc-99999999", "Tag.1.Key=k"}, "InvalidID", "vpc-99999999"},
	} {
		if r := c.refused(c.user, test.request[0], test.request[1:]...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%v: %+v", test.request, r)
		}
	}
	get[reply](c, c.user, "CreateTags", "ResourceId.1="+vpcOf(ordinary), "ResourceId.2="+two, "Tag.1.Key=Name", "Tag.1.Value=mine")
	if found := get[describeSubnetsReply](c, c.user, "DescribeSubnets", asked("tag:Name=mine")...).Subnets; len(found) != 1 || found[0].ID != two {
		t.Errorf("found by its tag: %+v", found)
	}
}
