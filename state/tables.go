package state

import (
	"slices"
	"strings"

	"mallee/cloud"
)

// The tables, and who writes them. Whatever is not said to be written by a
// loop (package controller) is written by the API alone.
var (
	Accounts     = NewTable("account", func(a *cloud.Account) cloud.AccountID { return a.ID })
	Users        = NewTable("user", func(u *cloud.User) string { return u.ID })
	AccessKeys   = NewTable("access-key", func(k *cloud.AccessKey) string { return k.ID })
	Certificates = NewTable("certificate", func(c *cloud.SigningCertificate) string { return c.ID })

	UserGroups         = NewTable("user-group", func(g *cloud.UserGroup) string { return g.ID })
	Roles              = NewTable("role", func(r *cloud.Role) string { return r.ID })
	InstanceProfiles   = NewTable("instance-profile", func(p *cloud.InstanceProfile) string { return p.ID })
	ManagedPolicies    = NewTable("managed-policy", func(p *cloud.ManagedPolicy) string { return p.ID })
	ServerCertificates = NewTable("server-certificate", func(c *cloud.ServerCertificate) string { return c.ID })
	Providers          = NewTable("oidc-provider", func(p *cloud.Provider) string { return p.ARN })
	Sessions           = NewTable("session", func(s *cloud.Session) string { return s.ID })
	KeyUses            = NewTable("key-use", func(u *cloud.KeyUse) string { return u.Key })

	Images       = NewTable("image", func(i *cloud.Image) cloud.ImageID { return i.ID })
	KeyPairs     = NewTable("key-pair", func(k *cloud.KeyPair) cloud.KeyPairID { return k.ID })
	Instances    = NewTable("instance", func(i *cloud.Instance) cloud.InstanceID { return i.ID }) // the loops change its wish too
	Reservations = NewTable("reservation", func(r *cloud.Reservation) cloud.ReservationID { return r.ID })
	TagSets      = NewTable("tag", func(t *cloud.TagSet) string { return t.Resource })

	Volumes   = NewTable("volume", func(v *cloud.Volume) cloud.VolumeID { return v.ID })       // the loops fill, detach and forget it too
	Snapshots = NewTable("snapshot", func(s *cloud.Snapshot) cloud.SnapshotID { return s.ID }) // the loops complete it
	Tasks     = NewTable("task", func(t *cloud.Task) cloud.TaskID { return t.ID })             // the loops finish it

	SecurityGroups = NewTable("security-group", func(g *cloud.SecurityGroup) cloud.GroupID { return g.ID }, giveDefaultRules)
	Addresses      = NewTable("address", func(a *cloud.Address) cloud.AllocationID { return a.ID }) // the loops take it off an instance that is gone
	ClientTokens   = NewTable("client-token", func(t *cloud.ClientToken) string { return ClientTokenKey(t.Account, t.Action, t.Token) })

	Nodes        = NewTable("node", func(n *cloud.Node) cloud.NodeID { return n.ID })                         // by all who place, wish or release
	Observations = NewTable("observation", func(o *cloud.Observation) cloud.InstanceID { return o.Instance }) // by the loops alone; Start forgets one

	VolumeObservations   = NewTable("volume-observation", func(o *cloud.VolumeObservation) cloud.VolumeID { return o.Volume })         // by the loops alone
	SnapshotObservations = NewTable("snapshot-observation", func(o *cloud.SnapshotObservation) cloud.SnapshotID { return o.Snapshot }) // by the loops alone
	TaskObservations     = NewTable("task-observation", func(o *cloud.TaskObservation) cloud.TaskID { return o.Task })                 // by the loops alone
)

