// Package ec2 answers EC2's actions: a file a noun, with request, reply and
// handler of an action on one page; actions.go is the table of them all.
//
// # The way of a request
//
//	front door ─▶ Handle ─▶ table ─▶ decode ─▶ handler ─▶ reply
//	(authenticated)           │         │          │
//	                    InvalidAction   │     reading: on a View
//	                       left over: refused  writing: in one Update of the state
//
// What is the same for every action is done once, on that way (dispatch.go),
// and an input says by what it embeds that it takes part in it:
//
//	common      DryRun: the handler does all but the commit
//	selection   Filter, MaxResults and NextToken (filters.go, pages.go)
//	idempotent  ClientToken: the same call again makes nothing more (tokens.go)
//	tagged      TagSpecification: tags from the first moment (tags.go)
//
// # Who writes what
//
// A handler writes wishes: that an instance, an image, a key is there, or is
// not. It waits for nothing and calls no node; the loops of package controller
// make it so. (CreateSnapshot is committed before it waits: what a client writes
// after its reply is not in the snapshot.) All that one call writes is one transaction, tags and client token
// included, so that a crash leaves the whole of it or nothing. Handlers of
// writing actions may run several times before they are committed, and keep
// their hands off everything but their transaction.
//
// # What can go wrong
//
// What a client can mend is a wire.Error that names the parameter and its value.
// Whatever else a handler returns, and a panic, is InternalError to the client
// and a line in the log that has the request's id. What isn't supported is
// refused in words. The resources of other accounts don't exist.
package ec2

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"mallee/cloud"
	"mallee/iam"
	"mallee/link"
	"mallee/state"
	"mallee/wire"
)

// Objects is what is needed of Walrus.
type Objects interface {
	// ReadObject returns an object whole, read with the rights of the principal.
	// It wraps fs.ErrNotExist where there is no such object, fs.ErrPermission
	// where the principal may not read it, and ErrObjectTooLarge where it has
	// more than limit bytes.
	ReadObject(ctx context.Context, p iam.Principal, bucket, key string, limit int64) ([]byte, error)
	// StatObject says how long an object is that the principal may have the bytes
	// of, with the errors of ReadObject. Of what ReadObject reads that leaves out
	// what is shared with the cloud alone.
	StatObject(ctx context.Context, p iam.Principal, bucket, key string) (size int64, err error)
	// KeysOf lists the first keys, ten at most, under a prefix of a bucket that
	// the principal may write into, which is made for it if it isn't there and
	// make is set. It wraps fs.ErrNotExist and fs.ErrPermission.
	KeysOf(ctx context.Context, p iam.Principal, bucket, prefix string, make bool) ([]string, error)
	// OwnBucket makes a bucket of the principal's account where there is none. It
	// wraps fs.ErrPermission where there is one of another account's, whatever that
	// lets others do with it.
	OwnBucket(ctx context.Context, p iam.Principal, bucket string) error
}

// ErrObjectTooLarge tells that an object is longer than its reader takes.
var ErrObjectTooLarge = errors.New("the object is too large")

// DefaultMaxImageSize is how long a registered image may be, in bytes, where
// Options don't say.
const DefaultMaxImageSize = 100 << 30

// Options of EC2. All are required but those that name a default.
type Options struct {
	Store         *state.Store
	IAM           *iam.IAM
	Objects       Objects
	Console       link.Node     // finds an instance's node by itself
	Pools         state.Pools   // of addresses; Local is 172.31.0.0/16 by default, Public none
	Region        string        // its name
	Endpoint      string        // of the region, as DescribeRegions tells it
	Peers         Peers         // other clouds that CopyImage copies from; none by default
	MaxImageSize  int64         // bytes; DefaultMaxImageSize by default
	MaxVolumes    int64         // GiB of an account's volumes together; DefaultMaxVolumes by default
	MaxTasks      int           // of an account's that are not finished; DefaultMaxTasks by default
	TakeWithin    time.Duration // that CreateSnapshot waits for the instant; DefaultTakeWithin by default
	AllowUnsigned bool          // whether bundles that say UNSIGNED may be registered
	Now           func() time.Time
	Rand          io.Reader // unpredictable, and safe for many at once
	Log           *slog.Logger
}

