package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"

	"mallee/test/cloud"
	"mallee/test/emi"
)

const bucket = "by-hand"

// installHello bundles, uploads and registers the image that says helloLine.
func installHello(ctx context.Context, c *cloud.Cloud) (string, error) {
	keys, err := bundleKeys(c)
	if err != nil {
		return "", err
	}
	b, err := emi.Make(keys, "hello", emi.Hello(helloLine, 1<<20), emi.Options{})
	if err != nil {
		return "", err
	}
	location, err := upload(ctx, c, "hello", b)
	if err != nil {
		return "", err
	}
	return register(ctx, c, &ec2.RegisterImageInput{Name: aws.String("hello"), ImageLocation: &location, VirtualizationType: aws.String("hvm")})
}

func bundleKeys(c *cloud.Cloud) (emi.Keys, error) {
	vars, err := c.Eucarc()
	if err != nil {
		return emi.Keys{}, err
	}
	for name, value := range vars {
		vars[name] = strings.Replace(value, c.Dir, c.Path(), 1) // the folder may be elsewhere for us
	}
	return emi.ReadKeys(vars)
}

// upload a bundle into a folder of the bucket, and return where its manifest is.
func upload(ctx context.Context, c *cloud.Cloud, folder string, b emi.Bundle) (string, error) {
	a, err := c.Access()
	if err != nil {
		return "", err
	}
	client := a.S3()
	var exists *s3types.BucketAlreadyOwnedByYou
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucket)}); err != nil && !errors.As(err, &exists) {
		return "", err
	}
	for name, part := range b.Parts {
		if err := put(ctx, client, folder+"/"+name, part); err != nil {
			return "", err
		}
	}
	name := folder + "/" + manifestName
	return bucket + "/" + name, put(ctx, client, name, []byte(b.Manifest))
}

const manifestName = "image.manifest.xml"

func put(ctx context.Context, client *s3.Client, key string, body []byte) error {
	_, err := client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: aws.String(bucket), Key: &key, Body: bytes.NewReader(body), ACL: "aws-exec-read",
	})
	if err != nil {
		return fmt.Errorf("upload %s: %w", key, err)
	}
	return nil
}

// register an image; it is an error where its id is not of the given kind.
func register(ctx context.Context, c *cloud.Cloud, in *ec2.RegisterImageInput) (string, error) {
	client, err := c.EC2()
	if err != nil {
		return "", err
	}
	out, err := client.RegisterImage(ctx, in)
	if err != nil {
		return "", err
	}
	id := aws.ToString(out.ImageId)
	if prefix, digits, _ := strings.Cut(id, "-"); len(digits) != 8 || len(prefix) != 3 {
		return "", fmt.Errorf("RegisterImage made %q, want an id such as emi-0a1b2c3d", id)
	}
	return id, nil
}
