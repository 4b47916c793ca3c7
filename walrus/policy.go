package walrus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/valyala/fasthttp"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/s3err"
)

// Who may do what is decided by policy alone: an ACL is read as the statements that
// say the same, the bucket's own policy is put after them, and the library decides
// by the whole. So a denial wins over a grant, as in S3.

// statement is one of a policy.
type statement struct {
	Effect    string
	Principal any
	Action    any
	Resource  any
	Condition json.RawMessage `json:",omitempty"`
}

// What each permission of an ACL lets do with a bucket, with the objects in a bucket,
// and with one object.
var (
	bucketMay = map[auth.Permission][]string{
		auth.PermissionRead:     {"s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"},
		auth.PermissionReadAcp:  {"s3:GetBucketAcl"},
		auth.PermissionWriteAcp: {"s3:PutBucketAcl"},
	}
	insideMay = []string{"s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}
	objectMay = map[auth.Permission][]string{
		auth.PermissionRead:     {"s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectAttributes", "s3:GetObjectVersionAttributes"},
		auth.PermissionReadAcp:  {"s3:GetObjectAcl"},
		auth.PermissionWriteAcp: {"s3:PutObjectAcl"},
	}
	// ownerMay is what a bucket's owner may do with objects that others own.
	ownerMay = append([]string{"s3:PutObjectRetention", "s3:PutObjectLegalHold", "s3:BypassGovernanceRetention", "s3:GetObjectRetention", "s3:GetObjectLegalHold"}, insideMay...)
)

const arn = "arn:aws:s3:::"

// asked is the one who asks for a bucket's policy on behalf of a request.
type asked struct {
	account, bucket, key, version string
	bypass                        bool
}

// GetBucketPolicy is asked by the library when it decides about a request. Who wants
// the policy that was put asks ownPolicy.
func (s *store) GetBucketPolicy(ctx context.Context, bucket string) ([]byte, error) {
	request, ok := ctx.(*fasthttp.RequestCtx)
	if !ok {
		return s.ownPolicy(ctx, bucket)
	}
	a := askedBy(request, bucket)
	if plainly, err := s.ownersOwn(ctx, a); err != nil || plainly {
		return nil, cmp.Or(err, error(s3err.GetBucketErr(s3err.ErrNoSuchBucketPolicy, bucket)))
	}
	list, err := s.statements(ctx, a)
	if err != nil {
		return nil, s.known("read the ACLs", err)
	}
	return json.Marshal(struct {
		Version   string
		Statement []statement
	}{"2012-10-17", list})
}

// ownersOwn reports whether somebody asks for what is theirs, of a bucket without a
// policy: the library allows it where it finds no policy, at no further cost.
func (s *store) ownersOwn(ctx context.Context, a asked) (bool, error) {
	owner, err := s.owner(ctx, a.bucket)
	if err != nil || a.account != owner || a.bypass {
		return false, err
	}
	if _, err := (meta.XattrMeta{}).RetrieveAttribute(nil, a.bucket, "", policyAttribute); !errors.Is(err, meta.ErrNoSuchKey) {
		return false, nil
	}
	object, _, err := s.askedGrants(a, owner)
	return object.Owner == owner, s.known("read the ACL", err)
}

// policyAttribute is the library's name of the attribute that holds a bucket's policy.
const policyAttribute = "policy"

// ownPolicy is the policy that was put.
func (s *store) ownPolicy(ctx context.Context, bucket string) ([]byte, error) {
	data, err := s.Posix.GetBucketPolicy(ctx, bucket)
	return data, s.known("GetBucketPolicy", err)
}

// askedBy finds which object of the bucket a request is about: the one that its
// path names, or the one that it copies.
func askedBy(ctx *fasthttp.RequestCtx, bucket string) asked {
	a := asked{bucket: bucket, bypass: strings.EqualFold(string(ctx.Request.Header.Peek("X-Amz-Bypass-Governance-Retention")), "true")}
	account, _ := ctx.Value("account").(auth.Account)
	a.account = account.Access
	source, _ := url.QueryUnescape(string(ctx.Request.Header.Peek("X-Amz-Copy-Source")))
	source, query, _ := strings.Cut(source, "?versionId=")
	of, key, _ := strings.Cut(strings.TrimPrefix(source, "/"), "/")
	if own, _ := ctx.Value(bucketName).(string); own == bucket || of != bucket {
		a.key, _ = ctx.Value(keyName).(string)
		a.version = string(ctx.QueryArgs().Peek("versionId"))
	}
	if of == bucket && key != "" && (a.key == "" || a.key == key) {
		a.key, a.version = key, query
	}
	return a
}

// statements says by policy what the ACLs and the policy of a bucket let be done.
func (s *store) statements(ctx context.Context, a asked) ([]statement, error) {
	owner, err := s.owner(ctx, a.bucket)
	if err != nil {
		return nil, err
	}
	block, err := s.blocked(a.bucket)
	if err != nil {
		return nil, err
	}
	list, err := s.aclStatements(ctx, a, owner, block.Ignore)
	if err != nil {
		return nil, err
	}
	own, err := s.policyStatements(ctx, a, owner, block.Restrict)
	if !a.bypass {
		list = append(list, statement{Effect: "Deny", Principal: "*", Action: []string{"s3:BypassGovernanceRetention"}, Resource: []string{arn + a.bucket + "/*"}})
	}
	return append(list, own...), err
}

// aclStatements says what the ACLs of the bucket and of the object asked for grant.
func (s *store) aclStatements(ctx context.Context, a asked, owner string, ignore bool) ([]statement, error) {
	bucket, err := s.bucketGrants(a.bucket, owner)
	if err != nil {
		return nil, err
	}
	object, missing, err := s.askedGrants(a, owner)
	if err != nil {
		return nil, err
	}
	if s.enforced(ctx, a.bucket) {
		bucket, object = privately(owner), privately(owner)
	}
	list := []statement{allow(owner, []string{"s3:*"}, arn+a.bucket)}
	if object.Owner == owner {
		list = append(list, allow(owner, []string{"s3:*"}, arn+a.bucket+"/*"))
	} else {
		list = append(list, allow(owner, ownerMay, arn+a.bucket+"/*"), allow(object.Owner, []string{"s3:GetObjectAcl", "s3:PutObjectAcl"}, arn+a.bucket+"/"+a.key))
	}
	for _, g := range a.usable(bucket.List, ignore) {
		list = append(list, bucketStatements(g, a, missing)...)
	}
	for _, g := range a.usable(object.List, ignore) {
		if may := spread(g.May, objectMay); len(may) > 0 && a.key != "" {
			list = append(list, allow(g.To, may, arn+a.bucket+"/"+a.key))
		}
	}
	return list, nil
}

// askedGrants reads the ACL of the object asked for; missing where there is none,
// which only who may list the bucket is told.
func (s *store) askedGrants(a asked, owner string) (g grants, missing bool, err error) {
	if a.key == "" {
		return privately(owner), false, nil
	}
	g, err = s.objectGrants(a.bucket, a.key, a.version, owner)
	if errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "not a directory") {
		return privately(owner), true, nil
	}
	return g, false, err
}

