package ec2

import (
	"iter"
	"slices"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// Limits of security groups, as EC2 has them.
const (
	maxGroups           = 2500 // of an account
	maxGroupRules       = 60   // of a group, in each direction
	maxGroupsOfInstance = 16
	maxGroupText        = 255 // characters of a name or a description
)

// groupsMade is the kind of the guards that count an account's groups.
const groupsMade = "groups-made"

// defaultGroup of the caller's account. It is there before anything made it; its
// record is made by the first launch, or by the first change of its rules.
func (c *call) defaultGroup() *cloud.SecurityGroup { return c.defaultGroupOf(c.account()) }

func (c *call) defaultGroupOf(account cloud.AccountID) *cloud.SecurityGroup {
	fresh := cloud.NewDefaultGroup(account, c.Now())
	if g, _, ok := state.SecurityGroups.Get(c.read, fresh.ID); ok {
		return g
	}
	return fresh
}

// accountGroups are the security groups of the caller's account.
func (c *call) accountGroups() []*cloud.SecurityGroup {
	d := c.defaultGroup()
	groups := []*cloud.SecurityGroup{d}
	for g := range state.GroupsByAccount.By(c.read, c.account()) {
		if g.ID != d.ID {
			groups = append(groups, g)
		}
	}
	return groups
}

// launchGroups are those that a launch names, by name or id, or the default
// one. They are put on record.
func (c *call) launchGroups(in *runInput) ([]cloud.Group, error) {
	return c.instanceGroups(in.SecurityGroup, in.SecurityGroupID)
}

// instanceGroups are the groups for an instance of the caller's.
func (c *call) instanceGroups(names, ids []string) ([]cloud.Group, error) {
	list, err := c.groupsNamed(names, ids)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		list = []*cloud.SecurityGroup{c.defaultGroup()}
	}
	var groups []cloud.Group
	for _, g := range list {
		if slices.Contains(groups, g.Ref()) {
			continue
		}
		if err := c.may(c.arn(g.Account, "security-group", string(g.ID))); err != nil {
			return nil, err
		}
		groups = append(groups, g.Ref())
		state.SecurityGroups.Put(c.tx, *g)
	}
	if len(groups) > maxGroupsOfInstance {
		return nil, wire.Errorf("SecurityGroupsPerInstanceLimitExceeded", "An instance is in at most %d security groups, and %d are named", maxGroupsOfInstance, len(groups))
	}
	return groups, nil
}

// groupsNamed by name or id.
func (c *call) groupsNamed(names, ids []string) (named []*cloud.SecurityGroup, err error) {
	for _, id := range ids {
		g, err := c.groupByID(id)
		if err != nil {
			return nil, err
		}
		named = append(named, g)
	}
	for _, name := range names {
		g, err := c.groupByName(name)
		if err != nil {
			return nil, err
		}
		named = append(named, g)
	}
	return named, nil
}

func (c *call) groupByName(name string) (*cloud.SecurityGroup, error) {
	return c.groupOf(c.account(), name)
}

// groupOf an account, by its name.
func (c *call) groupOf(account cloud.AccountID, name string) (*cloud.SecurityGroup, error) {
	if name == cloud.DefaultGroup {
		return c.defaultGroupOf(account), nil
	}
	id := state.Owner(c.read, state.GroupName, state.GroupNameGuard(account, name))
	if g, _, ok := state.SecurityGroups.Get(c.read, cloud.GroupID(id)); ok {
		return g, nil
	}
	return nil, wire.Errorf("InvalidGroup.NotFound", "The security group '%s' does not exist", wire.Shorten(name))
}

// groupByID is a group that the caller may see.
func (c *call) groupByID(id string) (*cloud.SecurityGroup, error) {
	g, err := c.anyGroup(id)
	if err != nil {
		return nil, err
	}
	if !c.owned(g.Account) {
		return nil, noGroup(g.ID)
	}
	return g, nil
}

// anyGroup is whosever.
func (c *call) anyGroup(id string) (*cloud.SecurityGroup, error) {
	parsed, ok := cloud.ParseID(id, cloud.PrefixGroup)
	if !ok {
		return nil, malformed("InvalidGroupId", id, cloud.PrefixGroup)
	}
	if g, _, ok := state.SecurityGroups.Get(c.read, cloud.GroupID(parsed)); ok {
		return g, nil
	}
	if g := c.defaultGroup(); string(g.ID) == parsed {
		return g, nil
	}
	return nil, noGroup(cloud.GroupID(parsed))
}

func noGroup(id cloud.GroupID) error {
	return wire.Errorf("InvalidGroup.NotFound", "The security group ID '%s' does not exist", id)
}

// groupToChange is named by id, or of one's own by name, and the caller may change
// it.
func (c *call) groupToChange(id, name string) (g *cloud.SecurityGroup, err error) {
	switch {
	case id != "":
		g, err = c.groupByID(id)
	case name != "":
		g, err = c.groupByName(name)
	default:
		err = wire.Errorf("MissingParameter", "The request must contain the parameter GroupId or GroupName")
	}
	if err == nil && id != "" && name != "" && g.Name != name {
		err = wire.InvalidParameterCombination("GroupId %s and GroupName %s are of different security groups", g.ID, wire.Shorten(name))
	}
	if err != nil {
		return nil, err
	}
	return g, c.may(c.arn(g.Account, "security-group", string(g.ID)))
}

type createGroupInput struct {
	common
	tagged
	GroupName        string `wire:"GroupName,required"`
	GroupDescription string `wire:"GroupDescription,required"`
	VpcID            string `wire:"VpcId"`
}

type createGroupReply struct {
	ID   string `xml:"groupId"`
	Tags []tag  `xml:"tagSet>item"`
}

