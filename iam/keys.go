package iam

import (
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// maxKeys is how many access keys and signing certificates a user may have.
const maxKeys = 2

// keyPrefix and sessionPrefix begin access keys: lasting ones, and sessions'.
const (
	keyPrefix     = "AKIA"
	sessionPrefix = "ASIA"
)

// newAccessKey draws a key in AWS's form: AKIA and 16 characters, and a secret
// of 30 random bytes in 40 characters. Its record has the secret sealed.
func (s *IAM) newAccessKey(account cloud.AccountID, user string) (key cloud.AccessKey, secret string, err error) {
	id, secret, err := s.drawKey(keyPrefix)
	if err != nil {
		return key, "", err
	}
	key = cloud.AccessKey{ID: id, Account: account, User: user, Active: true, CreatedAt: s.Now()}
	key.Sealed, err = s.vault.seal(secret, id)
	return key, secret, err
}

func (s *IAM) drawKey(prefix string) (id, secret string, err error) {
	var raw [10 + 30]byte
	if _, err := io.ReadFull(s.Rand, raw[:]); err != nil {
		return "", "", fmt.Errorf("draw an access key: %w", err)
	}
	id = prefix + base32.StdEncoding.EncodeToString(raw[:10])
	// Without + and /, which people lose when they copy a secret into a URL.
	secret = strings.NewReplacer("+", "A", "/", "B").Replace(base64.StdEncoding.EncodeToString(raw[10:]))
	return id, secret, nil
}

// keysOf a user, by id.
func keysOf(r state.Reader, u *cloud.User) (list []*cloud.AccessKey) {
	for k := range state.AccessKeysByUser.By(r, state.EntityKey(u.Account, u.Name)) {
		list = append(list, k)
	}
	return list
}

type aKey struct {
	UserName    string
	AccessKeyID string `xml:"AccessKeyId"`
	Status      string
	Secret      string `xml:"SecretAccessKey,omitempty"`
	CreateDate  *wire.Time
}

func keyReply(k *cloud.AccessKey) aKey {
	return aKey{k.User, k.ID, status(k.Active), "", wire.At(k.CreatedAt)}
}

func status(active bool) string {
	if active {
		return "Active"
	}
	return "Inactive"
}

type createKeyInput struct{ aboutUser }

type oneKey struct{ AccessKey aKey }

// createKey writes the user too, so that two at once don't exceed its limit.
func createKey(c *call, in *createKeyInput) (*oneKey, error) {
	u, err := in.find(c)
	if err != nil {
		return nil, err
	}
	if len(keysOf(c.tx, u)) >= maxKeys {
		return nil, tooMany("AccessKeysPerUser", maxKeys)
	}
	key, secret, err := c.newAccessKey(u.Account, u.Name)
	if err != nil {
		return nil, err
	}
	c.counted(u)
	state.AccessKeys.Put(c.tx, key)
	out := keyReply(&key)
	out.Secret = secret
	return &oneKey{out}, nil
}

// counted makes two transactions that add to a user's keys meet.
func (c *call) counted(u *cloud.User) { c.tx.Add("iam-keys-made", u.ID, 1) }

type listKeysInput struct {
	aboutUser
	paged
}

type listKeysReply struct {
	Keys []aKey `xml:"AccessKeyMetadata>member"`
	page
}

func listKeys(c *call, in *listKeysInput) (*listKeysReply, error) {
	u, err := in.find(c)
	if err != nil {
		return nil, err
	}
	list, p, err := cut(in.paged, keysOf(c.read, u), func(k *cloud.AccessKey) string { return k.ID })
	return &listKeysReply{each(list, keyReply), p}, err
}

// ofKey is embedded by the inputs that name an access key and perhaps its user.
type ofKey struct {
	aboutUser
	AccessKeyID string `wire:"AccessKeyId,required"`
}

func (o *ofKey) key(c *call) (*cloud.AccessKey, error) {
	u, err := o.find(c)
	if err != nil {
		return nil, err
	}
	k, _, ok := state.AccessKeys.Get(c.read, o.AccessKeyID)
	if !ok || k.Account != u.Account || k.User != u.Name {
		return nil, noSuchKey(o.AccessKeyID)
	}
	return k, nil
}

func noSuchKey(id string) error {
	return wire.Errorf("NoSuchEntity", "The Access Key with id %s cannot be found.", wire.Shorten(id))
}

type updateKeyInput struct {
	ofKey
	Status string `wire:"Status,required,enum=Active|Inactive"`
}

func updateKey(c *call, in *updateKeyInput) (*none, error) {
	k, err := in.key(c)
	if err != nil {
		return nil, err
	}
	state.AccessKeys.Edit(c.tx, k.ID, func(k *cloud.AccessKey) { k.Active = in.Status == "Active" })
	return &none{}, nil
}

type deleteKeyInput struct{ ofKey }

func deleteKey(c *call, in *deleteKeyInput) (*none, error) {
	k, err := in.key(c)
	if err != nil {
		return nil, err
	}
	state.AccessKeys.Delete(c.tx, k.ID)
	state.KeyUses.Delete(c.tx, k.ID)
	return &none{}, nil
}

type keyUseInput struct {
	common
	AccessKeyID string `wire:"AccessKeyId,required"`
}

func (in *keyUseInput) arn(c *call) string {
	if k, _, ok := state.AccessKeys.Get(c.read, in.AccessKeyID); ok && k.Account == c.account {
		return users.arn(c.read, k.Account, k.User)
	}
	return "*"
}

type keyUse struct {
	At          *wire.Time `xml:"LastUsedDate,omitempty"`
	ServiceName string
	Region      string
}

type keyUseReply struct {
	UserName          string
	AccessKeyLastUsed keyUse
}

func getKeyLastUsed(c *call, in *keyUseInput) (*keyUseReply, error) {
	k, _, ok := state.AccessKeys.Get(c.read, in.AccessKeyID)
	if !ok || k.Account != c.account {
		return nil, noSuchKey(in.AccessKeyID)
	}
	out := &keyUseReply{k.User, keyUse{nil, "N/A", "N/A"}}
	if use, _, ok := state.KeyUses.Get(c.read, k.ID); ok {
		out.AccessKeyLastUsed = keyUse{wire.At(use.At.Truncate(time.Minute)), use.Service, use.Region}
	}
	return out, nil
}

// certificatesOf a user, for signing, by id.
func certificatesOf(r state.Reader, u *cloud.User) (list []*cloud.SigningCertificate) {
	for c := range state.CertificatesByAccount.By(r, u.Account) {
		if c.User == u.Name {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *cloud.SigningCertificate) int { return strings.Compare(a.ID, b.ID) })
	return list
}
