package test

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"mallee/test/cloud"
	"mallee/test/emi"
)

// refused fails the test unless err is the service's, with that code and a
// message that has all of the words.
func refused(t *testing.T, err error, code string, words ...string) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) {
		t.Errorf("the answer is %v, want %s", err, code)
		return
	}
	if e.ErrorCode() != code {
		t.Errorf("the answer is %s (%s), want %s", e.ErrorCode(), e.ErrorMessage(), code)
	}
	for _, word := range words {
		if !strings.Contains(e.ErrorMessage(), word) {
			t.Errorf("the message %q does not say %q", e.ErrorMessage(), word)
		}
	}
}

// folderOf a test: a name for objects and images.
func folderOf(t *testing.T) string {
	return regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(t.Name(), "-")
}

// keysOf the administrator, for bundling.
func keysOf(t *testing.T, c *cloud.Cloud) emi.Keys {
	t.Helper()
	keys, err := bundleKeys(c)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// bundled makes a bundle and uploads it into the test's folder.
func bundled(t *testing.T, c *cloud.Cloud, image []byte, o emi.Options) (b emi.Bundle, location string) {
	t.Helper()
	b, err := emi.Make(keysOf(t, c), "image", image, o)
	if err != nil {
		t.Fatal(err)
	}
	return b, uploaded(t, c, b)
}

func uploaded(t *testing.T, c *cloud.Cloud, b emi.Bundle) string {
	t.Helper()
	location, err := upload(within(t, soon), c, folderOf(t), b)
	if err != nil {
		t.Fatal(err)
	}
	return location
}

// registered registers an HVM image until the test ends.
func registered(t *testing.T, c *cloud.Cloud, location string) string {
	t.Helper()
	id, err := register(within(t, soon), c, &ec2.RegisterImageInput{
		Name: aws.String(folderOf(t)), ImageLocation: &location, VirtualizationType: aws.String("hvm"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := ec2Of(t, c).DeregisterImage(within(t, soon), &ec2.DeregisterImageInput{ImageId: &id}); err != nil {
			t.Error(err)
		}
	})
	return id
}

// someBytes that don't compress.
func someBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// TestDamagedBundles: an image that is not what it was when it was bundled
// starts no instance. The StateReason names what is wrong, nothing half-made is
// left, and when it is mended the image starts.
func TestDamagedBundles(t *testing.T) {
	w := theWorld(t)
	nothingHalfMade(t, w.Cloud)
	image := emi.Hello(helloLine, 64<<10)
	image = append(image, someBytes(3<<20)...)
	for _, test := range []struct {
		name   string
		damage func(b emi.Bundle) (name string, now []byte) // nil: removed
		says   []string
	}{
		{"a flipped bit", func(b emi.Bundle) (string, []byte) {
			part := slices.Clone(b.Parts["image.part.01"])
			part[len(part)/2] ^= 0x10
			return "image.part.01", part
		}, []string{"image.part.01", "SHA-1"}},
		{"a flipped bit in the end", func(b emi.Bundle) (string, []byte) {
			part := slices.Clone(b.Parts["image.part.03"])
			part[len(part)-1] ^= 1
			return "image.part.03", part
		}, []string{"image.part.03", "SHA-1"}},
		{"a part cut short", func(b emi.Bundle) (string, []byte) {
			return "image.part.02", b.Parts["image.part.02"][:1000]
		}, []string{"image.part.02", "shorter"}},
		{"an empty part", func(b emi.Bundle) (string, []byte) {
			return "image.part.00", []byte{}
		}, []string{"image.part.00", "shorter"}},
		{"a part grown long", func(b emi.Bundle) (string, []byte) {
			return "image.part.02", append(slices.Clone(b.Parts["image.part.02"]), 0)
		}, []string{"image.part.02", "longer"}},
		{"a missing part", func(b emi.Bundle) (string, []byte) {
			return "image.part.03", nil
		}, []string{"image.part.03"}},
		{"parts in another order", func(b emi.Bundle) (string, []byte) {
			return "image.part.02", b.Parts["image.part.01"]
		}, []string{"image.part.02", "SHA-1"}},
		{"another manifest", func(b emi.Bundle) (string, []byte) {
			return manifestName, []byte(strings.Replace(b.Manifest, "by hand", "by evil", 1))
		}, []string{manifestName, "changed"}},
		{"no manifest", func(b emi.Bundle) (string, []byte) {
			return manifestName, nil
		}, []string{manifestName}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // a launch is tried three times before it is given up
			b, location := bundled(t, w.Cloud, image, emi.Options{PartSize: 1 << 20})
			id := registered(t, w.Cloud, location)
			name, now := test.damage(b)
			replace(t, w.Cloud, name, now)
			launchFails(t, w.Cloud, id, test.says...)

			if name == manifestName {
				replace(t, w.Cloud, name, []byte(b.Manifest))
			} else {
				replace(t, w.Cloud, name, b.Parts[name])
			}
			mended := run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: &id})
			await(t, w.Cloud, types.InstanceStateNameRunning, idsOf(mended.Instances)...)
		})
	}
}

