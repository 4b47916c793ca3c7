package test

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
)

const (
	debianBuild = 90 * time.Minute // where nothing is cached, on a busy host
	debianBoot  = 30 * time.Minute // emulated, up to the end of cloud-init
)

// debianData is what an instance's owner gives it to do.
const debianData = "#!/bin/sh\necho \"$(hostname) was here\" >/var/lib/said\n"

// TestDebian installs debian-12, runs it, and logs in as its user, when cloud-init is through. It takes
// many minutes, of which the first time most are the build's.
func TestDebian(t *testing.T) {
	if os.Getenv("MALLEE_SLOW") == "" {
		t.Skip("takes many minutes: set MALLEE_SLOW=1, or make slow")
	}
	c, err := cloud.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Destroy(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err := shareCatalog(c); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Up(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ids, err := c.Install(within(t, debianBuild), "debian-12")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("installed %s after %s", ids, time.Since(began).Round(time.Second))
	api := ec2Of(t, c)
	pair, err := api.CreateKeyPair(within(t, soon), &ec2.CreateKeyPairInput{KeyName: aws.String("debian"), KeyType: types.KeyTypeEd25519})
	if err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	out := run(t, c, &ec2.RunInstancesInput{ImageId: &ids[0], KeyName: pair.KeyName, InstanceType: types.InstanceTypeT3Small,
		UserData: aws.String(base64.StdEncoding.EncodeToString([]byte(debianData)))})
	i := out.Instances[0]
	ctx := within(t, debianBoot)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the console ends with:\n%s", lastLines(console(t, c, *i.InstanceId), 60))
		}
	})
	guest := loginDebian(ctx, t, c, *i.InstanceId, *pair.KeyMaterial)
	t.Logf("SSH answered %s after the launch", time.Since(began).Round(time.Second))
	in := func(command string) string {
		t.Helper()
		text, err := guest.Run(ctx, command)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(text)
	}
	if status := in("cloud-init status --wait"); !strings.HasSuffix(status, "status: done") {
		t.Errorf("cloud-init says %q", status)
	}
	t.Logf("cloud-init was done %s after the launch", time.Since(began).Round(time.Second))
	now, err := describe(ctx, c, *i.InstanceId)
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(*now.PrivateDnsName, ".")
	for command, want := range map[string]string{
		"id -un":                              "debian",
		"sudo -n id -un":                      "root",
		". /etc/os-release; echo $VERSION_ID": "12",
		"cat /var/lib/said":                   name + " was here",
		"cloud-init query instance_id":        *i.InstanceId,
		"systemctl list-units --failed --no-legend --plain": "",
		"test -s /etc/machine-id && echo has":               "has",
		"findmnt -no FSTYPE /":                              "ext4",
		"sudo dpkg --audit":                                 "",
	} {
		if got := in(command); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	if _, err := api.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*i.InstanceId}}); err != nil {
		t.Fatal(err)
	}

	// On a volume larger than the image, its root file system takes all of it.
	r, err := c.Succeed(within(t, debianBuild), "image", "install", "debian-12", "--ebs")
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(strings.TrimPrefix(r.Out, "IMAGE\t"))
	i = run(t, c, &ec2.RunInstancesInput{ImageId: &id, KeyName: pair.KeyName, InstanceType: types.InstanceTypeT3Small,
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sda1"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(5)}}}}).Instances[0]
	ctx = within(t, debianBoot)
	guest = loginDebian(ctx, t, c, *i.InstanceId, *pair.KeyMaterial)
	in("cloud-init status --wait")
	if size, err := strconv.Atoi(in("df --output=size -BM / | tail -1 | tr -dc 0-9")); err != nil || size < 4600 {
		t.Errorf("the root file system has %d MiB of 5120, %v", size, err)
	}
}

// loginDebian when the guest lets its user in.
func loginDebian(ctx context.Context, t *testing.T, c *cloud.Cloud, id, key string) *cloud.Guest {
	t.Helper()
	if err := c.AllowSSH(ctx); err != nil {
		t.Fatal(err)
	}
	var guest *cloud.Guest
	err := cloud.PollEvery(ctx, 2*time.Second, "SSH as debian", func() error {
		i, err := describe(ctx, c, id)
		if err != nil {
			return err
		}
		if i.State.Name == types.InstanceStateNameTerminated {
			return cloud.Never(fmt.Errorf("%s has ended: %s", id, reason(i)))
		}
		guest, err = cloud.LoginAs(ctx, "debian", aws.ToString(i.PublicIpAddress), key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { guest.Close() })
	return guest
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
