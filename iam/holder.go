package iam

import (
	"strings"
	"unicode"

	"mallee/cloud"
	"mallee/policy"
	"mallee/wire"
)

// holder is a user, group or role, as what policies are given to.
type holder struct {
	noun   string
	name   string
	grants *cloud.Grants
	edit   func(func(*cloud.Grants))
	inline int // characters of all inline policies together, white space aside
}

// Limits of inline policies, as AWS has them.
const (
	userInline  = 2048
	groupInline = 5120
	roleInline  = 10240
)

// holding is an input that names a holder.
type holding interface{ holder(*call) (*holder, error) }

func (o *ofUser) holder(c *call) (*holder, error) {
	u, err := o.find(c)
	if err != nil {
		return nil, err
	}
	return &holder{"user", u.Name, &u.Grants, func(change func(*cloud.Grants)) {
		users.edit(c, u, func(u *cloud.User) { change(&u.Grants) })
	}, userInline}, nil
}

func (o *ofGroup) holder(c *call) (*holder, error) {
	g, err := o.find(c)
	if err != nil {
		return nil, err
	}
	return &holder{"group", g.Name, &g.Grants, func(change func(*cloud.Grants)) {
		groups.edit(c, g, func(g *cloud.UserGroup) { change(&g.Grants) })
	}, groupInline}, nil
}

func (o *ofRole) holder(c *call) (*holder, error) {
	r, err := o.find(c)
	if err != nil {
		return nil, err
	}
	return &holder{"role", r.Name, &r.Grants, func(change func(*cloud.Grants)) {
		roles.edit(c, r, func(r *cloud.Role) { change(&r.Grants) })
	}, roleInline}, nil
}

// sizeOf a document as AWS counts it: without white space.
func sizeOf(document string) int {
	return len(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, document))
}

// putting is an input that has an inline policy.
type putting struct {
	PolicyName     string `wire:"PolicyName,required"`
	PolicyDocument string `wire:"PolicyDocument,required"`
}

func (p *putting) document() (name, text string) { return p.PolicyName, p.PolicyDocument }

// naming is an input that names an inline policy.
type naming struct {
	PolicyName string `wire:"PolicyName,required"`
}

func (n *naming) policy() string { return n.PolicyName }

// Inputs of the actions on inline policies.
type (
	putUserPolicy struct {
		ofUser
		putting
	}
	putGroupPolicy struct {
		ofGroup
		putting
	}
	putRolePolicy struct {
		ofRole
		putting
	}
	userPolicy struct {
		ofUser
		naming
	}
	groupPolicy struct {
		ofGroup
		naming
	}
	rolePolicy struct {
		ofRole
		naming
	}
	listUserPolicies struct {
		ofUser
		paged
	}
	listGroupPolicies struct {
		ofGroup
		paged
	}
	listRolePolicies struct {
		ofRole
		paged
	}
)

func putInline[P interface {
	holding
	document() (name, text string)
}](c *call, in P) (*none, error) {
	h, err := in.holder(c)
	if err != nil {
		return nil, err
	}
	name, text := in.document()
	if err := checkName("policy", name, 128); err != nil {
		return nil, err
	}
	if _, err := policy.Parse(text, policy.Identity); err != nil {
		return nil, err
	}
	size := sizeOf(text)
	for other, t := range h.grants.Inline {
		if other != name {
			size += sizeOf(t)
		}
	}
	if size > h.inline {
		return nil, wire.Errorf("LimitExceeded", "Maximum policy size of %d bytes exceeded for %s %s", h.inline, h.noun, h.name)
	}
	h.edit(func(g *cloud.Grants) {
		if g.Inline == nil {
			g.Inline = map[string]string{}
		}
		g.Inline[name] = text
	})
	return &none{}, nil
}

type inlineReply struct {
	UserName       string `xml:",omitempty"`
	GroupName      string `xml:",omitempty"`
	RoleName       string `xml:",omitempty"`
	PolicyName     string
	PolicyDocument string // escaped as in an URL
}

func getInline[P interface {
	holding
	policy() string
}](c *call, in P) (*inlineReply, error) {
	h, err := in.holder(c)
	if err != nil {
		return nil, err
	}
	text, ok := h.grants.Inline[in.policy()]
	if !ok {
		return nil, noInline(h, in.policy())
	}
	out := &inlineReply{PolicyName: in.policy(), PolicyDocument: escaped(text)}
	switch h.noun {
	case "user":
		out.UserName = h.name
	case "group":
		out.GroupName = h.name
	default:
		out.RoleName = h.name
	}
	return out, nil
}

func noInline(h *holder, name string) error {
	return wire.Errorf("NoSuchEntity", "The %s policy with name %s cannot be found.", h.noun, wire.Shorten(name))
}

func deleteInline[P interface {
	holding
	policy() string
}](c *call, in P) (*none, error) {
	h, err := in.holder(c)
	if err != nil {
		return nil, err
	}
	if _, ok := h.grants.Inline[in.policy()]; !ok {
		return nil, noInline(h, in.policy())
	}
	h.edit(func(g *cloud.Grants) { delete(g.Inline, in.policy()) })
	return &none{}, nil
}

type policyNames struct {
	PolicyNames []string `xml:"PolicyNames>member"`
	page
}

func listInline[P interface {
	holding
	asked() paged
}](c *call, in P) (*policyNames, error) {
	h, err := in.holder(c)
	if err != nil {
		return nil, err
	}
	list, p, err := cut(in.asked(), sortedKeys(h.grants.Inline), same)
	return &policyNames{list, p}, err
}

// Inputs of the actions on boundaries.
type (
	bounding struct {
		PermissionsBoundary string `wire:"PermissionsBoundary,required"`
	}
	putUserBoundary struct {
		ofUser
		bounding
	}
	putRoleBoundary struct {
		ofRole
		bounding
	}
	deleteUserBoundary struct{ ofUser }
	deleteRoleBoundary struct{ ofRole }
)

func (b *bounding) boundary() string { return b.PermissionsBoundary }

func (b *bounding) request() policy.Context {
	c := policy.Context{}
	c.Set("iam:PermissionsBoundary", b.PermissionsBoundary)
	return c
}

func putBoundary[P interface {
	holding
	boundary() string
}](c *call, in P) (*none, error) {
	h, err := in.holder(c)
	if err != nil {
		return nil, err
	}
	if err := checkBoundary(c, in.boundary()); err != nil {
		return nil, err
	}
	h.edit(func(g *cloud.Grants) { g.Boundary = in.boundary() })
	return &none{}, nil
}

func deleteBoundary[P holding](c *call, in P) (*none, error) {
	h, err := in.holder(c)
	if err != nil {
		return nil, err
	}
	h.edit(func(g *cloud.Grants) { g.Boundary = "" })
	return &none{}, nil
}

// checkBoundary that there is such a policy; "" is none.
func checkBoundary(c *call, arn string) error {
	if arn == "" {
		return nil
	}
	_, err := c.managed(arn)
	return err
}
