package walrus

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
)

// Multipart uploads, made durable.

// CreateMultipartUpload begins an upload and notes the canned ACL that the
// object shall have.
func (s *store) CreateMultipartUpload(ctx context.Context, in s3response.CreateMultipartUploadInput) (s3response.InitiateMultipartUploadResult, error) {
	g, owner, err := s.granted(ctx, *in.Bucket)
	if err != nil {
		return s3response.InitiateMultipartUploadResult{}, s.known("CreateMultipartUpload", err)
	}
	out, err := s.Posix.CreateMultipartUpload(ctx, in)
	if err != nil {
		return out, s.known("CreateMultipartUpload", err)
	}
	folder := uploadFolder(*in.Key, out.UploadId)
	err = errors.Join(storeCanned(nil, *in.Bucket, folder, cannedFrom(ctx)), storeGrants(nil, *in.Bucket, folder, owner, g))
	return out, s.settle("CreateMultipartUpload", err, *in.Bucket, folder)
}

// UploadPart stores one part.
func (s *store) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	if err := checkUpload(*in.UploadId); err != nil {
		return nil, err
	}
	out, err := s.Posix.UploadPart(ctx, in)
	return out, s.settle("UploadPart", err, *in.Bucket, partFile(in.Key, in.UploadId, in.PartNumber))
}

// UploadPartCopy stores one part from another object.
func (s *store) UploadPartCopy(ctx context.Context, in *s3.UploadPartCopyInput) (s3response.CopyPartResult, error) {
	if err := checkUpload(*in.UploadId); err != nil {
		return s3response.CopyPartResult{}, err
	}
	if err := s.copyable(aws.ToString(in.CopySource)); err != nil {
		return s3response.CopyPartResult{}, err
	}
	out, err := s.Posix.UploadPartCopy(ctx, in)
	return out, s.settle("UploadPartCopy", err, *in.Bucket, partFile(in.Key, in.UploadId, in.PartNumber))
}

// CompleteMultipartUpload makes the object of its parts.
func (s *store) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (s3response.CompleteMultipartUploadResult, string, error) {
	if err := checkUpload(*in.UploadId); err != nil {
		return s3response.CompleteMultipartUploadResult{}, "", err
	}
	if !ascending(in.MultipartUpload) {
		return s3response.CompleteMultipartUploadResult{}, "", s3err.GetAPIError(s3err.ErrInvalidPartOrder)
	}
	folder := uploadFolder(*in.Key, *in.UploadId)
	acl := loadCanned(*in.Bucket, folder)
	owner, err := s.owner(ctx, *in.Bucket)
	if err != nil {
		return s3response.CompleteMultipartUploadResult{}, "", err
	}
	g, err := s.objectGrants(*in.Bucket, folder, "", owner)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // the library tells that there is no such upload
		return s3response.CompleteMultipartUploadResult{}, "", s.known("CompleteMultipartUpload", err)
	}
	out, version, err := s.Posix.CompleteMultipartUpload(ctx, in)
	if err == nil {
		err = published(storeCanned(nil, *in.Bucket, *in.Key, acl), storeGrants(nil, *in.Bucket, *in.Key, owner, g))
	}
	err = s.settleVersions(err, &version, *in.Bucket, *in.Key)
	return out, version, s.settle("CompleteMultipartUpload", err, *in.Bucket, *in.Key)
}

// AbortMultipartUpload forgets an upload and its parts.
func (s *store) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput) error {
	if err := checkUpload(*in.UploadId); err != nil {
		return err
	}
	err := s.Posix.AbortMultipartUpload(ctx, in)
	if err == nil {
		err = s.disk.removed(path.Join(*in.Bucket, uploadFolder(*in.Key, *in.UploadId)))
	}
	return s.known("AbortMultipartUpload", err)
}

// ListParts lists an upload's parts.
func (s *store) ListParts(ctx context.Context, in *s3.ListPartsInput) (s3response.ListPartsResult, error) {
	if err := checkUpload(*in.UploadId); err != nil {
		return s3response.ListPartsResult{}, err
	}
	out, err := s.Posix.ListParts(ctx, in)
	return out, s.known("ListParts", err)
}

// checkUpload refuses what isn't an upload's id, a UUID: the library makes a path of
// it, and an id of ../.. would lead into other buckets.
func checkUpload(id string) error {
	if len(id) != 36 || strings.Trim(id, "0123456789abcdef-") != "" {
		return s3err.GetAPIError(s3err.ErrNoSuchUpload)
	}
	return nil
}

// uploadFolder is where the library keeps an upload, relative to the bucket.
func uploadFolder(key, uploadID string) string {
	return path.Join(posix.MetaTmpMultipartDir, fmt.Sprintf("%x", sha256.Sum256([]byte(key))), uploadID)
}

func partFile(key, uploadID *string, number *int32) string {
	return path.Join(uploadFolder(*key, *uploadID), fmt.Sprint(*number))
}

// ascending reports whether the parts are named in their order: S3 says so before it
// looks at them.
func ascending(upload *types.CompletedMultipartUpload) bool {
	return upload == nil || slices.IsSortedFunc(upload.Parts, func(a, b types.CompletedPart) int {
		if aws.ToInt32(a.PartNumber) <= aws.ToInt32(b.PartNumber) {
			return -1
		}
		return 1
	})
}
