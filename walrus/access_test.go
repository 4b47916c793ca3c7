package walrus

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestKeys(t *testing.T) {
	c := start(t, t.TempDir())
	c.bucket(c.anna(), "bucket")
	c.put(c.anna(), "bucket", "key", "body")
	read := func(s *s3.Client) error {
		_, err := c.get(s, "bucket", "key")
		return err
	}
	wantCode(t, read(c.client("AKINOBODY", "anna-secret")), "InvalidAccessKeyId")
	wantCode(t, read(c.client("AKIANNA", "wrong")), "SignatureDoesNotMatch")
	wantCode(t, read(c.client("ASIATEMP", "temp-secret")), "InvalidToken")
	wantCode(t, read(c.bert()), "AccessDenied")
	if err := read(c.client("AKIANNATO", "anna-other-secret")); err != nil {
		t.Errorf("another key of the same account: %v", err)
	}
	if err := read(c.admin()); err != nil {
		t.Errorf("the cloud's administrator: %v", err)
	}
	c.keys.disable("AKIANNA")
	wantCode(t, read(c.anna()), "InvalidAccessKeyId")
}

func TestOtherAccountsBucket(t *testing.T) {
	c := start(t, t.TempDir())
	c.bucket(c.anna(), "bucket")
	_, err := c.bert().CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")})
	wantCode(t, err, "BucketAlreadyExists")
	_, err = c.bert().PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: strings.NewReader("x")})
	wantCode(t, err, "AccessDenied")
	_, err = c.bert().DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String("bucket")})
	wantCode(t, err, "AccessDenied")
	for _, s := range []*s3.Client{c.bert(), c.admin()} {
		list, err := s.ListBuckets(t.Context(), &s3.ListBucketsInput{})
		if err != nil || len(list.Buckets) != 0 {
			t.Errorf("another account lists %v, %v", list, err)
		}
	}
}

// READ of a bucket lets its keys be listed, and READ of an object its bytes be read.
func TestBucketGrantedToAnotherAccount(t *testing.T) {
	c := start(t, t.TempDir())
	_, err := c.anna().CreateBucket(t.Context(), &s3.CreateBucketInput{
		Bucket: aws.String("shared"), GrantRead: aws.String("id=" + bertID), ObjectOwnership: types.ObjectOwnershipBucketOwnerPreferred,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.put(c.anna(), "shared", "key", "body")
	if _, err := c.bert().ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("shared")}); err != nil {
		t.Error(err)
	}
	_, err = c.get(c.bert(), "shared", "key")
	wantCode(t, err, "AccessDenied")
	_, err = c.anna().PutObjectAcl(t.Context(), &s3.PutObjectAclInput{Bucket: aws.String("shared"), Key: aws.String("key"), GrantRead: aws.String("id=" + bertID)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.get(c.bert(), "shared", "key")
	wantBody(t, got, err, "body")
	_, err = c.bert().DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("shared"), Key: aws.String("key")})
	wantCode(t, err, "AccessDenied")
	if ok, err := c.Readable(t.Context(), bertID, "shared", "key"); !ok || err != nil {
		t.Errorf("readable for the grantee: %v, %v", ok, err)
	}
}

func TestExpiredDate(t *testing.T) {
	c := start(t, t.TempDir())
	creds := aws.Credentials{AccessKeyID: "AKIANNA", SecretAccessKey: "anna-secret"}
	request := func() *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), "GET", c.url+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		return r
	}
	old := request()
	if err := v4.NewSigner().SignHTTP(t.Context(), creds, old, "UNSIGNED-PAYLOAD", "s3", "us-east-1", time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, old, 403, "RequestTimeTooSkewed")
	presigned := request()
	presigned.URL.RawQuery = "X-Amz-Expires=60"
	uri, header, err := v4.NewSigner().PresignHTTP(t.Context(), creds, presigned, "UNSIGNED-PAYLOAD", "s3", "us-east-1", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	late, err := http.NewRequestWithContext(t.Context(), "GET", uri, nil)
	if err != nil {
		t.Fatal(err)
	}
	late.Header = header
	wantAnswer(t, late, 403, "AccessDenied")
}

// wantAnswer sends a request and looks for a status and a word in the body.
func wantAnswer(t *testing.T, r *http.Request, status int, word string) {
	t.Helper()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	out, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	if err != nil || out.StatusCode != status || !strings.Contains(string(body), word) {
		t.Errorf("%s %.80s: %d %s, %v; want %d with %q", r.Method, r.URL, out.StatusCode, body, err, status, word)
	}
}

func TestPresigned(t *testing.T) {
	c := start(t, t.TempDir())
	c.bucket(c.anna(), "bucket")
	c.put(c.anna(), "bucket", "key", "body")
	for _, base := range []string{"", "/services/objectstorage"} {
		p := s3.NewPresignClient(clientAt(c.url+base, "AKIANNA", "anna-secret"))
		signed, err := p.PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("key")})
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), "GET", signed.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantAnswer(t, r, 200, "body")
	}
}

