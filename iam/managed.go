package iam

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"mallee/cloud"
	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

// Limits of managed policies, as AWS has them.
const (
	maxManaged  = 6144 // characters of a document, white space aside
	maxVersions = 5
	maxAttached = 10
)

// ofPolicy is embedded by the inputs that name a managed policy.
type ofPolicy struct {
	common
	PolicyArn string `wire:"PolicyArn,required,max=2048"`
}

func (o *ofPolicy) arn(*call) string { return o.PolicyArn }

func (o *ofPolicy) find(c *call) (*cloud.ManagedPolicy, error) { return c.managed(o.PolicyArn) }

// own finds one that may be changed: those of the cloud may not.
func (o *ofPolicy) own(c *call) (*cloud.ManagedPolicy, error) {
	if strings.HasPrefix(o.PolicyArn, builtIn) {
		return nil, wire.Errorf("AccessDenied", "The policy %s is the cloud's own and can't be changed", wire.Shorten(o.PolicyArn))
	}
	return c.managed(o.PolicyArn)
}

func (o *ofPolicy) tagsOf(c *call) (map[string]string, func(map[string]string), error) {
	p, err := o.own(c)
	return bear(policies, c, p, err)
}

var policyARN = regexp.MustCompile(`^arn:aws:iam::([0-9]{12}|aws):policy/([!-~]*/)?([A-Za-z0-9_+=,.@-]+)$`)

// managed policy of the call's account, or of the cloud, by its ARN.
func (c *call) managed(of string) (*cloud.ManagedPolicy, error) {
	m := policyARN.FindStringSubmatch(of)
	if m == nil {
		return nil, wire.Errorf("ValidationError", "Value (%s) for parameter PolicyArn is invalid. Expecting an ARN such as arn:aws:iam::123456789012:policy/NAME.", wire.Shorten(of))
	}
	p := managedBy(c.read, of)
	if p == nil || m[1] != "aws" && m[1] != string(c.account) {
		return nil, wire.Errorf("NoSuchEntity", "Policy %s was not found.", wire.Shorten(of))
	}
	return p, nil
}

// managedBy finds a managed policy by its ARN; nil is none.
func managedBy(r state.Reader, of string) *cloud.ManagedPolicy {
	if p, ok := cloudPolicies[of]; ok {
		return p
	}
	m := policyARN.FindStringSubmatch(of)
	if m == nil {
		return nil
	}
	p, err := policies.find(r, cloud.AccountID(m[1]), m[3])
	if err != nil || policies.arnOf(p) != of {
		return nil
	}
	return p
}

// documentOf a managed policy's default version.
func documentOf(r state.Reader, arn string) (string, bool) {
	p := managedBy(r, arn)
	if p == nil {
		return "", false
	}
	v := versionOf(p, p.Default)
	return v.Document, v.Number != 0
}

// versionOf that number; the zero version where there is none.
func versionOf(p *cloud.ManagedPolicy, number int) cloud.PolicyVersion {
	for _, v := range p.Versions {
		if v.Number == number {
			return v
		}
	}
	return cloud.PolicyVersion{}
}

type aPolicy struct {
	PolicyName       string
	PolicyID         string `xml:"PolicyId"`
	Arn, Path        string
	DefaultVersionID string `xml:"DefaultVersionId"`
	AttachmentCount  int
	BoundaryCount    int    `xml:"PermissionsBoundaryUsageCount"`
	Attachable       bool   `xml:"IsAttachable"`
	Description      string `xml:",omitempty"`
	CreateDate       *wire.Time
	UpdateDate       *wire.Time
	Tags             []tag `xml:"Tags>member"`
}

func (c *call) policyReply(p *cloud.ManagedPolicy) aPolicy {
	of := policyARNOf(p)
	attached, bounds := c.uses(of)
	return aPolicy{p.Name, p.ID, of, p.Path, versionName(p.Default), attached, bounds, true, p.Description, wire.At(p.CreatedAt), wire.At(p.UpdatedAt), tagList(p.Tags)}
}

func policyARNOf(p *cloud.ManagedPolicy) string { return policies.arnOf(p) }

// uses of a policy in the call's account.
func (c *call) uses(of string) (attached, bounds int) {
	count := func(account cloud.AccountID, g *cloud.Grants) {
		if account != c.account {
			return
		}
		if slices.Contains(g.Attached, of) {
			attached++
		}
		if g.Boundary == of {
			bounds++
		}
	}
	for u := range state.UsersByPolicy.By(c.read, of) {
		count(u.Account, &u.Grants)
	}
	for g := range state.UserGroupsByPolicy.By(c.read, of) {
		count(g.Account, &g.Grants)
	}
	for r := range state.RolesByPolicy.By(c.read, of) {
		count(r.Account, &r.Grants)
	}
	return attached, bounds
}

