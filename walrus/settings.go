package walrus

import (
	"encoding/xml"
	"net/http"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/auth"
)

// The settings of a bucket that are stored and given back, and change nothing
// else here: there is one account to pay, and no faster way in.

// logRules says where a bucket's access logs shall go.
type logRules struct {
	XMLName xml.Name `xml:"BucketLoggingStatus"`
	Space   string   `xml:"xmlns,attr,omitempty"`
	Enabled *struct {
		Bucket string    `xml:"TargetBucket"`
		Prefix *string   `xml:"TargetPrefix"`
		Grants *logGrant `xml:"TargetGrants"`
	} `xml:"LoggingEnabled"`
}

type logGrant struct {
	Inner string `xml:",innerxml"`
}

var logging = document{
	name: "logging", get: auth.GetBucketLoggingAction, put: auth.PutBucketLoggingAction,
	blank:   func() any { return &logRules{} },
	check:   func(d *desk, value any) error { return d.checkLogging(value.(*logRules)) },
	initial: func() (any, error) { return &logRules{Space: namespace}, nil },
}

func (d *desk) checkLogging(rules *logRules) error {
	rules.XMLName.Space, rules.Space = "", namespace
	on := rules.Enabled
	if on == nil {
		return nil
	}
	if on.Bucket == "" || on.Prefix == nil {
		return malformed()
	}
	if on.Grants != nil {
		return refusal(http.StatusNotImplemented, "NotImplemented", "TargetGrants are not supported: grant access by the policy of bucket %s", on.Bucket)
	}
	owner, err := d.walrus.store.owner(d.ctx.RequestCtx(), on.Bucket)
	if err != nil {
		return refusal(http.StatusBadRequest, "InvalidTargetBucketForLogging", "The target bucket for logging does not exist")
	}
	if owner != d.owner {
		return refusal(http.StatusBadRequest, "InvalidTargetBucketForLogging",
			"The owner for the bucket to be logged and the target bucket must be the same.")
	}
	return nil
}

// payer says who pays for what is read of a bucket.
type payer struct {
	XMLName xml.Name `xml:"RequestPaymentConfiguration"`
	Space   string   `xml:"xmlns,attr,omitempty"`
	Payer   string   `xml:"Payer"`
}

var payment = document{
	name: "requestPayment", get: auth.GetBucketRequestPaymentAction, put: auth.PutBucketRequestPaymentAction,
	blank: func() any { return &payer{} },
	check: func(_ *desk, value any) error {
		p := value.(*payer)
		p.XMLName.Space, p.Space = "", namespace
		if p.Payer != "BucketOwner" && p.Payer != "Requester" {
			return malformed()
		}
		return nil
	},
	initial: func() (any, error) { return &payer{Space: namespace, Payer: "BucketOwner"}, nil },
}

// speed says whether a bucket is reached by S3's accelerated endpoint.
type speed struct {
	XMLName xml.Name `xml:"AccelerateConfiguration"`
	Space   string   `xml:"xmlns,attr,omitempty"`
	Status  string   `xml:"Status,omitempty"`
}

var acceleration = document{
	name: "accelerate", get: auth.GetAccelerateConfigurationAction, put: auth.PutAccelerateConfigurationAction,
	blank: func() any { return &speed{} },
	check: func(d *desk, value any) error {
		s := value.(*speed)
		s.XMLName.Space, s.Space = "", namespace
		if s.Status != "Enabled" && s.Status != "Suspended" {
			return malformed()
		}
		if strings.Contains(d.bucket, ".") {
			return refusal(http.StatusBadRequest, "InvalidRequest", "S3 Transfer Acceleration is not supported for buckets with periods (.) in their names")
		}
		return nil
	},
	initial: func() (any, error) { return &speed{Space: namespace}, nil },
}

// notices says whom a bucket tells what happens in it.
type notices struct {
	XMLName xml.Name `xml:"NotificationConfiguration"`
	Space   string   `xml:"xmlns,attr,omitempty"`
	Targets []struct {
		XMLName xml.Name
	} `xml:",any"`
}

var notification = document{
	name: "notification", get: auth.GetBucketNotificationAction, put: auth.PutBucketNotificationAction,
	blank: func() any { return &notices{} },
	check: func(_ *desk, value any) error {
		n := value.(*notices)
		n.XMLName.Space, n.Space = "", namespace
		if len(n.Targets) > 0 { // there are no queues, topics or functions in this cloud
			return refusal(http.StatusBadRequest, "InvalidArgument", "Unable to validate the following destination configurations")
		}
		return nil
	},
	initial: func() (any, error) { return &notices{Space: namespace}, nil },
}

// replication can't be put: there is one place.
var replication = document{
	name: "replication", get: auth.GetReplicationConfigurationAction, put: auth.PutReplicationConfigurationAction,
	blank: func() any { return &notices{} },
	check: func(*desk, any) error {
		return refusal(http.StatusNotImplemented, "NotImplemented", "replication is not supported: this cloud has one place for objects")
	},
	initial: func() (any, error) {
		return nil, refusal(http.StatusNotFound, "ReplicationConfigurationNotFoundError", "The replication configuration was not found")
	},
	erased: true,
}

// policyStatus tells whether a bucket's policy shares it with everybody.
func (w *Walrus) policyStatus(ctx fiber.Ctx, bucket string) error {
	if _, err := w.admit(ctx, bucket, auth.GetBucketPolicyStatusAction); err != nil {
		return err
	}
	data, err := w.store.ownPolicy(ctx.RequestCtx(), bucket)
	if err != nil {
		return err
	}
	public, err := sharesWithAll(data)
	if err != nil {
		return err
	}
	return sendXML(ctx, struct {
		XMLName xml.Name `xml:"PolicyStatus"`
		Space   string   `xml:"xmlns,attr"`
		Public  bool     `xml:"IsPublic"`
	}{Space: namespace, Public: public})
}

// narrowing are the condition keys that keep a statement for everybody from being
// public, as S3 defines it: they name who may, by a fixed value.
var narrowing = []string{
	"aws:sourceip", "aws:sourcearn", "aws:sourcevpc", "aws:sourcevpce", "aws:sourceowner", "aws:sourceaccount",
	"aws:userid", "aws:principalorgid", "aws:principalarn", "aws:principalaccount", "s3:dataaccesspointarn", "s3:dataaccesspointaccount",
}

// sharesWithAll reports whether a policy is public.
func sharesWithAll(data []byte) (bool, error) {
	policy, err := auth.ParsePolicyDocument(data)
	if err != nil {
		return false, err
	}
	for _, statement := range policy.Statement {
		one := auth.BucketPolicy{Statement: []auth.BucketPolicyItem{statement}}
		condition := strings.ToLower(string(statement.Condition))
		narrow := slices.ContainsFunc(narrowing, func(key string) bool { return strings.Contains(condition, `"`+key+`"`) })
		if statement.Effect == auth.BucketPolicyAccessTypeAllow && one.IsPublic() && !narrow {
			return true, nil
		}
	}
	return false, nil
}

// policy sends the bucket's policy as it was put.
func (w *Walrus) policy(ctx fiber.Ctx, bucket string) error {
	if _, err := w.admit(ctx, bucket, auth.GetBucketPolicyAction); err != nil {
		return err
	}
	data, err := w.store.ownPolicy(ctx.RequestCtx(), bucket)
	if err != nil {
		return err
	}
	ctx.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	return ctx.Send(data)
}