// The client signs Eucalyptus's path with its prefix.
func TestEucalyptusPath(t *testing.T) {
	c := start(t, t.TempDir())
	for i, prefix := range prefixes {
		s := clientAt(c.url+prefix, "AKIANNA", "anna-secret")
		name := []string{"first-bucket", "second-bucket"}[i]
		c.bucket(s, name)
		c.put(s, name, "a key/with some", "body")
		got, err := c.get(s, name, "a key/with some")
		wantBody(t, got, err, "body")
		got, err = c.get(c.anna(), name, "a key/with some")
		wantBody(t, got, err, "body")
		_, err = c.get(clientAt(c.url+prefix, "AKIANNA", "wrong"), name, "a key/with some")
		wantCode(t, err, "SignatureDoesNotMatch")
	}
	list, err := clientAt(c.url+prefixes[0]+"/", "AKIANNA", "anna-secret").ListBuckets(t.Context(), &s3.ListBucketsInput{})
	if err != nil || len(list.Buckets) != 2 {
		t.Errorf("list by the prefix: %v, %v", list, err)
	}
}

func TestCannedACLs(t *testing.T) {
	c := start(t, t.TempDir())
	s := c.anna()
	c.bucketWithACLs(s, "bucket")
	for acl, shared := range map[string]bool{
		"": false, "private": false, "bucket-owner-full-control": false,
		"public-read": true, "authenticated-read": true, "aws-exec-read": true, "ec2-bundle-read": true,
	} {
		_, err := s.PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: aws.String("bucket"), Key: aws.String("key"), Body: strings.NewReader("x"), ACL: types.ObjectCannedACL(acl),
		})
		if err != nil {
			t.Errorf("put with ACL %q: %v", acl, err)
			continue
		}
		wantReadable(t, c, bertID, shared)
		wantReadable(t, c, annaID, true)
		wantGranted(t, c, bertID, shared && acl != "aws-exec-read" && acl != "ec2-bundle-read")
		wantGranted(t, c, annaID, true)
	}
	_, err := s.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String("bucket"), Key: aws.String("key"), Body: strings.NewReader("x"), ACL: "no-such-acl",
	})
	wantCode(t, err, "InvalidArgument")
	_, err = s.PutObjectAcl(t.Context(), &s3.PutObjectAclInput{Bucket: aws.String("bucket"), Key: aws.String("key"), ACL: "aws-exec-read"})
	if err != nil {
		t.Error(err)
	}
	wantReadable(t, c, bertID, true)
}

func wantReadable(t *testing.T, c *cloud, account string, want bool) {
	t.Helper()
	if got, err := c.Readable(t.Context(), account, "bucket", "key"); got != want || err != nil {
		t.Errorf("readable for %s: %v, %v; want %v", account, got, err, want)
	}
}

// wantGranted is of the bytes themselves, which the cloud's own right to a bundle
// gives to nobody.
func wantGranted(t *testing.T, c *cloud, account string, want bool) {
	t.Helper()
	if got, err := c.Granted(t.Context(), account, "bucket", "key"); got != want || err != nil {
		t.Errorf("granted to %s: %v, %v; want %v", account, got, err, want)
	}
}

func TestInProcess(t *testing.T) {
	c := start(t, t.TempDir())
	c.bucket(c.anna(), "bucket")
	c.put(c.anna(), "bucket", "a/key", "the body")
	ctx := context.Background()
	r, size, err := c.Open(ctx, "bucket", "a/key")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.put(c.anna(), "bucket", "a/key", "replaced meanwhile")
	body, err := io.ReadAll(r)
	if err != nil || string(body) != "the body" || size != 8 {
		t.Errorf("got %q of %d bytes, %v", body, size, err)
	}
	object, err := c.Stat(ctx, "bucket", "a/key")
	if err != nil || object.Owner != annaID || object.Size != 18 || object.ETag == "" || time.Since(object.Modified) > time.Minute {
		t.Errorf("stat: %+v, %v", object, err)
	}
	for range 2 { // the second finds nothing, which is no error
		if err := c.Delete(ctx, "bucket", "a/key"); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"a/key", "never"} {
		if _, _, err := c.Open(ctx, "bucket", name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open %s: %v", name, err)
		}
	}
	for _, bad := range [][2]string{{"bucket", "../x"}, {"..", "x"}, {"bucket", ""}, {"bucket", ".sgwtmp/x"}, {"bucket", "a\x00b"}} {
		if _, _, err := c.Open(ctx, bad[0], bad[1]); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open %q: %v, want a refusal", bad, err)
		}
	}
}
