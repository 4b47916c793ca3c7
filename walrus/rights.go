package walrus

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3api/utils"
	"github.com/versity/versitygw/s3err"
)

// Ask is a question to who knows the policies of users.
type Ask struct {
	AccessKey string // as the request claims; the library proves it after
	Action    string // s3:GetObject
	Resource  string // ARN of the bucket or object
	Source    string // address that the request came from
}

// limited stands in an account of the library's for its secret, which the
// library doesn't need from us: the key's holder is bound by policies.
const limited = "bound by policies"

// formName is the request-local name under which a form upload is known: of one,
// the key that signed it isn't in its head.
const formName = "walrus-form"

// rights refuses what a user's policies don't allow. Accounts' shares of buckets
// and objects (ACLs, bucket policies) are the library's affair and come on top.
// It runs before the signature is proven: whoever knows an access key's id alone
// learns no more than that its holder may not do something.
func (w *Walrus) rights(ctx fiber.Ctx) error {
	key := accessKeyOf(ctx)
	if strings.HasPrefix(ctx.Get(fiber.HeaderContentType), fiber.MIMEMultipartForm) && ctx.Method() == fiber.MethodPost {
		ctx.Locals(formName, true)
	}
	if key == "" || w.bound == nil || !w.bound(key) {
		return nil
	}
	for _, ask := range asksOf(ctx) {
		ask.AccessKey, ask.Source = key, ctx.IP()
		if !w.may(ask) {
			return refusal(http.StatusForbidden, "AccessDenied", "The holder of the access key %s is not authorized to perform %s on %s", key, ask.Action, ask.Resource)
		}
	}
	if ctx.Method() == fiber.MethodPost && ctx.Request().URI().QueryArgs().Has("delete") {
		return refusal(http.StatusForbidden, "AccessDenied", "Several objects at once can't be deleted by users whom policies bind: delete them one by one")
	}
	return nil
}

// formAllowed refuses uploads by forms to those whom policies bind.
func formAllowed(ctx interface{ Value(any) any }) error {
	account, _ := ctx.Value(utils.ContextKeyAccount).(auth.Account)
	if ctx.Value(formName) == true && account.Secret == limited {
		return s3err.GetAPIError(s3err.ErrAccessDenied)
	}
	return nil
}

// accessKeyOf a request, as its head claims; "" where it claims none.
func accessKeyOf(ctx fiber.Ctx) string {
	credential := string(ctx.Request().URI().QueryArgs().Peek("X-Amz-Credential"))
	if _, rest, ok := strings.Cut(ctx.Get(fiber.HeaderAuthorization), "Credential="); ok {
		credential = rest
	}
	key, _, _ := strings.Cut(credential, "/")
	return strings.TrimSpace(key)
}

// asksOf a request: what it does to its bucket or object, and to one that it copies.
func asksOf(ctx fiber.Ctx) []Ask {
	path, err := url.PathUnescape(string(ctx.Request().URI().PathOriginal()))
	if err != nil {
		return []Ask{{Action: "s3:Unknown", Resource: "*"}} // guard has refused it
	}
	path, _ = stripPrefix(path)
	bucket, key, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	has := func(name string) bool { return ctx.Request().URI().QueryArgs().Has(name) }
	if bucket == "" {
		return []Ask{{Action: "s3:ListAllMyBuckets", Resource: "arn:aws:s3:::*"}}
	}
	if key == "" {
		return []Ask{{Action: bucketAction(ctx.Method(), has), Resource: "arn:aws:s3:::" + bucket}}
	}
	asks := []Ask{{Action: objectAction(ctx.Method(), has), Resource: "arn:aws:s3:::" + bucket + "/" + key}}
	if from := ctx.Get("X-Amz-Copy-Source"); from != "" {
		from, _, _ = strings.Cut(from, "?")
		if plain, err := url.PathUnescape(from); err == nil {
			from = plain
		}
		asks = append(asks, Ask{Action: "s3:GetObject", Resource: "arn:aws:s3:::" + strings.TrimPrefix(from, "/")})
	}
	return asks
}

