package walrus

import (
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Each kind of request is the action that AWS's documentation says.
func TestActions(t *testing.T) {
	for _, c := range []struct {
		method, query string
		bucket        bool
		want          string
	}{
		{http.MethodGet, "", true, "s3:ListBucket"}, {http.MethodHead, "", true, "s3:ListBucket"}, {http.MethodPut, "", true, "s3:CreateBucket"},
		{http.MethodDelete, "", true, "s3:DeleteBucket"}, {http.MethodGet, "policy", true, "s3:GetBucketPolicy"}, {http.MethodPut, "policy", true, "s3:PutBucketPolicy"},
		{http.MethodDelete, "policy", true, "s3:DeleteBucketPolicy"}, {http.MethodDelete, "tagging", true, "s3:PutBucketTagging"}, {http.MethodPut, "acl", true, "s3:PutBucketAcl"},
		{http.MethodGet, "uploads", true, "s3:ListBucketMultipartUploads"}, {http.MethodGet, "versions", true, "s3:ListBucketVersions"}, {http.MethodPost, "delete", true, "s3:DeleteObject"},
		{http.MethodGet, "", false, "s3:GetObject"}, {http.MethodHead, "", false, "s3:GetObject"}, {http.MethodPut, "", false, "s3:PutObject"}, {http.MethodDelete, "", false, "s3:DeleteObject"},
		{http.MethodGet, "versionId", false, "s3:GetObjectVersion"}, {http.MethodDelete, "versionId", false, "s3:DeleteObjectVersion"}, {http.MethodPost, "uploads", false, "s3:PutObject"},
		{http.MethodPost, "uploadId", false, "s3:PutObject"}, {http.MethodGet, "uploadId", false, "s3:ListMultipartUploadParts"}, {http.MethodDelete, "uploadId", false, "s3:AbortMultipartUpload"},
		{http.MethodPut, "acl", false, "s3:PutObjectAcl"}, {http.MethodGet, "acl", false, "s3:GetObjectAcl"}, {http.MethodDelete, "tagging", false, "s3:DeleteObjectTagging"}, {http.MethodPost, "select", false, "s3:GetObject"},
	} {
		has := func(name string) bool { return name == c.query }
		got := objectAction(c.method, has)
		if c.bucket {
			got = bucketAction(c.method, has)
		}
		if got != c.want {
			t.Errorf("%s ?%s: %s, want %s", c.method, c.query, got, c.want)
		}
	}
}

// Whom policies bind does what they allow, and nothing else that the account may.
func TestBound(t *testing.T) {
	bound := func(key string) bool { return key == "AKIANNATO" }
	allowed := map[string]bool{
		"s3:GetObject arn:aws:s3:::bucket/mine/a": true, "s3:PutObject arn:aws:s3:::bucket/mine/b": true, "s3:ListBucket arn:aws:s3:::bucket": true,
	}
	c := startWith(t, t.TempDir(), func(o *Options) {
		o.Bound, o.May = bound, func(a Ask) bool { return allowed[a.Action+" "+a.Resource] && a.Source == "127.0.0.1" }
	})
	c.bucket(c.anna(), "bucket")
	c.put(c.anna(), "bucket", "mine/a", "body")
	c.put(c.anna(), "bucket", "other", "body")
	user := c.client("AKIANNATO", "anna-other-secret")
	got, err := c.get(user, "bucket", "mine/a")
	wantBody(t, got, err, "body")
	if _, err := user.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket")}); err != nil {
		t.Error(err)
	}
	copyOf := func(from string) error {
		_, err := user.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("mine/b"), CopySource: aws.String("bucket/" + from)})
		return err
	}
	if err := copyOf("mine/a"); err != nil {
		t.Error(err)
	}
	wantCode(t, copyOf("other"), "AccessDenied")
	_, err = c.get(user, "bucket", "other")
	wantCode(t, err, "AccessDenied")
	_, err = user.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: aws.String("mine/a")})
	wantCode(t, err, "AccessDenied")
	_, err = user.ListBuckets(t.Context(), &s3.ListBucketsInput{})
	wantCode(t, err, "AccessDenied")
	if got, err := c.get(c.anna(), "bucket", "other"); err != nil || len(got) == 0 {
		t.Errorf("who isn't bound: %v", err)
	}
}
