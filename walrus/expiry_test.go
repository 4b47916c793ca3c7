package walrus

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestExpire(t *testing.T) {
	c := start(t, t.TempDir())
	s := c.anna()
	c.bucket(s, "bucket")
	for _, key := range []string{"logs/old", "logs/tagged", "kept"} {
		c.put(s, "bucket", key, "body")
	}
	_, err := s.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: aws.String("bucket"), Key: aws.String("logs/tagged"),
		Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("keep"), Value: aws.String("short")}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("begun")}); err != nil {
		t.Fatal(err)
	}
	rule := func(id string, days int32, filter *types.LifecycleRuleFilter) types.LifecycleRule {
		return types.LifecycleRule{ID: &id, Status: types.ExpirationStatusEnabled, Filter: filter, Expiration: &types.LifecycleExpiration{Days: &days}}
	}
	uploads := types.LifecycleRule{ID: aws.String("uploads"), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String("")},
		AbortIncompleteMultipartUpload: &types.AbortIncompleteMultipartUpload{DaysAfterInitiation: aws.Int32(7)}}
	_, err = s.PutBucketLifecycleConfiguration(t.Context(), &s3.PutBucketLifecycleConfigurationInput{Bucket: aws.String("bucket"),
		LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{
			rule("logs", 5, &types.LifecycleRuleFilter{Prefix: aws.String("logs/")}),
			rule("tagged", 2, &types.LifecycleRuleFilter{Tag: &types.Tag{Key: aws.String("keep"), Value: aws.String("short")}}),
			uploads,
		}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		days          int
		objects, open int
	}{{1, 3, 1}, {3, 2, 1}, {6, 1, 1}, {8, 1, 0}} {
		if err := c.Expire(t.Context(), time.Now().Add(time.Duration(step.days)*day)); err != nil {
			t.Fatal(err)
		}
		list, err := s.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket")})
		if err != nil || len(list.Contents) != step.objects {
			t.Errorf("after %d days: %d objects, %v; want %d", step.days, len(list.Contents), err, step.objects)
		}
		ups, err := s.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String("bucket")})
		if err != nil || len(ups.Uploads) != step.open {
			t.Errorf("after %d days: %d uploads, %v; want %d", step.days, len(ups.Uploads), err, step.open)
		}
	}
}

func TestMidnightAfter(t *testing.T) {
	at := func(text string) time.Time {
		when, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for start, want := range map[string]string{
		"2026-01-15T10:30:00Z": "2026-01-19T00:00:00Z", "2026-01-15T00:00:00Z": "2026-01-18T00:00:00Z", "2026-01-15T23:59:59Z": "2026-01-19T00:00:00Z",
	} {
		if got := midnightAfter(at(start), 3); !got.Equal(at(want)) {
			t.Errorf("three days after %s: %s, want %s", start, got, want)
		}
	}
}
