package walrus

import (
	"net/url"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api/controllers"
	"github.com/versity/versitygw/s3err"
)

const (
	// longestKey is S3's limit on a key, in bytes of UTF-8.
	longestKey = 1024
	// longestName is the limit of Linux's file systems on one part of a path.
	longestName = 255
	// largestDocument bounds a body that the library reads whole: the XML of
	// 10,000 parts or a thousand keys, and a policy, stay well below.
	largestDocument = 8 << 20
)

// Request-local names under which guard leaves the object's key and its bucket.
const (
	keyName    = "walrus-key"
	bucketName = "walrus-bucket"
)

// cannedACLs are S3's for objects, with aws-exec-read and Eucalyptus's
// ec2-bundle-read, which let the cloud read an image's bundle.
var cannedACLs = []string{
	"private", "public-read", "public-read-write", "authenticated-read",
	"bucket-owner-read", "bucket-owner-full-control",
	"aws-exec-read", "ec2-bundle-read",
}

// guard refuses what the library would answer with an internal error or read
// into memory without bound.
func guard(ctx fiber.Ctx) error {
	bucket, key, err := namesIn(string(ctx.Request().URI().PathOriginal()))
	if err != nil {
		return err
	}
	if err := checkKey(key); err != nil {
		return err
	}
	ctx.Locals(keyName, key)
	ctx.Locals(bucketName, bucket)
	if err := readCustomerKey(ctx); err != nil {
		return err
	}
	if acl := ctx.Get("X-Amz-Acl"); acl != "" && key != "" {
		if !slices.Contains(cannedACLs, acl) {
			return s3err.GetInvalidArgumentErr(s3err.InvalidArgCannedAcl, acl)
		}
		ctx.Locals(cannedName, acl)
	}
	return checkBody(ctx, key)
}

// namesIn finds the bucket and the object's key in a request's path, which is still
// escaped.
func namesIn(path string) (bucket, key string, err error) {
	plain, err := url.PathUnescape(path)
	if err != nil {
		return "", "", s3err.GetAPIError(s3err.ErrBadRequest)
	}
	bucket, key, _ = strings.Cut(strings.TrimPrefix(plain, "/"), "/")
	return bucket, key, nil
}

// checkKey refuses a key that can't be a file's name below its bucket's folder,
// or would be another key's name there.
func checkKey(key string) error {
	if key == "" {
		return nil
	}
	if len(key) > longestKey {
		return s3err.GetKeyTooLongErr(int64(len(key)), longestKey)
	}
	if strings.ContainsRune(key, 0) || strings.Trim(key, "/") == "" {
		return s3err.GetAPIError(s3err.ErrBadRequest)
	}
	for part := range strings.SplitSeq(key, "/") {
		if len(part) > longestName {
			return s3err.GetKeyTooLongErr(int64(len(part)), longestName)
		}
		if part == "." || part == ".." {
			return s3err.GetAPIError(s3err.ErrBadRequest)
		}
	}
	first, _, _ := strings.Cut(strings.TrimLeft(key, "/"), "/")
	if first == posix.MetaTmpDir {
		return s3err.GetAPIError(s3err.ErrBadRequest)
	}
	return nil
}

// checkBody bounds a body that isn't an object's, part's or form's bytes.
func checkBody(ctx fiber.Ctx, key string) error {
	length := ctx.Request().Header.ContentLength()
	if length >= 0 && length <= largestDocument {
		return nil
	}
	if streams(ctx, key) {
		return nil
	}
	if length < 0 && ctx.Request().BodyStream() == nil {
		return nil
	}
	if length < 0 {
		return s3err.GetAPIError(s3err.ErrMissingContentLength)
	}
	return s3err.GetEntityTooLargeErr(int64(length), largestDocument)
}

// streams reports whether the library reads the request's body as a stream.
func streams(ctx fiber.Ctx, key string) bool {
	switch ctx.Method() {
	case fiber.MethodPut:
		if key == "" || ctx.Get("X-Amz-Copy-Source") != "" {
			return false
		}
		for _, document := range []string{"acl", "tagging", "retention", "legal-hold"} {
			if ctx.Request().URI().QueryArgs().Has(document) {
				return false
			}
		}
		return true
	case fiber.MethodPost:
		return key == "" && strings.HasPrefix(ctx.Get(fiber.HeaderContentType), fiber.MIMEMultipartForm)
	}
	return false
}

// answering wraps a check: its error is sent as S3's XML, no error goes on.
func answering(check fiber.Handler) fiber.Handler {
	return controllers.WrapMiddleware(check, nil, nil)
}
