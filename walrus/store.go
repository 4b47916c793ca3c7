package walrus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
	"golang.org/x/sys/unix"
)

// largestCopy is the largest object one CopyObject may copy, S3's own limit.
const largestCopy = 5 << 30

// store is the library's POSIX backend whose every acknowledged change is on
// the disk. Reads are the library's own.
type store struct {
	*posix.Posix
	disk *disk
	log  *slog.Logger
}

// openStore opens the folder root, which must exist, and changes the working
// directory of the process to it: the library's names are relative.
func openStore(root string, log *slog.Logger) (*store, error) {
	d := newDisk(root)
	opts := posix.PosixOpts{
		CopyObjectThreshold: largestCopy,
		// One process has the folder: nothing to lock against.
		ForceNoObjLockFile: true,
		// Named files in .sgwtmp rather than nameless ones: what replaces an
		// object must have a name before the rename, and the library would give
		// it one in the object's own folder, where a listing shows it and a
		// crash leaves it.
		ForceNoTmpFile: true,
	}
	opts.SetNewDirPerm(0o700)
	opts.SetNewFilePerm(0o600)
	p, err := posix.New(root, attributes{staged: d.order}, opts)
	if err != nil {
		return nil, fmt.Errorf("open the object store's folder: %w", err)
	}
	if err := keepVersions(p, versionsOf(root)); err != nil {
		return nil, err
	}
	return &store{Posix: p, disk: d, log: log}, nil
}

// known turns what the library returned into an S3 error. What it has no word
// for is logged here and becomes InternalError.
func (s *store) known(action string, err error) error {
	var reply s3err.S3Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &reply):
		return reply
	case errors.Is(err, unix.ENAMETOOLONG):
		return s3err.GetAPIError(s3err.ErrKeyTooLong)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return s3err.GetAPIError(s3err.ErrNoSpaceLeftOnDevice)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR):
		return s3err.GetAPIError(s3err.ErrObjectParentIsFile)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, os.ErrDeadlineExceeded):
		return s3err.GetAPIError(s3err.ErrIncompleteBody)
	}
	s.log.Error("object store", "action", action, "error", err)
	return s3err.GetAPIError(s3err.ErrInternalError)
}

// settle answers for an action: its own error, or that of making name durable.
func (s *store) settle(action string, err error, name ...string) error {
	if err == nil {
		err = s.disk.written(path.Join(name...))
	}
	return s.known(action, err)
}

// ListBuckets lists the buckets of the caller's account; for an administrator
// too, whose clients would take other accounts' buckets for their own.
func (s *store) ListBuckets(ctx context.Context, in s3response.ListBucketsInput) (s3response.ListAllMyBucketsResult, error) {
	in.IsAdmin = false
	out, err := s.Posix.ListBuckets(ctx, in)
	return out, s.known("ListBuckets", err)
}

// PutObject stores an object and the canned ACL that came with it.
func (s *store) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	if err := formAllowed(ctx); err != nil {
		return s3response.PutObjectOutput{}, err
	}
	if err := checkKey(*in.Key); err != nil { // a form names its key in the body, past guard
		return s3response.PutObjectOutput{}, err
	}
	acl := cannedFrom(ctx)
	g, owner, err := s.granted(ctx, *in.Bucket)
	if err != nil {
		return s3response.PutObjectOutput{}, s.known("PutObject", err)
	}
	out, err := s.PutObjectWithPostFunc(ctx, in, func(f *os.File) error {
		var sealed error
		if k, ok := customerFrom(ctx); ok {
			sealed = k.encrypt(f)
		}
		return errors.Join(sealed, storeCanned(f, *in.Bucket, *in.Key, acl), storeGrants(f, *in.Bucket, *in.Key, owner, g))
	})
	err = s.settleVersions(err, &out.VersionID, *in.Bucket, *in.Key)
	return out, s.settle("PutObject", err, *in.Bucket, *in.Key)
}

// CopyObject copies within the store; an ACL isn't copied, as S3 has it.
func (s *store) CopyObject(ctx context.Context, in s3response.CopyObjectInput) (s3response.CopyObjectOutput, error) {
	g, owner, err := s.granted(ctx, *in.Bucket)
	if err != nil {
		return s3response.CopyObjectOutput{}, s.known("CopyObject", err)
	}
	if err := s.copyable(aws.ToString(in.CopySource)); err != nil {
		return s3response.CopyObjectOutput{}, err
	}
	out, err := s.Posix.CopyObject(ctx, in)
	if errors.Is(err, s3err.GetAPIError(s3err.ErrNotModified)) { // which is for reading
		err = s3err.GetPreconditionFailedErr(s3err.ConditionIfNoneMatch)
	}
	if err == nil {
		err = published(storeCanned(nil, *in.Bucket, *in.Key, cannedFrom(ctx)), storeGrants(nil, *in.Bucket, *in.Key, owner, g))
	}
	err = s.settleVersions(err, out.VersionId, *in.Bucket, *in.Key)
	return out, s.settle("CopyObject", err, *in.Bucket, *in.Key)
}

