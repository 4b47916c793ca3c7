package iam

import (
	"cmp"
	"regexp"

	"mallee/cloud"
	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

var roleARN = regexp.MustCompile(`^arn:aws:iam::([0-9]{12}):role/(?:[!-~]*/)?([A-Za-z0-9_+=,.@-]+)$`)

// assuming is embedded by the inputs that name a role to be taken on.
type assuming struct {
	sessionPolicies
	RoleArn         string `wire:"RoleArn,required,max=2048"`
	RoleSessionName string `wire:"RoleSessionName,required"`
	DurationSeconds int    `wire:"DurationSeconds,min=900,max=43200"`
}

// find the role; nil where there is none, which its trust then can't allow.
func (in *assuming) find(c *call) (*cloud.Role, error) {
	m := roleARN.FindStringSubmatch(in.RoleArn)
	if m == nil {
		return nil, wire.Errorf("ValidationError", "%s is invalid: RoleArn must be an ARN such as arn:aws:iam::123456789012:role/NAME", wire.Shorten(in.RoleArn))
	}
	if !sessionName.MatchString(in.RoleSessionName) {
		return nil, invalid("RoleSessionName", in.RoleSessionName, "It must have 2 to 64 letters, digits and characters of _+=,.@-.")
	}
	r, err := roles.find(c.read, cloud.AccountID(m[1]), m[2])
	if err != nil || roles.arnOf(r) != in.RoleArn {
		return nil, nil
	}
	return r, nil
}

// session of the role, within its bounds.
func (in *assuming) session(c *call, r *cloud.Role) (credentials, assumedUser, error) {
	seconds := cmp.Or(in.DurationSeconds, roleSeconds)
	if seconds > r.MaxSession {
		return credentials{}, assumedUser{}, wire.Errorf("ValidationError", "The requested DurationSeconds %d exceeds the MaxSessionDuration %d set for this role.", seconds, r.MaxSession)
	}
	s := cloud.Session{Account: r.Account, Role: r.ID, Name: in.RoleSessionName}
	if err := in.bound(c, &s); err != nil {
		return credentials{}, assumedUser{}, err
	}
	keys, err := c.issue(s, seconds)
	p := Principal{Account: r.Account, Role: r, Session: &s}
	return keys, assumedUser{r.ID + ":" + s.Name, p.ARN()}, err
}

type assumedUser struct {
	AssumedRoleID string `xml:"AssumedRoleId"`
	Arn           string
}

type assumeRoleInput struct {
	assuming
	ExternalID     string `wire:"ExternalId,min=2,max=1224"`
	SourceIdentity string `wire:"SourceIdentity,min=2,max=64"`
}

type assumeRoleReply struct {
	Credentials      credentials
	AssumedRoleUser  assumedUser
	PackedPolicySize int
	SourceIdentity   string `xml:",omitempty"`
}

func assumeRole(c *call, in *assumeRoleInput) (*assumeRoleReply, error) {
	r, err := in.find(c)
	if err != nil {
		return nil, err
	}
	if r == nil || !c.trusted(r, in) {
		return nil, c.denied(wire.Shorten(in.RoleArn))
	}
	if c.principal.Session != nil && c.principal.Role != nil && cmp.Or(in.DurationSeconds, roleSeconds) > roleSeconds {
		return nil, wire.Errorf("ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	}
	keys, who, err := in.session(c, r)
	return &assumeRoleReply{keys, who, in.packed(), in.SourceIdentity}, err
}

// trusted says whether the role's trust and the caller's own policies, and those
// between two accounts both, let the caller take the role on.
func (c *call) trusted(r *cloud.Role, in *assumeRoleInput) bool {
	known := in.request()
	known.Set("sts:RoleSessionName", in.RoleSessionName)
	if in.ExternalID != "" {
		known.Set("sts:ExternalId", in.ExternalID)
	}
	if in.SourceIdentity != "" {
		known.Set("sts:SourceIdentity", in.SourceIdentity)
	}
	rights, err := c.rights(c.read, c.principal)
	if err != nil {
		return false
	}
	if rights.Resource, err = c.compiled(r.Trust, policy.Trust); err != nil {
		return false
	}
	rights.Trusts = true
	q := c.request(c.read, c.principal, "sts:AssumeRole", roles.arnOf(r), known)
	q.Owner = string(r.Account)
	return rights.Decide(q) == policy.Allowed
}

type webIdentityInput struct {
	assuming
	WebIdentityToken string `wire:"WebIdentityToken,required,min=4,max=20000"`
	ProviderID       string `wire:"ProviderId,max=2048"`
	claims           claims
	provider         string // ARN
}

type webIdentityReply struct {
	Credentials      credentials
	AssumedRoleUser  assumedUser
	PackedPolicySize int
	Provider         string
	Audience         string
	Subject          string `xml:"SubjectFromWebIdentityToken"`
}

// proveIdentity verifies the token with the keys of the issuer, which must be a
// provider of the role's account. Those keys are fetched: before the transaction.
func proveIdentity(c *call, in *webIdentityInput) error {
	if in.ProviderID != "" {
		return wire.Errorf("ValidationError", "ProviderId is for OAuth 2.0; tokens of OpenID Connect name their issuer themselves")
	}
	r, err := in.find(c)
	if err != nil {
		return err
	}
	if r == nil {
		return c.deniedWeb()
	}
	in.claims, in.provider, err = c.identify(r.Account, in.WebIdentityToken)
	return err
}

func (c *call) deniedWeb() error {
	return wire.Errorf("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
}

func assumeWithWebIdentity(c *call, in *webIdentityInput) (*webIdentityReply, error) {
	r, err := in.find(c)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, c.deniedWeb()
	}
	provider, _, ok := state.Providers.Get(c.tx, in.provider)
	trust, err := c.compiled(r.Trust, policy.Trust)
	if !ok || err != nil {
		return nil, c.deniedWeb()
	}
	known := in.claims.context(provider.URL)
	for key, values := range in.request() {
		known[key] = values
	}
	rights := policy.Rights{Resource: trust, Trusts: true}
	q := policy.NewRequest(policy.Request{
		Principal: policy.Principal{ARN: provider.ARN, Kind: "Federated", Name: provider.ARN},
		Action:    "sts:AssumeRoleWithWebIdentity", Resource: roles.arnOf(r), Owner: string(r.Account), Context: known,
	})
	if rights.Decide(q) != policy.Allowed {
		return nil, c.deniedWeb()
	}
	keys, who, err := in.session(c, r)
	return &webIdentityReply{keys, who, in.packed(), provider.ARN, in.claims.audience(), in.claims.Subject}, err
}
