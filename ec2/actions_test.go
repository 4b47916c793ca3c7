package ec2

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"mallee/cloud"
	"mallee/iam"
	"mallee/state"
	"mallee/wire"
)

func iamUser(name string) iam.Principal { return iam.Principal{Account: ordinary, User: name} }

// sortedActions of the table.
func sortedActions() []string { return slices.Sorted(maps.Keys(actions)) }

// parameter with a number for each list in its name.
func parameter(name string) string {
	return strings.ReplaceAll(name, ".N", ".1")
}

// TestEveryActionRefusesWhatItDoesNotKnow by its name.
func TestEveryActionRefusesWhatItDoesNotKnow(t *testing.T) {
	c := stocked(t).withFiles().withTasks().withGroups().withAddresses()
	for _, name := range sortedActions() {
		for _, p := range []string{"Bogus=1", "Bogus.1.Value=x", "DryRun.1=true"} {
			parameters := append(requiredOf(name), p)
			r := c.refused(c.user, name, parameters...)
			parameterName, _, _ := strings.Cut(p, "=")
			if r.Code != "UnknownParameter" || !strings.Contains(r.Message, parameterName) {
				t.Errorf("%s with %s: %+v", name, p, r)
			}
		}
	}
}

// Tasks that withTasks puts into the state, the user's own.
const (
	bundlingTask   = "bun-00000001"
	exportingTask  = "export-ami-00000001"
	importingTask  = "import-ami-00000001"
	convertingTask = "import-vol-00000001"
)

func (c *aCloud) withTasks() *aCloud {
	c.write(func(tx *state.Tx) {
		for id, kind := range map[cloud.TaskID]cloud.TaskKind{
			bundlingTask: cloud.BundleInstance, exportingTask: cloud.ExportImage, importingTask: cloud.ImportImage, convertingTask: cloud.ImportVolume,
		} {
			state.AddTask(tx, cloud.Task{ID: id, Kind: kind, Account: ordinary, Node: "one-0", CreatedAt: c.now, Params: map[string]string{},
				Sources: []cloud.DiskFile{{Size: 1000}}, Target: &cloud.DiskFile{Bucket: "disks", Key: "k"}})
		}
	})
	return c
}

