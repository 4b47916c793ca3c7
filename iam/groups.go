package iam

import (
	"slices"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// maxGroups is how many groups a user may be in, as in AWS.
const maxGroups = 10

// ofGroup is embedded by the inputs that name a group.
type ofGroup struct {
	common
	GroupName string `wire:"GroupName,required"`
}

func (o *ofGroup) arn(c *call) string { return groups.arn(c.read, c.account, o.GroupName) }
func (o *ofGroup) find(c *call) (*cloud.UserGroup, error) {
	return groups.find(c.read, c.account, o.GroupName)
}

type aGroup struct {
	Path, GroupName string
	GroupID         string `xml:"GroupId"`
	Arn             string
	CreateDate      *wire.Time
}

func groupReply(g *cloud.UserGroup) aGroup {
	return aGroup{g.Path, g.Name, g.ID, groups.arnOf(g), wire.At(g.CreatedAt)}
}

type createGroupInput struct {
	ofGroup
	Path string
}

type oneGroup struct{ Group aGroup }

func createGroup(c *call, in *createGroupInput) (*oneGroup, error) {
	e, err := groups.entity(c, in.GroupName, in.Path, nil)
	if err != nil {
		return nil, err
	}
	g := cloud.UserGroup{Entity: e}
	state.UserGroups.Put(c.tx, g)
	return &oneGroup{groupReply(&g)}, c.within("iam:quota-groupnumber", len(groups.under(c.tx, c.account, "/")))
}

type getGroupInput struct {
	ofGroup
	paged
}

type getGroupReply struct {
	Group aGroup
	Users []aUser `xml:"Users>member"`
	page
}

func getGroup(c *call, in *getGroupInput) (*getGroupReply, error) {
	g, err := in.find(c)
	if err != nil {
		return nil, err
	}
	list, p, err := cut(in.paged, membersOf(c.read, g), users.key)
	return &getGroupReply{groupReply(g), each(list, userReply), p}, err
}

// membersOf a group, sorted by name.
func membersOf(r state.Reader, g *cloud.UserGroup) (list []*cloud.User) {
	for u := range state.UsersByGroup.By(r, g.ID) {
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b *cloud.User) int { return strings.Compare(users.key(a), users.key(b)) })
	return list
}

type listGroupsInput struct{ underPath }

type listGroupsReply struct {
	Groups []aGroup `xml:"Groups>member"`
	page
}

func listGroups(c *call, in *listGroupsInput) (*listGroupsReply, error) {
	list, p, err := cut(in.paged, groups.under(c.read, c.account, in.prefix()), groups.key)
	return &listGroupsReply{each(list, groupReply), p}, err
}

type groupsForUserInput struct {
	ofUser
	paged
}

func listGroupsForUser(c *call, in *groupsForUserInput) (*listGroupsReply, error) {
	u, err := in.find(c)
	if err != nil {
		return nil, err
	}
	all := groupsOf(c.read, u)
	slices.SortFunc(all, func(a, b *cloud.UserGroup) int { return strings.Compare(groups.key(a), groups.key(b)) })
	list, p, err := cut(in.paged, all, groups.key)
	return &listGroupsReply{each(list, groupReply), p}, err
}

type updateGroupInput struct {
	ofGroup
	NewGroupName, NewPath string
}

func updateGroup(c *call, in *updateGroupInput) (*none, error) {
	g, err := in.find(c)
	if err != nil {
		return nil, err
	}
	return &none{}, groups.rename(c, g, in.NewGroupName, in.NewPath)
}

type deleteGroupInput struct{ ofGroup }

func deleteGroup(c *call, in *deleteGroupInput) (*none, error) {
	g, err := in.find(c)
	if err != nil {
		return nil, err
	}
	switch {
	case len(membersOf(c.tx, g)) > 0:
		return nil, conflict("Cannot delete entity, must remove users from group first.")
	case len(g.Attached) > 0:
		return nil, conflict("Cannot delete entity, must detach all policies first.")
	case len(g.Inline) > 0:
		return nil, conflict("Cannot delete entity, must delete policies first.")
	}
	groups.remove(c, g)
	return &none{}, nil
}

type membershipInput struct {
	ofGroup
	UserName string `wire:"UserName,required"`
}

func (in *membershipInput) both(c *call) (*cloud.UserGroup, *cloud.User, error) {
	g, err := in.find(c)
	if err != nil {
		return nil, nil, err
	}
	u, err := users.find(c.tx, c.account, in.UserName)
	return g, u, err
}

// addUserToGroup writes the group too, so that one that is deleted at the same
// time is noticed.
func addUserToGroup(c *call, in *membershipInput) (*none, error) {
	g, u, err := in.both(c)
	if err != nil || slices.Contains(u.Groups, g.ID) {
		return &none{}, err
	}
	if len(u.Groups) >= maxGroups {
		return nil, tooMany("GroupsPerUser", maxGroups)
	}
	users.edit(c, u, func(u *cloud.User) { u.Groups = append(u.Groups, g.ID) })
	groups.edit(c, g, func(*cloud.UserGroup) {})
	return &none{}, nil
}

func removeUserFromGroup(c *call, in *membershipInput) (*none, error) {
	g, u, err := in.both(c)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(u.Groups, g.ID) {
		return nil, wire.Errorf("NoSuchEntity", "The user %s is not in the group %s.", u.Name, g.Name)
	}
	users.edit(c, u, func(u *cloud.User) {
		u.Groups = slices.DeleteFunc(u.Groups, func(id string) bool { return id == g.ID })
	})
	return &none{}, nil
}
