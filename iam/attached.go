package iam

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"mallee/cloud"
	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// attaching is an input that names a managed policy beside its holder.
type attaching struct {
	PolicyArn string `wire:"PolicyArn,required,max=2048"`
}

func (a *attaching) policy() string { return a.PolicyArn }

func (a *attaching) request() policy.Context {
	c := policy.Context{}
	c.Set("iam:PolicyARN", a.PolicyArn)
	return c
}

// listing is an input that pages through what is attached, below a path.
type listing struct {
	paged
	PathPrefix string
}

func (l *listing) below() string { return cmp.Or(l.PathPrefix, "/") }

// Inputs of the actions on attachments.
type (
	attachUser struct {
		ofUser
		attaching
	}
	attachGroup struct {
		ofGroup
		attaching
	}
	attachRole struct {
		ofRole
		attaching
	}
	attachedUser struct {
		ofUser
		listing
	}
	attachedGroup struct {
		ofGroup
		listing
	}
	attachedRole struct {
		ofRole
		listing
	}
)

// attach writes the policy too, so that one that is deleted at the same time is
// noticed.
func attach[P interface {
	holding
	policy() string
}](c *call, in P) (*none, error) {
	h, err := in.holder(c)
	if err != nil {
		return nil, err
	}
	p, err := c.managed(in.policy())
	if err != nil || slices.Contains(h.grants.Attached, in.policy()) {
		return &none{}, err
	}
	if len(h.grants.Attached) >= maxAttached {
		return nil, tooMany("PoliciesPer"+strings.ToUpper(h.noun[:1])+h.noun[1:], maxAttached)
	}
	h.edit(func(g *cloud.Grants) {
		g.Attached = append(g.Attached, in.policy())
		slices.Sort(g.Attached)
	})
	policies.edit(c, p, func(*cloud.ManagedPolicy) {})
	return &none{}, nil
}

func detach[P interface {
	holding
	policy() string
}](c *call, in P) (*none, error) {
	h, err := in.holder(c)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(h.grants.Attached, in.policy()) {
		return nil, wire.Errorf("NoSuchEntity", "Policy %s was not found.", wire.Shorten(in.policy()))
	}
	h.edit(func(g *cloud.Grants) {
		g.Attached = slices.DeleteFunc(g.Attached, func(a string) bool { return a == in.policy() })
	})
	return &none{}, nil
}

type attachedPolicy struct{ PolicyName, PolicyArn string }

type attachedReply struct {
	AttachedPolicies []attachedPolicy `xml:"AttachedPolicies>member"`
	page
}

func listAttached[P interface {
	holding
	asked() paged
	below() string
}](c *call, in P) (*attachedReply, error) {
	h, err := in.holder(c)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, of := range h.grants.Attached {
		if p := managedBy(c.read, of); p != nil && strings.HasPrefix(p.Path, in.below()) {
			all = append(all, of)
		}
	}
	list, p, err := cut(in.asked(), all, same)
	return &attachedReply{each(list, func(of string) attachedPolicy {
		return attachedPolicy{of[strings.LastIndexByte(of, '/')+1:], of}
	}), p}, err
}

type entitiesInput struct {
	ofPolicy
	paged
	EntityFilter      string `wire:"EntityFilter,enum=User|Role|Group|LocalManagedPolicy|AWSManagedPolicy"`
	PathPrefix        string
	PolicyUsageFilter string `wire:"PolicyUsageFilter,enum=PermissionsPolicy|PermissionsBoundary"`
}

type policyUser struct {
	UserName string
	UserID   string `xml:"UserId"`
}

type policyGroup struct {
	GroupName string
	GroupID   string `xml:"GroupId"`
}

type policyRole struct {
	RoleName string
	RoleID   string `xml:"RoleId"`
}

type entitiesReply struct {
	Groups []policyGroup `xml:"PolicyGroups>member"`
	Users  []policyUser  `xml:"PolicyUsers>member"`
	Roles  []policyRole  `xml:"PolicyRoles>member"`
	page
}

// listEntities tells who has a policy; groups come first, then users, then
// roles, over the pages.
func listEntities(c *call, in *entitiesInput) (*entitiesReply, error) {
	if _, err := in.find(c); err != nil {
		return nil, err
	}
	type entity struct {
		cloud.Entity
		noun string
	}
	var all []entity
	add := func(noun string, e cloud.Entity, g *cloud.Grants) {
		bounds := in.PolicyUsageFilter == "PermissionsBoundary"
		used := slices.Contains(g.Attached, in.PolicyArn) && !bounds || g.Boundary == in.PolicyArn && (bounds || in.PolicyUsageFilter == "")
		if e.Account == c.account && used && strings.HasPrefix(e.Path, cmp.Or(in.PathPrefix, "/")) && (in.EntityFilter == "" || strings.EqualFold(in.EntityFilter, noun)) {
			all = append(all, entity{e, noun})
		}
	}
	for g := range state.UserGroupsByPolicy.By(c.read, in.PolicyArn) {
		add("group", g.Entity, &g.Grants)
	}
	for u := range state.UsersByPolicy.By(c.read, in.PolicyArn) {
		add("user", u.Entity, &u.Grants)
	}
	for r := range state.RolesByPolicy.By(c.read, in.PolicyArn) {
		add("role", r.Entity, &r.Grants)
	}
	key := func(e entity) string { return e.ID } // AGPA, AIDA, AROA: as they are told
	slices.SortFunc(all, func(a, b entity) int { return strings.Compare(key(a), key(b)) })
	list, p, err := cut(in.paged, all, key)
	out := &entitiesReply{page: p}
	for _, e := range list {
		switch e.noun {
		case "group":
			out.Groups = append(out.Groups, policyGroup{e.Name, e.ID})
		case "user":
			out.Users = append(out.Users, policyUser{e.Name, e.ID})
		default:
			out.Roles = append(out.Roles, policyRole{e.Name, e.ID})
		}
	}
	return out, err
}
