package walrus

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3api/utils"
	"github.com/versity/versitygw/s3err"

	"mallee/durable"
)

// A bucket's documents are those of its settings that the library knows nothing
// of. Each is a file in a folder beside the store's, since all extended
// attributes of a bucket share 4 KiB; documents answers requests for them before
// the library sees them, with the library's own signature and policy.

// document is one kind of setting.
type document struct {
	name     string      // the query parameter that asks for it, and its file's name
	get, put auth.Action // what a policy must allow; put is for deleting too
	blank    func() any  // an empty one to read the body into
	// check refuses what S3 refuses, and fills in what S3 fills in.
	check func(d *desk, value any) error
	// initial answers where nothing was put: a document, or an error.
	initial func() (any, error)
	erased  bool // DELETE removes it
}

// kinds are all documents by their query parameter.
var kinds = func() map[string]document {
	all := map[string]document{}
	for _, d := range []document{encryption, lifecycle, accessBlock, logging, payment, acceleration, notification, replication} {
		all[d.name] = d
	}
	return all
}()

// namespace is S3's of everything it answers.
const namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

func documentsOf(root string) string { return strings.TrimSuffix(root, "/") + "-documents" }

func (s *store) documentFile(bucket, name string) string {
	return filepath.Join(documentsOf(s.disk.root), bucket, name+".xml")
}

// document reads a bucket's document into value; false where there is none.
func (s *store) document(bucket, name string, value any) (bool, error) {
	data, err := os.ReadFile(s.documentFile(bucket, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = xml.Unmarshal(data, value)
	}
	if err != nil {
		return false, fmt.Errorf("read document %s of bucket %s: %w", name, bucket, err)
	}
	return true, nil
}

// keepDocument replaces a bucket's document, durably.
func (s *store) keepDocument(bucket, name string, value any) error {
	data, err := xml.Marshal(value)
	if err != nil {
		return fmt.Errorf("write document %s of bucket %s: %w", name, bucket, err)
	}
	return s.keepFile(bucket, name, data)
}

func (s *store) keepFile(bucket, name string, data []byte) error {
	file := s.documentFile(bucket, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("make the folder of bucket %s's documents: %w", bucket, err)
	}
	if err := durable.WriteFile(file, data); err != nil {
		return err
	}
	return durable.SyncDir(documentsOf(s.disk.root))
}

// dropDocument removes a bucket's document, durably; that it isn't there is no error.
func (s *store) dropDocument(bucket, name string) error {
	file := s.documentFile(bucket, name)
	err := os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove document %s of bucket %s: %w", name, bucket, err)
	}
	return durable.SyncDir(filepath.Dir(file))
}

// dropDocuments removes all documents of a bucket.
func (s *store) dropDocuments(bucket string) error {
	if err := os.RemoveAll(filepath.Join(documentsOf(s.disk.root), bucket)); err != nil {
		return fmt.Errorf("remove the documents of bucket %s: %w", bucket, err)
	}
	return durable.SyncDir(documentsOf(s.disk.root))
}

// desk is one request that is answered here.
type desk struct {
	ctx     fiber.Ctx
	walrus  *Walrus
	bucket  string
	key     string // empty where it is about the bucket itself
	account auth.Account
	owner   string // of the bucket
}

// documents answers requests for a bucket's documents, and passes on all others.
func (w *Walrus) documents(ctx fiber.Ctx) error {
	if len(ctx.Request().URI().QueryString()) == 0 {
		return ctx.Next()
	}
	bucket, _ := ctx.Locals(bucketName).(string)
	if key, _ := ctx.Locals(keyName).(string); key != "" || bucket == "" {
		if ctx.Request().URI().QueryArgs().Has("acl") && key != "" {
			return w.answer(ctx, func() error { return w.acl(ctx, bucket, key) })
		}
		return ctx.Next()
	}
	query := ctx.Request().URI().QueryArgs()
	if query.Has("acl") {
		return w.answer(ctx, func() error { return w.acl(ctx, bucket, "") })
	}
	if query.Has("policy") && ctx.Method() == http.MethodGet {
		return w.answer(ctx, func() error { return w.policy(ctx, bucket) })
	}
	if query.Has("policyStatus") && ctx.Method() == http.MethodGet {
		return w.answer(ctx, func() error { return w.policyStatus(ctx, bucket) })
	}
	for name, kind := range kinds {
		if query.Has(name) {
			return w.answer(ctx, func() error { return w.handle(ctx, bucket, kind) })
		}
	}
	return ctx.Next()
}

func (w *Walrus) handle(ctx fiber.Ctx, bucket string, kind document) error {
	action := kind.put
	switch ctx.Method() {
	case http.MethodGet:
		action = kind.get
	case http.MethodPut:
	case http.MethodDelete:
		if !kind.erased {
			return s3err.GetMethodNotAllowedErr(http.MethodDelete, s3err.ResourceTypeBucket, nil)
		}
	default:
		return s3err.GetMethodNotAllowedErr(ctx.Method(), s3err.ResourceTypeBucket, nil)
	}
	d, err := w.admit(ctx, bucket, action)
	if err != nil {
		return err
	}
	switch ctx.Method() {
	case http.MethodGet:
		return d.show(kind)
	case http.MethodPut:
		return d.keep(kind)
	}
	ctx.Status(http.StatusNoContent)
	return w.store.dropDocument(bucket, kind.name)
}

