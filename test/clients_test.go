package test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// found are the programs of that name on PATH and in /usr/bin: a host may have
// one of its distribution and one of its user.
func found(name string) []string {
	var all []string
	for _, candidate := range []string{name, "/usr/bin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil && !slices.Contains(all, path) {
			all = append(all, path)
		}
	}
	return all
}

// cli is an AWS CLI that uses the cloud.
type cli struct {
	path     string
	endpoint string
	env      []string
}

func (c cli) run(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	cmd := exec.CommandContext(within(t, time.Minute), c.path, append([]string{"--endpoint-url", c.endpoint, "--output", "text"}, args...)...)
	cmd.Env = c.env
	text, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("aws %s: %w: %s", strings.Join(args, " "), err, text)
	}
	return strings.TrimSpace(string(text)), err
}

func (c cli) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.run(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAWSCLI is what somebody types who learns EC2.
func TestAWSCLI(t *testing.T) {
	w := theWorld(t)
	paths := found("aws")
	if len(paths) == 0 {
		t.Skip("no aws on PATH (on Debian: apt-get install awscli)")
	}
	for _, path := range paths {
		t.Run(strings.ReplaceAll(path, "/", "-"), func(t *testing.T) {
			t.Parallel()
			a, err := w.Access()
			if err != nil {
				t.Fatal(err)
			}
			env, err := w.Environ()
			if err != nil {
				t.Fatal(err)
			}
			aws := cli{path, a.Endpoint, env}
			if who := aws.must(t, "sts", "get-caller-identity", "--query", "Account"); who != a.Account {
				t.Errorf("I am %s, and eucarc says %s", who, a.Account)
			}
			aws.instances(t, w)
			aws.objects(t)
		})
	}
}

func (c cli) instances(t *testing.T, w *world) {
	tag := folderOf(t)
	out := c.must(t, "ec2", "run-instances", "--image-id", w.hello, "--count", "2", "--user-data", "hello",
		"--tag-specifications", "ResourceType=instance,Tags=[{Key=Name,Value="+tag+"}]", "--query", "Instances[].InstanceId")
	ids := strings.Fields(out)
	if len(ids) != 2 {
		t.Fatalf("run-instances --count 2 made %q", ids)
	}
	t.Cleanup(func() { terminate(t, w.Cloud, ids...) })
	await(t, w.Cloud, types.InstanceStateNameRunning, ids...) // the CLI itself looks every 15 s
	c.must(t, append([]string{"ec2", "wait", "instance-running", "--instance-ids"}, ids...)...)
	shown := c.must(t, "ec2", "describe-instances", "--filters", "Name=tag:Name,Values="+tag, "Name=instance-state-name,Values=running", "--query", "Reservations[].Instances[].InstanceId")
	if !sameStrings(strings.Fields(shown), ids) {
		t.Errorf("with the tag there are %s, want %v", shown, ids)
	}
	all := c.must(t, "ec2", "describe-instances", "--query", "Reservations[].Instances[].InstanceId")
	paged := c.must(t, "ec2", "describe-instances", "--page-size", "5", "--query", "Reservations[].Instances[].InstanceId")
	if !sameStrings(strings.Fields(paged), strings.Fields(all)) {
		t.Errorf("by pages there are %s, and at once %s", paged, all)
	}
	if _, err := c.run(t, append([]string{"ec2", "terminate-instances", "--dry-run", "--instance-ids"}, ids...)...); err == nil || !strings.Contains(err.Error(), "(DryRunOperation)") {
		t.Errorf("terminate-instances --dry-run: %v", err)
	}
	if text := c.must(t, "ec2", "get-console-output", "--instance-id", ids[0], "--query", "Output"); !strings.Contains(text, helloLine) {
		t.Errorf("the console says %q", text)
	}
	c.must(t, append([]string{"ec2", "terminate-instances", "--instance-ids"}, ids...)...)
	await(t, w.Cloud, types.InstanceStateNameTerminated, ids...)
	c.must(t, append([]string{"ec2", "wait", "instance-terminated", "--instance-ids"}, ids...)...)
}

// objects large enough to travel in parts.
func (c cli) objects(t *testing.T) {
	dir, folder := t.TempDir(), "s3://"+strings.ToLower(folderOf(t))
	there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
	body := someBytes(9<<20 + 1)
	if err := os.WriteFile(there, body, 0o600); err != nil {
		t.Fatal(err)
	}
	c.must(t, "s3", "mb", folder)
	c.must(t, "s3", "cp", "--no-progress", there, folder+"/a/b")
	c.must(t, "s3", "cp", "--no-progress", folder+"/a/b", back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes went to Walrus and %d came back (%v)", len(body), len(got), err)
	}
	c.must(t, "s3", "rb", "--force", folder)
}

// TestBoto3 runs testdata/boto.py with each Python that has boto3.
func TestBoto3(t *testing.T) {
	w := theWorld(t)
	ran := false
	for _, python := range found("python3") {
		if exec.Command(python, "-c", "import boto3").Run() != nil {
			continue
		}
		ran = true
		t.Run(strings.ReplaceAll(python, "/", "-"), func(t *testing.T) {
			env, err := w.Environ()
			if err != nil {
				t.Fatal(err)
			}
			endpoint, err := w.Endpoint()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(within(t, 2*time.Minute), python, "testdata/boto.py", endpoint, w.hello)
			cmd.Env = env
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	if !ran {
		t.Skip("no python3 with boto3 (on Debian: apt-get install python3-boto3)")
	}
}

// TestSDK is Amazon's for Go: what waits and what turns pages.
func TestSDK(t *testing.T) {
	w := theWorld(t)
	client := w.ec2(t)
	ids := idsOf(run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: &w.hello}).Instances)
	in := &ec2.DescribeInstancesInput{InstanceIds: ids}
	running := ec2.NewInstanceRunningWaiter(client, func(o *ec2.InstanceRunningWaiterOptions) { o.MinDelay, o.MaxDelay = time.Second, time.Second })
	if err := running.Wait(t.Context(), in, soon); err != nil {
		t.Error(err)
	}
	var paged []string
	five := int32(5)
	pages := ec2.NewDescribeInstancesPaginator(client, &ec2.DescribeInstancesInput{MaxResults: &five})
	for pages.HasMorePages() {
		page, err := pages.NextPage(within(t, soon))
		if err != nil {
			t.Fatal(err)
		}
		on := instancesOf(page)
		if len(on) > 5 {
			t.Errorf("a page of 5 has %d instances", len(on))
		}
		paged = append(paged, on...)
	}
	all, err := client.DescribeInstances(within(t, soon), &ec2.DescribeInstancesInput{})
	if err != nil {
		t.Fatal(err)
	}
	if !sameStrings(paged, instancesOf(all)) {
		t.Errorf("by pages there are %v, and at once %v", paged, instancesOf(all))
	}
	if _, err := client.TerminateInstances(within(t, soon), &ec2.TerminateInstancesInput{InstanceIds: ids}); err != nil {
		t.Fatal(err)
	}
	ended := ec2.NewInstanceTerminatedWaiter(client, func(o *ec2.InstanceTerminatedWaiterOptions) { o.MinDelay, o.MaxDelay = time.Second, time.Second })
	if err := ended.Wait(context.WithoutCancel(t.Context()), in, soon); err != nil {
		t.Error(err)
	}
}

func instancesOf(out *ec2.DescribeInstancesOutput) (ids []string) {
	for _, r := range out.Reservations {
		ids = append(ids, idsOf(r.Instances)...)
	}
	return ids
}

// TestDescriptions of what there is, that clients ask for before they start.
func TestDescriptions(t *testing.T) {
	w := theWorld(t)
	client := w.ec2(t)
	a, err := w.Access()
	if err != nil {
		t.Fatal(err)
	}
	regions, err := client.DescribeRegions(within(t, soon), &ec2.DescribeRegionsInput{})
	if err != nil || len(regions.Regions) != 1 || *regions.Regions[0].RegionName != a.Region {
		t.Errorf("the regions are %+v (%v), and eucarc says %s", regions, err, a.Region)
	}
	zones, err := client.DescribeAvailabilityZones(within(t, soon), &ec2.DescribeAvailabilityZonesInput{})
	if err != nil || len(zones.AvailabilityZones) != 1 || !strings.HasPrefix(*zones.AvailabilityZones[0].ZoneName, a.Region) || zones.AvailabilityZones[0].State != types.AvailabilityZoneStateAvailable {
		t.Errorf("the zones are %+v (%v)", zones, err)
	}
	images, err := client.DescribeImages(within(t, soon), &ec2.DescribeImagesInput{ImageIds: []string{w.pv, w.hvm, w.kernel, w.ramdisk}})
	if err != nil || len(images.Images) != 4 {
		t.Fatalf("%+v, %v", images, err)
	}
	for _, i := range images.Images {
		want := map[string]string{w.pv: "machine paravirtual", w.hvm: "machine hvm", w.kernel: "kernel ", w.ramdisk: "ramdisk "}[*i.ImageId]
		if got := string(i.ImageType) + " " + string(i.VirtualizationType); got != want {
			t.Errorf("%s is %q, want %q", *i.ImageId, got, want)
		}
		if *i.ImageId == w.pv && (*i.KernelId != w.kernel || *i.RamdiskId != w.ramdisk) {
			t.Errorf("the paravirtual image has %s and %s, want %s and %s", *i.KernelId, *i.RamdiskId, w.kernel, w.ramdisk)
		}
		if i.State != types.ImageStateAvailable || *i.OwnerId != a.Account || i.Architecture != "x86_64" || i.RootDeviceType != "instance-store" && i.ImageType == "machine" {
			t.Errorf("%s is %s of %s, %s on %s", *i.ImageId, i.State, *i.OwnerId, i.Architecture, i.RootDeviceType)
		}
	}
	again, err := w.Install(within(t, buildTime), "tiny")
	if err != nil || len(again) != 1 || again[0] != w.hvm {
		t.Errorf("what is installed is installed again as %v (%v), not as %s", again, err, w.hvm)
	}
}
