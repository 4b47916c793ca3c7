package walrus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/s3err"
)

// grants are an ACL: who owns a bucket or object, and who else may do what with it.
// The library's own ACLs know buckets only, and let a reader of a bucket read its
// objects; so the library is told of the owner alone, and policy.go makes a policy
// of these.
type grants struct {
	Owner string
	List  []grant
}

// grant lets To, an account's number or a group's URI, do May.
type grant struct {
	To  string
	May auth.Permission
}

const (
	everybody = "http://acs.amazonaws.com/groups/global/AllUsers"
	accounts  = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
	delivery  = "http://acs.amazonaws.com/groups/s3/LogDelivery"

	grantsAttribute = "grants"
	// mostGrants is S3's limit.
	mostGrants = 100
)

// privately is the ACL of what nobody else may use.
func privately(owner string) grants {
	return grants{owner, []grant{{owner, auth.PermissionFullControl}}}
}

// canned expands S3's canned ACLs. Those that let the cloud read an image's bundle
// grant nothing to anybody who asks by S3.
func canned(name, owner, bucketOwner string) (grants, bool) {
	g := privately(owner)
	add := func(to string, may auth.Permission) { g.List = append(g.List, grant{to, may}) }
	switch name {
	case "", "private", "aws-exec-read", "ec2-bundle-read":
	case "public-read":
		add(everybody, auth.PermissionRead)
	case "public-read-write":
		add(everybody, auth.PermissionRead)
		add(everybody, auth.PermissionWrite)
	case "authenticated-read":
		add(accounts, auth.PermissionRead)
	case "bucket-owner-read":
		if owner != bucketOwner {
			add(bucketOwner, auth.PermissionRead)
		}
	case "bucket-owner-full-control":
		if owner != bucketOwner {
			add(bucketOwner, auth.PermissionFullControl)
		}
	case "log-delivery-write":
		add(delivery, auth.PermissionWrite)
		add(delivery, auth.PermissionReadAcp)
	default:
		return g, false
	}
	return g, true
}

// public reports whether an ACL grants anything to everybody.
func (g grants) public() bool {
	return slices.ContainsFunc(g.List, func(one grant) bool { return one.To == everybody || one.To == accounts })
}

// wish is the ACL that a request's headers ask for.
type wish struct {
	canned string
	list   []grant
}

const wishName = "walrus-acl-wish"

func wishOf(ctx context.Context) wish {
	w, _ := ctx.Value(wishName).(wish)
	if w.canned == "" && w.list == nil {
		w.canned = cannedFrom(ctx)
	}
	return w
}

func (w wish) said() bool { return w.canned != "" || w.list != nil }

// grants makes the ACL that was wished.
func (w wish) grants(owner, bucketOwner string) (grants, error) {
	if w.list != nil {
		return grants{owner, w.list}, nil
	}
	g, ok := canned(w.canned, owner, bucketOwner)
	if !ok {
		return g, s3err.GetInvalidArgumentErr(s3err.InvalidArgCannedAcl, w.canned)
	}
	return g, nil
}

// permissions by the header that grants them.
var permissions = map[string]auth.Permission{
	"X-Amz-Grant-Full-Control": auth.PermissionFullControl,
	"X-Amz-Grant-Read":         auth.PermissionRead,
	"X-Amz-Grant-Read-Acp":     auth.PermissionReadAcp,
	"X-Amz-Grant-Write":        auth.PermissionWrite,
	"X-Amz-Grant-Write-Acp":    auth.PermissionWriteAcp,
}

// readWish reads a request's ACL headers.
func (w *Walrus) readWish(ctx fiber.Ctx) (wish, error) {
	out := wish{canned: ctx.Get("X-Amz-Acl")}
	for header, may := range permissions {
		value := ctx.Get(header)
		if value == "" {
			continue
		}
		for one := range strings.SplitSeq(value, ",") {
			kind, name, _ := strings.Cut(strings.TrimSpace(one), "=")
			to, err := w.grantee(kind, strings.Trim(name, `"'`))
			if err != nil {
				return out, err
			}
			out.list = append(out.list, grant{to, may})
		}
	}
	if out.canned != "" && out.list != nil {
		return out, s3err.GetAPIError(s3err.ErrBothCannedAndHeaderGrants)
	}
	slices.SortFunc(out.list, func(a, b grant) int { return strings.Compare(a.To+string(a.May), b.To+string(b.May)) })
	return out, nil
}

// grantee checks whom a grant names.
func (w *Walrus) grantee(kind, name string) (string, error) {
	switch strings.ToLower(kind) {
	case "id":
		if !w.keys.identity.Exists(name) {
			return "", invalidArgument("Invalid id")
		}
		return name, nil
	case "uri":
		if name != everybody && name != accounts && name != delivery {
			return "", invalidArgument("Invalid group uri")
		}
		return name, nil
	case "emailaddress":
		return "", refusal(http.StatusBadRequest, "UnresolvableGrantByEmailAddress", "The e-mail address you provided does not match any account on record.")
	}
	return "", invalidArgument("Argument format not recognized")
}