// requiredOf an action: values of the right form for all that it can't do
// without.
func requiredOf(name string) []string {
	return map[string][]string{
		"RunInstances":                  {"ImageId=" + hvmImage},
		"DescribeInstanceAttribute":     {"InstanceId=i-00000001", "Attribute=userData"},
		"TerminateInstances":            {"InstanceId.1=i-00000001"},
		"RebootInstances":               {"InstanceId.1=i-00000001"},
		"StartInstances":                {"InstanceId.1=" + stoppedInstance},
		"StopInstances":                 {"InstanceId.1=" + backedInstance},
		"ModifyInstanceAttribute":       {"InstanceId=" + backedInstance, "InstanceInitiatedShutdownBehavior.Value=stop"},
		"ModifyInstanceMetadataOptions": {"InstanceId=" + backedInstance, "HttpTokens=required"},
		"CreateImage":                   {"InstanceId=" + backedInstance, "Name=of an instance"},

		"CreateVolume":              {"AvailabilityZone=one", "Size=1"},
		"DeleteVolume":              {"VolumeId=" + freeVolume},
		"DescribeVolumeAttribute":   {"VolumeId=" + freeVolume, "Attribute=autoEnableIO"},
		"ModifyVolumeAttribute":     {"VolumeId=" + freeVolume, "AutoEnableIO.Value=true"},
		"EnableVolumeIO":            {"VolumeId=" + freeVolume},
		"ModifyVolume":              {"VolumeId=" + freeVolume, "Size=3"},
		"AttachVolume":              {"VolumeId=" + freeVolume, "InstanceId=" + backedInstance, "Device=/dev/sdg"},
		"DetachVolume":              {"VolumeId=" + dataVolume},
		"CreateSnapshot":            {"VolumeId=" + freeVolume},
		"CreateSnapshots":           {"InstanceSpecification.InstanceId=" + backedInstance},
		"CopySnapshot":              {"SourceRegion=mallee", "SourceSnapshotId=" + completeSnapshot},
		"DeleteSnapshot":            {"SnapshotId=" + completeSnapshot},
		"DescribeSnapshotAttribute": {"SnapshotId=" + completeSnapshot, "Attribute=createVolumePermission"},
		"ModifySnapshotAttribute":   {"SnapshotId=" + completeSnapshot, "CreateVolumePermission.Add.1.Group=all"},
		"ResetSnapshotAttribute":    {"SnapshotId=" + completeSnapshot, "Attribute=createVolumePermission"},
		"GetConsoleOutput":          {"InstanceId=i-00000001"},
		"GetConsoleScreenshot":      {"InstanceId=i-00000001"},
		"GetPasswordData":           {"InstanceId=i-00000001"},
		"RegisterImage":             {"Name=tiny", "ImageLocation=b1/tiny.manifest.xml"},
		"DeregisterImage":           {"ImageId=" + privateImage},
		"DescribeImageAttribute":    {"ImageId=" + privateImage, "Attribute=description"},
		"ModifyImageAttribute":      {"ImageId=" + privateImage, "Description.Value=d"},
		"ResetImageAttribute":       {"ImageId=" + privateImage, "Attribute=launchPermission"},
		"EnableImageDeprecation":    {"ImageId=" + privateImage, "DeprecateAt=2027-01-01T00:00:00Z"},
		"DisableImageDeprecation":   {"ImageId=" + privateImage},
		"EnableImage":               {"ImageId=" + privateImage},
		"DisableImage":              {"ImageId=" + privateImage},

		"EnableImageDeregistrationProtection":  {"ImageId=" + privateImage},
		"DisableImageDeregistrationProtection": {"ImageId=" + privateImage},

		"BundleInstance":       {"InstanceId=i-00000001", "Storage.S3.Bucket=disks", "Storage.S3.Prefix=mine"},
		"CancelBundleTask":     {"BundleId=" + bundlingTask},
		"CopyImage":            {"SourceImageId=" + privateImage, "SourceRegion=mallee", "Name=a copy"},
		"ExportImage":          {"ImageId=" + privateImage, "DiskImageFormat=RAW", "S3ExportLocation.S3Bucket=disks"},
		"CancelExportTask":     {"ExportTaskId=" + exportingTask},
		"ImportImage":          {"DiskContainer.1.Url=https://example.com/d.raw"},
		"ImportSnapshot":       {"DiskContainer.Url=https://example.com/d.raw"},
		"CancelImportTask":     {"ImportTaskId=" + importingTask},
		"ImportVolume":         {"AvailabilityZone=one", "Image.Format=RAW", "Image.Bytes=1000", "Image.ImportManifestUrl=https://example.com/m.xml", "Volume.Size=2"},
		"ImportInstance":       {"DiskImage.1.Image.Format=RAW", "DiskImage.1.Image.Bytes=1000", "DiskImage.1.Image.ImportManifestUrl=https://example.com/m.xml", "DiskImage.1.Volume.Size=1"},
		"CancelConversionTask": {"ConversionTaskId=" + convertingTask},

		"DescribeVpcAttribute": {"VpcId=" + vpcOf(ordinary), "Attribute=enableDnsSupport"},

		"AssociateAddress":    {"AllocationId=" + freeAllocation, "InstanceId=" + backedInstance},
		"DisassociateAddress": {"AssociationId=" + association},
		"ReleaseAddress":      {"AllocationId=" + freeAllocation},

		"CreateSecurityGroup":           {"GroupName=web", "GroupDescription=of the web"},
		"DeleteSecurityGroup":           {"GroupId=" + webGroup},
		"AuthorizeSecurityGroupIngress": {"GroupId=" + webGroup, "IpProtocol=-1", "CidrIp=192.0.2.0/24"},
		"AuthorizeSecurityGroupEgress":  {"GroupId=" + webGroup, "IpProtocol=-1", "CidrIp=192.0.2.0/24"},
		"RevokeSecurityGroupIngress":    {"GroupId=" + webGroup, "SecurityGroupRuleId.1=" + webIngress},
		"RevokeSecurityGroupEgress":     {"GroupId=" + webGroup, "SecurityGroupRuleId.1=" + webEgress},
		"ModifySecurityGroupRules": {"GroupId=" + webGroup, "SecurityGroupRule.1.SecurityGroupRuleId=" + webIngress,
			"SecurityGroupRule.1.SecurityGroupRule.IpProtocol=-1", "SecurityGroupRule.1.SecurityGroupRule.CidrIpv4=0.0.0.0/0"},
		"UpdateSecurityGroupRuleDescriptionsIngress": {"GroupId=" + webGroup, "SecurityGroupRuleDescription.1.SecurityGroupRuleId=" + webIngress},
		"UpdateSecurityGroupRuleDescriptionsEgress":  {"GroupId=" + webGroup, "SecurityGroupRuleDescription.1.SecurityGroupRuleId=" + webEgress},

		"CreateKeyPair": {"KeyName=k"},
		"ImportKeyPair": {"KeyName=k", "PublicKeyMaterial=c3NoLXJzYQ=="},
		"DeleteKeyPair": {"KeyName=k"},
		"CreateTags":    {"ResourceId.1=" + privateImage, "Tag.1.Key=k"},
		"DeleteTags":    {"ResourceId.1=" + privateImage},
	}[name]
}

