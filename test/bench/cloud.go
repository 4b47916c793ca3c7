package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"mallee/test/cloud"
	"mallee/test/emi"
)

// instanceType of what is launched, where nothing else is said: 512 MiB, one processor.
const instanceType = types.InstanceTypeM1Small

// subject is the cloud under test, with its images.
type subject struct {
	*cloud.Cloud
	ec2   *ec2.Client
	hello string // an image that only says so
	linux string // a whole Linux, paravirtual
	kind  types.InstanceType
}

func newSubject(ctx context.Context, c *cloud.Cloud) (*subject, error) {
	s := &subject{Cloud: c, kind: instanceType}
	if err := s.shareCatalog(); err != nil {
		return nil, err
	}
	if err := s.up(ctx); err != nil {
		return nil, err
	}
	say("installing images")
	ids, err := c.Install(ctx, "tiny-pv")
	if err != nil {
		return nil, err
	}
	s.linux = ids[len(ids)-1]
	s.hello, err = s.installHello(ctx)
	return s, err
}

// up starts the program, and says how to talk to it.
func (s *subject) up(ctx context.Context) error {
	took, err := s.Up(ctx)
	if err != nil {
		return err
	}
	say("mallee is up in %s after %v", s.Dir, took.Round(time.Millisecond))
	s.ec2, err = s.EC2()
	return err
}

// shareCatalog lets all runs build an image once.
func (s *subject) shareCatalog() error {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	catalog := filepath.Join(cache, "mallee-test", "catalog")
	if err := os.MkdirAll(catalog, 0o700); err != nil {
		return err
	}
	return os.Symlink(catalog, filepath.Join(s.Dir, "catalog"))
}

// installHello bundles, uploads and registers it.
func (s *subject) installHello(ctx context.Context) (string, error) {
	vars, err := s.Eucarc()
	if err != nil {
		return "", err
	}
	keys, err := emi.ReadKeys(vars)
	if err != nil {
		return "", err
	}
	b, err := emi.Make(keys, "hello", emi.Hello("hello", 1<<20), emi.Options{})
	if err != nil {
		return "", err
	}
	access, err := s.Access()
	if err != nil {
		return "", err
	}
	store := access.S3()
	bucket := aws.String("bench")
	if _, err := store.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		return "", err
	}
	b.Parts["hello.manifest.xml"] = []byte(b.Manifest)
	for name, data := range b.Parts {
		if _, err := store.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &name, Body: bytes.NewReader(data)}); err != nil {
			return "", err
		}
	}
	r, err := s.ec2.RegisterImage(ctx, &ec2.RegisterImageInput{
		Name: aws.String("hello"), ImageLocation: aws.String("bench/hello.manifest.xml"), VirtualizationType: aws.String("hvm"),
	})
	if err != nil {
		return "", err
	}
	return *r.ImageId, nil
}

// instances that were launched together.
type instances struct {
	*subject
	ids  []string
	dirs []string // of their machines
}

// launch n instances in one call, and time them.
func (s *subject) launch(ctx context.Context, image string, n int) (i instances, t times, err error) {
	began := time.Now()
	r, err := s.ec2.RunInstances(ctx, &ec2.RunInstancesInput{
		ImageId: &image, InstanceType: s.kind, MinCount: aws.Int32(int32(n)), MaxCount: aws.Int32(int32(n)),
	})
	if err != nil {
		return i, t, err
	}
	t.reply = time.Since(began)
	i.subject = s
	for _, one := range r.Instances {
		i.ids = append(i.ids, *one.InstanceId)
		i.dirs = append(i.dirs, s.Path("node", "machines", *one.InstanceId))
	}
	return i, t, t.await(ctx, began, i.dirs)
}

// end them, and wait until nothing of them is left.
func (i instances) end(ctx context.Context) error {
	if _, err := i.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: i.ids}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, guestTime)
	defer cancel()
	return gone(ctx, i.dirs)
}

// timed is a launch and its end.
func (s *subject) timed(ctx context.Context, image string, n int) (times, error) {
	i, t, err := s.launch(ctx, image, n)
	if err != nil {
		return t, err
	}
	return t, i.end(ctx)
}

// recipe is what the image's instances are started by. Taking it also has the
// image unpacked, as it is in all that is measured.
func (s *subject) recipe(ctx context.Context, image string) (*recipe, error) {
	i, _, err := s.launch(ctx, image, 1)
	if err != nil {
		return nil, fmt.Errorf("launch %s for its command line: %w", image, err)
	}
	r, err := readRecipe(i.dirs[0])
	if err != nil {
		return nil, err
	}
	return r, i.end(ctx)
}