// storeGrants notes an object's ACL; where it says no more than what holds without,
// nothing is noted.
func storeGrants(f *os.File, bucket, object, bucketOwner string, g grants) error {
	if g.Owner == bucketOwner && len(g.List) == 1 && g.List[0] == (grant{bucketOwner, auth.PermissionFullControl}) {
		if f != nil { // a new file has none
			return nil
		}
		err := (meta.XattrMeta{}).DeleteAttribute(bucket, object, grantsAttribute)
		if errors.Is(err, meta.ErrNoSuchKey) {
			return nil
		}
		return err
	}
	data, err := json.Marshal(g)
	if err == nil {
		err = (meta.XattrMeta{}).StoreAttribute(f, bucket, object, grantsAttribute, data)
	}
	if err != nil {
		return fmt.Errorf("note the ACL of %s/%s: %w", bucket, object, err)
	}
	return nil
}

// objectGrants reads the ACL of an object, of a version where one is named.
// fs.ErrNotExist where there is no such object.
func (s *store) objectGrants(bucket, key, version, bucketOwner string) (grants, error) {
	g := privately(bucketOwner)
	data, err := (meta.XattrMeta{}).RetrieveAttribute(nil, s.objectPath(bucket, key, version), "", grantsAttribute)
	if errors.Is(err, meta.ErrNoSuchKey) {
		return g, nil
	}
	if err != nil {
		return g, err
	}
	if err := json.Unmarshal(data, &g); err != nil {
		return g, fmt.Errorf("read the ACL of %s/%s: %w", bucket, key, err)
	}
	return g, nil
}

// objectPath is the file of an object, or of its version where an older one is named.
func (s *store) objectPath(bucket, key, version string) string {
	if version != "" {
		older := path.Join(s.versionFolder(bucket, key), path.Base(version))
		if _, err := os.Stat(older); err == nil {
			return older
		}
	}
	return path.Join(bucket, key)
}

// bucketGrants reads a bucket's ACL.
func (s *store) bucketGrants(bucket, owner string) (grants, error) {
	g := privately(owner)
	data, err := os.ReadFile(s.documentFile(bucket, "acl"))
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &g)
	}
	if err != nil {
		return g, fmt.Errorf("read the ACL of bucket %s: %w", bucket, err)
	}
	return g, nil
}

// enforced reports whether a bucket's owner owns all that is in it, and no ACL counts.
func (s *store) enforced(ctx context.Context, bucket string) bool {
	ownership, err := s.Posix.GetBucketOwnershipControls(ctx, bucket)
	return err == nil && ownership == types.ObjectOwnershipBucketOwnerEnforced
}

var errACLsOff = refusal(http.StatusBadRequest, "AccessControlListNotSupported", "The bucket does not allow ACLs")

// granted decides the ACL of an object that a request puts: of its headers, of who
// asks, and of whose the bucket lets it be.
func (s *store) granted(ctx context.Context, bucket string) (grants, string, error) {
	owner, err := s.owner(ctx, bucket)
	if err != nil {
		return grants{}, "", err
	}
	w, writer := wishOf(ctx), owner
	if account, ok := ctx.Value("account").(auth.Account); ok && account.Access != "" {
		writer = account.Access
	}
	if s.enforced(ctx, bucket) {
		if w.list != nil || !slices.Contains(harmless, w.canned) {
			return grants{}, "", errACLsOff
		}
		return privately(owner), owner, nil
	}
	if w.canned == string(types.ObjectCannedACLBucketOwnerFullControl) && s.prefersOwner(ctx, bucket) {
		writer = owner
	}
	g, err := w.grants(writer, owner)
	if err == nil && g.public() {
		err = s.mayBePublic(bucket)
	}
	return g, owner, err
}

// harmless are the canned ACLs that a bucket without ACLs takes: those that grant
// nothing that isn't so already, and those for the cloud.
var harmless = []string{"", "private", "bucket-owner-full-control", "aws-exec-read", "ec2-bundle-read"}

func (s *store) prefersOwner(ctx context.Context, bucket string) bool {
	ownership, err := s.Posix.GetBucketOwnershipControls(ctx, bucket)
	return err == nil && ownership == types.ObjectOwnershipBucketOwnerPreferred
}

// mayBePublic refuses what a bucket's public access block does.
func (s *store) mayBePublic(bucket string) error {
	block, err := s.blocked(bucket)
	if err == nil && block.ACLs {
		return s3err.GetAPIError(s3err.ErrAccessDenied)
	}
	return err
}

// lets reports whether an ACL grants an account a permission.
func (g grants) lets(account string, may auth.Permission) bool {
	return slices.ContainsFunc(g.List, func(one grant) bool {
		mine := one.To == account || one.To == everybody || one.To == accounts
		return mine && (one.May == may || one.May == auth.PermissionFullControl)
	})
}

// published joins what went wrong when an object that is published already got its ACL.
// That it is gone is nothing: somebody deleted it meanwhile, or is replacing it.
func published(errs ...error) error {
	for i, err := range errs {
		if errors.Is(err, fs.ErrNotExist) {
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}
