package ec2

import (
	"encoding/base64"
	"strings"
	"testing"
)

// refusalCase is a request that is refused, and how.
type refusalCase struct {
	request    []string
	code, says string
}

// TestRefusals of everything that the generic tests don't reach: EC2's code,
// and a message that names what was wrong.
func TestRefusals(t *testing.T) {
	c := ready(t)
	mine, others := c.run(c.user)[0], c.run(c.admin)[0]
	get[createKeyPairReply](c, c.user, "CreateKeyPair", "KeyName=taken", "KeyType=ed25519")
	adminGroup := get[describeGroupsReply](c, c.admin, "DescribeSecurityGroups").Groups[0].ID
	before := c.Store.View().Revision()
	for _, test := range append(launchRefusals(adminGroup), otherRefusals(mine, others)...) {
		if r := c.refused(c.user, test.request[0], test.request[1:]...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%.80v: %+v", test.request, r)
		}
	}
	if after := c.Store.View().Revision(); after != before {
		t.Errorf("a refused request wrote: revision %d became %d", before, after)
	}
}

// launchRefusals are RunInstances's.
func launchRefusals(adminGroup string) []refusalCase {
	run := func(p ...string) []string { return append([]string{"RunInstances", "ImageId=" + hvmImage}, p...) }
	return []refusalCase{
		{run("ImageId=nonsense"), "InvalidAMIID.Malformed", `"nonsense"`},
		{run("ImageId=" + kernelImage), "InvalidAMIID.Malformed", kernelImage},
		{run("ImageId=emi-99999999"), "InvalidAMIID.NotFound", "emi-99999999"},
		{run("ImageId=" + goneImage), "InvalidAMIID.Unavailable", goneImage},
		{run("ImageId=" + hugeImage), "InvalidParameterCombination", "m1.small"},
		{run("ImageId="+hugeImage, "InstanceType=m2.2xlarge"), "InvalidParameterCombination", hugeImage},
		{run("MinCount=0"), "InvalidParameterValue", "MinCount"},
		{run("MinCount=2", "MaxCount=1"), "InvalidParameterCombination", "MinCount"},
		{run("MaxCount=1001"), "InvalidParameterValue", "MaxCount"},
		{run("MaxCount=many"), "InvalidParameterValue", "MaxCount"},
		{run("InstanceType=m9.galactic"), "InvalidParameterValue", "m9.galactic"},
		{run("KeyName=missing"), "InvalidKeyPair.NotFound", "missing"},
		{run("SecurityGroup.1=web"), "InvalidGroup.NotFound", "web"},
		{run("SecurityGroupId.1=sg-99999999"), "InvalidGroup.NotFound", "sg-99999999"},
		{run("SecurityGroupId.1=" + adminGroup), "InvalidGroup.NotFound", adminGroup},
		{run("SecurityGroupId.1=web"), "InvalidGroupId.Malformed", "web"},
		{run("Placement.AvailabilityZone=nowhere"), "InvalidParameterValue", "nowhere"},
		{run("Placement.Tenancy=dedicated"), "UnsupportedOperation", "Placement.Tenancy"},
		{run("Placement.GroupName=pg"), "UnsupportedOperation", "Placement.GroupName"},
		{run("UserData=not base64"), "InvalidUserData.Malformed", "UserData"},
		{run("UserData=" + base64.StdEncoding.EncodeToString(make([]byte, 16<<10+1))), "InvalidParameterValue", "16 KB"},
		{run("KernelId=" + kernelImage), "InvalidParameterCombination", "HVM"},
		{run("Monitoring.Enabled=true"), "UnsupportedOperation", "Monitoring.Enabled"},
		{run("EbsOptimized=true"), "UnsupportedOperation", "EbsOptimized"},
		{run("DisableApiTermination=true"), "UnsupportedOperation", "DisableApiTermination"},
		{run("InstanceInitiatedShutdownBehavior=stop"), "InvalidParameterCombination", "stop"},
		{run("InstanceInitiatedShutdownBehavior=explode"), "InvalidParameterValue", "explode"},
		{run("MetadataOptions.HttpTokens=sometimes"), "InvalidParameterValue", "MetadataOptions.HttpTokens"},
		{run("MetadataOptions.HttpEndpoint=perhaps"), "InvalidParameterValue", "MetadataOptions.HttpEndpoint"},
		{run("MetadataOptions.HttpProtocolIpv6=enabled"), "UnsupportedOperation", "MetadataOptions.HttpProtocolIpv6"},
		{run("MetadataOptions.HttpPutResponseHopLimit=65"), "InvalidParameterValue", "MetadataOptions.HttpPutResponseHopLimit"},
		{run("MetadataOptions.InstanceMetadataTags=enabled", "TagSpecification.1.ResourceType=instance", "TagSpecification.1.Tag.1.Key=a b"), "InvalidParameterValue", "'a b' is not a valid tag key"},
		{run("SubnetId=subnet-1"), "InvalidSubnetID.Malformed", "subnet-1"},
		{run("PrivateIpAddress=10.0.0.1"), "UnsupportedOperation", "PrivateIpAddress"},
		{run("IamInstanceProfile.Name=p"), "UnsupportedOperation", "IamInstanceProfile.Name"},
		{run("NetworkInterface.1.Ipv6AddressCount=1"), "UnknownParameter", "NetworkInterface.1.Ipv6AddressCount"},
		{run("LaunchTemplate.LaunchTemplateName=t"), "UnknownParameter", "LaunchTemplate"},
		{run("ClientToken=" + strings.Repeat("t", 65)), "InvalidParameterValue", "ClientToken"},
		{run("ClientToken=a\x07b"), "InvalidParameterValue", "ClientToken"},
		{run("TagSpecification.1.ResourceType=image", "TagSpecification.1.Tag.1.Key=k"), "InvalidParameterValue", "image"},
		{run("TagSpecification.1.Tag.1.Key=k"), "MissingParameter", "ResourceType"},
		{run("BlockDeviceMapping.1.DeviceName=/dev/sda1", "BlockDeviceMapping.1.Ebs.VolumeSize=8"), "InvalidBlockDeviceMapping", "/dev/sda1 is the root of " + hvmImage},
		{run("BlockDeviceMapping.1.DeviceName=/dev/sdf", "BlockDeviceMapping.1.Ebs.SnapshotId=snap-99999999"), "InvalidSnapshot.NotFound", "snap-99999999"},
	}
}