func bucketStatements(g grant, a asked, missing bool) (list []statement) {
	if may := spread(g.May, bucketMay); len(may) > 0 {
		list = append(list, allow(g.To, may, arn+a.bucket))
	}
	full := g.May == auth.PermissionFullControl
	if full || g.May == auth.PermissionWrite {
		list = append(list, allow(g.To, insideMay, arn+a.bucket+"/*"))
	}
	if missing && (full || g.May == auth.PermissionRead) {
		list = append(list, allow(g.To, objectMay[auth.PermissionRead], arn+a.bucket+"/*"))
	}
	return list
}

// usable are the grants that concern who asks, under the name that a policy knows
// them by.
func (a asked) usable(list []grant, ignore bool) (out []grant) {
	for _, g := range list {
		switch {
		case g.To == a.account && a.account != "":
			out = append(out, g)
		case g.To == everybody && !ignore:
			out = append(out, grant{"*", g.May})
		case g.To == accounts && !ignore && a.account != "":
			out = append(out, grant{a.account, g.May})
		}
	}
	return out
}

// spread lists what a permission lets do; FULL_CONTROL is all of them.
func spread(may auth.Permission, table map[auth.Permission][]string) []string {
	if may != auth.PermissionFullControl {
		return table[may]
	}
	var all []string
	for _, actions := range table {
		all = append(all, actions...)
	}
	return all
}

