package test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
	"mallee/test/emi"
)

// TestBundledInstances: a running instance is bundled by euca-bundle-instance,
// goes on itself, and what is registered from the bundle has what was written in
// the guest, though it was never told to sync.
func TestBundledInstances(t *testing.T) {
	w, g := theGuests(t)
	noTasksLeft(t, w.Cloud)
	e := eucaOf(t, w.Cloud)
	for name, image := range map[string]string{"hvm": w.hvm, "paravirtual": w.pv} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: &image, KeyName: aws.String(keyName), InstanceType: "m1.small"}).Instances[0]
			i = await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)[0]
			boot := in(t, login(t, w.Cloud, i, g.key), "echo mine >/root/mine; "+bootID)

			prefix := folderOf(t) + "/image"
			made := one(t, e.records(t, "euca-bundle-instance", *i.InstanceId, "-b", bucket, "-p", prefix), "BUNDLE")
			bundle := &ec2.DescribeBundleTasksInput{BundleIds: []string{made[1]}}
			if err := ec2.NewBundleTaskCompleteWaiter(w.ec2(t), quickly[ec2.BundleTaskCompleteWaiterOptions]).Wait(within(t, bootTime), bundle, bootTime); err != nil {
				t.Fatal(err)
			}
			shown := one(t, e.records(t, "euca-describe-bundle-tasks", made[1]), "BUNDLE")
			if len(shown) < 8 || shown[2] != *i.InstanceId || shown[3] != bucket || shown[4] != prefix || shown[7] != "complete" {
				t.Errorf("describe-bundle-tasks printed %q", shown)
			}
			if now := in(t, login(t, w.Cloud, i, g.key), "cat /root/mine; "+bootID); !strings.HasPrefix(now, "mine\n") || strings.HasSuffix(now, boot) {
				t.Errorf("the instance itself holds %q after its bundling, and its boot was %q before", now, boot)
			}
			id := one(t, e.records(t, "euca-register", bucket+"/"+prefix+".manifest.xml", "-n", folderOf(t), "--virtualization-type", name), "IMAGE")[1]
			deregistered(t, w.Cloud, id)
			copied := imageNamed(t, w.Cloud, id)
			if original := imageNamed(t, w.Cloud, image); aws.ToString(copied.KernelId) != aws.ToString(original.KernelId) || aws.ToString(copied.RamdiskId) != aws.ToString(original.RamdiskId) {
				t.Errorf("the image has the kernel %s and ramdisk %s, and its instance's has %s and %s", aws.ToString(copied.KernelId), aws.ToString(copied.RamdiskId), aws.ToString(original.KernelId), aws.ToString(original.RamdiskId))
			}
			if got := in(t, launched(t, w, copied, g.key), "cat /root/mine"); got != "mine\n" {
				t.Errorf("an instance of the bundle holds %q", got)
			}
		})
	}
}

// policySigned is an upload policy in base64, and its signature.
func policySigned(a cloud.Access, until time.Time, bucket, prefix, acl string) (policy, signature string) {
	text := fmt.Sprintf(`{"expiration": "%s", "conditions": [{"bucket": "%s"}, {"acl": "%s"}, ["starts-with", "$key", "%s"]]}`,
		until.UTC().Format("2006-01-02T15:04:05Z"), bucket, acl, prefix)
	policy = base64.StdEncoding.EncodeToString([]byte(text))
	mac := hmac.New(sha1.New, []byte(a.Secret))
	mac.Write([]byte(policy))
	return policy, base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// TestUploadPolicies: who bundles has to have been let upload that, there, then.
func TestUploadPolicies(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	i := run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: &w.hello}).Instances[0]
	await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)
	a, err := w.Access()
	if err != nil {
		t.Fatal(err)
	}
	prefix, tomorrow := folderOf(t)+"/image", time.Now().Add(24*time.Hour)
	in := func(change func(*types.S3Storage)) *ec2.BundleInstanceInput {
		s := &types.S3Storage{Bucket: aws.String(bucket), Prefix: &prefix, AWSAccessKeyId: &a.AccessKey}
		change(s)
		return &ec2.BundleInstanceInput{InstanceId: i.InstanceId, Storage: &types.Storage{S3: s}}
	}
	sign := func(s *types.S3Storage, policy, signature string) {
		s.UploadPolicy, s.UploadPolicySignature = []byte(policy), &signature
		if text, err := base64.StdEncoding.DecodeString(policy); err == nil {
			s.UploadPolicy = text // the SDK encodes it
		}
	}
	for name, change := range map[string]func(*types.S3Storage){
		"of another bucket": func(s *types.S3Storage) {
			p, g := policySigned(a, tomorrow, "another", prefix, "ec2-bundle-read")
			sign(s, p, g)
		},
		"of another prefix": func(s *types.S3Storage) {
			p, g := policySigned(a, tomorrow, bucket, "elsewhere", "ec2-bundle-read")
			sign(s, p, g)
		},
		"that is over": func(s *types.S3Storage) {
			p, g := policySigned(a, time.Now().Add(-time.Minute), bucket, prefix, "ec2-bundle-read")
			sign(s, p, g)
		},
		"for everybody": func(s *types.S3Storage) {
			p, g := policySigned(a, tomorrow, bucket, prefix, "public-read")
			sign(s, p, g)
		},
		"signed by a stranger": func(s *types.S3Storage) {
			stranger := a
			stranger.Secret += "x"
			p, g := policySigned(stranger, tomorrow, bucket, prefix, "ec2-bundle-read")
			sign(s, p, g)
		},
		"by nobody's key": func(s *types.S3Storage) {
			p, g := policySigned(a, tomorrow, bucket, prefix, "ec2-bundle-read")
			sign(s, p, g)
			s.AWSAccessKeyId = aws.String("AKIAIOSFODNN7EXAMPLE")
		},
		"without a signature": func(s *types.S3Storage) {
			p, _ := policySigned(a, tomorrow, bucket, prefix, "ec2-bundle-read")
			sign(s, p, "")
		},
		"that leads out": func(s *types.S3Storage) { s.Prefix = aws.String("../" + prefix) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.ec2(t).BundleInstance(within(t, soon), in(change))
			refused(t, err, "InvalidParameterValue", "Storage.S3.")
		})
	}
	out, err := w.ec2(t).BundleInstance(within(t, soon), in(func(s *types.S3Storage) {
		p, g := policySigned(a, tomorrow, bucket, path.Dir(prefix), "ec2-bundle-read")
		sign(s, p, g)
	}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.ec2(t).BundleInstance(within(t, soon), in(func(s *types.S3Storage) { s.Prefix = aws.String(prefix + "2") }))
	refused(t, err, "BundlingInProgress", *i.InstanceId)
	cancelBundle(t, w.Cloud, *out.BundleTask.BundleId, prefix)
	await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)
}

