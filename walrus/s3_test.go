package walrus

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
)

func TestObjects(t *testing.T) {
	c := start(t, t.TempDir())
	s := c.anna()
	c.bucket(s, "bucket")
	keys := []string{"plain", "with/a/path", "blank in it", "plus+and%percent", "zwölf/Boxkämpfer", "日本", "q?&=#"}
	for _, key := range keys {
		c.put(s, "bucket", key, "body of "+key)
		got, err := c.get(s, "bucket", key)
		wantBody(t, got, err, "body of "+key)
	}
	list, err := s.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket")})
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, o := range list.Contents {
		listed = append(listed, *o.Key)
	}
	slices.Sort(keys)
	if !slices.Equal(listed, keys) {
		t.Errorf("listed %q, want %q", listed, keys)
	}
	out, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("plain"), Range: aws.String("bytes=5-6")})
	if err != nil {
		t.Fatal(err)
	}
	part, err := io.ReadAll(out.Body)
	wantBody(t, string(part), err, "of")
	_, err = s.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("copy/of"), CopySource: aws.String("bucket/plain")})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.get(s, "bucket", "copy/of")
	wantBody(t, got, err, "body of plain")
	for _, key := range append(keys, "copy/of") {
		if _, err := s.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: &key}); err != nil {
			t.Fatal(err)
		}
		_, err := c.get(s, "bucket", key)
		wantCode(t, err, "NoSuchKey")
	}
	if _, err := s.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String("bucket")}); err != nil {
		t.Errorf("delete the emptied bucket: %v", err)
	}
}

func TestHeadAndMetadata(t *testing.T) {
	c := start(t, t.TempDir())
	s := c.anna()
	c.bucket(s, "bucket")
	_, err := s.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String("bucket"), Key: aws.String("key"), Body: strings.NewReader("body"),
		ContentType: aws.String("text/x-test"), Metadata: map[string]string{"colour": "green"},
	})
	if err != nil {
		t.Fatal(err)
	}
	head, err := s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("key")})
	if err != nil {
		t.Fatal(err)
	}
	if *head.ContentLength != 4 || *head.ContentType != "text/x-test" || head.Metadata["colour"] != "green" {
		t.Errorf("head: %d bytes, %s, %v", *head.ContentLength, *head.ContentType, head.Metadata)
	}
	_, err = s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("other")})
	wantCode(t, err, "NotFound")
}

func TestMultipart(t *testing.T) {
	c := start(t, t.TempDir())
	s := c.anna()
	c.bucket(s, "bucket")
	parts := [][]byte{make([]byte, 5<<20), make([]byte, 5<<20), []byte("the end")}
	for _, p := range parts[:2] {
		rand.New(rand.NewSource(1)).Read(p)
	}
	c.upload(s, "bucket", "big/object", parts, "aws-exec-read")
	got, err := c.get(s, "bucket", "big/object")
	wantBody(t, got, err, string(bytes.Join(parts, nil)))
	if ok, err := c.Readable(t.Context(), bertID, "bucket", "big/object"); !ok || err != nil {
		t.Errorf("object of an upload with aws-exec-read: readable %v, %v", ok, err)
	}
}

// upload makes an object of parts.
func (c *cloud) upload(s *s3.Client, bucket, key string, parts [][]byte, acl string) {
	c.t.Helper()
	ctx := c.t.Context()
	up, err := s.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &key, ACL: types.ObjectCannedACL(acl)})
	if err != nil {
		c.t.Fatal(err)
	}
	done := make([]types.CompletedPart, len(parts))
	for i, part := range parts {
		number := aws.Int32(int32(i + 1))
		out, err := s.UploadPart(ctx, &s3.UploadPartInput{Bucket: &bucket, Key: &key, UploadId: up.UploadId, PartNumber: number, Body: bytes.NewReader(part)})
		if err != nil {
			c.t.Fatalf("part %d: %v", i+1, err)
		}
		done[i] = types.CompletedPart{PartNumber: number, ETag: out.ETag}
	}
	_, err = s.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &bucket, Key: &key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	})
	if err != nil {
		c.t.Fatalf("complete: %v", err)
	}
}

func TestAbortedUploadLeavesNothing(t *testing.T) {
	c := start(t, t.TempDir())
	s, bucket, key := c.anna(), aws.String("bucket"), aws.String("key")
	c.bucket(s, "bucket")
	up, err := s.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("x")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: up.UploadId}); err != nil {
		t.Fatal(err)
	}
	list, err := s.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: bucket})
	if err != nil || len(list.Uploads) != 0 {
		t.Errorf("uploads left: %v, %v", list, err)
	}
	if _, err := s.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: bucket}); err != nil {
		t.Errorf("delete the bucket: %v", err)
	}
}

// Many writers of one key: whatever wins is whole.
func TestConcurrentPuts(t *testing.T) {
	c := start(t, t.TempDir())
	s := c.anna()
	c.bucket(s, "bucket")
	bodies := map[string]bool{}
	g, ctx := errgroup.WithContext(t.Context())
	for i := range 8 {
		body := strings.Repeat(fmt.Sprint(i), 100_000+i)
		bodies[body] = true
		g.Go(func() error { return putAll(ctx, s, i, body) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	got, err := c.get(s, "bucket", "one/key")
	if err != nil || !bodies[got] {
		t.Errorf("the key holds %d bytes that nobody wrote: %v", len(got), err)
	}
	list, err := s.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket")})
	if err != nil || len(list.Contents) != 1+8*8 {
		t.Errorf("listed %d objects, %v; want %d", len(list.Contents), err, 1+8*8)
	}
}

// putAll writes the shared key and eight of the writer's own, in turn.
func putAll(ctx context.Context, s *s3.Client, writer int, body string) error {
	for i := range 8 {
		for _, key := range []string{"one/key", fmt.Sprintf("own/%d/%d", writer, i)} {
			_, err := s.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: &key, Body: strings.NewReader(body)})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func TestRestartFindsAll(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir)
	c.bucket(c.anna(), "bucket")
	c.put(c.anna(), "bucket", "a/b", "kept")
	c.stop()
	again := start(t, dir)
	got, err := again.get(again.anna(), "bucket", "a/b")
	wantBody(t, got, err, "kept")
}
