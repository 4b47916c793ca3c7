package walrus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3api/utils"
	"github.com/versity/versitygw/s3err"
)

// The cloud's own way to objects: it needs no key and asks no ACL. Who lets a
// user's request reach here asks Readable first.

// Object is what the cloud needs to know of an object.
type Object struct {
	Size     int64
	ETag     string // with its quotes, as S3 has it
	Modified time.Time
	Owner    string // the number of the account that owns the bucket
}

// Open opens an object for reading and returns its size. What it returns is
// the object as it was then, whatever replaces or deletes it meanwhile. An
// error is fs.ErrNotExist where there is no such object.
func (w *Walrus) Open(ctx context.Context, bucket, key string) (io.ReadCloser, int64, error) {
	if err := checkName(bucket, key); err != nil {
		return nil, 0, err
	}
	whole := ""
	out, err := w.store.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key, Range: &whole})
	if err != nil {
		return nil, 0, nameError("open", bucket, key, err)
	}
	return out.Body, *out.ContentLength, nil
}

// Stat describes an object. An error is fs.ErrNotExist where there is none.
func (w *Walrus) Stat(ctx context.Context, bucket, key string) (Object, error) {
	if err := checkName(bucket, key); err != nil {
		return Object{}, err
	}
	out, err := w.store.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return Object{}, nameError("look at", bucket, key, err)
	}
	acl, err := w.bucketACL(ctx, bucket)
	if err != nil {
		return Object{}, nameError("look at", bucket, key, err)
	}
	return Object{Size: *out.ContentLength, ETag: *out.ETag, Modified: *out.LastModified, Owner: acl.Owner}, nil
}

// Delete removes an object, durably. That it isn't there is no error.
func (w *Walrus) Delete(ctx context.Context, bucket, key string) error {
	if err := checkName(bucket, key); err != nil {
		return err
	}
	_, err := w.store.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: &key})
	err = nameError("delete", bucket, key, err)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// shared are the canned ACLs that let any account read an object; forCloud those
// that let the cloud read it, for an account that may use what is in it.
var (
	shared   = []string{"public-read", "public-read-write", "authenticated-read"}
	forCloud = []string{"aws-exec-read", "ec2-bundle-read"}
)

// Readable reports whether the cloud may read an object for an account: the
// account may itself, or the object's canned ACL shares it with the cloud. What
// comes of it must not be the object's bytes: those may be another account's
// bundle. An error is fs.ErrNotExist where there is no such object.
func (w *Walrus) Readable(ctx context.Context, accountID, bucket, key string) (bool, error) {
	may, err := w.Granted(ctx, accountID, bucket, key)
	return may || err == nil && slices.Contains(forCloud, loadCanned(bucket, key)), err
}

// Granted reports whether an account may read an object itself: it owns the
// bucket, or the object's ACL grants it READ. An error is fs.ErrNotExist where there is no such object.
func (w *Walrus) Granted(ctx context.Context, accountID, bucket, key string) (bool, error) {
	object, err := w.Stat(ctx, bucket, key)
	if err != nil {
		return false, err
	}
	if object.Owner == accountID || slices.Contains(shared, loadCanned(bucket, key)) {
		return true, nil
	}
	acl, err := w.store.objectGrants(bucket, key, "", object.Owner)
	if err != nil {
		return false, nameError("read the ACL of", bucket, key, err)
	}
	return !w.store.enforced(ctx, bucket) && acl.lets(accountID, auth.PermissionRead), nil
}

func (w *Walrus) bucketACL(ctx context.Context, bucket string) (auth.ACL, error) {
	data, err := w.store.GetBucketAcl(ctx, &s3.GetBucketAclInput{Bucket: &bucket})
	if err != nil {
		return auth.ACL{}, err
	}
	return auth.ParseACL(data)
}

// checkName keeps a name inside the store: the library's front does it for
// requests, and these calls pass it by.
func checkName(bucket, key string) error {
	if !utils.IsValidBucketName(bucket) {
		return fmt.Errorf("%q is not a bucket's name", bucket)
	}
	if key == "" {
		return fmt.Errorf("an object's key is missing (bucket %s)", bucket)
	}
	if err := checkKey(key); err != nil {
		return fmt.Errorf("%q is not an object's key: %w", key, err)
	}
	return nil
}

func nameError(did, bucket, key string, err error) error {
	if err == nil {
		return nil
	}
	var reply s3err.S3Error
	if errors.As(err, &reply) && reply.StatusCode() == 404 {
		err = fs.ErrNotExist
	}
	return fmt.Errorf("%s object %s/%s: %w", did, bucket, key, err)
}