// EC2 answers requests. It keeps nothing between them.
type EC2 struct {
	Options
	tokenKey []byte // that pagination tokens are made with
}

// New returns an EC2. It fails where the options can't be.
func New(o Options) (*EC2, error) {
	if !o.Pools.Local.IsValid() {
		o.Pools.Local = netip.MustParsePrefix("172.31.0.0/16")
	}
	if o.Peers == nil {
		o.Peers = noPeers{}
	}
	if o.MaxImageSize == 0 {
		o.MaxImageSize = DefaultMaxImageSize
	}
	if o.MaxVolumes == 0 {
		o.MaxVolumes = DefaultMaxVolumes
	}
	if o.MaxTasks == 0 {
		o.MaxTasks = DefaultMaxTasks
	}
	if o.TakeWithin == 0 {
		o.TakeWithin = DefaultTakeWithin
	}
	for _, pool := range []netip.Prefix{o.Pools.Local, o.Pools.Public} {
		if pool.IsValid() && !pool.Addr().Is4() {
			return nil, fmt.Errorf("ec2: the pool of addresses %s is not of IPv4", pool)
		}
	}
	mac := hmac.New(sha256.New, x509.MarshalPKCS1PrivateKey(o.IAM.CloudKey()))
	mac.Write([]byte("pagination tokens of EC2"))
	return &EC2{Options: o, tokenKey: mac.Sum(nil)}, nil
}

// Handle answers a request that was authenticated. It always answers.
func (s *EC2) Handle(w http.ResponseWriter, r *http.Request, form wire.Form, p iam.Principal, requestID string) {
	out, err := s.serve(r.Context(), form, p, requestID)
	if err == nil {
		err = wire.WriteEC2(w, form.Get("Action"), form.Get("Version"), requestID, out)
	}
	if err == nil {
		return
	}
	told := s.wireError(err)
	if r.Context().Err() == nil && ours(err, told) {
		s.Log.Error("request failed", "request", requestID, "action", wire.Shorten(form.Get("Action")), "principal", p.ARN(), "err", err)
	}
	wire.WriteEC2Error(w, requestID, told)
}

// ours are the failures that somebody who runs the cloud has to know of.
func ours(err, told error) bool {
	known := (*wire.Error)(nil)
	return !errors.As(told, &known) || errors.Is(err, state.ErrNoSpace)
}

// serve is Handle without HTTP.
func (s *EC2) serve(ctx context.Context, form wire.Form, p iam.Principal, requestID string) (out any, err error) {
	defer func() {
		if v := recover(); v != nil {
			out, err = nil, fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	if err := wire.CheckVersion(form.Get("Version")); err != nil {
		return nil, err
	}
	name := form.Get("Action")
	if name == "" {
		return nil, wire.MissingParameter("Action")
	}
	a := actions[name]
	if a == nil {
		return nil, wire.Errorf("InvalidAction", "The action %s is not served by this cloud", wire.Shorten(name))
	}
	c := &call{EC2: s, ctx: ctx, action: a, principal: p, requestID: requestID, form: form}
	return a.run(c)
}

// wireError translates the errors of other rooms that a client can do
// something about.
func (s *EC2) wireError(err error) error {
	var denied *iam.DeniedError
	var over *iam.QuotaError
	var rule *cloud.RuleError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &denied):
		return wire.Errorf("UnauthorizedOperation", "You are not authorized to perform this operation. User: %s is not authorized to perform: %s on resource: %s. Encoded authorization failure message: %s",
			denied.Principal.ARN(), denied.Action, denied.Resource, s.IAM.EncodeDenial(denied))
	case errors.As(err, &over):
		return wire.Errorf("ResourceLimitExceeded", "A policy of the account limits this: %v", over)
	case errors.As(err, &rule):
		return wire.Errorf(ruleCodes[rule.Rule], "%s", rule.Message)
	case errors.Is(err, state.ErrConflict):
		return wire.Errorf("RequestLimitExceeded", "Too many requests change the same things at once; try again")
	case errors.Is(err, state.ErrTooBig):
		return wire.InvalidParameterCombination("The request makes more at once than one transaction holds: ask for fewer, or with less user data, and call again for the rest")
	case errors.Is(err, state.ErrNoSpace):
		return wire.Errorf("Unavailable", "The store of this cloud is full; whoever runs it has to make room")
	}
	return err
}
