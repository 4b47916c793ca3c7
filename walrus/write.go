package walrus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3api/utils"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
)

// The cloud's way to write objects for a user. Who lets a user's request reach
// here asks Writable first.

// ErrExists tells that a bucket is there and another account's.
var ErrExists = errors.New("the bucket belongs to another account")

// MakeBucket makes a bucket that the account owns. One that it owns already is
// no error; one that another owns is ErrExists.
func (w *Walrus) MakeBucket(ctx context.Context, accountID, bucket string) error {
	if !utils.IsValidBucketName(bucket) {
		return fmt.Errorf("%q is not a bucket's name", bucket)
	}
	acl, err := json.Marshal(auth.ACL{Owner: accountID, Grantees: []auth.Grantee{fullControl(accountID)}})
	if err != nil {
		return fmt.Errorf("make bucket %s: %w", bucket, err)
	}
	//lint:ignore SA1029 the library looks under its own key
	ctx = context.WithValue(ctx, "bucket-owner", auth.Account{Access: accountID})
	err = w.store.CreateBucket(ctx, &s3.CreateBucketInput{
		Bucket: &bucket, ObjectOwnership: types.ObjectOwnershipBucketOwnerEnforced,
		CreateBucketConfiguration: &types.CreateBucketConfiguration{},
	}, acl)
	var reply s3err.S3Error
	if errors.As(err, &reply) && reply.StatusCode() == 409 {
		return w.ownBucket(ctx, accountID, bucket)
	}
	return err
}

// ownBucket is ErrExists where the bucket is not the account's.
func (w *Walrus) ownBucket(ctx context.Context, accountID, bucket string) error {
	acl, err := w.bucketACL(ctx, bucket)
	if err != nil {
		return fmt.Errorf("look at bucket %s: %w", bucket, err)
	}
	if acl.Owner != accountID {
		return fmt.Errorf("bucket %s: %w", bucket, ErrExists)
	}
	return nil
}

// Writable reports whether the cloud may write into a bucket for an account: it
// owns the bucket, or is granted WRITE. An error is fs.ErrNotExist where there
// is no such bucket.
func (w *Walrus) Writable(ctx context.Context, accountID, bucket string) (bool, error) {
	if !utils.IsValidBucketName(bucket) {
		return false, fmt.Errorf("bucket %q: %w", bucket, fs.ErrNotExist)
	}
	acl, err := w.bucketACL(ctx, bucket)
	if err != nil {
		return false, nameError("read the ACL of", bucket, "", err)
	}
	if acl.Owner == accountID {
		return true, nil
	}
	granted, err := w.store.bucketGrants(bucket, acl.Owner)
	return err == nil && !w.store.enforced(ctx, bucket) && granted.lets(accountID, auth.PermissionWrite), err
}

// Put stores an object of size bytes under a canned ACL. It is durable, or
// nothing of it is there.
func (w *Walrus) Put(ctx context.Context, bucket, key, acl string, body io.Reader, size int64) error {
	if err := checkName(bucket, key); err != nil {
		return err
	}
	//lint:ignore SA1029 a request's context has strings for keys
	ctx = context.WithValue(ctx, cannedName, acl)
	_, err := w.store.PutObject(ctx, s3response.PutObjectInput{
		Bucket: &bucket, Key: &key, ContentLength: &size, Body: &exactly{body, size},
	})
	return nameError("store", bucket, key, err)
}

// exactly fails where a body is shorter or longer than was said: the library
// checks that of requests only.
type exactly struct {
	io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	e.left -= int64(n)
	switch {
	case e.left < 0:
		return 0, errors.New("the body is longer than was said")
	case err == io.EOF && e.left > 0:
		return n, errors.New("the body is shorter than was said")
	}
	return n, err
}

// Keys lists the keys of a bucket that begin with prefix, up to most of them, in
// order. An error is fs.ErrNotExist where there is no such bucket.
func (w *Walrus) Keys(ctx context.Context, bucket, prefix string, most int32) ([]string, error) {
	if !utils.IsValidBucketName(bucket) {
		return nil, fmt.Errorf("bucket %q: %w", bucket, fs.ErrNotExist)
	}
	none := ""
	out, err := w.store.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: &bucket, Prefix: &prefix, MaxKeys: &most, Delimiter: &none, StartAfter: &none, ContinuationToken: &none,
	})
	if err != nil {
		return nil, nameError("list", bucket, prefix, err)
	}
	keys := make([]string, 0, len(out.Contents))
	for _, o := range out.Contents {
		keys = append(keys, *o.Key)
	}
	return keys, nil
}

// fullControl is an owner's own grant.
func fullControl(accountID string) auth.Grantee {
	return auth.Grantee{Permission: auth.PermissionFullControl, Access: accountID, Type: types.TypeCanonicalUser}
}
