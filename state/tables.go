package state

import "mallee/cloud"

// The tables, and who writes them. Whatever is not said to be written by a
// loop (package controller) is written by the API alone.
var (
	Accounts     = NewTable("account", func(a *cloud.Account) cloud.AccountID { return a.ID })
	Users        = NewTable("user", func(u *cloud.User) string { return u.ID })
	AccessKeys   = NewTable("access-key", func(k *cloud.AccessKey) string { return k.ID })
	Certificates = NewTable("certificate", func(c *cloud.SigningCertificate) string { return c.ID })

	Images       = NewTable("image", func(i *cloud.Image) cloud.ImageID { return i.ID })
	KeyPairs     = NewTable("key-pair", func(k *cloud.KeyPair) cloud.KeyPairID { return k.ID })
	Instances    = NewTable("instance", func(i *cloud.Instance) cloud.InstanceID { return i.ID }) // the loops change its wish too
	Reservations = NewTable("reservation", func(r *cloud.Reservation) cloud.ReservationID { return r.ID })
	TagSets      = NewTable("tag", func(t *cloud.TagSet) string { return t.Resource })

	SecurityGroups = NewTable("security-group", func(g *cloud.SecurityGroup) cloud.GroupID { return g.ID })
	ClientTokens   = NewTable("client-token", func(t *cloud.ClientToken) string { return ClientTokenKey(t.Account, t.Action, t.Token) })

	Nodes        = NewTable("node", func(n *cloud.Node) cloud.NodeID { return n.ID })                         // by all who place, wish or release
	Observations = NewTable("observation", func(o *cloud.Observation) cloud.InstanceID { return o.Instance }) // by the loops alone
)

var (
	UsersByAccount        = NewIndex(Users, "account", func(u *cloud.User) cloud.AccountID { return u.Account })
	AccessKeysByAccount   = NewIndex(AccessKeys, "account", func(k *cloud.AccessKey) cloud.AccountID { return k.Account })
	CertificatesByAccount = NewIndex(Certificates, "account", func(c *cloud.SigningCertificate) cloud.AccountID { return c.Account })

	ImagesByAccount       = NewIndex(Images, "account", func(i *cloud.Image) cloud.AccountID { return i.Account })
	KeyPairsByAccount     = NewIndex(KeyPairs, "account", func(k *cloud.KeyPair) cloud.AccountID { return k.Account })
	InstancesByNode       = NewIndex(Instances, "node", func(i *cloud.Instance) cloud.NodeID { return i.Node })
	InstancesByImage      = NewListIndex(Instances, "image", imagesOf)
	ReservationsByAccount = NewIndex(Reservations, "account", func(r *cloud.Reservation) cloud.AccountID { return r.Account })
	TagSetsByAccount      = NewIndex(TagSets, "account", func(t *cloud.TagSet) cloud.AccountID { return t.Account })
	TagSetsByTag          = NewListIndex(TagSets, "tag", tagsOf)
	ObservationsByPhase   = NewIndex(Observations, "phase", func(o *cloud.Observation) cloud.Phase { return o.Phase })
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