// nothingHalfMade when the test and those within it have ended.
func nothingHalfMade(t *testing.T, c *cloud.Cloud) {
	t.Cleanup(func() {
		if err := c.HalfMade(); err != nil {
			t.Error(err)
		}
	})
}

// replace an object of the test's folder, or remove it.
func replace(t *testing.T, c *cloud.Cloud, name string, body []byte) {
	t.Helper()
	a, err := c.Access()
	if err != nil {
		t.Fatal(err)
	}
	key := folderOf(t) + "/" + name
	if body == nil {
		_, err = a.S3().DeleteObject(within(t, soon), &s3.DeleteObjectInput{Bucket: aws.String(bucket), Key: &key})
	} else {
		err = put(within(t, soon), a.S3(), key, body)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// launchFails: two instances of the image end without having run, for a reason
// that has all of the words; nothing of them is left.
func launchFails(t *testing.T, c *cloud.Cloud, image string, words ...string) {
	t.Helper()
	out, err := ec2Of(t, c).RunInstances(within(t, soon), &ec2.RunInstancesInput{ImageId: &image, MinCount: aws.Int32(2), MaxCount: aws.Int32(2)})
	if err != nil {
		t.Fatal(err)
	}
	ids := idsOf(out.Instances)
	for _, i := range await(t, c, types.InstanceStateNameTerminated, ids...) {
		for _, word := range words {
			if !strings.Contains(reason(i), word) {
				t.Errorf("the StateReason of %s is %q, which does not say %q", *i.InstanceId, reason(i), word)
			}
		}
	}
	if err := c.Left(ids...); err != nil {
		t.Error(err)
	}
}

// TestLyingBundles are signed, and hold something else than they say.
func TestLyingBundles(t *testing.T) {
	w := theWorld(t)
	nothingHalfMade(t, w.Cloud)
	for _, test := range []struct {
		name  string
		image []byte
		o     emi.Options
		says  string
	}{
		{"more than it says", make([]byte, 64<<20), emi.Options{Size: 1 << 20}, "size"},
		{"less than it says", make([]byte, 1<<20), emi.Options{Size: 2 << 20}, "size"},
		{"another digest", make([]byte, 1<<20), emi.Options{Before: func(text string) string {
			return regexp.MustCompile(`(</type><digest algorithm="SHA1">)[0-9a-f]{8}`).ReplaceAllString(text, "${1}00000000")
		}}, "digest"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, location := bundled(t, w.Cloud, test.image, test.o)
			launchFails(t, w.Cloud, registered(t, w.Cloud, location), test.says)
		})
	}
}

// TestRefusedManifests at registration: each with the code and the reason, and no image.
func TestRefusedManifests(t *testing.T) {
	w := theWorld(t)
	honest := keysOf(t, w.Cloud)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	before := imageCount(t, w.Cloud)
	without := func(element string) func(emi.Keys) (emi.Keys, emi.Options) {
		return func(k emi.Keys) (emi.Keys, emi.Options) {
			cut := regexp.MustCompile(`(?s)<` + element + `[ >].*?</` + element + `>`)
			return k, emi.Options{Before: func(text string) string { return cut.ReplaceAllString(text, "") }}
		}
	}
	for _, test := range []struct {
		name string
		make func(emi.Keys) (emi.Keys, emi.Options)
		code string
		says []string
	}{
		{"not signed", func(k emi.Keys) (emi.Keys, emi.Options) { return k, emi.Options{Unsigned: true} }, "InvalidManifest", []string{"signed"}},
		{"changed after it was signed", func(k emi.Keys) (emi.Keys, emi.Options) {
			return k, emi.Options{After: func(text string) string { return strings.Replace(text, "<size>65536<", "<size>65537<", 1) }}
		}, "InvalidManifest", []string{"signature"}},
		{"signed by a stranger", func(k emi.Keys) (emi.Keys, emi.Options) { k.Signer = stranger; return k, emi.Options{} }, "InvalidManifest", []string{"signature"}},
		{"encrypted for another cloud", func(k emi.Keys) (emi.Keys, emi.Options) {
			k.Cloud = &stranger.PublicKey
			return k, emi.Options{}
		}, "InvalidManifest", []string{"another cloud"}},
		{"of another account", func(k emi.Keys) (emi.Keys, emi.Options) { return k, emi.Options{Account: "123456789012"} }, "AuthFailure", []string{"123456789012"}},
		{"without a name", without("name"), "InvalidManifest", []string{"name"}},
		{"without an account", without("user"), "InvalidManifest", []string{"user"}},
		{"without a size", without("size"), "InvalidManifest", []string{"size"}},
		{"without a bundled size", without("bundled_size"), "InvalidManifest", []string{"bundled_size"}},
		{"without a digest", without("digest"), "InvalidManifest", []string{"digest"}},
		{"without a key", without("ec2_encrypted_key"), "InvalidManifest", []string{"ec2_encrypted_key"}},
		{"without an IV", without("ec2_encrypted_iv"), "InvalidManifest", []string{"ec2_encrypted_iv"}},
		{"without parts", without("parts"), "InvalidManifest", []string{"part"}},
		{"cut short", func(k emi.Keys) (emi.Keys, emi.Options) {
			return k, emi.Options{After: func(text string) string { return text[:len(text)/2] }}
		}, "InvalidManifest", nil},
		{"of a part elsewhere", func(k emi.Keys) (emi.Keys, emi.Options) {
			return k, emi.Options{Before: func(text string) string { return strings.Replace(text, "image.part.00", "../image.part.00", 1) }}
		}, "InvalidManifest", []string{"../image.part.00"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			keys, o := test.make(honest)
			b, err := emi.Make(keys, "image", make([]byte, 64<<10), o)
			if err != nil {
				t.Fatal(err)
			}
			location := uploaded(t, w.Cloud, b)
			_, err = register(within(t, soon), w.Cloud, &ec2.RegisterImageInput{
				Name: aws.String(folderOf(t)), ImageLocation: &location, VirtualizationType: aws.String("hvm"),
			})
			refused(t, err, test.code, test.says...)
		})
	}
	for name, manifest := range map[string]string{
		"empty": "", "no XML": "hello", "other XML": "<a/>", "bytes": string(someBytes(100)), "deep": strings.Repeat("<manifest>", 100_000),
		"long": "<manifest>" + strings.Repeat(" ", 6<<20) + "</manifest>", "entities": `<!DOCTYPE m [<!ENTITY a "aaaa">]><manifest>&a;</manifest>`,
	} {
		t.Run(name, func(t *testing.T) {
			location := uploaded(t, w.Cloud, emi.Bundle{Manifest: manifest})
			_, err := register(within(t, soon), w.Cloud, &ec2.RegisterImageInput{Name: aws.String(folderOf(t)), ImageLocation: &location})
			refused(t, err, "InvalidManifest", location)
		})
	}
	_, err = register(within(t, soon), w.Cloud, &ec2.RegisterImageInput{Name: aws.String("nowhere"), ImageLocation: aws.String("no-bucket/no-key")})
	refused(t, err, "InvalidManifest", "no-bucket/no-key")
	if now := imageCount(t, w.Cloud); now != before {
		t.Errorf("there were %d images and now there are %d", before, now)
	}
}

func imageCount(t *testing.T, c *cloud.Cloud) int {
	t.Helper()
	out, err := ec2Of(t, c).DescribeImages(within(t, soon), &ec2.DescribeImagesInput{})
	if err != nil {
		t.Fatal(err)
	}
	return len(out.Images)
}

// TestKernelIsNoMachine: a kernel is neither registered nor launched as a machine.
func TestKernelIsNoMachine(t *testing.T) {
	w := theWorld(t)
	_, location := bundled(t, w.Cloud, someBytes(64<<10), emi.Options{Kind: "kernel"})
	_, err := register(within(t, soon), w.Cloud, &ec2.RegisterImageInput{
		Name: aws.String(folderOf(t)), ImageLocation: &location, VirtualizationType: aws.String("hvm"),
	})
	refused(t, err, "InvalidParameterCombination", "kernel", "VirtualizationType")
	for _, id := range []string{w.kernel, w.ramdisk} {
		_, err = w.ec2(t).RunInstances(within(t, soon), &ec2.RunInstancesInput{ImageId: &id, MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
		refused(t, err, "InvalidAMIID.Malformed", id)
	}
	_, err = w.ec2(t).RunInstances(within(t, soon), &ec2.RunInstancesInput{ImageId: &w.pv, KernelId: &w.hvm, MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
	refused(t, err, "InvalidAMIID.Malformed", w.hvm)
}

// TestImageTooLargeForType: 40 GiB don't fit on the disk of an m1.small.
func TestImageTooLargeForType(t *testing.T) {
	w := theWorld(t)
	_, location := bundled(t, w.Cloud, make([]byte, 64<<10), emi.Options{Size: 40 << 30})
	id := registered(t, w.Cloud, location)
	_, err := w.ec2(t).RunInstances(within(t, soon), &ec2.RunInstancesInput{ImageId: &id, InstanceType: "m1.small", MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
	refused(t, err, "InvalidParameterCombination", id, "m1.small")
}

// TestRemovedImage: a deregistered image starts nothing more, and its instances
// go on.
func TestRemovedImage(t *testing.T) {
	w := theWorld(t)
	_, location := bundled(t, w.Cloud, emi.Hello(helloLine, 64<<10), emi.Options{})
	id, err := register(within(t, soon), w.Cloud, &ec2.RegisterImageInput{
		Name: aws.String(folderOf(t)), ImageLocation: &location, VirtualizationType: aws.String("hvm"),
	})
	if err != nil {
		t.Fatal(err)
	}
	i := run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: &id}).Instances[0]
	await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)
	if _, err := w.ec2(t).DeregisterImage(within(t, soon), &ec2.DeregisterImageInput{ImageId: &id}); err != nil {
		t.Fatal(err)
	}
	_, err = w.ec2(t).RunInstances(within(t, soon), &ec2.RunInstancesInput{ImageId: &id, MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
	refused(t, err, "InvalidAMIID.Unavailable", id)
	await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)
}
