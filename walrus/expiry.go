package walrus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/s3response"
)

// expireEvery is how often lifecycle rules are looked at; they count in days.
const expireEvery = time.Hour

const day = 24 * time.Hour

// expireLoop does what lifecycle rules say until ctx ends.
func (w *Walrus) expireLoop(ctx context.Context) {
	defer close(w.expired)
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if err := w.Expire(ctx, now); err != nil && ctx.Err() == nil {
				w.store.log.Error("object store", "action", "expire", "error", err)
			}
		}
	}
}

// Expire deletes what every bucket's lifecycle rules say is due by now: objects, and
// unfinished uploads. It deletes as S3 does: where versions are kept, an object gets a
// delete marker. Older versions and expired delete markers stay: what a rule says of
// those is kept and not done.
func (w *Walrus) Expire(ctx context.Context, now time.Time) error {
	buckets, err := os.ReadDir(documentsOf(w.store.disk.root))
	if err != nil {
		return fmt.Errorf("list buckets with settings: %w", err)
	}
	var failed []error
	for _, b := range buckets {
		var rules lifecycleRules
		found, err := w.store.document(b.Name(), lifecycle.name, &rules)
		if err == nil && found {
			err = w.expireBucket(ctx, b.Name(), rules.enabled(), now)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

func (l lifecycleRules) enabled() (out []lifecycleRule) {
	for _, rule := range l.Rules {
		if rule.Status == "Enabled" {
			out = append(out, rule)
		}
	}
	return out
}

func (w *Walrus) expireBucket(ctx context.Context, bucket string, rules []lifecycleRule, now time.Time) error {
	page := &s3.ListObjectsV2Input{
		Bucket: &bucket, MaxKeys: aws.Int32(1000),
		Prefix: new(string), Delimiter: new(string), StartAfter: new(string), ContinuationToken: new(string),
	}
	for {
		out, err := w.store.Posix.ListObjectsV2(ctx, page)
		if err != nil {
			return fmt.Errorf("list bucket %s: %w", bucket, err)
		}
		for _, o := range out.Contents {
			if err := w.expireObject(ctx, bucket, o, rules, now); err != nil {
				return fmt.Errorf("expire %s/%s: %w", bucket, *o.Key, err)
			}
		}
		if !aws.ToBool(out.IsTruncated) {
			return w.expireUploads(ctx, bucket, rules, now)
		}
		page.ContinuationToken = out.NextContinuationToken
	}
}

func (w *Walrus) expireObject(ctx context.Context, bucket string, o s3response.Object, rules []lifecycleRule, now time.Time) error {
	for _, rule := range rules {
		if rule.Expiration == nil || !rule.Expiration.due(*o.LastModified, now) || !rule.covers(*o.Key, aws.ToInt64(o.Size)) {
			continue
		}
		if rule.tagged() {
			tags, err := w.store.GetObjectTagging(ctx, bucket, *o.Key, "")
			if err != nil || !rule.tags(tags) { // an object without tags has an error for them
				continue
			}
		}
		_, err := w.store.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: o.Key})
		return err
	}
	return nil
}

// due reports whether an object of that age has expired: at the first midnight, UTC,
// after its days are over, as S3 has it.
func (e *expiration) due(modified, now time.Time) bool {
	if e.Days != nil {
		return !now.Before(midnightAfter(modified, *e.Days))
	}
	if e.Date == nil {
		return false
	}
	at, err := parseDate(*e.Date)
	return err == nil && !now.Before(at)
}

func midnightAfter(start time.Time, days int) time.Time {
	return start.UTC().Add(time.Duration(days)*day + day - time.Nanosecond).Truncate(day)
}

// covers reports whether a rule is for a key and size; tags are another question.
func (r *lifecycleRule) covers(key string, size int64) bool {
	prefix, greater, less := r.Prefix, (*int64)(nil), (*int64)(nil)
	if f := r.Filter; f != nil {
		prefix, greater, less = f.Prefix, f.Greater, f.Less
		if f.And != nil {
			prefix, greater, less = f.And.Prefix, f.And.Greater, f.And.Less
		}
	}
	return strings.HasPrefix(key, aws.ToString(prefix)) && (greater == nil || size > *greater) && (less == nil || size < *less)
}

// tags reports whether an object's tags are those that a rule asks for.
func (r *lifecycleRule) tags(has map[string]string) bool {
	var asked []lifecycleTag
	if r.Filter.Tag != nil {
		asked = append(asked, *r.Filter.Tag)
	}
	if r.Filter.And != nil {
		asked = append(asked, r.Filter.And.Tags...)
	}
	for _, tag := range asked {
		if value, ok := has[tag.Key]; !ok || value != tag.Value {
			return false
		}
	}
	return true
}

// expireUploads ends uploads that were begun and not completed in a rule's days.
func (w *Walrus) expireUploads(ctx context.Context, bucket string, rules []lifecycleRule, now time.Time) error {
	out, err := w.store.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{
		Bucket: &bucket, MaxUploads: aws.Int32(1000), Prefix: new(string), Delimiter: new(string), KeyMarker: new(string),
		UploadIdMarker: new(string), EncodingType: types.EncodingType(""),
	})
	if err != nil {
		return fmt.Errorf("list the uploads of bucket %s: %w", bucket, err)
	}
	for _, up := range out.Uploads {
		for _, rule := range rules {
			if rule.Abort == nil || !rule.covers(up.Key, 0) || now.Before(midnightAfter(up.Initiated, rule.Abort.Days)) {
				continue
			}
			if err := w.store.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: &up.Key, UploadId: &up.UploadID}); err != nil {
				return fmt.Errorf("end upload %s of %s/%s: %w", up.UploadID, bucket, up.Key, err)
			}
			break
		}
	}
	return nil
}