var (
	UsersByAccount        = NewIndex(Users, "account", func(u *cloud.User) cloud.AccountID { return u.Account })
	AccessKeysByAccount   = NewIndex(AccessKeys, "account", func(k *cloud.AccessKey) cloud.AccountID { return k.Account })
	CertificatesByAccount = NewIndex(Certificates, "account", func(c *cloud.SigningCertificate) cloud.AccountID { return c.Account })

	UsersByName              = NewIndex(Users, "name", func(u *cloud.User) string { return EntityKey(u.Account, u.Name) })
	UserGroupsByName         = NewIndex(UserGroups, "name", func(g *cloud.UserGroup) string { return EntityKey(g.Account, g.Name) })
	RolesByName              = NewIndex(Roles, "name", func(r *cloud.Role) string { return EntityKey(r.Account, r.Name) })
	InstanceProfilesByName   = NewIndex(InstanceProfiles, "name", func(p *cloud.InstanceProfile) string { return EntityKey(p.Account, p.Name) })
	ManagedPoliciesByName    = NewIndex(ManagedPolicies, "name", func(p *cloud.ManagedPolicy) string { return EntityKey(p.Account, p.Name) })
	ServerCertificatesByName = NewIndex(ServerCertificates, "name", func(c *cloud.ServerCertificate) string { return EntityKey(c.Account, c.Name) })

	UserGroupsByAccount         = NewIndex(UserGroups, "account", func(g *cloud.UserGroup) cloud.AccountID { return g.Account })
	RolesByAccount              = NewIndex(Roles, "account", func(r *cloud.Role) cloud.AccountID { return r.Account })
	InstanceProfilesByAccount   = NewIndex(InstanceProfiles, "account", func(p *cloud.InstanceProfile) cloud.AccountID { return p.Account })
	ManagedPoliciesByAccount    = NewIndex(ManagedPolicies, "account", func(p *cloud.ManagedPolicy) cloud.AccountID { return p.Account })
	ServerCertificatesByAccount = NewIndex(ServerCertificates, "account", func(c *cloud.ServerCertificate) cloud.AccountID { return c.Account })
	ProvidersByAccount          = NewIndex(Providers, "account", func(p *cloud.Provider) cloud.AccountID { return p.Account })
	AccessKeysByUser            = NewIndex(AccessKeys, "user", func(k *cloud.AccessKey) string { return EntityKey(k.Account, k.User) })
	UsersByGroup                = NewListIndex(Users, "group", func(u *cloud.User) []string { return u.Groups })
	UsersByPolicy               = NewListIndex(Users, "policy", func(u *cloud.User) []string { return policiesOf(u.Grants) })
	UserGroupsByPolicy          = NewListIndex(UserGroups, "policy", func(g *cloud.UserGroup) []string { return policiesOf(g.Grants) })
	RolesByPolicy               = NewListIndex(Roles, "policy", func(r *cloud.Role) []string { return policiesOf(r.Grants) })
	InstanceProfilesByRole      = NewIndex(InstanceProfiles, "role", func(p *cloud.InstanceProfile) string { return p.Role })

	ImagesByAccount       = NewIndex(Images, "account", func(i *cloud.Image) cloud.AccountID { return i.Account })
	KeyPairsByAccount     = NewIndex(KeyPairs, "account", func(k *cloud.KeyPair) cloud.AccountID { return k.Account })
	InstancesByNode       = NewIndex(Instances, "node", func(i *cloud.Instance) cloud.NodeID { return i.Node })
	InstancesByGroup      = NewListIndex(Instances, "group", groupsOf)
	InstancesByImage      = NewListIndex(Instances, "image", imagesOf)
	ReservationsByAccount = NewIndex(Reservations, "account", func(r *cloud.Reservation) cloud.AccountID { return r.Account })
	VolumesByAccount      = NewIndex(Volumes, "account", func(v *cloud.Volume) cloud.AccountID { return v.Account })
	VolumesByNode         = NewIndex(Volumes, "node", func(v *cloud.Volume) cloud.NodeID { return v.Node })
	VolumesByInstance     = NewIndex(Volumes, "instance", attachedTo)
	SnapshotsByAccount    = NewIndex(Snapshots, "account", func(s *cloud.Snapshot) cloud.AccountID { return s.Account })
	SnapshotsByVolume     = NewIndex(Snapshots, "volume", func(s *cloud.Snapshot) cloud.VolumeID { return s.Volume })
	SnapshotsToTake       = NewIndex(Snapshots, "to-take", takenBy)
	ImagesBySnapshot      = NewListIndex(Images, "snapshot", snapshotsOf)
	TasksByAccount        = NewIndex(Tasks, "account", func(t *cloud.Task) cloud.AccountID { return t.Account })
	TasksToDo             = NewIndex(Tasks, "to-do", doneBy)
	GroupsByAccount       = NewIndex(SecurityGroups, "account", func(g *cloud.SecurityGroup) cloud.AccountID { return g.Account })
	GroupsByPeer          = NewListIndex(SecurityGroups, "peer", PeersOf)
	GroupsByRule          = NewListIndex(SecurityGroups, "rule", rulesOf)
	TagSetsByAccount      = NewIndex(TagSets, "account", func(t *cloud.TagSet) cloud.AccountID { return t.Account })
	TagSetsByTag          = NewListIndex(TagSets, "tag", tagsOf)
	ObservationsByPhase   = NewIndex(Observations, "phase", func(o *cloud.Observation) cloud.Phase { return o.Phase })

	VolumeObservationsByPhase = NewIndex(VolumeObservations, "phase", func(o *cloud.VolumeObservation) cloud.VolumePhase { return o.Phase })
)