// TestEveryActionMissesItsRequiredParameters one by one, and names the one.
func TestEveryActionMissesItsRequiredParameters(t *testing.T) {
	c := stocked(t).withFiles().withTasks().withGroups().withAddresses()
	for _, name := range sortedActions() {
		required := requiredOf(name)
		for n := range required {
			rest := slices.Delete(slices.Clone(required), n, n+1)
			missing, _, _ := strings.Cut(required[n], "=")
			missing, _, _ = strings.Cut(missing, ".")
			r := c.refused(c.user, name, rest...)
			optional := name == "DeleteTags" || name == "DeleteKeyPair"
			if (r.Code != "MissingParameter" || !strings.Contains(r.Message, missing)) && !optional {
				t.Errorf("%s without %s: %+v", name, missing, r)
			}
		}
	}
}

// garbage is what no parameter should choke on.
var garbage = []string{
	"", " ", "x", "-1", "0", "99999999999999999999", "true", "\x01\x02", "日本語", strings.Repeat("a", 5000), "i-", "i-zzzzzzzz", "emi-1234567",
	"../../etc/passwd", "'; DROP TABLE--", "%s%n", "*", "\\", "emi-ffffffff", "i-ffffffffffffffffff", "AAAA", "1e9",
}

// TestEveryParameterSurvivesGarbage puts garbage into each parameter of each
// action: whatever comes of it, it is not our fault, and not half done.
func TestEveryParameterSurvivesGarbage(t *testing.T) {
	c := stocked(t).withFiles().withTasks().withGroups().withAddresses()
	for _, name := range sortedActions() {
		for _, wireName := range wire.Names(actions[name].in()) {
			for _, value := range garbage {
				parameters := slices.DeleteFunc(requiredOf(name), func(p string) bool {
					return strings.HasPrefix(p, parameter(wireName)+"=")
				})
				parameters = append(parameters, parameter(wireName)+"="+value)
				if name == "CreateKeyPair" && wireName != "KeyType" {
					parameters = append(parameters, "KeyType=ed25519") // RSA takes long
				}
				status, body := c.send(c.user, name, parameters...)
				if status == http.StatusOK {
					continue
				}
				if status >= 500 || !strings.Contains(body, "<Code>") {
					t.Errorf("%s with %s=%.40q: status %d: %s\n%s", name, wireName, value, status, body, c.log.String())
				}
				if strings.ContainsAny(body, "\x01\x02") {
					t.Errorf("%s with %s=%.40q: the reply isn't XML: %s", name, wireName, value, body)
				}
			}
		}
	}
	checkBooks(t, c)
}

// TestEveryListIsBounded at a thousand.
func TestEveryListIsBounded(t *testing.T) {
	c := stocked(t).withFiles().withTasks().withGroups().withAddresses()
	for _, name := range sortedActions() {
		for _, wireName := range wire.Names(actions[name].in()) {
			base, isList := strings.CutSuffix(wireName, ".N")
			if !isList || strings.Contains(base, ".N") {
				continue
			}
			parameters := slices.DeleteFunc(requiredOf(name), func(p string) bool { return strings.HasPrefix(p, base+".") })
			for n := range 1001 {
				parameters = append(parameters, fmt.Sprintf("%s.%d=i-%08x", base, n+1, n))
			}
			if r := c.refused(c.user, name, parameters...); r.Code != "InvalidParameterValue" || !strings.Contains(r.Message, base) {
				t.Errorf("%s with 1,001 of %s: %+v", name, base, r)
			}
		}
	}
}

