package ec2

import (
	"slices"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

type snapshotAttributeInput struct {
	common
	SnapshotID string `wire:"SnapshotId,required"`
	Attribute  string `wire:"Attribute,required,enum=createVolumePermission|productCodes"`
}

// snapshotAttributeReply has one of its attributes.
type snapshotAttributeReply struct {
	ID           string             `xml:"snapshotId"`
	Permissions  *permissionsReply  `xml:"createVolumePermission"`
	ProductCodes *productCodesReply `xml:"productCodes"`
}

func describeSnapshotAttribute(c *call, in *snapshotAttributeInput) (*snapshotAttributeReply, error) {
	s, err := c.ownSnapshot(in.SnapshotID)
	if err != nil {
		return nil, err
	}
	out := &snapshotAttributeReply{ID: string(s.ID)}
	if in.Attribute == "productCodes" {
		out.ProductCodes = &productCodesReply{}
		return out, nil
	}
	out.Permissions = &permissionsReply{}
	if s.Public {
		out.Permissions.Items = append(out.Permissions.Items, permissionReply{Group: "all"})
	}
	for _, account := range s.SharedWith {
		out.Permissions.Items = append(out.Permissions.Items, permissionReply{UserID: string(account)})
	}
	return out, nil
}

// modifySnapshotAttributeInput has the forms of old and new clients.
type modifySnapshotAttributeInput struct {
	common
	SnapshotID             string   `wire:"SnapshotId,required"`
	Attribute              string   `wire:"Attribute,enum=createVolumePermission"`
	OperationType          string   `wire:"OperationType,enum=add|remove"`
	UserID                 []string `wire:"UserId,max=1000"`
	UserGroup              []string `wire:"UserGroup,max=1000"`
	CreateVolumePermission *volumePermissions
}

type volumePermissions struct {
	Add    []volumePermission `wire:"Add,max=1000"`
	Remove []volumePermission `wire:"Remove,max=1000"`
}

// volumePermission to make volumes of a snapshot: of an account, or of everybody.
type volumePermission struct {
	UserID string `wire:"UserId"`
	Group  string
}

// modifySnapshotAttribute shares a snapshot, and takes that back.
func modifySnapshotAttribute(c *call, in *modifySnapshotAttributeInput) (*reply, error) {
	s, err := c.ownSnapshot(in.SnapshotID)
	if err != nil {
		return nil, err
	}
	changes, err := in.changes()
	if err != nil {
		return nil, err
	}
	changed := *s
	changed.SharedWith = slices.Clone(s.SharedWith)
	for _, p := range changes.Add {
		if err := c.shareSnapshot(&changed, p); err != nil {
			return nil, err
		}
	}
	for _, p := range changes.Remove {
		if err := unshareSnapshot(&changed, p); err != nil {
			return nil, err
		}
	}
	slices.Sort(changed.SharedWith)
	changed.SharedWith = slices.Compact(changed.SharedWith)
	if len(changed.SharedWith) > maxShares {
		return nil, wire.Errorf("ResourceLimitExceeded", "The snapshot %s would be shared with %d accounts; at most %d are allowed", s.ID, len(changed.SharedWith), maxShares)
	}
	state.Snapshots.Put(c.tx, changed)
	return accepted()
}

// changes of the permissions, in whichever form they were said.
func (in *modifySnapshotAttributeInput) changes() (volumePermissions, error) {
	var list []volumePermission
	for _, id := range in.UserID {
		list = append(list, volumePermission{UserID: id})
	}
	for _, group := range in.UserGroup {
		list = append(list, volumePermission{Group: group})
	}
	named := in.CreateVolumePermission
	switch {
	case named != nil && len(list) > 0:
		return volumePermissions{}, wire.InvalidParameterCombination("The permissions are given by CreateVolumePermission or by UserId and UserGroup, not both")
	case named != nil && len(named.Add)+len(named.Remove) > 0:
		return *named, nil
	case len(list) == 0:
		return volumePermissions{}, wire.Errorf("MissingParameter", "The request must contain the parameter CreateVolumePermission, or UserId or UserGroup")
	case in.OperationType == "":
		return volumePermissions{}, wire.MissingParameter("OperationType")
	case in.OperationType == "add":
		return volumePermissions{Add: list}, nil
	}
	return volumePermissions{Remove: list}, nil
}

// check that the permission is one.
func (p volumePermission) check() error {
	switch {
	case p.Group == "" && p.UserID == "":
		return wire.Errorf("MissingParameter", "A permission must contain a UserId or a Group")
	case p.Group != "" && p.UserID != "":
		return wire.InvalidParameterCombination("A permission is one of UserId and Group, not both")
	case p.Group != "" && p.Group != "all":
		return wire.InvalidParameterValue("Group", p.Group, "Expecting all.")
	case p.UserID != "" && !accountForm.MatchString(p.UserID):
		return wire.InvalidParameterValue("UserId", p.UserID, "Expecting the number of an account, 12 digits.")
	}
	return nil
}

func (c *call) shareSnapshot(s *cloud.Snapshot, p volumePermission) error {
	if err := p.check(); err != nil {
		return err
	}
	if p.Group != "" {
		s.Public = true
		return nil
	}
	if _, _, ok := state.Accounts.Get(c.read, cloud.AccountID(p.UserID)); !ok {
		return wire.InvalidParameterValue("UserId", p.UserID, "There is no such account.")
	}
	s.SharedWith = append(s.SharedWith, cloud.AccountID(p.UserID))
	return nil
}

// unshareSnapshot also with an account that is gone.
func unshareSnapshot(s *cloud.Snapshot, p volumePermission) error {
	if err := p.check(); err != nil {
		return err
	}
	if p.Group != "" {
		s.Public = false
		return nil
	}
	s.SharedWith = slices.DeleteFunc(s.SharedWith, func(a cloud.AccountID) bool { return a == cloud.AccountID(p.UserID) })
	return nil
}

type resetSnapshotAttributeInput struct {
	common
	SnapshotID string `wire:"SnapshotId,required"`
	Attribute  string `wire:"Attribute,required,enum=createVolumePermission"`
}

// resetSnapshotAttribute makes the snapshot its owner's alone.
func resetSnapshotAttribute(c *call, in *resetSnapshotAttributeInput) (*reply, error) {
	s, err := c.ownSnapshot(in.SnapshotID)
	if err != nil {
		return nil, err
	}
	if s.Public || len(s.SharedWith) > 0 {
		private := *s
		private.Public, private.SharedWith = false, nil
		state.Snapshots.Put(c.tx, private)
	}
	return accepted()
}