// createGroup lets everything out and nothing in, as in EC2.
func createGroup(c *call, in *createGroupInput) (*createGroupReply, error) {
	if err := c.checkNewGroup(in); err != nil {
		return nil, err
	}
	id, err := c.newID(cloud.PrefixGroup, has(c.tx, state.SecurityGroups))
	if err != nil {
		return nil, err
	}
	rule, err := c.newRuleID()
	if err != nil {
		return nil, err
	}
	if err := c.tx.Claim(state.GroupName, state.GroupNameGuard(c.account(), in.GroupName), id); err != nil {
		return nil, err
	}
	if n := c.tx.Add(groupsMade, string(c.account()), 1); n > maxGroups {
		return nil, wire.Errorf("SecurityGroupLimitExceeded", "An account has at most %d security groups", maxGroups)
	}
	state.PutGroup(c.tx, cloud.SecurityGroup{
		ID: cloud.GroupID(id), Account: c.account(), Name: in.GroupName, Description: in.GroupDescription, CreatedAt: c.Now(),
		Rules: []cloud.GroupRule{cloud.OutgoingRule(rule)},
	})
	return &createGroupReply{id, c.tagSet(id)}, c.tagNew("security-group", id)
}

func (c *call) checkNewGroup(in *createGroupInput) error {
	err := firstError(
		c.may(c.arn(c.account(), "security-group", "*")),
		checkGroupText("GroupName", in.GroupName), checkGroupText("GroupDescription", in.GroupDescription), c.checkVPC(in.VpcID),
	)
	switch {
	case err != nil:
		return err
	case in.GroupName == cloud.DefaultGroup:
		return wire.Errorf("InvalidGroup.Reserved", "The security group name '%s' is reserved: every account has that group", in.GroupName)
	case strings.HasPrefix(strings.ToLower(in.GroupName), "sg-"):
		return wire.InvalidParameterValue("GroupName", in.GroupName, "Group names may not be in the format sg-*.")
	case strings.TrimSpace(in.GroupName) != in.GroupName:
		return wire.InvalidParameterValue("GroupName", in.GroupName, "A name neither begins nor ends with a space.")
	case state.Owner(c.read, state.GroupName, state.GroupNameGuard(c.account(), in.GroupName)) != "":
		return wire.Errorf("InvalidGroup.Duplicate", "The security group '%s' already exists", in.GroupName)
	}
	return nil
}

// checkGroupText holds names and descriptions of groups and rules to what EC2
// takes.
func checkGroupText(name, value string) error {
	if len(value) > maxGroupText {
		return wire.InvalidParameterValue(name, value, "At most %d characters are allowed.", maxGroupText)
	}
	if strings.ContainsFunc(value, func(r rune) bool { return !groupRune(r) }) {
		return wire.InvalidParameterValue(name, value, "Valid characters are a-z, A-Z, 0-9, spaces and ._-:/()#,@[]+=&;{}!$*")
	}
	return nil
}

func groupRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" ._-:/()#,@[]+=&;{}!$*", r)
}

type deleteGroupInput struct {
	common
	GroupID   string `wire:"GroupId"`
	GroupName string `wire:"GroupName"`
}

type deleteGroupReply struct {
	reply
	ID string `xml:"groupId"`
}

// deleteGroup that neither an instance nor another group's rule names.
func deleteGroup(c *call, in *deleteGroupInput) (*deleteGroupReply, error) {
	g, err := c.groupToChange(in.GroupID, in.GroupName)
	switch {
	case err != nil:
		return nil, err
	case g.Name == cloud.DefaultGroup:
		return nil, wire.Errorf("CannotDelete", "the specified group: \"%s\" name: \"default\" cannot be deleted by a user", g.ID)
	case state.Count(c.tx, state.GroupUse, string(g.ID)) > 0 && in.GroupID == "":
		return nil, wire.Errorf("InvalidGroup.InUse", "The security group '%s' is in use by an instance or by another group's rule", g.Name)
	case state.Count(c.tx, state.GroupUse, string(g.ID)) > 0:
		return nil, wire.Errorf("DependencyViolation", "resource %s has a dependent object: an instance is in it, or another group's rule names it", g.ID)
	}
	state.DeleteGroup(c.tx, g)
	c.tx.Add(groupsMade, string(g.Account), -1)
	return &deleteGroupReply{reply{true}, string(g.ID)}, nil
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
	Owner       string            `xml:"ownerId"`
	ID          string            `xml:"groupId"`
	Name        string            `xml:"groupName"`
	Description string            `xml:"groupDescription"`
	VPC         string            `xml:"vpcId"`
	Ingress     []permissionShown `xml:"ipPermissions>item"`
	Egress      []permissionShown `xml:"ipPermissionsEgress>item"`
	Tags        []tag             `xml:"tagSet>item"`
}

func (c *call) groupReply(g *cloud.SecurityGroup) groupReply {
	return groupReply{
		Owner: string(g.Account), ID: string(g.ID), Name: g.Name, Description: g.Description, VPC: vpcOf(g.Account),
		Ingress: c.permissions(g, false), Egress: c.permissions(g, true), Tags: c.tagSet(string(g.ID)),
	}
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
		out.Groups = append(out.Groups, c.groupReply(g))
	}
	return out, nil
}

func (c *call) groupCandidates(in *describeGroupsInput) (iter.Seq[*cloud.SecurityGroup], error) {
	names, everybody := c.everybody(in.GroupName)
	switch {
	case everybody:
		return firsts(state.SecurityGroups.All(c.read)), nil
	case len(in.GroupID)+len(names) == 0:
		return sorted(c.accountGroups(), groupKind.key), nil
	}
	named, err := c.groupsNamed(names, in.GroupID)
	return sorted(named, groupKind.key), err
}