// cancelBundle gives a bundling up, of which nothing is left in the bucket.
func cancelBundle(t *testing.T, c *cloud.Cloud, id, prefix string) {
	t.Helper()
	client, ctx := ec2Of(t, c), within(t, taskTime)
	out, err := client.CancelBundleTask(ctx, &ec2.CancelBundleTaskInput{BundleId: &id})
	if err != nil {
		t.Fatal(err)
	}
	if now := out.BundleTask.State; now != types.BundleTaskStateCancelling {
		t.Errorf("a bundling that is being cancelled is %s", now)
	}
	err = cloud.Poll(ctx, id+" to be given up", func() error {
		out, err := client.DescribeBundleTasks(ctx, &ec2.DescribeBundleTasksInput{BundleIds: []string{id}})
		if err != nil {
			return cloud.Never(err)
		}
		return ended(string(out.BundleTasks[0].State), "failed", nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if keys := keysUnder(t, c, prefix); len(keys) > 0 {
		t.Errorf("the bucket still has %v", keys)
	}
}

// TestCopiedImages: nothing that becomes of the original harms a copy.
func TestCopiedImages(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	nothingHalfMade(t, w.Cloud)
	a, err := w.Access()
	if err != nil {
		t.Fatal(err)
	}
	copied := func(t *testing.T, from string) types.Image {
		t.Helper()
		client, ctx := w.ec2(t), within(t, taskTime)
		out, err := client.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: &from, SourceRegion: &a.Region, Name: aws.String(folderOf(t) + "-copy")})
		if err != nil {
			t.Fatal(err)
		}
		in := &ec2.DescribeImagesInput{ImageIds: []string{*out.ImageId}}
		if err := ec2.NewImageAvailableWaiter(client, quickly[ec2.ImageAvailableWaiterOptions]).Wait(ctx, in, taskTime); err != nil {
			t.Fatal(err)
		}
		deregistered(t, w.Cloud, *out.ImageId)
		return imageNamed(t, w.Cloud, *out.ImageId)
	}
	t.Run("instance-store", func(t *testing.T) {
		b, location := bundled(t, w.Cloud, emi.Hello(helloLine, 1<<20), emi.Options{})
		original := registered(t, w.Cloud, location)
		now := copied(t, original)
		if aws.ToString(now.SourceImageId) != original || aws.ToString(now.ImageLocation) == location {
			t.Errorf("the copy is %+v", now)
		}
		for name := range b.Parts {
			replace(t, w.Cloud, name, nil)
		}
		launchFails(t, w.Cloud, original, "image.part.00")
		saysHello(t, w.Cloud, *now.ImageId)
	})
	t.Run("ebs", func(t *testing.T) {
		snapshot := importedSnapshot(t, w.Cloud, stored(t, w.Cloud, "disk", helloDisk()), "RAW")
		out, err := w.ec2(t).RegisterImage(within(t, soon), &ec2.RegisterImageInput{
			Name: aws.String(folderOf(t)), RootDeviceName: aws.String("/dev/sda1"), VirtualizationType: aws.String("hvm"),
			BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sda1"), Ebs: &types.EbsBlockDevice{SnapshotId: &snapshot}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		now := copied(t, *out.ImageId)
		if aws.ToString(now.BlockDeviceMappings[0].Ebs.SnapshotId) == snapshot {
			t.Errorf("the copy is of the original's snapshot %s", snapshot)
		}
		withSnapshots(t, w.ec2(t), imageNamed(t, w.Cloud, *out.ImageId))
		saysHello(t, w.Cloud, *now.ImageId)
	})
	_, err = w.ec2(t).CopyImage(within(t, soon), &ec2.CopyImageInput{SourceImageId: &w.hello, SourceRegion: aws.String("us-east-1"), Name: aws.String("far")})
	refused(t, err, "InvalidParameterValue", "us-east-1", "mallee peer add")
}