// EntityKey is what an entity of IAM's stands under by its name, in which case
// doesn't count.
func EntityKey(account cloud.AccountID, name string) string {
	return string(account) + "/" + strings.ToLower(name)
}

// policiesOf are the managed policies that grants name, the boundary too.
func policiesOf(g cloud.Grants) []string {
	if g.Boundary == "" || slices.Contains(g.Attached, g.Boundary) {
		return g.Attached
	}
	return append(slices.Clone(g.Attached), g.Boundary)
}

// Of addresses, and the interfaces that they are on.
var (
	AddressesByAccount     = NewIndex(Addresses, "account", func(a *cloud.Address) cloud.AccountID { return a.Account })
	AddressesByInstance    = NewIndex(Addresses, "instance", func(a *cloud.Address) cloud.InstanceID { return a.Instance })
	AddressesByAssociation = NewIndex(Addresses, "association", func(a *cloud.Address) cloud.AssociationID { return a.Association })
	InstancesByInterface   = NewIndex(Instances, "interface", func(i *cloud.Instance) cloud.InterfaceID { return i.Interface() })
)

// imagesOf are the images that an instance was started from.
func imagesOf(i *cloud.Instance) []cloud.ImageID {
	ids := []cloud.ImageID{i.Image.ID}
	if i.Kernel != nil {
		ids = append(ids, i.Kernel.ID)
	}
	if i.Ramdisk != nil {
		ids = append(ids, i.Ramdisk.ID)
	}
	return ids
}

// attachedTo is the instance that a volume is wished to be attached to.
func attachedTo(v *cloud.Volume) cloud.InstanceID {
	if v.Attachment == nil {
		return ""
	}
	return v.Attachment.Instance
}

// takenBy is the node that should take the snapshot; none when it is finished.
func takenBy(s *cloud.Snapshot) cloud.NodeID {
	if s.State() != cloud.SnapshotPending {
		return ""
	}
	return s.Node
}

// doneBy is the node that should do the task; none when it is finished.
func doneBy(t *cloud.Task) cloud.NodeID {
	if !t.FinishedAt.IsZero() {
		return ""
	}
	return t.Node
}

// snapshotsOf are the snapshots that an image's volumes start from, as long as
// it is registered.
func snapshotsOf(i *cloud.Image) (ids []cloud.SnapshotID) {
	for _, m := range i.Mappings {
		if m.EBS != nil && m.EBS.Snapshot != "" && i.Deregistered.IsZero() {
			ids = append(ids, m.EBS.Snapshot)
		}
	}
	return ids
}

// TagValue is what a set of tags stands under in TagSetsByTag.
func TagValue(account cloud.AccountID, key, value string) string {
	return string(account) + "/" + key + "\x00" + value
}

func tagsOf(s *cloud.TagSet) []string {
	values := make([]string, 0, len(s.Tags))
	for k, v := range s.Tags {
		values = append(values, TagValue(s.Account, k, v))
	}
	return values
}

// ClientTokenKey is the key of a client token's record: a token counts within
// one account and action.
func ClientTokenKey(account cloud.AccountID, action, token string) string {
	return string(account) + "/" + action + "/" + token
}
