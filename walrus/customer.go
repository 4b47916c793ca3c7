package walrus

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/s3err"
)

// Encryption with keys of the customer (SSE-C). The bytes of an object are encrypted
// where they are staged, before they are published, by AES-256 in counter mode, so that
// any range can be read alone; an attribute keeps the nonce and a digest that tells
// the right key from others. The key is kept nowhere: without it nobody reads the
// object, the cloud included. Size, ETag and checksums are those of the plain bytes.

const (
	customerPrefix    = "X-Amz-Server-Side-Encryption-Customer-"
	customerAttribute = "sse-c"
	customerName      = "walrus-customer-key"
	nonceSize         = aes.BlockSize
)

// customerKey is a key that came with a request.
type customerKey struct {
	key    []byte
	digest string // base64 of its MD5, as the client sent it
}

// readCustomerKey reads the key from a request's headers, and refuses those that don't
// go together.
func readCustomerKey(ctx fiber.Ctx) error {
	const must = "Requests specifying Server Side Encryption with Customer provided keys must provide "
	algorithm, encoded, digest := ctx.Get(customerPrefix+"Algorithm"), ctx.Get(customerPrefix+"Key"), ctx.Get(customerPrefix+"Key-Md5")
	if ctx.Get("X-Amz-Copy-Source-Server-Side-Encryption-Customer-Algorithm") != "" {
		return refusal(http.StatusNotImplemented, "NotImplemented", "copying what is encrypted with keys of the customer is not supported")
	}
	if algorithm+encoded+digest == "" {
		return nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	sum := md5.Sum(key)
	switch {
	case algorithm != "AES256":
		return invalidArgument(must + "a valid encryption algorithm.")
	case encoded == "":
		return invalidArgument(must + "an appropriate secret key.")
	case err != nil || len(key) != 32:
		return invalidArgument("The secret key was invalid for the specified algorithm.")
	case digest == "":
		return invalidArgument(must + "the client calculated MD5 of the secret key.")
	case digest != base64.StdEncoding.EncodeToString(sum[:]):
		return invalidArgument("The calculated MD5 hash of the key did not match the hash that was provided.")
	case ctx.Get(encryptionHeader) != "":
		return invalidArgument("Server Side Encryption with Customer provided key is incompatible with the encryption method specified")
	}
	query := ctx.Request().URI().QueryArgs()
	if query.Has("uploads") || query.Has("uploadId") || ctx.Get("X-Amz-Copy-Source") != "" {
		return refusal(http.StatusNotImplemented, "NotImplemented", "keys of the customer are not supported for copies and uploads in parts")
	}
	ctx.Locals(customerName, customerKey{key, digest})
	return nil
}

func customerFrom(ctx context.Context) (customerKey, bool) {
	k, ok := ctx.Value(customerName).(customerKey)
	return k, ok
}

// seal tells the right key: it says nothing of the key to who doesn't have it.
func (k customerKey) seal(nonce []byte) []byte {
	mac := hmac.New(sha256.New, k.key)
	mac.Write(nonce)
	return mac.Sum(nil)
}

// stream is the key's stream from an offset of the object on.
func (k customerKey) stream(nonce []byte, offset int64) (cipher.Stream, error) {
	block, err := aes.NewCipher(k.key)
	if err != nil {
		return nil, fmt.Errorf("use the customer's key: %w", err)
	}
	counter := append([]byte(nil), nonce...)
	low := binary.BigEndian.Uint64(counter[8:])
	sum := low + uint64(offset/aes.BlockSize)
	binary.BigEndian.PutUint64(counter[8:], sum)
	if sum < low { // the carry, as the counter itself does it
		binary.BigEndian.PutUint64(counter, binary.BigEndian.Uint64(counter)+1)
	}
	stream := cipher.NewCTR(block, counter)
	skip := make([]byte, offset%aes.BlockSize)
	stream.XORKeyStream(skip, skip)
	return stream, nil
}

// encrypt encrypts a staged file where it lies, and notes how.
func (k customerKey) encrypt(f *os.File) error {
	nonce := make([]byte, nonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return fmt.Errorf("make up a nonce: %w", err)
	}
	stream, err := k.stream(nonce, 0)
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for at := int64(0); ; {
		n, err := f.ReadAt(buf, at)
		stream.XORKeyStream(buf[:n], buf[:n])
		if _, err := f.WriteAt(buf[:n], at); err != nil {
			return fmt.Errorf("encrypt %s: %w", f.Name(), err)
		}
		at += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("encrypt %s: %w", f.Name(), err)
		}
	}
	return (meta.XattrMeta{}).StoreAttribute(f, "", "", customerAttribute, append(nonce, k.seal(nonce)...))
}

// unlock checks the key of a request against an object, and returns the object's
// nonce; nil where it is not encrypted.
func (s *store) unlock(ctx context.Context, bucket, key, version string) ([]byte, error) {
	k, has := customerFrom(ctx)
	data, err := (meta.XattrMeta{}).RetrieveAttribute(nil, s.objectPath(bucket, key, version), "", customerAttribute)
	switch {
	case errors.Is(err, meta.ErrNoSuchKey) && has:
		return nil, refusal(http.StatusBadRequest, "InvalidRequest", "The encryption parameters are not applicable to this object.")
	case err != nil: // what isn't there, the library tells
		return nil, nil
	case !has:
		return nil, refusal(http.StatusBadRequest, "InvalidRequest",
			"The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.")
	case len(data) < nonceSize || !hmac.Equal(data[nonceSize:], k.seal(data[:nonceSize])):
		return nil, s3err.GetAPIError(s3err.ErrAccessDenied)
	}
	return data[:nonceSize], nil
}

// GetObject reads an object, and decrypts it where it must.
func (s *store) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	nonce, err := s.unlock(ctx, *in.Bucket, *in.Key, aws.ToString(in.VersionId))
	if err != nil {
		return nil, err
	}
	out, err := s.Posix.GetObject(ctx, in)
	if err != nil || nonce == nil || out.Body == nil {
		return out, err
	}
	var offset int64
	if out.ContentRange != nil {
		if _, err := fmt.Sscanf(*out.ContentRange, "bytes %d-", &offset); err != nil {
			return nil, errors.Join(s.known("GetObject", fmt.Errorf("range %q: %w", *out.ContentRange, err)), out.Body.Close())
		}
	}
	k, _ := customerFrom(ctx)
	stream, err := k.stream(nonce, offset)
	if err != nil {
		return nil, errors.Join(s.known("GetObject", err), out.Body.Close())
	}
	out.Body = struct {
		io.Reader
		io.Closer
	}{cipher.StreamReader{S: stream, R: out.Body}, out.Body}
	return out, nil
}

// HeadObject describes an object to who has its key.
func (s *store) HeadObject(ctx context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	if _, ok := ctx.(*fasthttp.RequestCtx); ok { // the cloud may ask without the key
		if _, err := s.unlock(ctx, *in.Bucket, *in.Key, aws.ToString(in.VersionId)); err != nil {
			return nil, err
		}
	}
	return s.Posix.HeadObject(ctx, in)
}

// copyable refuses to copy bytes that would come without the way to decrypt them.
func (s *store) copyable(source string) error {
	plain, err := url.QueryUnescape(source)
	if err != nil {
		return nil // the library refuses it
	}
	plain, version, _ := strings.Cut(strings.TrimPrefix(plain, "/"), "?versionId=")
	bucket, key, _ := strings.Cut(plain, "/")
	_, err = s.unlock(context.Background(), bucket, key, version)
	return err
}
