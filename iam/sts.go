package iam

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"time"

	"mallee/cloud"
	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

// Bounds of sessions, in seconds.
const (
	leastSeconds   = 900
	mostSeconds    = 129600 // of a user's
	userSeconds    = 43200  // where nobody says
	roleSeconds    = 3600
	maxPacked      = 2048 // characters of a session's policies
	sweepsAtOnce   = 100  // expired sessions that are cleared away by one call
	maxSessionName = 64
)

var sessionName = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{2,64}$`)

type callerInput struct{}

type callerIdentity struct {
	Arn     string
	UserID  string `xml:"UserId"`
	Account cloud.AccountID
}

func getCallerIdentity(c *call, _ *callerInput) (*callerIdentity, error) {
	return &callerIdentity{c.principal.ARN(), c.principal.UserID, c.principal.Account}, nil
}

type credentials struct {
	AccessKeyID     string `xml:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      *wire.Time
}

// issue a session, and clear away some that have expired.
func (c *call) issue(s cloud.Session, seconds int) (credentials, error) {
	id, secret, err := c.drawKey(sessionPrefix)
	if err != nil {
		return credentials{}, err
	}
	s.ID, s.IssuedAt = id, c.Now()
	s.Expires = s.IssuedAt.Add(time.Duration(seconds) * time.Second)
	if s.Sealed, err = c.vault.seal(secret, id); err != nil {
		return credentials{}, err
	}
	var expired []string
	for old := range state.Sessions.All(c.tx) {
		if len(expired) < sweepsAtOnce && old.Expires.Before(s.IssuedAt) {
			expired = append(expired, old.ID)
		}
	}
	for _, old := range expired {
		state.Sessions.Delete(c.tx, old)
	}
	state.Sessions.Put(c.tx, s)
	return credentials{id, secret, c.vault.token(id), wire.At(s.Expires)}, nil
}

type sessionTokenInput struct {
	DurationSeconds int `wire:"DurationSeconds,min=900,max=129600"`
}

type sessionTokenReply struct{ Credentials credentials }

func getSessionToken(c *call, in *sessionTokenInput) (*sessionTokenReply, error) {
	if c.principal.Session != nil {
		return nil, wire.Errorf("AccessDenied", "Cannot call GetSessionToken with session credentials")
	}
	out, err := c.issue(cloud.Session{Account: c.account, User: c.principal.User, Key: c.principal.AccessKey}, cmp.Or(in.DurationSeconds, userSeconds))
	return &sessionTokenReply{out}, err
}

// sessionPolicies bound a session.
type sessionPolicies struct {
	Policy     string
	PolicyArns []policyRef `wire:"PolicyArns,max=10"`
	Tags       []tag       `wire:"Tags,max=50"`
}

type policyRef struct {
	Arn string `wire:"arn,required"`
}

func (in *sessionPolicies) request() policy.Context {
	return (&tagged{in.Tags}).request()
}

// bound a session by what was asked for.
func (in *sessionPolicies) bound(c *call, s *cloud.Session) (err error) {
	if sizeOf(in.Policy) > maxPacked {
		return wire.Errorf("PackedPolicyTooLarge", "Packed policy consumes %d%% of allotted space, please use smaller policy.", 100*sizeOf(in.Policy)/maxPacked)
	}
	if in.Policy != "" {
		if _, err := policy.Parse(in.Policy, policy.Identity); err != nil {
			return err
		}
		s.Policies = append(s.Policies, in.Policy)
	}
	for _, ref := range in.PolicyArns {
		text, ok := documentOf(c.read, ref.Arn)
		if m := policyARN.FindStringSubmatch(ref.Arn); !ok || m[1] != "aws" && m[1] != string(s.Account) {
			return wire.Errorf("ValidationError", "The policy %s of the parameter PolicyArns cannot be found.", wire.Shorten(ref.Arn))
		}
		s.Policies = append(s.Policies, text)
	}
	s.Bounded = s.Bounded || len(s.Policies) > 0
	s.Tags, err = tagMap(nil, in.Tags)
	return err
}