// TestEveryActionHasDryRun which changes nothing, and is refused to who may not.
func TestEveryActionHasDryRun(t *testing.T) {
	c := stocked(t).withFiles().withTasks().withGroups().withAddresses()
	id := c.run(c.user)[0]
	c.bundled("b1/tiny.manifest.xml", nil)
	c.seenUp(id)
	for _, name := range sortedActions() {
		if name == "CancelExportTask" {
			continue // EC2's has no DryRun
		}
		parameters := []string{"DryRun=true"}
		for _, p := range requiredOf(name) {
			p = strings.Replace(p, "=i-00000001", "="+id, 1)
			if name == "ImportKeyPair" && strings.HasPrefix(p, "PublicKeyMaterial") {
				p = "PublicKeyMaterial=" + opensshBase64
			}
			parameters = append(parameters, p)
		}
		who, before := c.user, c.Store.View().Revision()
		if name == "RegisterImage" {
			who = c.admin
			parameters = append(parameters, "VirtualizationType=hvm")
		}
		if r := c.refused(who, name, parameters...); r.Code != "DryRunOperation" {
			t.Errorf("%s: %+v", name, r)
		}
		if after := c.Store.View().Revision(); after != before {
			t.Errorf("%s as a dry run wrote: revision %d became %d", name, before, after)
		}
		if r := c.refused(iamUser("nobody"), name, parameters...); r.Code != "UnauthorizedOperation" {
			t.Errorf("%s without the right: %+v", name, r)
		}
	}
}

func TestProtocol(t *testing.T) {
	c := ready(t)
	for _, test := range []struct {
		name       string
		parameters []string
		code       string
	}{
		{"NoSuchAction", nil, "InvalidAction"},
		{"CreateVpc", nil, "InvalidAction"},
		{"", nil, "MissingParameter"},
		{"DescribeRegions", []string{"Version="}, "MissingParameter"},
		{"DescribeRegions", []string{"Version=tomorrow"}, "InvalidParameterValue"},
		{"DescribeRegions", []string{"Version=2001-01-01"}, "NoSuchVersion"},
	} {
		if r := c.refused(c.user, test.name, test.parameters...); r.Code != test.code {
			t.Errorf("%s %v: %+v", test.name, test.parameters, r)
		}
	}
	_, body := c.send(c.user, "DescribeRegions", "Version=2009-11-30")
	if !strings.Contains(body, `xmlns="http://ec2.amazonaws.com/doc/2009-11-30/"`) {
		t.Errorf("the reply is in another version: %s", body)
	}
}

// TestOurFaultsAreLogged and not told.
func TestOurFaultsAreLogged(t *testing.T) {
	c := ready(t)
	_, body := c.send(c.admin, "RegisterImage", "Name=tiny", "ImageLocation=b1/broken/m")
	if !strings.Contains(body, "<Code>InternalError</Code>") || strings.Contains(body, "fire") {
		t.Errorf("the reply is %s", body)
	}
	if log := c.log.String(); !strings.Contains(log, "fire") || !strings.Contains(log, "11111111-2222") {
		t.Errorf("the log is %s", log)
	}
	c.Options.Console = nil
	id := c.run(c.user)[0]
	_, body = c.send(c.user, "GetConsoleOutput", "InstanceId="+id)
	if !strings.Contains(body, "<Code>InternalError</Code>") || !strings.Contains(c.log.String(), "panic") {
		t.Errorf("a panic is told as %s", body)
	}
}

// TestFailuresOfTheState are told as what a client can do about them.
func TestFailuresOfTheState(t *testing.T) {
	for _, test := range []struct {
		err    error
		code   string
		logged bool
	}{
		{state.ErrConflict, "RequestLimitExceeded", false},
		{state.ErrTooBig, "InvalidParameterCombination", false},
		{state.ErrNoSpace, "Unavailable", true},
		{state.ErrUncertain, "InternalError", true},
		{&iam.DeniedError{Action: "ec2:X"}, "UnauthorizedOperation", false},
	} {
		err := fmt.Errorf("while doing something: %w", test.err)
		told := newCloud(t).wireError(err)
		if code := wire.AsError(told).Code; code != test.code || ours(err, told) != test.logged {
			t.Errorf("%v is told as %s, logged: %v", err, code, ours(err, told))
		}
	}
}