func allow(to string, actions []string, resource string) statement {
	return statement{Effect: "Allow", Principal: to, Action: actions, Resource: []string{resource}}
}

// policyStatements are those of the bucket's own policy. A public one that the
// bucket's public access block restricts lets nobody else in.
func (s *store) policyStatements(ctx context.Context, a asked, owner string, restrict bool) ([]statement, error) {
	data, err := s.Posix.GetBucketPolicy(ctx, a.bucket)
	if err != nil {
		var reply s3err.S3Error
		if errors.As(err, &reply) && reply.StatusCode() == http.StatusNotFound {
			return nil, nil
		}
		return nil, err
	}
	var policy struct{ Statement []statement }
	if err := json.Unmarshal(data, &policy); err != nil {
		return nil, fmt.Errorf("read the policy of bucket %s: %w", a.bucket, err)
	}
	if restrict && a.account != owner {
		public, err := sharesWithAll(data)
		if err != nil {
			return nil, err
		}
		if public {
			policy.Statement = slices.DeleteFunc(policy.Statement, func(one statement) bool { return one.Effect == "Allow" })
		}
	}
	for i := range policy.Statement {
		policy.Statement[i].Principal = accountsOf(policy.Statement[i].Principal)
	}
	return policy.Statement, nil
}

// accountsOf names the principals of a statement as the library knows accounts: by
// their number. A user's or role's own name stays as it is, and matches nobody while
// requests are an account's.
func accountsOf(principal any) any {
	switch p := principal.(type) {
	case string:
		return accountOf(p)
	case []any:
		out := []any{}
		for _, one := range p {
			if name, ok := one.(string); ok {
				out = append(out, accountOf(name))
			}
		}
		return out
	case map[string]any:
		for kind, names := range p {
			if kind == "AWS" || kind == "CanonicalUser" {
				return accountsOf(names)
			}
		}
	}
	return "nobody"
}

// accountOf is the account's number in an ARN of its root, or the name itself.
func accountOf(name string) string {
	if number, ok := strings.CutPrefix(name, "arn:aws:iam::"); ok {
		if number, ok = strings.CutSuffix(number, ":root"); ok {
			return number
		}
	}
	return name
}

// PutBucketPolicy replaces a bucket's policy; one that shares it with everybody only
// where the bucket's public access block lets it.
func (s *store) PutBucketPolicy(ctx context.Context, bucket string, policy []byte) error {
	var sent struct{ Statement []map[string]any }
	if err := json.Unmarshal(policy, &sent); err != nil {
		return refusal(http.StatusBadRequest, "MalformedPolicy", "This policy contains invalid Json")
	}
	for _, one := range sent.Statement {
		for _, element := range []string{"NotPrincipal", "NotAction", "NotResource"} {
			if one[element] != nil {
				return refusal(http.StatusNotImplemented, "NotImplemented", "%s is not supported in bucket policies", element)
			}
		}
	}
	block, err := s.blocked(bucket)
	if err != nil {
		return s.known("PutBucketPolicy", err)
	}
	if public, err := sharesWithAll(policy); block.Policy && (public || err != nil) {
		return s3err.GetAPIError(s3err.ErrAccessDenied)
	}
	return s.settle("PutBucketPolicy", s.Posix.PutBucketPolicy(ctx, bucket, policy), bucket)
}

// owner is the number of the account that owns a bucket.
func (s *store) owner(ctx context.Context, bucket string) (string, error) {
	data, err := s.GetBucketAcl(ctx, &s3.GetBucketAclInput{Bucket: &bucket})
	if err != nil {
		return "", s.known("GetBucketAcl", err)
	}
	acl, err := auth.ParseACL(data)
	return acl.Owner, s.known("GetBucketAcl", err)
}