// otherRefusals are all other actions'.
func otherRefusals(mine, others string) []refusalCase {
	return []refusalCase{
		{[]string{"TerminateInstances", "InstanceId.1=" + mine, "InstanceId.2=" + others}, "InvalidInstanceID.NotFound", "The instance ID '" + others + "' does not exist"},
		{[]string{"TerminateInstances", "InstanceId.1=" + mine, "InstanceId.2=i-99999999", "InstanceId.3=" + others}, "InvalidInstanceID.NotFound", "The instance IDs 'i-99999999, " + others + "' do not exist"},
		{[]string{"TerminateInstances", "InstanceId.1=" + mine, "InstanceId.2=x"}, "InvalidInstanceID.Malformed", `Invalid id: "x" (expecting "i-...")`},
		{[]string{"RebootInstances", "InstanceId.1=" + others}, "InvalidInstanceID.NotFound", others},
		{[]string{"StopInstances", "InstanceId.1=" + mine, "SkipOsShutdown=true"}, "UnsupportedOperation", "SkipOsShutdown"},
		{[]string{"TerminateInstances", "InstanceId.1=" + mine, "SkipOsShutdown=true"}, "UnsupportedOperation", "SkipOsShutdown"},
		{[]string{"StopInstances", "InstanceId.1=" + mine}, "UnsupportedOperation", "does not have an 'ebs' root device type and cannot be stopped."},
		{[]string{"StartInstances", "InstanceId.1=" + mine}, "UnsupportedOperation", "cannot be started."},
		{[]string{"StartInstances", "InstanceId.1=" + others}, "InvalidInstanceID.NotFound", others},
		{[]string{"GetConsoleOutput", "InstanceId=" + others}, "InvalidInstanceID.NotFound", others},
		{[]string{"GetConsoleScreenshot", "InstanceId=" + others}, "InvalidInstanceID.NotFound", others},
		{[]string{"ModifyInstanceMetadataOptions", "InstanceId=" + others, "HttpTokens=required"}, "InvalidInstanceID.NotFound", others},
		{[]string{"ModifyInstanceMetadataOptions", "InstanceId=" + mine}, "MissingParameter", "HttpTokens"},
		{[]string{"ModifyInstanceMetadataOptions", "InstanceId=" + mine, "HttpTokens=no"}, "InvalidParameterValue", "HttpTokens"},
		{[]string{"ModifyInstanceMetadataOptions", "InstanceId=" + mine, "HttpPutResponseHopLimit=0"}, "InvalidParameterValue", "HttpPutResponseHopLimit"},
		{[]string{"ModifyInstanceMetadataOptions", "InstanceId=" + mine, "HttpProtocolIpv6=enabled"}, "UnsupportedOperation", "HttpProtocolIpv6"},
		{[]string{"ModifyInstanceAttribute", "InstanceId=" + mine, "UserData.Value=aGVsbG8="}, "IncorrectInstanceState", "stopped"},
		{[]string{"ModifyInstanceAttribute", "InstanceId=" + mine, "UserData.Value=%"}, "InvalidUserData.Malformed", "UserData"},
		{[]string{"ModifyInstanceAttribute", "InstanceId=" + mine, "SourceDestCheck.Value=false"}, "UnsupportedOperation", "SourceDestCheck"},
		{[]string{"ModifyInstanceAttribute", "InstanceId=" + mine, "SourceDestCheck.Value=no"}, "InvalidParameterValue", "SourceDestCheck"},
		{[]string{"GetPasswordData", "InstanceId=" + others}, "InvalidInstanceID.NotFound", others},
		{[]string{"DescribeInstances", "InstanceId.1=" + others}, "InvalidInstanceID.NotFound", others},
		{[]string{"DescribeInstances", "InstanceId.1=verbose"}, "InvalidInstanceID.Malformed", "verbose"},
		{[]string{"DescribeInstanceAttribute", "InstanceId=" + mine, "Attribute=colour"}, "InvalidParameterValue", "colour"},

		{[]string{"CreateKeyPair", "KeyName=taken"}, "InvalidKeyPair.Duplicate", "The keypair 'taken' already exists."},
		{[]string{"CreateKeyPair", "KeyName=" + strings.Repeat("k", 256)}, "InvalidParameterValue", "KeyName"},
		{[]string{"CreateKeyPair", "KeyName=schlüssel"}, "InvalidParameterValue", "KeyName"},
		{[]string{"CreateKeyPair", "KeyName= space"}, "InvalidParameterValue", "KeyName"},
		{[]string{"CreateKeyPair", "KeyName=k", "KeyType=dsa"}, "InvalidParameterValue", "KeyType"},
		{[]string{"CreateKeyPair", "KeyName=k", "KeyFormat=ppk"}, "UnsupportedOperation", "KeyFormat"},
		{[]string{"ImportKeyPair", "KeyName=taken", "PublicKeyMaterial=" + opensshBase64}, "InvalidKeyPair.Duplicate", "taken"},
		{[]string{"ImportKeyPair", "KeyName=k", "PublicKeyMaterial=aGVsbG8="}, "InvalidKey.Format", "OpenSSH"},
		{[]string{"ImportKeyPair", "KeyName=k", "PublicKeyMaterial=%%%"}, "InvalidParameterValue", "PublicKeyMaterial"},
		{[]string{"DescribeKeyPairs", "KeyName.1=missing"}, "InvalidKeyPair.NotFound", "missing"},
		{[]string{"DescribeKeyPairs", "KeyPairId.1=key-99999999"}, "InvalidKeyPair.NotFound", "key-99999999"},
		{[]string{"DescribeKeyPairs", "KeyPairId.1=taken"}, "InvalidKeyPairId.Malformed", "taken"},
		{[]string{"DeleteKeyPair"}, "MissingParameter", "KeyName"},
		{[]string{"DeleteKeyPair", "KeyName=a", "KeyPairId=key-00000001"}, "InvalidParameterCombination", "KeyPairId"},
		{[]string{"DeleteKeyPair", "KeyPairId=nonsense"}, "InvalidKeyPairId.Malformed", "nonsense"},

		{[]string{"DeregisterImage", "ImageId=" + hvmImage}, "AuthFailure", hvmImage},
		{[]string{"DeregisterImage", "ImageId=emi-99999999"}, "InvalidAMIID.NotFound", "emi-99999999"},
		{[]string{"DescribeSecurityGroups", "GroupName.1=web"}, "InvalidGroup.NotFound", "web"},
		{[]string{"CreateTags", "ResourceId.1=vol-0000dead", "Tag.1.Key=k"}, "InvalidVolume.NotFound", "vol-0000dead"},
		{[]string{"CreateTags", "ResourceId.1=snap-0000dead", "Tag.1.Key=k"}, "InvalidSnapshot.NotFound", "snap-0000dead"},
		{[]string{"CreateTags", "ResourceId.1=vpc-00000001", "Tag.1.Key=k"}, "InvalidID", "vpc-00000001"},
		{[]string{"CreateTags", "ResourceId.1=" + others, "Tag.1.Key=k"}, "InvalidInstanceID.NotFound", others},
		{[]string{"CreateTags", "ResourceId.1=" + hvmImage, "Tag.1.Key=k"}, "AuthFailure", hvmImage},
		{[]string{"DeleteTags", "ResourceId.1=" + mine, "Tag.1.Key=aws:x"}, "InvalidParameterValue", "aws:x"},
		{[]string{"DescribeInstanceTypes", "InstanceType.1=m9.huge"}, "InvalidInstanceType", "m9.huge"},
		{[]string{"DescribeInstanceTypeOfferings", "LocationType=planet"}, "InvalidParameterValue", "planet"},
		{[]string{"DescribeAvailabilityZones", "ZoneName.1=nowhere"}, "InvalidParameterValue", "nowhere"},
		{[]string{"DescribeAvailabilityZones", "ZoneName.1=verbose"}, "InvalidParameterValue", "verbose"},
		{[]string{"DescribeRegions", "RegionName.1=us-east-1"}, "InvalidParameterValue", "us-east-1"},
		{[]string{"DescribeAccountAttributes", "AttributeName.1=mood"}, "InvalidParameterValue", "mood"},
	}
}

