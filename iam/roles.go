package iam

import (
	"net/url"
	"unicode/utf8"

	"mallee/cloud"
	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

// Bounds of a role's sessions, in seconds, and of its trust policy.
const (
	leastSession = 3600
	mostSession  = 43200
	maxTrust     = 2048
	maxAbout     = 1000 // characters of a description
)

// ofRole is embedded by the inputs that name a role.
type ofRole struct {
	common
	RoleName string `wire:"RoleName,required"`
}

func (o *ofRole) arn(c *call) string                { return roles.arn(c.read, c.account, o.RoleName) }
func (o *ofRole) find(c *call) (*cloud.Role, error) { return roles.find(c.read, c.account, o.RoleName) }
func (o *ofRole) context(c *call) policy.Context    { return resourceTags(roles, c, o.RoleName) }

func (o *ofRole) tagsOf(c *call) (map[string]string, func(map[string]string), error) {
	r, err := o.find(c)
	return bear(roles, c, r, err)
}

type aRole struct {
	Path, RoleName string
	RoleID         string `xml:"RoleId"`
	Arn            string
	CreateDate     *wire.Time
	Trust          string     `xml:"AssumeRolePolicyDocument"` // escaped as in an URL
	Description    string     `xml:",omitempty"`
	MaxSession     int        `xml:"MaxSessionDuration"`
	Boundary       *aBoundary `xml:"PermissionsBoundary,omitempty"`
	Tags           []tag      `xml:"Tags>member"`
}

func roleReply(r *cloud.Role) aRole {
	return aRole{r.Path, r.Name, r.ID, roles.arnOf(r), wire.At(r.CreatedAt), escaped(r.Trust), r.Description, r.MaxSession, boundary(r.Boundary), tagList(r.Tags)}
}

// escaped is a document as IAM's replies have it.
func escaped(document string) string { return url.PathEscape(document) }

type createRoleInput struct {
	ofRole
	tagged
	Path                     string
	AssumeRolePolicyDocument string `wire:"AssumeRolePolicyDocument,required"`
	Description              string
	MaxSessionDuration       int
	PermissionsBoundary      string
}

func (in *createRoleInput) arn(c *call) string {
	path := in.Path
	if path == "" {
		path = "/"
	}
	return arn(c.account, "role", path, wire.Shorten(in.RoleName))
}

func (in *createRoleInput) context(*call) policy.Context {
	out := policy.Context{}
	if in.PermissionsBoundary != "" {
		out.Set("iam:PermissionsBoundary", in.PermissionsBoundary)
	}
	return out
}

type oneRole struct{ Role aRole }

func createRole(c *call, in *createRoleInput) (*oneRole, error) {
	e, err := roles.entity(c, in.RoleName, in.Path, in.Tags)
	if err != nil {
		return nil, err
	}
	r := cloud.Role{Entity: e, Grants: cloud.Grants{Boundary: in.PermissionsBoundary}, Trust: in.AssumeRolePolicyDocument, Description: in.Description, MaxSession: in.MaxSessionDuration}
	if r.MaxSession == 0 {
		r.MaxSession = leastSession
	}
	if err := checkRole(&r); err != nil {
		return nil, err
	}
	if err := checkBoundary(c, in.PermissionsBoundary); err != nil {
		return nil, err
	}
	state.Roles.Put(c.tx, r)
	return &oneRole{roleReply(&r)}, c.within("iam:quota-rolenumber", len(roles.under(c.tx, c.account, "/")))
}

func checkRole(r *cloud.Role) error {
	if r.MaxSession < leastSession || r.MaxSession > mostSession {
		return wire.Errorf("ValidationError", "Value %d for MaxSessionDuration is invalid. Expecting %d to %d seconds.", r.MaxSession, leastSession, mostSession)
	}
	if utf8.RuneCountInString(r.Description) > maxAbout {
		return invalid("Description", r.Description, "Expecting at most %d characters.", maxAbout)
	}
	if sizeOf(r.Trust) > maxTrust {
		return tooMany("ACLSizePerRole", maxTrust)
	}
	_, err := policy.Parse(r.Trust, policy.Trust)
	return err
}

type getRoleInput struct{ ofRole }

func getRole(c *call, in *getRoleInput) (*oneRole, error) {
	r, err := in.find(c)
	if err != nil {
		return nil, err
	}
	return &oneRole{roleReply(r)}, nil
}

type listRolesInput struct{ underPath }

type listRolesReply struct {
	Roles []aRole `xml:"Roles>member"`
	page
}

func listRoles(c *call, in *listRolesInput) (*listRolesReply, error) {
	list, p, err := cut(in.paged, roles.under(c.read, c.account, in.prefix()), roles.key)
	return &listRolesReply{each(list, roleReply), p}, err
}

type updateTrustInput struct {
	ofRole
	PolicyDocument string `wire:"PolicyDocument,required"`
}

func updateTrust(c *call, in *updateTrustInput) (*none, error) {
	return &none{}, changeRole(c, &in.ofRole, func(r *cloud.Role) { r.Trust = in.PolicyDocument })
}

type updateRoleInput struct {
	ofRole
	Description        *string
	MaxSessionDuration *int
}

func updateRole(c *call, in *updateRoleInput) (*none, error) {
	return &none{}, changeRole(c, &in.ofRole, func(r *cloud.Role) {
		if in.Description != nil {
			r.Description = *in.Description
		}
		if in.MaxSessionDuration != nil {
			r.MaxSession = *in.MaxSessionDuration
		}
	})
}

type describeRoleInput struct {
	ofRole
	Description string
}

func updateRoleDescription(c *call, in *describeRoleInput) (*oneRole, error) {
	if err := changeRole(c, &in.ofRole, func(r *cloud.Role) { r.Description = in.Description }); err != nil {
		return nil, err
	}
	return getRole(c, &getRoleInput{in.ofRole})
}

// changeRole where what comes of it is a role still.
func changeRole(c *call, of *ofRole, change func(*cloud.Role)) error {
	r, err := of.find(c)
	if err != nil {
		return err
	}
	changed := *r
	change(&changed)
	if err := checkRole(&changed); err != nil {
		return err
	}
	roles.edit(c, r, change)
	return nil
}

type deleteRoleInput struct{ ofRole }

func deleteRole(c *call, in *deleteRoleInput) (*none, error) {
	r, err := in.find(c)
	if err != nil {
		return nil, err
	}
	switch {
	case len(r.Attached) > 0:
		return nil, conflict("Cannot delete entity, must detach all policies first.")
	case len(r.Inline) > 0:
		return nil, conflict("Cannot delete entity, must delete policies first.")
	case len(profilesOf(c.tx, r)) > 0:
		return nil, conflict("Cannot delete entity, must remove roles from instance profile first.")
	}
	roles.remove(c, r)
	return &none{}, nil
}
