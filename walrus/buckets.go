package walrus

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3err"
)

// What changes a bucket, made durable: a bucket's metadata are attributes of
// its folder.

// CreateBucket makes a bucket with its owner's ACL, or the one that the request asks for.
func (s *store) CreateBucket(ctx context.Context, in *s3.CreateBucketInput, acl []byte) error {
	parsed, err := auth.ParseACL(acl)
	if err != nil {
		return s.known("CreateBucket", err)
	}
	w := wishOf(ctx)
	wished, err := w.grants(parsed.Owner, parsed.Owner)
	if err != nil {
		return err
	}
	if in.ObjectOwnership == types.ObjectOwnershipBucketOwnerEnforced && (w.list != nil || w.canned != "" && w.canned != "private") {
		return s3err.GetAPIError(s3err.ErrInvalidBucketAclWithObjectOwnership)
	}
	if err := s.Posix.CreateBucket(ctx, in, acl); err != nil {
		return s.known("CreateBucket", err)
	}
	err = s.dropDocuments(*in.Bucket) // what a crash left of one before
	if err == nil && w.said() {
		err = s.keepBucketGrants(*in.Bucket, wished)
	}
	return s.settle("CreateBucket", err, *in.Bucket)
}

// DeleteBucket removes an empty bucket.
func (s *store) DeleteBucket(ctx context.Context, bucket string) error {
	err := s.Posix.DeleteBucket(ctx, bucket)
	if err == nil {
		err = s.disk.removed(bucket)
	}
	if err == nil {
		err = s.dropDocuments(bucket)
	}
	return s.known("DeleteBucket", err)
}

// PutBucketAcl replaces a bucket's ACL.
func (s *store) PutBucketAcl(ctx context.Context, bucket string, acl []byte) error {
	return s.settle("PutBucketAcl", s.Posix.PutBucketAcl(ctx, bucket, acl), bucket)
}

// ChangeBucketOwner gives a bucket to another account.
func (s *store) ChangeBucketOwner(ctx context.Context, bucket, owner string) error {
	return s.settle("ChangeBucketOwner", s.Posix.ChangeBucketOwner(ctx, bucket, owner), bucket)
}

// DeleteBucketPolicy removes a bucket's policy.
func (s *store) DeleteBucketPolicy(ctx context.Context, bucket string) error {
	return s.settle("DeleteBucketPolicy", s.Posix.DeleteBucketPolicy(ctx, bucket), bucket)
}

// PutBucketOwnershipControls says who owns what others put into a bucket. ACLs are
// not turned off while the bucket's own grants something to others.
func (s *store) PutBucketOwnershipControls(ctx context.Context, bucket string, o types.ObjectOwnership) error {
	owner, err := s.owner(ctx, bucket)
	if err != nil {
		return err
	}
	acl, err := s.bucketGrants(bucket, owner)
	if err != nil {
		return s.known("PutBucketOwnershipControls", err)
	}
	others := slices.ContainsFunc(acl.List, func(g grant) bool { return g.To != owner })
	if others && o == types.ObjectOwnershipBucketOwnerEnforced {
		return s3err.GetAPIError(s3err.ErrInvalidBucketAclWithObjectOwnership)
	}
	return s.settle("PutBucketOwnershipControls", s.Posix.PutBucketOwnershipControls(ctx, bucket, o), bucket)
}

// DeleteBucketOwnershipControls removes a bucket's ownership controls.
func (s *store) DeleteBucketOwnershipControls(ctx context.Context, bucket string) error {
	return s.settle("DeleteBucketOwnershipControls", s.Posix.DeleteBucketOwnershipControls(ctx, bucket), bucket)
}

// PutBucketVersioning turns versioning on or off.
func (s *store) PutBucketVersioning(ctx context.Context, bucket string, status types.BucketVersioningStatus) error {
	return s.settle("PutBucketVersioning", s.Posix.PutBucketVersioning(ctx, bucket, status), bucket)
}

// PutBucketCors replaces a bucket's cross-origin rules.
func (s *store) PutBucketCors(ctx context.Context, bucket string, cors []byte) error {
	return s.settle("PutBucketCors", s.Posix.PutBucketCors(ctx, bucket, cors), bucket)
}

// DeleteBucketCors removes a bucket's cross-origin rules.
func (s *store) DeleteBucketCors(ctx context.Context, bucket string) error {
	return s.settle("DeleteBucketCors", s.Posix.DeleteBucketCors(ctx, bucket), bucket)
}

// PutBucketWebsite replaces a bucket's website configuration.
func (s *store) PutBucketWebsite(ctx context.Context, bucket string, website []byte) error {
	return s.settle("PutBucketWebsite", s.Posix.PutBucketWebsite(ctx, bucket, website), bucket)
}

// DeleteBucketWebsite removes a bucket's website configuration.
func (s *store) DeleteBucketWebsite(ctx context.Context, bucket string) error {
	return s.settle("DeleteBucketWebsite", s.Posix.DeleteBucketWebsite(ctx, bucket), bucket)
}

// PutBucketTagging replaces a bucket's tags.
func (s *store) PutBucketTagging(ctx context.Context, bucket string, tags map[string]string) error {
	return s.settle("PutBucketTagging", s.Posix.PutBucketTagging(ctx, bucket, tags), bucket)
}

// DeleteBucketTagging removes a bucket's tags.
func (s *store) DeleteBucketTagging(ctx context.Context, bucket string) error {
	return s.settle("DeleteBucketTagging", s.Posix.DeleteBucketTagging(ctx, bucket), bucket)
}

// PutObjectLockConfiguration sets how long a bucket's objects are locked.
func (s *store) PutObjectLockConfiguration(ctx context.Context, bucket string, config []byte) error {
	return s.settle("PutObjectLockConfiguration", s.Posix.PutObjectLockConfiguration(ctx, bucket, config), bucket)
}