// admit authenticates a request about a bucket and asks whether its account may
// do the action.
func (w *Walrus) admit(ctx fiber.Ctx, bucket string, action auth.Action) (*desk, error) {
	return w.admitObject(ctx, bucket, "", action)
}

// admitObject is admit for an object in the bucket.
func (w *Walrus) admitObject(ctx fiber.Ctx, bucket, key string, action auth.Action) (*desk, error) {
	if err := w.authenticate(ctx); err != nil {
		return nil, err
	}
	if !utils.IsValidBucketName(bucket) {
		return nil, s3err.GetBucketErr(s3err.ErrInvalidBucketName, bucket)
	}
	owner, err := w.store.owner(ctx.RequestCtx(), bucket)
	if err != nil {
		return nil, err
	}
	if want := ctx.Get("X-Amz-Expected-Bucket-Owner"); want != "" && want != owner {
		return nil, s3err.GetAPIError(s3err.ErrAccessDenied)
	}
	account := utils.ContextKeyAccount.Get(ctx).(auth.Account)
	d := &desk{ctx: ctx, walrus: w, bucket: bucket, key: key, account: account, owner: owner}
	if account.Access == "" {
		return d, auth.VerifyPublicAccess(ctx, w.store, action, auth.PermissionFullControl, bucket, key)
	}
	return d, auth.VerifyAccess(ctx, w.store, auth.AccessOptions{
		Acl: auth.ACL{Owner: owner}, AclPermission: auth.PermissionFullControl, Acc: account, Bucket: bucket, Object: key,
		Actions: []auth.Action{action}, Iam: w.keys, DisableACL: true,
	})
}

// authenticate does what the library's routes do before their own work.
func (w *Walrus) authenticate(ctx fiber.Ctx) error {
	utils.ContextKeyAccount.Set(ctx, auth.Account{})
	utils.ContextKeyIsRoot.Set(ctx, false)
	utils.ContextKeyRootAccessKey.Set(ctx, w.root.Access)
	if ctx.Get(fiber.HeaderAuthorization) == "" && !utils.IsPresignedURLAuth(ctx) {
		return nil // nobody: what is public is theirs too
	}
	for _, step := range []fiber.Handler{
		middlewares.VerifyPresignedV4Signature(w.root, w.keys, w.region, false),
		middlewares.VerifyV4Signature(w.root, w.keys, w.region, false, true, false),
		middlewares.VerifyChecksums(false, false, false),
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// show sends a document, or what S3 sends where none was put.
func (d *desk) show(kind document) error {
	value := kind.blank()
	found, err := d.walrus.store.document(d.bucket, kind.name, value)
	if err == nil && !found {
		value, err = kind.initial()
	}
	if err != nil {
		return err
	}
	return sendXML(d.ctx, value)
}

// keep reads a document from the body, checks it, and stores it.
func (d *desk) keep(kind document) error {
	value := kind.blank()
	if err := readXML(d.ctx, value); err != nil {
		return err
	}
	if err := kind.check(d, value); err != nil {
		return err
	}
	return d.walrus.store.keepDocument(d.bucket, kind.name, value)
}

// readXML reads the request's body; a document type, which may define entities, is
// refused with everything else that is not plain XML.
func readXML(ctx fiber.Ctx, value any) error {
	body := ctx.BodyRaw()
	if bytes.Contains(body, []byte("<!DOCTYPE")) || xml.Unmarshal(body, value) != nil {
		return s3err.GetAPIError(s3err.ErrMalformedXML)
	}
	return nil
}

func sendXML(ctx fiber.Ctx, value any) error {
	data, err := xml.Marshal(value)
	if err != nil {
		return fmt.Errorf("write an answer: %w", err)
	}
	ctx.Set(fiber.HeaderContentType, fiber.MIMEApplicationXML)
	return ctx.Send(append([]byte(xml.Header), data...))
}

// answer runs a handler of ours and sends its error as S3's XML.
func (w *Walrus) answer(ctx fiber.Ctx, handle func() error) error {
	err := handle()
	if err == nil {
		return nil
	}
	ctx.Response().ResetBody()
	requestID, hostID := utils.EnsureRequestIDs(ctx)
	var reply s3err.S3Error
	if !errors.As(err, &reply) {
		w.store.log.Error("object store", "request", ctx.Method()+" "+ctx.Path(), "error", err)
		reply = s3err.GetAPIError(s3err.ErrInternalError)
	}
	ctx.Set(fiber.HeaderContentType, fiber.MIMEApplicationXML)
	return ctx.Status(reply.StatusCode()).Send(reply.XMLBody(requestID, hostID))
}

// refusal is an S3 error that the library has no word for.
func refusal(status int, code, format string, values ...any) error {
	return s3err.APIError{HTTPStatusCode: status, Code: code, Description: fmt.Sprintf(format, values...)}
}

func malformed() error { return s3err.GetAPIError(s3err.ErrMalformedXML) }