func versionName(number int) string { return "v" + strconv.Itoa(number) }

type createPolicyInput struct {
	common
	tagged
	PolicyName     string `wire:"PolicyName,required"`
	PolicyDocument string `wire:"PolicyDocument,required"`
	Path           string
	Description    string
}

func (in *createPolicyInput) arn(c *call) string {
	path := in.Path
	if path == "" {
		path = "/"
	}
	return arn(c.account, "policy", path, wire.Shorten(in.PolicyName))
}

type onePolicy struct{ Policy aPolicy }

func createPolicy(c *call, in *createPolicyInput) (*onePolicy, error) {
	e, err := policies.entity(c, in.PolicyName, in.Path, in.Tags)
	if err != nil {
		return nil, err
	}
	if utf8.RuneCountInString(in.Description) > maxAbout {
		return nil, invalid("Description", in.Description, "Expecting at most %d characters.", maxAbout)
	}
	if err := checkManaged(in.PolicyDocument); err != nil {
		return nil, err
	}
	p := cloud.ManagedPolicy{
		Entity: e, Description: in.Description, Default: 1, Last: 1, UpdatedAt: e.CreatedAt,
		Versions: []cloud.PolicyVersion{{Number: 1, Document: in.PolicyDocument, CreatedAt: e.CreatedAt}},
	}
	state.ManagedPolicies.Put(c.tx, p)
	return &onePolicy{c.policyReply(&p)}, c.within("iam:quota-policynumber", len(policies.under(c.tx, c.account, "/")))
}

func checkManaged(document string) error {
	if sizeOf(document) > maxManaged {
		return tooMany("PolicySize", maxManaged)
	}
	_, err := policy.Parse(document, policy.Identity)
	return err
}

type getPolicyInput struct{ ofPolicy }

func getPolicy(c *call, in *getPolicyInput) (*onePolicy, error) {
	p, err := in.find(c)
	if err != nil {
		return nil, err
	}
	return &onePolicy{c.policyReply(p)}, nil
}

type listPoliciesInput struct {
	underPath
	Scope             string `wire:"Scope,enum=All|AWS|Local"`
	OnlyAttached      bool
	PolicyUsageFilter string `wire:"PolicyUsageFilter,enum=PermissionsPolicy|PermissionsBoundary"`
}

type listPoliciesReply struct {
	Policies []aPolicy `xml:"Policies>member"`
	page
}

func listPolicies(c *call, in *listPoliciesInput) (*listPoliciesReply, error) {
	var all []*cloud.ManagedPolicy
	if in.Scope != "AWS" {
		all = policies.under(c.read, c.account, in.prefix())
	}
	if in.Scope != "Local" {
		for _, name := range slices.Sorted(maps.Keys(cloudPolicies)) {
			if p := cloudPolicies[name]; strings.HasPrefix(p.Path, in.prefix()) {
				all = append(all, p)
			}
		}
	}
	all = slices.DeleteFunc(all, func(p *cloud.ManagedPolicy) bool {
		attached, bounds := c.uses(policyARNOf(p))
		return in.OnlyAttached && attached+bounds == 0 ||
			in.PolicyUsageFilter == "PermissionsPolicy" && attached == 0 || in.PolicyUsageFilter == "PermissionsBoundary" && bounds == 0
	})
	slices.SortFunc(all, func(a, b *cloud.ManagedPolicy) int { return strings.Compare(policyARNOf(a), policyARNOf(b)) })
	list, p, err := cut(in.paged, all, policyARNOf)
	return &listPoliciesReply{each(list, c.policyReply), p}, err
}

type deletePolicyInput struct{ ofPolicy }

func deletePolicy(c *call, in *deletePolicyInput) (*none, error) {
	p, err := in.own(c)
	if err != nil {
		return nil, err
	}
	if attached, bounds := c.uses(in.PolicyArn); attached+bounds > 0 {
		return nil, conflict("Cannot delete a policy attached to entities.")
	}
	if len(p.Versions) > 1 {
		return nil, conflict("This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.")
	}
	policies.remove(c, p)
	return &none{}, nil
}

// number of a version's name; 0 is none.
func number(name string) int {
	digits, ok := strings.CutPrefix(name, "v")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || versionName(n) != name {
		return 0
	}
	return n
}

func noVersion(p *cloud.ManagedPolicy, name string) error {
	return wire.Errorf("NoSuchEntity", "Policy %s version %s does not exist or is not attachable.", policyARNOf(p), wire.Shorten(name))
}
