package iam

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mallee/cloud"
	"mallee/policy"
	"mallee/state"
)

// ErrDenied tells that a principal may not do what it asked.
var ErrDenied = errors.New("not allowed")

// DeniedError names what was not allowed.
type DeniedError struct {
	Principal        Principal
	Action, Resource string
	Explicit         bool // a policy denies it
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("%s is not authorized to perform %s on %s", e.Principal.ARN(), e.Action, e.Resource)
}

func (e *DeniedError) Unwrap() error { return ErrDenied }

// Authorize says whether the principal may do action (ec2:RunInstances) on the
// resource of that ARN: nil, or a *DeniedError. An account's admin may do
// everything on the account's own; that a resource is another's is for the
// caller to hide, who doesn't find it. Others may what their policies let them.
// more is what the caller knows of the request and the resource, such as
// ec2:ResourceTag/NAME; what is true of every request is added here.
func (s *IAM) Authorize(p Principal, action, resource string, more ...policy.Context) error {
	view := s.Store.View()
	rights, err := s.rights(view, p)
	if err != nil {
		return fmt.Errorf("the policies of %s: %w", p.ARN(), err)
	}
	if unbound(rights) {
		return nil
	}
	q := s.request(view, p, action, resource, more...)
	if v := rights.Decide(q); v != policy.Allowed {
		return &DeniedError{p, action, resource, v == policy.ExplicitDeny}
	}
	return nil
}

// Bound says whether policies bind the principal: all but an account's admin
// whose account has none.
func (s *IAM) Bound(p Principal) bool {
	rights, err := s.rights(s.Store.View(), p)
	return err != nil || !unbound(rights)
}

func unbound(r *policy.Rights) bool { return r.Everything && !r.InSession && len(r.Guard) == 0 }

// request as it is decided on.
func (s *IAM) request(r state.Reader, p Principal, action, resource string, more ...policy.Context) *policy.Request {
	c := s.context(r, p)
	if fields := strings.SplitN(resource, ":", 6); len(fields) == 6 {
		c.Set("aws:RequestedRegion", fields[3])
		if fields[3] == "" {
			c.Set("aws:RequestedRegion", Region)
		}
		if fields[4] != "" {
			c.Set("aws:ResourceAccount", fields[4])
		}
	}
	for _, m := range more {
		for key, values := range m {
			c.Add(key, values...)
		}
	}
	return policy.NewRequest(policy.Request{
		Principal: policy.Principal{ARN: p.ARN(), Role: p.roleARN(), Account: string(p.Account)},
		Action:    action, Resource: resource, Context: c,
	})
}

// context of the keys that every request has.
func (s *IAM) context(r state.Reader, p Principal) policy.Context {
	c, now := policy.Context{}, s.Now().UTC()
	c.Set("aws:CurrentTime", now.Format(time.RFC3339))
	c.Set("aws:EpochTime", strconv.FormatInt(now.Unix(), 10))
	c.Set("aws:PrincipalAccount", string(p.Account))
	c.Set("aws:PrincipalArn", p.ARN())
	c.Set("aws:PrincipalIsAWSService", "false")
	c.Set("aws:ViaAWSService", "false")
	c.Set("aws:userid", p.UserID)
	tags := map[string]string{}
	switch {
	case p.Role != nil:
		c.Set("aws:PrincipalType", "AssumedRole")
		c.Set("aws:PrincipalArn", p.roleARN())
		tags = p.Role.Tags
	case p.Session != nil && p.Session.Federated:
		c.Set("aws:PrincipalType", "FederatedUser")
	default:
		c.Set("aws:PrincipalType", "User")
		c.Set("aws:username", p.User)
		if u, err := users.find(r, p.Account, p.User); err == nil {
			tags = u.Tags
		}
	}
	for key, value := range tags {
		c.Set("aws:PrincipalTag/"+key, value)
	}
	describeSession(p.Session, c)
	p.Around.describe(c)
	return c
}