// TestDefaultsAreAccepted of parameters that common clients send.
func TestDefaultsAreAccepted(t *testing.T) {
	c := ready(t)
	get[reservationReply](c, c.user, "RunInstances", "ImageId=ami-00000001", "MinCount=1", "MaxCount=1", "ClientToken=terraform-1",
		"CreditSpecification.CpuCredits=standard", "DisableApiTermination=false", "DisableApiStop=false", "EbsOptimized=false",
		"HibernationOptions.Configured=false", "Monitoring.Enabled=false", "EnclaveOptions.Enabled=false", "InstanceInitiatedShutdownBehavior=terminate",
		"MetadataOptions.HttpTokens=optional", "MetadataOptions.HttpEndpoint=enabled", "Placement.Tenancy=default", "SecurityGroup.1=default",
		"TagSpecification.1.ResourceType=instance", "BlockDeviceMapping.1.DeviceName=/dev/sdb", "BlockDeviceMapping.1.VirtualName=ephemeral0")
	get[reservationReply](c, c.user, "RunInstances", "ImageId="+pvImage, "KernelId="+kernelImage, "RamdiskId=ari-00000001")
}

func TestVerboseZones(t *testing.T) {
	c := ready(t)
	c.run(c.user, "MinCount=3", "MaxCount=3")
	zones := get[describeZonesReply](c, c.admin, "DescribeAvailabilityZones", "ZoneName.1=verbose").Zones
	if zones[0].Name != "one" || zones[1].Name != "|- vm types" || zones[1].State != "free / max   cpu   ram  disk" {
		t.Errorf("the table begins %+v", zones[:2])
	}
	for _, z := range zones {
		if z.Name == "|- m1.small" && z.State != "1997 / 2000   1    512     5" {
			t.Errorf("m1.small: %q", z.State)
		}
	}
	if n := len(get[describeZonesReply](c, c.user, "DescribeAvailabilityZones").Zones); n != 1 {
		t.Errorf("%d zones", n)
	}
}

func TestStatusOfInstances(t *testing.T) {
	c := ready(t)
	ids := c.run(c.user, "MinCount=2", "MaxCount=2")
	c.seenUp(ids[0])
	running := get[describeStatusReply](c, c.user, "DescribeInstanceStatus").Statuses
	if len(running) != 1 || running[0].ID != ids[0] || running[0].Instance.Status != "ok" || running[0].System.Details[0].Status != "passed" {
		t.Errorf("the running are %+v", running)
	}
	if all := get[describeStatusReply](c, c.user, "DescribeInstanceStatus", "IncludeAllInstances=true").Statuses; len(all) != 2 {
		t.Errorf("all are %+v", all)
	}
}