// DeleteObject removes one object.
func (s *store) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	out, err := s.Posix.DeleteObject(ctx, in)
	if err == nil {
		err = s.vanished(*in.Bucket, *in.Key, out.VersionId)
	}
	return out, s.known("DeleteObject", err)
}

// DeleteObjects removes up to a thousand objects and forces each folder once.
// Its keys come in the body, past guard: those that lead out of the bucket are
// reported one by one.
func (s *store) DeleteObjects(ctx context.Context, in *s3.DeleteObjectsInput) (s3response.DeleteResult, error) {
	var sound []types.ObjectIdentifier
	var refused []types.Error
	for _, object := range in.Delete.Objects {
		if err := checkKey(aws.ToString(object.Key)); err != nil {
			refused = append(refused, s3err.ObjectDeleteError(object.Key, object.VersionId, err))
			continue
		}
		sound = append(sound, object)
	}
	in.Delete.Objects = sound
	out, err := s.Posix.DeleteObjects(ctx, in)
	if err == nil {
		err = s.forget(*in.Bucket, out.Deleted)
	}
	out.Error = append(out.Error, refused...)
	return out, s.known("DeleteObjects", err)
}

// forget makes the removal of objects durable, folder by folder.
func (s *store) forget(bucket string, objects []types.DeletedObject) error {
	folders := map[string]bool{}
	for _, object := range objects {
		if versioned := aws.ToString(object.VersionId) + aws.ToString(object.DeleteMarkerVersionId); versioned != "" {
			if err := s.vanished(bucket, *object.Key, &versioned); err != nil {
				return err
			}
			continue
		}
		name := path.Join(bucket, *object.Key)
		if folders[path.Dir(name)] {
			continue
		}
		folders[path.Dir(name)] = true
		if err := s.disk.removed(name); err != nil {
			return err
		}
	}
	return nil
}

// PutObjectTagging sets an object's tags.
func (s *store) PutObjectTagging(ctx context.Context, bucket, object, version string, tags map[string]string) error {
	err := s.Posix.PutObjectTagging(ctx, bucket, object, version, tags)
	return s.settle("PutObjectTagging", err, bucket, object)
}

// DeleteObjectTagging removes an object's tags.
func (s *store) DeleteObjectTagging(ctx context.Context, bucket, object, version string) error {
	err := s.Posix.DeleteObjectTagging(ctx, bucket, object, version)
	return s.settle("DeleteObjectTagging", err, bucket, object)
}

// PutObjectRetention sets until when an object is locked.
func (s *store) PutObjectRetention(ctx context.Context, bucket, object, version string, retention []byte) error {
	err := s.Posix.PutObjectRetention(ctx, bucket, object, version, retention)
	return s.settle("PutObjectRetention", err, bucket, object)
}

// PutObjectLegalHold sets or lifts a hold on an object.
func (s *store) PutObjectLegalHold(ctx context.Context, bucket, object, version string, hold bool) error {
	err := s.Posix.PutObjectLegalHold(ctx, bucket, object, version, hold)
	return s.settle("PutObjectLegalHold", err, bucket, object)
}

// cannedName is the request-local name under which guard leaves the canned ACL.
const cannedName = "walrus-canned-acl"

func cannedFrom(ctx context.Context) string {
	acl, _ := ctx.Value(cannedName).(string)
	return acl
}

// storeCanned notes the canned ACL that a request asked for, if it asked for one.
func storeCanned(f *os.File, bucket, object, acl string) error {
	if acl == "" {
		return nil
	}
	if err := (meta.XattrMeta{}).StoreAttribute(f, bucket, object, cannedAttribute, []byte(acl)); err != nil {
		return fmt.Errorf("note the canned ACL: %w", err)
	}
	return nil
}

func loadCanned(bucket, object string) string {
	acl, err := (meta.XattrMeta{}).RetrieveAttribute(nil, bucket, object, cannedAttribute)
	if err != nil {
		return string(types.ObjectCannedACLPrivate)
	}
	return string(acl)
}