// rights are all policies that have a say about what a principal asks.
func (s *IAM) rights(r state.Reader, p Principal) (*policy.Rights, error) {
	out := &policy.Rights{Everything: p.rules()}
	if account, _, ok := state.Accounts.Get(r, p.Account); ok && !p.System {
		if err := s.addInline(&out.Guard, account.Policies, policy.Account, "Account Policy"); err != nil {
			return nil, err
		}
	}
	grants, groups := s.grantsOf(r, p)
	if grants != nil {
		if err := s.addGrants(r, &out.Identity, grants); err != nil {
			return nil, err
		}
		if err := s.bound(r, out, grants.Boundary); err != nil {
			return nil, err
		}
	}
	for _, g := range groups {
		if err := s.addGrants(r, &out.Identity, &g.Grants); err != nil {
			return nil, err
		}
	}
	if p.Session == nil || !p.Session.Bounded {
		return out, nil
	}
	out.InSession = true
	for _, text := range p.Session.Policies {
		if err := s.add(&out.Session, text, policy.Identity, "session", "Session Policy"); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// grantsOf a principal's role, or of its user with the groups that it is in.
func (s *IAM) grantsOf(r state.Reader, p Principal) (*cloud.Grants, []*cloud.UserGroup) {
	if p.Role != nil {
		return &p.Role.Grants, nil
	}
	u, err := users.find(r, p.Account, p.User)
	if err != nil {
		return nil, nil
	}
	return &u.Grants, groupsOf(r, u)
}

func groupsOf(r state.Reader, u *cloud.User) (list []*cloud.UserGroup) {
	for _, id := range u.Groups {
		if g, _, ok := state.UserGroups.Get(r, id); ok {
			list = append(list, g)
		}
	}
	return list
}

func (s *IAM) addGrants(r state.Reader, to *[]policy.Source, g *cloud.Grants) error {
	if err := s.addInline(to, g.Inline, policy.Identity, "IAM Policy"); err != nil {
		return err
	}
	for _, arn := range g.Attached {
		if text, ok := documentOf(r, arn); ok {
			if err := s.add(to, text, policy.Identity, arn, "IAM Policy"); err != nil {
				return err
			}
		}
	}
	return nil
}

// bound by a managed policy. One that is gone lets nothing through.
func (s *IAM) bound(r state.Reader, out *policy.Rights, arn string) (err error) {
	if arn == "" {
		return nil
	}
	out.Boundary = &policy.Policy{}
	if text, ok := documentOf(r, arn); ok {
		out.Boundary, err = s.compiled(text, policy.Identity)
	}
	return err
}

func (s *IAM) addInline(to *[]policy.Source, documents map[string]string, kind policy.Kind, called string) error {
	for name, text := range documents {
		if err := s.add(to, text, kind, name, called); err != nil {
			return err
		}
	}
	return nil
}

func (s *IAM) add(to *[]policy.Source, text string, kind policy.Kind, id, called string) error {
	p, err := s.compiled(text, kind)
	if err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	*to = append(*to, policy.Source{Policy: p, ID: id, Type: called})
	return nil
}

// most policies that are kept compiled.
const mostCompiled = 10_000

// compiler keeps policies that were read, by their text.
type compiler struct {
	kept  sync.Map // compiledKey → *policy.Policy
	count atomic.Int64
}

type compiledKey struct {
	kind policy.Kind
	text string
}

func (c *compiler) compiled(text string, kind policy.Kind) (*policy.Policy, error) {
	key := compiledKey{kind, text}
	if p, ok := c.kept.Load(key); ok {
		return p.(*policy.Policy), nil
	}
	p, err := policy.Parse(text, kind)
	if err != nil {
		return nil, err
	}
	if c.count.Add(1) > mostCompiled {
		c.count.Store(0)
		c.kept.Clear()
	}
	c.kept.Store(key, p)
	return p, nil
}