// verbs of the actions that a method is, on a document beside the thing itself.
var verbs = map[string]string{
	fiber.MethodGet: "Get", fiber.MethodHead: "Get", fiber.MethodPut: "Put", fiber.MethodPost: "Put", fiber.MethodDelete: "Put",
}

// documents of buckets and objects, by the query that names them.
var (
	bucketDocuments = [][2]string{
		{"acl", "BucketAcl"}, {"policy", "BucketPolicy"}, {"policyStatus", "BucketPolicyStatus"}, {"versioning", "BucketVersioning"},
		{"location", "BucketLocation"}, {"cors", "BucketCORS"}, {"tagging", "BucketTagging"}, {"ownershipControls", "BucketOwnershipControls"},
		{"object-lock", "BucketObjectLockConfiguration"}, {"lifecycle", "LifecycleConfiguration"}, {"website", "BucketWebsite"},
		{"logging", "BucketLogging"}, {"notification", "BucketNotification"}, {"encryption", "EncryptionConfiguration"},
		{"publicAccessBlock", "BucketPublicAccessBlock"}, {"requestPayment", "BucketRequestPayment"}, {"accelerate", "AccelerateConfiguration"},
		{"replication", "ReplicationConfiguration"}, {"inventory", "InventoryConfiguration"}, {"metrics", "MetricsConfiguration"},
		{"analytics", "AnalyticsConfiguration"}, {"intelligent-tiering", "IntelligentTieringConfiguration"},
	}
	objectDocuments = [][2]string{
		{"acl", "ObjectAcl"}, {"tagging", "ObjectTagging"}, {"retention", "ObjectRetention"}, {"legal-hold", "ObjectLegalHold"},
		{"attributes", "ObjectAttributes"}, {"torrent", "ObjectTorrent"},
	}
)

func documentAction(method string, has func(string) bool, documents [][2]string) string {
	for _, d := range documents {
		if has(d[0]) {
			return "s3:" + verbs[method] + d[1]
		}
	}
	return ""
}

func bucketAction(method string, has func(string) bool) string {
	if action := documentAction(method, has, bucketDocuments); action != "" {
		if method == fiber.MethodDelete && (has("policy") || has("website")) {
			return strings.Replace(action, "s3:Put", "s3:Delete", 1)
		}
		return action
	}
	switch {
	case method == fiber.MethodPut:
		return "s3:CreateBucket"
	case method == fiber.MethodDelete:
		return "s3:DeleteBucket"
	case method == fiber.MethodPost && has("delete"):
		return "s3:DeleteObject"
	case method == fiber.MethodPost:
		return "s3:PutObject"
	case has("uploads"):
		return "s3:ListBucketMultipartUploads"
	case has("versions"):
		return "s3:ListBucketVersions"
	}
	return "s3:ListBucket"
}

func objectAction(method string, has func(string) bool) string {
	if action := documentAction(method, has, objectDocuments); action != "" {
		if method == fiber.MethodDelete {
			return strings.Replace(action, "s3:Put", "s3:Delete", 1)
		}
		return action
	}
	switch {
	case method == fiber.MethodDelete && has("uploadId"):
		return "s3:AbortMultipartUpload"
	case method == fiber.MethodDelete && has("versionId"):
		return "s3:DeleteObjectVersion"
	case method == fiber.MethodDelete:
		return "s3:DeleteObject"
	case method == fiber.MethodPost && has("restore"):
		return "s3:RestoreObject"
	case method == fiber.MethodPut || method == fiber.MethodPost && !has("select"):
		return "s3:PutObject"
	case has("uploadId"):
		return "s3:ListMultipartUploadParts"
	case has("versionId"):
		return "s3:GetObjectVersion"
	}
	return "s3:GetObject"
}
