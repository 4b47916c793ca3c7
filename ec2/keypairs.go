package ec2

import (
	"iter"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// keyPairName is the kind of the guards that make a name unique in an account.
const keyPairName = "key-pair-name"

type createKeyPairInput struct {
	common
	tagged
	KeyName   string `wire:"KeyName,required,max=255"`
	KeyType   string `wire:"KeyType,enum=rsa|ed25519"`
	KeyFormat string `wire:"KeyFormat,enum=pem|ppk"`

	fresh *freshKey // what makeKey made
}

type createKeyPairReply struct {
	keyPairReply
	KeyMaterial string `xml:"keyMaterial"`
}

// keyPairReply is what all replies have of a key pair.
type keyPairReply struct {
	KeyPairID   string `xml:"keyPairId"`
	KeyName     string `xml:"keyName"`
	Fingerprint string `xml:"keyFingerprint"`
	Tags        []tag  `xml:"tagSet>item"`
}

// makeKey is the step before the transaction: writers wait for each other, and
// an RSA key takes tenths of a second. A name that can't be costs none.
func makeKey(c *call, in *createKeyPairInput) (err error) {
	if in.KeyFormat == "ppk" {
		return wire.UnsupportedOperation("The value ppk of the parameter KeyFormat is not supported: ask for pem, which puttygen converts")
	}
	if err := c.newKeyName(in.KeyName); err != nil {
		return err
	}
	in.fresh, err = newKey(in.KeyType, c.Rand)
	return err
}

func createKeyPair(c *call, in *createKeyPairInput) (*createKeyPairReply, error) {
	if err := c.newKeyName(in.KeyName); err != nil { // again: another call may have taken it meanwhile
		return nil, err
	}
	k, err := c.putKeyPair(in.KeyName, in.fresh.publicKey)
	if err != nil {
		return nil, err
	}
	return &createKeyPairReply{c.keyPairReply(k), in.fresh.privatePEM}, nil
}

type importKeyPairInput struct {
	common
	tagged
	KeyName           string `wire:"KeyName,required,max=255"`
	PublicKeyMaterial []byte `wire:"PublicKeyMaterial,required,base64"`
}

func importKeyPair(c *call, in *importKeyPairInput) (*keyPairReply, error) {
	key, err := parsePublicKey(in.PublicKeyMaterial)
	if err != nil {
		return nil, wire.Errorf("InvalidKey.Format", "Key is not in valid OpenSSH public key format: %v", err)
	}
	if err := c.newKeyName(in.KeyName); err != nil {
		return nil, err
	}
	k, err := c.putKeyPair(in.KeyName, key)
	if err != nil {
		return nil, err
	}
	out := c.keyPairReply(k)
	return &out, nil
}

// newKeyName checks a name for a new key pair and the right to make it.
func (c *call) newKeyName(name string) error {
	if err := printable("KeyName", name); err != nil {
		return err
	}
	if strings.TrimSpace(name) != name {
		return wire.InvalidParameterValue("KeyName", name, "A name neither begins nor ends with a space.")
	}
	if err := c.may(c.arn(c.account(), "key-pair", name)); err != nil {
		return err
	}
	if state.Owner(c.read, keyPairName, c.keyNameGuard(name)) != "" {
		return wire.Errorf("InvalidKeyPair.Duplicate", "The keypair '%s' already exists.", name)
	}
	return nil
}

func (c *call) keyNameGuard(name string) string { return string(c.account()) + "/" + name }

func (c *call) putKeyPair(name string, key publicKey) (*cloud.KeyPair, error) {
	id, err := c.newID(cloud.PrefixKeyPair, has(c.tx, state.KeyPairs))
	if err != nil {
		return nil, err
	}
	k := cloud.KeyPair{
		ID: cloud.KeyPairID(id), Account: c.account(), Name: name, Type: key.kind,
		PublicKey: key.line(name), Fingerprint: key.fingerprint, CreatedAt: c.Now(),
	}
	if err := c.tx.Claim(keyPairName, c.keyNameGuard(name), id); err != nil {
		return nil, err
	}
	state.KeyPairs.Put(c.tx, k)
	return &k, c.tagNew("key-pair", id)
}

func (c *call) keyPairReply(k *cloud.KeyPair) keyPairReply {
	return keyPairReply{string(k.ID), k.Name, k.Fingerprint, c.tagSet(string(k.ID))}
}

type deleteKeyPairInput struct {
	common
	KeyName   string `wire:"KeyName,max=255"`
	KeyPairID string `wire:"KeyPairId"`
}

type deleteKeyPairReply struct {
	reply
	KeyPairID string `xml:"keyPairId,omitempty"`
}

// deleteKeyPair of what isn't there is no error, as in EC2.
func deleteKeyPair(c *call, in *deleteKeyPairInput) (*deleteKeyPairReply, error) {
	k, err := c.keyPairToDelete(in)
	if err != nil {
		return nil, err
	}
	out := &deleteKeyPairReply{reply: reply{true}}
	if k == nil {
		return out, c.may("*")
	}
	if err := c.may(c.arn(k.Account, "key-pair", k.Name)); err != nil {
		return nil, err
	}
	c.tx.Release(keyPairName, string(k.Account)+"/"+k.Name)
	state.KeyPairs.Delete(c.tx, k.ID)
	state.TagSets.Delete(c.tx, string(k.ID))
	out.KeyPairID = string(k.ID)
	return out, nil
}

func (c *call) keyPairToDelete(in *deleteKeyPairInput) (*cloud.KeyPair, error) {
	switch {
	case in.KeyName == "" && in.KeyPairID == "":
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter KeyName or KeyPairId")
	case in.KeyName != "" && in.KeyPairID != "":
		return nil, wire.InvalidParameterCombination("The parameters KeyName and KeyPairId cannot be used together")
	case in.KeyName != "":
		return c.findKeyPair(in.KeyName), nil
	}
	id, ok := cloud.ParseID(in.KeyPairID, cloud.PrefixKeyPair)
	if !ok {
		return nil, malformed("InvalidKeyPairId", in.KeyPairID, cloud.PrefixKeyPair)
	}
	k, _, ok := state.KeyPairs.Get(c.read, cloud.KeyPairID(id))
	if !ok || k.Account != c.account() {
		return nil, nil
	}
	return k, nil
}

// findKeyPair of the account by its name; nil where there is none.
func (c *call) findKeyPair(name string) *cloud.KeyPair {
	id := state.Owner(c.read, keyPairName, c.keyNameGuard(name))
	k, _, ok := state.KeyPairs.Get(c.read, cloud.KeyPairID(id))
	if !ok {
		return nil
	}
	return k
}

func (c *call) keyPairByName(name string) (*cloud.KeyPair, error) {
	if k := c.findKeyPair(name); k != nil {
		return k, nil
	}
	return nil, wire.Errorf("InvalidKeyPair.NotFound", "The key pair '%s' does not exist", wire.Shorten(name))
}

func (c *call) keyPairByID(id string) (*cloud.KeyPair, error) {
	parsed, ok := cloud.ParseID(id, cloud.PrefixKeyPair)
	if !ok {
		return nil, malformed("InvalidKeyPairId", id, cloud.PrefixKeyPair)
	}
	k, _, ok := state.KeyPairs.Get(c.read, cloud.KeyPairID(parsed))
	if !ok || k.Account != c.account() {
		return nil, wire.Errorf("InvalidKeyPair.NotFound", "The key pair ID '%s' does not exist", parsed)
	}
	return k, nil
}

type describeKeyPairsInput struct {
	common
	filtered
	KeyName          []string `wire:"KeyName,max=1000"`
	KeyPairID        []string `wire:"KeyPairId,max=1000"`
	IncludePublicKey bool
}

type describeKeyPairsReply struct {
	KeyPairs []keyPairDescription `xml:"keySet>item"`
}

type keyPairDescription struct {
	keyPairReply
	KeyType    string     `xml:"keyType"`
	CreateTime *wire.Time `xml:"createTime"`
	PublicKey  string     `xml:"publicKey,omitempty"`
}

var keyPairKind = kind[*cloud.KeyPair]{
	key:  func(k *cloud.KeyPair) string { return string(k.ID) },
	tags: func(c *call, k *cloud.KeyPair) map[string]string { return c.tagsOf(string(k.ID)) },
	fields: fields[*cloud.KeyPair]{
		"key-pair-id": text(func(k *cloud.KeyPair) string { return string(k.ID) }),
		"fingerprint": text(func(k *cloud.KeyPair) string { return k.Fingerprint }),
		"key-name":    text(func(k *cloud.KeyPair) string { return k.Name }),
		"key-type":    text(func(k *cloud.KeyPair) string { return k.Type }),
	},
}

func describeKeyPairs(c *call, in *describeKeyPairsInput) (*describeKeyPairsReply, error) {
	candidates, err := c.keyPairCandidates(in)
	if err != nil {
		return nil, err
	}
	list, err := keyPairKind.all(c, in.filtered, candidates)
	if err != nil {
		return nil, err
	}
	out := &describeKeyPairsReply{}
	for _, k := range list {
		d := keyPairDescription{keyPairReply: c.keyPairReply(k), KeyType: k.Type, CreateTime: wire.At(k.CreatedAt)}
		if in.IncludePublicKey {
			d.PublicKey = k.PublicKey
		}
		out.KeyPairs = append(out.KeyPairs, d)
	}
	return out, nil
}

// keyPairCandidates are those named, or all.
func (c *call) keyPairCandidates(in *describeKeyPairsInput) (iter.Seq[*cloud.KeyPair], error) {
	names, everybody := c.everybody(in.KeyName)
	switch {
	case everybody:
		return firsts(state.KeyPairs.All(c.read)), nil
	case len(names)+len(in.KeyPairID) == 0:
		return firsts(state.KeyPairsByAccount.By(c.read, c.account())), nil
	}
	var named []*cloud.KeyPair
	for _, name := range names {
		k, err := c.keyPairByName(name)
		if err != nil {
			return nil, err
		}
		named = append(named, k)
	}
	for _, id := range in.KeyPairID {
		k, err := c.keyPairByID(id)
		if err != nil {
			return nil, err
		}
		named = append(named, k)
	}
	return sorted(named, keyPairKind.key), nil
}
