package ec2

import (
	"crypto/sha256"
	"encoding/hex"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// idempotent is embedded by the inputs that take a client token. Its handler
// sets call.made, and its line in the table has again.
type idempotent struct {
	ClientToken string `wire:"ClientToken,max=64"`
}

func (i *idempotent) token() string { return i.ClientToken }

// once runs a handler, unless its client token says that it ran before: then the
// reply tells of what was made that time. The token is remembered in the
// transaction that makes it.
func (c *call) once(in input, handle func() (any, error)) (any, error) {
	i, ok := in.(interface{ token() string })
	if !ok || i.token() == "" {
		return handle()
	}
	if err := printable("ClientToken", i.token()); err != nil {
		return nil, err
	}
	digest := c.parameterDigest()
	before, _, ok := state.ClientTokens.Get(c.tx, state.ClientTokenKey(c.account(), c.action.name, i.token()))
	if !ok {
		return c.remember(i.token(), digest, handle)
	}
	if before.Digest != digest {
		return nil, wire.Errorf("IdempotentParameterMismatch", "The client token %s was used before, with other parameters", i.token())
	}
	return c.action.again(c, before.Made)
}

func (c *call) remember(token, digest string, handle func() (any, error)) (any, error) {
	out, err := handle()
	if err != nil {
		return nil, err
	}
	state.ClientTokens.Put(c.tx, cloud.ClientToken{
		Account: c.account(), Action: c.action.name, Token: token,
		Digest: digest, Made: c.made, At: c.Now(),
	})
	return out, nil
}

func (c *call) parameterDigest() string {
	sum := sha256.New()
	c.digest(sum)
	return hex.EncodeToString(sum.Sum(nil))
}

// printable refuses what isn't printable ASCII.
func printable(name, value string) error {
	for _, r := range value {
		if r < ' ' || r > '~' {
			return wire.InvalidParameterValue(name, value, "Only printable ASCII characters are allowed.")
		}
	}
	return nil
}