// packed is how much of the space the session's policies take, in percent.
func (in *sessionPolicies) packed() int { return (100*sizeOf(in.Policy) + maxPacked - 1) / maxPacked }

type federationInput struct {
	sessionPolicies
	Name            string `wire:"Name,required,min=2,max=32"`
	DurationSeconds int    `wire:"DurationSeconds,min=900,max=129600"`
}

func (in *federationInput) arn(c *call) string {
	return "arn:aws:sts::" + string(c.account) + ":federated-user/" + wire.Shorten(in.Name)
}

type federatedUser struct {
	FederatedUserID string `xml:"FederatedUserId"`
	Arn             string
}

type federationReply struct {
	Credentials      credentials
	FederatedUser    federatedUser
	PackedPolicySize int
}

// getFederationToken without policies gives no rights, as in AWS.
func getFederationToken(c *call, in *federationInput) (*federationReply, error) {
	if c.principal.Session != nil {
		return nil, wire.Errorf("AccessDenied", "Cannot call GetFederationToken with session credentials")
	}
	if !sessionName.MatchString(in.Name) {
		return nil, invalid("Name", in.Name, "It must have letters, digits and characters of _+=,.@-.")
	}
	s := cloud.Session{Account: c.account, User: c.principal.User, Key: c.principal.AccessKey, Name: in.Name, Federated: true, Bounded: true}
	if err := in.bound(c, &s); err != nil {
		return nil, err
	}
	keys, err := c.issue(s, cmp.Or(in.DurationSeconds, userSeconds))
	return &federationReply{keys, federatedUser{string(c.account) + ":" + in.Name, in.arn(c)}, in.packed()}, err
}

// message of a decision that was encoded.
type message struct {
	Allowed      bool   `json:"allowed"`
	ExplicitDeny bool   `json:"explicitDeny"`
	Account      string `json:"account"`
	Context      struct {
		Principal struct {
			ID  string `json:"id"`
			ARN string `json:"arn"`
		} `json:"principal"`
		Action   string `json:"action"`
		Resource string `json:"resource"`
	} `json:"context"`
}

// EncodeDenial makes of a denial the text that DecodeAuthorizationMessage opens,
// for those who may: why something is denied is not for everybody.
func (s *IAM) EncodeDenial(e *DeniedError) string {
	m := message{ExplicitDeny: e.Explicit, Account: string(e.Principal.Account)}
	m.Context.Principal.ID, m.Context.Principal.ARN = e.Principal.UserID, e.Principal.ARN()
	m.Context.Action, m.Context.Resource = e.Action, e.Resource
	text, err := json.Marshal(m)
	if err != nil {
		return ""
	}
	sealed, err := s.vault.seal(string(text), denials)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(sealed)
}

// denials is what encoded messages are sealed for.
const denials = "authorization message"

type decodeMessageInput struct {
	EncodedMessage string `wire:"EncodedMessage,required,max=10240"`
}

type decodeMessageReply struct{ DecodedMessage string }

// decodeMessage opens those of the caller's account alone.
func decodeMessage(c *call, in *decodeMessageInput) (*decodeMessageReply, error) {
	bad := wire.Errorf("InvalidAuthorizationMessageException", "The parameter EncodedMessage is not a message that this cloud encoded for the account")
	sealed, err := base64.RawURLEncoding.DecodeString(in.EncodedMessage)
	if err != nil {
		return nil, bad
	}
	text, err := c.vault.open(sealed, denials)
	if err != nil {
		return nil, bad
	}
	var m message
	if json.Unmarshal([]byte(text), &m) != nil || m.Account != string(c.account) && !c.principal.System {
		return nil, bad
	}
	return &decodeMessageReply{text}, nil
}
