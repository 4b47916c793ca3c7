package ec2

import (
	"context"
	"errors"
	"testing"

	"mallee/state"
	"mallee/wire"
)

// aCall of the user's, as it is before its transaction.
func (c *aCloud) aCall(action string) *call {
	return &call{EC2: c.EC2, ctx: context.Background(), action: actions[action], principal: c.user, read: c.Store.View()}
}

// TestKeysAreMadeWhileOthersWrite: an RSA key takes so long that making it in
// the transaction would hold up every writer of the cloud. Here one writer
// doesn't end before both keys are made.
func TestKeysAreMadeWhileOthersWrite(t *testing.T) {
	c := ready(t)
	inputs := []*createKeyPairInput{{KeyName: "same"}, {KeyName: "same"}}
	c.write(func(*state.Tx) {
		for _, in := range inputs {
			if err := makeKey(c.aCall("CreateKeyPair"), in); err != nil {
				t.Error(err)
			}
		}
	})
	var errs [2]error
	for n, in := range inputs {
		made := in.fresh
		errs[n] = c.Store.Update(t.Context(), func(tx *state.Tx) error {
			k := c.aCall("CreateKeyPair")
			k.tx, k.read = tx, tx
			out, err := createKeyPair(k, in)
			if err == nil && out.KeyMaterial != made.privatePEM {
				t.Error("the transaction made a key of its own")
			}
			return err
		})
	}
	var second *wire.Error
	if errs[0] != nil || !errors.As(errs[1], &second) || second.Code != "InvalidKeyPair.Duplicate" {
		t.Errorf("of two calls for one name, the first: %v, the second: %v", errs[0], errs[1])
	}
}

// TestNoKeyIsMadeInVain for a name that can't be had.
func TestNoKeyIsMadeInVain(t *testing.T) {
	c := ready(t)
	get[createKeyPairReply](c, c.user, "CreateKeyPair", "KeyName=taken", "KeyType=ed25519")
	for _, in := range []*createKeyPairInput{{KeyName: "taken"}, {KeyName: " space"}, {KeyName: "new", KeyFormat: "ppk"}} {
		if err := makeKey(c.aCall("CreateKeyPair"), in); err == nil || in.fresh != nil {
			t.Errorf("%q: made %v, %v", in.KeyName, in.fresh, err)
		}
	}
}
