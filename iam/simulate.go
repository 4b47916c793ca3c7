package iam

import (
	"slices"
	"strconv"
	"strings"

	"mallee/cloud"
	"mallee/policy"
	"mallee/wire"
)

// simulating is embedded by the inputs of both simulations.
type simulating struct {
	common
	paged
	ActionNames     []string       `wire:"ActionNames,required,max=500"`
	ResourceArns    []string       `wire:"ResourceArns,max=100"`
	ContextEntries  []contextEntry `wire:"ContextEntries,max=100"`
	PolicyInputList []string       `wire:"PolicyInputList,max=100"`
	Boundaries      []string       `wire:"PermissionsBoundaryPolicyInputList,max=1"`
	ResourcePolicy  string
	ResourceOwner   string
	CallerArn       string
}

type contextEntry struct {
	Key    string   `wire:"ContextKeyName,required"`
	Values []string `wire:"ContextKeyValues"`
	Type   string   `wire:"ContextKeyType"`
}

type simulateCustomInput struct{ simulating }

type simulatePrincipalInput struct {
	simulating
	PolicySourceArn string `wire:"PolicySourceArn,required,max=2048"`
}

func (in *simulatePrincipalInput) arn(*call) string { return in.PolicySourceArn }

type matchedStatement struct {
	SourcePolicyID   string `xml:"SourcePolicyId"`
	SourcePolicyType string
}

type evaluation struct {
	EvalActionName, EvalResourceName, EvalDecision string
	Matched                                        []matchedStatement `xml:"MatchedStatements>member"`
	Missing                                        []string           `xml:"MissingContextValues>member"`
}

type simulateReply struct {
	Results []evaluation `xml:"EvaluationResults>member"`
	page
}

func simulateCustom(c *call, in *simulateCustomInput) (*simulateReply, error) {
	if len(in.PolicyInputList) == 0 {
		return nil, asIAM(wire.MissingParameter("PolicyInputList"))
	}
	return c.simulate(&in.simulating, &policy.Rights{}, Principal{Account: c.account})
}

// simulatePrincipal takes a user's, group's or role's policies as they are, and
// those that are given.
func simulatePrincipal(c *call, in *simulatePrincipalInput) (*simulateReply, error) {
	p, rights, err := c.rightsOf(in.PolicySourceArn)
	if err != nil {
		return nil, err
	}
	return c.simulate(&in.simulating, rights, p)
}

// rightsOf a user, group or role of the account, by its ARN.
func (c *call) rightsOf(of string) (p Principal, r *policy.Rights, err error) {
	p.Account = c.account
	for _, u := range users.under(c.read, c.account, "/") {
		if users.arnOf(u) == of {
			p.User, p.UserID, p.Path = u.Name, u.ID, u.Path
			r, err = c.rights(c.read, p)
			return p, r, err
		}
	}
	for _, role := range roles.under(c.read, c.account, "/") {
		if roles.arnOf(role) == of {
			p.Role, p.UserID, p.Session = role, role.ID+":simulation", &cloud.Session{Name: "simulation"}
			r, err = c.rights(c.read, p)
			return p, r, err
		}
	}
	for _, g := range groups.under(c.read, c.account, "/") {
		if groups.arnOf(g) == of {
			r = &policy.Rights{}
			return p, r, c.addGrants(c.read, &r.Identity, &g.Grants)
		}
	}
	return p, nil, wire.Errorf("NoSuchEntity", "The entity with ARN %s cannot be found.", wire.Shorten(of))
}

