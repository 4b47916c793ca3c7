package ec2

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mallee/bundle"
	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// TestReplies compares whole replies with those in testdata/replies, which
// -update writes anew: read the difference before committing it.
func TestReplies(t *testing.T) {
	c := ready(t)
	c.bundled("b1/tiny.manifest.xml", func(o *bundle.Options) { o.EncKey, o.EncIV = make([]byte, 16), make([]byte, 16) })
	c.objects["b1/other.manifest.xml"] = c.objects["b1/tiny.manifest.xml"]
	say := func(name string, action string, parameters ...string) string {
		t.Helper()
		_, body := c.send(c.user, action, parameters...)
		compare(t, name, body)
		return body
	}
	first := func(body, element string) string {
		t.Helper()
		found := regexp.MustCompile("<" + element + ">([^<]+)<").FindStringSubmatch(body)
		if found == nil {
			t.Fatalf("no %s in %s", element, body)
		}
		return found[1]
	}
	say("ImportKeyPair", "ImportKeyPair", "KeyName=mine", "PublicKeyMaterial="+opensshBase64, "TagSpecification.1.ResourceType=key-pair", "TagSpecification.1.Tag.1.Key=for")
	say("DescribeKeyPairs", "DescribeKeyPairs", "IncludePublicKey=true")
	ran := say("RunInstances", "RunInstances", "ImageId="+pvImage, "MinCount=2", "MaxCount=2", "KeyName=mine", "ClientToken=tok",
		"TagSpecification.1.ResourceType=instance", "TagSpecification.1.Tag.1.Key=Name", "TagSpecification.1.Tag.1.Value=<web & co>")
	id := first(ran, "instanceId")
	c.seenUp(id)
	say("DescribeInstances", "DescribeInstances")
	say("DescribeInstances-none", "DescribeInstances", asked("vpc-id=vpc-1")...)
	say("DescribeInstanceStatus", "DescribeInstanceStatus", "IncludeAllInstances=true")
	say("DescribeInstanceAttribute", "DescribeInstanceAttribute", "InstanceId="+id, "Attribute=instanceInitiatedShutdownBehavior")
	c.console[cloud.InstanceID(id)] = "login: "
	say("GetConsoleOutput", "GetConsoleOutput", "InstanceId="+id)
	say("GetConsoleScreenshot", "GetConsoleScreenshot", "InstanceId="+id, "WakeUp=true")
	say("GetPasswordData", "GetPasswordData", "InstanceId="+id)
	say("ModifyInstanceMetadataOptions", "ModifyInstanceMetadataOptions", "InstanceId="+id, "HttpPutResponseHopLimit=3", "InstanceMetadataTags=enabled")
	say("DescribeInstanceAttribute-sourceDestCheck", "DescribeInstanceAttribute", "InstanceId="+id, "Attribute=sourceDestCheck")
	say("RebootInstances", "RebootInstances", "InstanceId.1="+id)
	say("TerminateInstances", "TerminateInstances", "InstanceId.1="+id)
	say("DescribeInstances-ending", "DescribeInstances", "InstanceId.1="+id)
	say("StopInstances", "StopInstances", "InstanceId.1="+id)
	say("DescribeImages", "DescribeImages", "ImageId.1="+pvImage)
	say("DescribeImages-none", "DescribeImages", "Owner.1=nobody")
	say("DescribeSecurityGroups", "DescribeSecurityGroups")
	say("CreateTags", "CreateTags", "ResourceId.1="+id, "Tag.1.Key=a", "Tag.1.Value=b")
	say("DescribeTags", "DescribeTags")
	say("DeleteTags", "DeleteTags", "ResourceId.1="+id)
	say("DescribeTags-page", "DescribeTags", "MaxResults=5")
	say("DescribeInstanceTypes", "DescribeInstanceTypes", "InstanceType.1=m1.small")
	say("DescribeInstanceTypeOfferings", "DescribeInstanceTypeOfferings", asked("instance-type=m1.small")...)
	say("DescribeAvailabilityZones", "DescribeAvailabilityZones")
	say("DescribeRegions", "DescribeRegions")
	say("DescribeAccountAttributes", "DescribeAccountAttributes")
	say("DeleteKeyPair", "DeleteKeyPair", "KeyName=mine")
	say("Error", "DescribeInstances", "InstanceId.1=i-<bad>")

	c.user = c.admin
	registered := first(say("RegisterImage", "RegisterImage", "Name=tiny", "ImageLocation=b1/tiny.manifest.xml", "VirtualizationType=hvm"), "imageId")
	c.write(func(tx *state.Tx) {
		state.Images.Edit(tx, cloud.ImageID(registered), func(i *cloud.Image) {
			i.Platform, i.Mappings = windows, []cloud.Mapping{{Device: "/dev/sdb", NoDevice: true}}
		})
	})
	say("DescribeImages-own", "DescribeImages", "Owner.1=self", "ImageId.1="+registered)
	say("DeregisterImage", "DeregisterImage", "ImageId="+registered)
}

func compare(t *testing.T, name, body string) {
	t.Helper()
	file := filepath.Join("testdata", "replies", name+".xml")
	got := strings.ReplaceAll(body, "><", ">\n<") + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not as in %s (-update writes it anew):\n%s", name, file, got)
	}
}

// TestAgainstAmazonsModel has botocore's model judge the replies in testdata and
// the parameters of the table: no name that it doesn't know.
func TestAgainstAmazonsModel(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not there to check the replies with botocore's model")
	}
	if exec.Command(python, "-c", "import botocore").Run() != nil {
		t.Skip("botocore is not there to check the replies with its model")
	}
	check := exec.Command(python, filepath.Join("testdata", "model.py"), filepath.Join("testdata", "replies"))
	var parameters strings.Builder
	for _, name := range sortedActions() {
		for _, parameter := range wire.Names(actions[name].in()) {
			fmt.Fprintln(&parameters, name, parameter)
		}
	}
	check.Stdin = strings.NewReader(parameters.String())
	out, err := check.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
