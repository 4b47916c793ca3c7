package iam

import (
	"slices"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// ofProfile is embedded by the inputs that name an instance profile.
type ofProfile struct {
	common
	InstanceProfileName string `wire:"InstanceProfileName,required"`
}

func (o *ofProfile) arn(c *call) string {
	return profiles.arn(c.read, c.account, o.InstanceProfileName)
}

func (o *ofProfile) find(c *call) (*cloud.InstanceProfile, error) {
	return profiles.find(c.read, c.account, o.InstanceProfileName)
}

func (o *ofProfile) tagsOf(c *call) (map[string]string, func(map[string]string), error) {
	p, err := o.find(c)
	return bear(profiles, c, p, err)
}

type aProfile struct {
	Path, InstanceProfileName string
	InstanceProfileID         string `xml:"InstanceProfileId"`
	Arn                       string
	CreateDate                *wire.Time
	Roles                     []aRole `xml:"Roles>member"`
	Tags                      []tag   `xml:"Tags>member"`
}

func profileReply(r state.Reader) func(*cloud.InstanceProfile) aProfile {
	return func(p *cloud.InstanceProfile) aProfile {
		out := aProfile{p.Path, p.Name, p.ID, profiles.arnOf(p), wire.At(p.CreatedAt), []aRole{}, tagList(p.Tags)}
		if role, _, ok := state.Roles.Get(r, p.Role); ok {
			out.Roles = append(out.Roles, roleReply(role))
		}
		return out
	}
}

type createProfileInput struct {
	ofProfile
	tagged
	Path string
}

type oneProfile struct{ InstanceProfile aProfile }

func createProfile(c *call, in *createProfileInput) (*oneProfile, error) {
	e, err := profiles.entity(c, in.InstanceProfileName, in.Path, in.Tags)
	if err != nil {
		return nil, err
	}
	p := cloud.InstanceProfile{Entity: e}
	state.InstanceProfiles.Put(c.tx, p)
	return &oneProfile{profileReply(c.tx)(&p)}, c.within("iam:quota-instanceprofilenumber", len(profiles.under(c.tx, c.account, "/")))
}

type getProfileInput struct{ ofProfile }

func getProfile(c *call, in *getProfileInput) (*oneProfile, error) {
	p, err := in.find(c)
	if err != nil {
		return nil, err
	}
	return &oneProfile{profileReply(c.read)(p)}, nil
}

type listProfilesInput struct{ underPath }

type listProfilesReply struct {
	InstanceProfiles []aProfile `xml:"InstanceProfiles>member"`
	page
}

func listProfiles(c *call, in *listProfilesInput) (*listProfilesReply, error) {
	list, p, err := cut(in.paged, profiles.under(c.read, c.account, in.prefix()), profiles.key)
	return &listProfilesReply{each(list, profileReply(c.read)), p}, err
}

type profilesForRoleInput struct {
	ofRole
	paged
}

func listProfilesForRole(c *call, in *profilesForRoleInput) (*listProfilesReply, error) {
	r, err := in.find(c)
	if err != nil {
		return nil, err
	}
	list, p, err := cut(in.paged, profilesOf(c.read, r), profiles.key)
	return &listProfilesReply{each(list, profileReply(c.read)), p}, err
}

// profilesOf a role, sorted by name.
func profilesOf(r state.Reader, role *cloud.Role) (list []*cloud.InstanceProfile) {
	for p := range state.InstanceProfilesByRole.By(r, role.ID) {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *cloud.InstanceProfile) int {
		return strings.Compare(profiles.key(a), profiles.key(b))
	})
	return list
}

type profileRoleInput struct {
	ofProfile
	RoleName string `wire:"RoleName,required"`
}

// addRoleToProfile needs the right to pass the role on, too. It writes the role
// so that one that is deleted at the same time is noticed.
func addRoleToProfile(c *call, in *profileRoleInput) (*none, error) {
	p, err := in.find(c)
	if err != nil {
		return nil, err
	}
	role, err := roles.find(c.tx, c.account, in.RoleName)
	if err != nil {
		return nil, err
	}
	if err := c.Authorize(c.principal, "iam:PassRole", roles.arnOf(role)); err != nil {
		return nil, wire.Errorf("AccessDenied", "User: %s is not authorized to perform: iam:PassRole on resource: %s", c.principal.ARN(), roles.arnOf(role))
	}
	if p.Role != "" {
		return nil, tooMany("InstanceSessionsPerInstanceProfile", 1)
	}
	profiles.edit(c, p, func(p *cloud.InstanceProfile) { p.Role = role.ID })
	roles.edit(c, role, func(*cloud.Role) {})
	return &none{}, nil
}

func removeRoleFromProfile(c *call, in *profileRoleInput) (*none, error) {
	p, err := in.find(c)
	if err != nil {
		return nil, err
	}
	role, err := roles.find(c.tx, c.account, in.RoleName)
	if err != nil {
		return nil, err
	}
	if p.Role != role.ID {
		return nil, wire.Errorf("NoSuchEntity", "The role %s is not in the instance profile %s.", role.Name, p.Name)
	}
	profiles.edit(c, p, func(p *cloud.InstanceProfile) { p.Role = "" })
	return &none{}, nil
}

type deleteProfileInput struct{ ofProfile }

func deleteProfile(c *call, in *deleteProfileInput) (*none, error) {
	p, err := in.find(c)
	if err != nil {
		return nil, err
	}
	if p.Role != "" {
		return nil, conflict("Cannot delete entity, must remove roles from instance profile first.")
	}
	profiles.remove(c, p)
	return &none{}, nil
}