func (c *call) simulate(in *simulating, rights *policy.Rights, p Principal) (*simulateReply, error) {
	for i, text := range in.PolicyInputList {
		if err := c.add(&rights.Identity, text, policy.Identity, "PolicyInputList."+strconv.Itoa(i+1), "None"); err != nil {
			return nil, invalidInput("PolicyInputList", err)
		}
	}
	for _, text := range in.Boundaries {
		bound, err := policy.Parse(text, policy.Identity)
		if err != nil {
			return nil, invalidInput("PermissionsBoundaryPolicyInputList", err)
		}
		rights.Boundary = bound
	}
	if in.ResourcePolicy != "" {
		resource, err := policy.Parse(in.ResourcePolicy, policy.Resource)
		if err != nil {
			return nil, invalidInput("ResourcePolicy", err)
		}
		rights.Resource = resource
	}
	given := policy.Context{}
	for _, e := range in.ContextEntries {
		given.Add(e.Key, e.Values...)
	}
	var all []evaluation
	for _, action := range in.ActionNames {
		for _, resource := range cmpList(in.ResourceArns, "*") {
			all = append(all, c.evaluate(in, rights, p, action, resource, given))
		}
	}
	list, page, err := cut(in.paged, all, func(e evaluation) string { return e.EvalActionName + "\n" + e.EvalResourceName })
	return &simulateReply{list, page}, err
}

func invalidInput(name string, err error) error {
	return wire.Errorf("InvalidInput", "The parameter %s has a policy that can't be read: %v", name, err)
}

// cmpList is the list, or otherwise one.
func cmpList(list []string, otherwise string) []string {
	if len(list) == 0 {
		return []string{otherwise}
	}
	return list
}

func (c *call) evaluate(in *simulating, rights *policy.Rights, p Principal, action, resource string, given policy.Context) evaluation {
	q := c.request(c.read, p, action, resource)
	for key, values := range given { // instead of what is so
		q.Context[key] = values
	}
	if in.CallerArn != "" {
		q.Principal.ARN = in.CallerArn
	}
	q.Owner = ownerOf(in.ResourceOwner)
	verdict, matches := rights.Explain(q)
	out := evaluation{EvalActionName: action, EvalResourceName: resource, EvalDecision: verdict.String()}
	for _, m := range matches {
		out.Matched = append(out.Matched, matchedStatement{m.Source.ID, m.Source.Type})
	}
	var asked []*policy.Policy
	for _, s := range slices.Concat(rights.Identity, rights.Session) {
		asked = append(asked, s.Policy)
	}
	for _, key := range policy.ContextKeys(asked...) {
		if _, known := q.Context[key]; !known {
			out.Missing = append(out.Missing, key)
		}
	}
	return out
}

// ownerOf is the account of arn:aws:iam::ACCOUNT:root, or what is written.
func ownerOf(owner string) string {
	if account, ok := strings.CutPrefix(owner, "arn:aws:iam::"); ok {
		account, _, _ = strings.Cut(account, ":")
		return account
	}
	return owner
}

// Inputs of the actions that tell which condition keys policies read.
type (
	contextKeysCustomInput struct {
		common
		PolicyInputList []string `wire:"PolicyInputList,required,max=100"`
	}
	contextKeysPrincipalInput struct {
		common
		PolicySourceArn string   `wire:"PolicySourceArn,required,max=2048"`
		PolicyInputList []string `wire:"PolicyInputList,max=100"`
	}
	contextKeysReply struct {
		Names []string `xml:"ContextKeyNames>member"`
	}
)

func (in *contextKeysPrincipalInput) arn(*call) string { return in.PolicySourceArn }

func contextKeysCustom(c *call, in *contextKeysCustomInput) (*contextKeysReply, error) {
	return c.contextKeys(nil, in.PolicyInputList)
}

func contextKeysPrincipal(c *call, in *contextKeysPrincipalInput) (*contextKeysReply, error) {
	_, rights, err := c.rightsOf(in.PolicySourceArn)
	if err != nil {
		return nil, err
	}
	return c.contextKeys(rights.Identity, in.PolicyInputList)
}

func (c *call) contextKeys(had []policy.Source, texts []string) (*contextKeysReply, error) {
	var all []*policy.Policy
	for _, s := range had {
		all = append(all, s.Policy)
	}
	for _, text := range texts {
		p, err := policy.Parse(text, policy.Identity)
		if err != nil {
			return nil, invalidInput("PolicyInputList", err)
		}
		all = append(all, p)
	}
	return &contextKeysReply{policy.ContextKeys(all...)}, nil
}
