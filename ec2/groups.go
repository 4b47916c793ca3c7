package ec2

import (
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"slices"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// defaultGroup of an account. Its id follows from the account's, so that it is
// there before anything made it; its record is made by the first launch.
func (c *call) defaultGroup() *cloud.SecurityGroup {
	sum := sha256.Sum256([]byte("security group default of " + c.account()))
	id := cloud.GroupID(cloud.PrefixGroup + "-" + hex.EncodeToString(sum[:4]))
	if g, _, ok := state.SecurityGroups.Get(c.read, id); ok {
		return g
	}
	return &cloud.SecurityGroup{ID: id, Account: c.account(), Name: cloud.DefaultGroup, Description: "default group", CreatedAt: c.Now()}
}

// accountGroups are the security groups there are: until rules are served, the
// default one alone.
func (c *call) accountGroups() []*cloud.SecurityGroup {
	return []*cloud.SecurityGroup{c.defaultGroup()}
}

// launchGroups are those that a launch names, by name or id, or the default
// one. They are put on record.
func (c *call) launchGroups(in *runInput) ([]cloud.Group, error) {
	var groups []cloud.Group
	add := func(g *cloud.SecurityGroup, err error) error {
		if err != nil {
			return err
		}
		if !slices.Contains(groups, g.Ref()) {
			groups = append(groups, g.Ref())
		}
		state.SecurityGroups.Put(c.tx, *g)
		return c.may(c.arn(g.Account, "security-group", string(g.ID)))
	}
	for _, name := range in.SecurityGroup {
		if err := add(c.groupByName(name)); err != nil {
			return nil, err
		}
	}
	for _, id := range in.SecurityGroupID {
		if err := add(c.groupByID(id)); err != nil {
			return nil, err
		}
	}
	if len(groups) == 0 {
		return groups, add(c.defaultGroup(), nil)
	}
	return groups, nil
}

func (c *call) groupByName(name string) (*cloud.SecurityGroup, error) {
	for _, g := range c.accountGroups() {
		if g.Name == name {
			return g, nil
		}
	}
	return nil, wire.Errorf("InvalidGroup.NotFound", "The security group '%s' does not exist", wire.Shorten(name))
}

func (c *call) groupByID(id string) (*cloud.SecurityGroup, error) {
	parsed, ok := cloud.ParseID(id, cloud.PrefixGroup)
	if !ok {
		return nil, malformed("InvalidGroupId", id, cloud.PrefixGroup)
	}
	for _, g := range c.accountGroups() {
		if string(g.ID) == parsed {
			return g, nil
		}
	}
	return nil, wire.Errorf("InvalidGroup.NotFound", "The security group ID '%s' does not exist", parsed)
}

type describeGroupsInput struct {
	common
	selection
	GroupID   []string `wire:"GroupId,max=1000"`
	GroupName []string `wire:"GroupName,max=1000"`
}

type describeGroupsReply struct {
	Groups    []groupReply `xml:"securityGroupInfo>item"`
	NextToken string       `xml:"nextToken,omitempty"`
}

type groupReply struct {
	Owner       string   `xml:"ownerId"`
	ID          string   `xml:"groupId"`
	Name        string   `xml:"groupName"`
	Description string   `xml:"groupDescription"`
	Ingress     []string `xml:"ipPermissions>item"`       // no rule can be made yet
	Egress      []string `xml:"ipPermissionsEgress>item"` // nor here
	Tags        []tag    `xml:"tagSet>item"`
}

var groupKind = kind[*cloud.SecurityGroup]{
	key:  func(g *cloud.SecurityGroup) string { return string(g.ID) },
	tags: func(c *call, g *cloud.SecurityGroup) map[string]string { return c.tagsOf(string(g.ID)) },
	fields: fields[*cloud.SecurityGroup]{
		"description": text(func(g *cloud.SecurityGroup) string { return g.Description }),
		"group-id":    text(func(g *cloud.SecurityGroup) string { return string(g.ID) }),
		"group-name":  text(func(g *cloud.SecurityGroup) string { return g.Name }),
		"owner-id":    text(func(g *cloud.SecurityGroup) string { return string(g.Account) }),
		"vpc-id":      fixed[*cloud.SecurityGroup](""),
	},
}

func describeGroups(c *call, in *describeGroupsInput) (*describeGroupsReply, error) {
	candidates, err := c.groupCandidates(in)
	if err != nil {
		return nil, err
	}
	p, err := groupKind.page(c, &in.selection, candidates)
	if err != nil {
		return nil, err
	}
	out := &describeGroupsReply{NextToken: p.next}
	for _, g := range p.items {
		out.Groups = append(out.Groups, groupReply{
			Owner: string(g.Account), ID: string(g.ID), Name: g.Name, Description: g.Description, Tags: c.tagSet(string(g.ID)),
		})
	}
	return out, nil
}

func (c *call) groupCandidates(in *describeGroupsInput) (iter.Seq[*cloud.SecurityGroup], error) {
	if len(in.GroupID)+len(in.GroupName) == 0 {
		return sorted(c.accountGroups(), groupKind.key), nil
	}
	var named []*cloud.SecurityGroup
	for _, id := range in.GroupID {
		g, err := c.groupByID(id)
		if err != nil {
			return nil, err
		}
		named = append(named, g)
	}
	for _, name := range in.GroupName {
		g, err := c.groupByName(name)
		if err != nil {
			return nil, err
		}
		named = append(named, g)
	}
	return sorted(named, groupKind.key), nil
}
