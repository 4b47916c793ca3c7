package ec2

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mallee/cloud"
	"mallee/iam"
	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

// action is a line of the table: how a request is answered, and what is said
// of it in the document of what is covered.
type action struct {
	name     string
	resource string                                  // EC2's type of what it is about; empty for none
	writes   bool                                    // changes the state
	pages    *bounds                                 // of MaxResults, where it has pages
	filters  []string                                // names of the filters it takes, sorted; tag:KEY as it is here
	taggable []string                                // types that TagSpecification may name
	again    func(c *call, made string) (any, error) // the reply to a repeated client token
	then     func(c *call, out any)                  // after the commit, before the reply; nil for nothing
	in       func() input                            // an empty one
	run      func(*call) (any, error)
}

// bounds of a number, both included.
type bounds struct{ min, max int }

// call is one request on its way.
type call struct {
	*EC2
	ctx       context.Context
	action    *action
	principal iam.Principal
	requestID string
	form      wire.Form

	read state.Reader // a View, or tx
	tx   *state.Tx    // nil unless the action writes
	made string       // what the client token stands for; set by the handler
	tags []tagSpecification
}

// common is embedded by every input.
type common struct {
	DryRun bool
}

func (c *common) dry() bool { return c.DryRun }

// input is what can be decoded into.
type input interface{ dry() bool }

// reading makes an action of a handler that changes nothing.
func reading[P inputOf[In], In, Out any](handle func(*call, P) (Out, error)) action {
	return action{in: newInput[P, In], run: func(c *call) (any, error) {
		in, err := decode[P](c)
		if err != nil {
			return nil, err
		}
		c.read = c.Store.View()
		if err := c.may("*"); err != nil {
			return nil, err
		}
		out, err := handle(c, in)
		if err == nil && in.dry() {
			err = errDryRun
		}
		return out, err
	}}
}

// writing makes an action of a handler that changes the state by c.tx alone. It
// may run several times.
func writing[P inputOf[In], In, Out any](handle func(*call, P) (Out, error)) action {
	return preparing(func(*call, P) error { return nil }, handle)
}

// preparing is writing with a step before the transaction, for what takes long:
// it may keep what it found in fields of the input that aren't decoded.
func preparing[P inputOf[In], In, Out any](prepare func(*call, P) error, handle func(*call, P) (Out, error)) action {
	return action{writes: true, in: newInput[P, In], run: func(c *call) (any, error) {
		in, err := decode[P](c)
		if err != nil {
			return nil, err
		}
		c.read = c.Store.View()
		if err := prepare(c, in); err != nil {
			return nil, err
		}
		var out any
		err = c.Store.Update(c.ctx, func(tx *state.Tx) error {
			c.tx, c.read, c.made = tx, tx, ""
			out, err = c.once(in, func() (any, error) { return handle(c, in) })
			if err == nil && in.dry() {
				err = errDryRun
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if c.action.then != nil {
			c.action.then(c, out)
		}
		return out, nil
	}}
}

// inputOf is a pointer to an input's struct.
type inputOf[In any] interface {
	*In
	input
}

func newInput[P inputOf[In], In any]() input { return P(new(In)) }

// errDryRun ends a dry run after everything was checked, and its transaction
// with it.
var errDryRun = wire.Errorf("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")

// decode fills the input and refuses what is left over.
func decode[P inputOf[In], In any](c *call) (P, error) {
	in := P(new(In))
	left, err := wire.Decode(c.form, in)
	if err != nil {
		return nil, err
	}
	if len(left) > 0 {
		return nil, refuse(c.action.name, left[0])
	}
	if s, ok := any(in).(selecting); ok {
		if err := c.checkPage(s.chosen()); err != nil {
			return nil, err
		}
	}
	if t, ok := any(in).(taggedInput); ok {
		c.tags = t.tagSpecifications()
		return in, c.checkTags()
	}
	return in, nil
}

// refuse a parameter that no field took, by its name: it isn't known which of
// them EC2 has.
func refuse(action, name string) error {
	return wire.Errorf("UnknownParameter", "The parameter %s is not recognized, or not supported for %s by this cloud", wire.Shorten(name), action)
}

// account of the caller.
func (c *call) account() cloud.AccountID { return c.principal.Account }

// may says whether the principal may do the call's action on resources of
// those ARNs.
func (c *call) may(arns ...string) error {
	for _, arn := range arns {
		if err := c.IAM.Authorize(c.principal, "ec2:"+c.action.name, arn, c.known(arn)); err != nil {
			return err
		}
	}
	return nil
}

// known is what policies may ask about the request and the resource: the tags
// that it asks for, and those that the caller's account has on the resource as it
// was before.
func (c *call) known(arn string) policy.Context {
	out := policy.Context{}
	out.Set("ec2:Region", c.Region)
	if t := c.form.Get("InstanceType"); t != "" {
		out.Set("ec2:InstanceType", t)
	}
	for _, s := range c.tags {
		for _, t := range s.Tag {
			out.Set("aws:RequestTag/"+t.Key, t.Value)
			out.Add("aws:TagKeys", t.Key)
		}
	}
	_, id, _ := strings.Cut(arn, "/")
	set, _, ok := state.TagSets.Get(c.Store.View(), id)
	if !ok || set.Account != c.account() {
		return out
	}
	for key, value := range set.Tags {
		out.Set("aws:ResourceTag/"+key, value)
		out.Set("ec2:ResourceTag/"+key, value)
	}
	return out
}

// arn names a resource of an account.
func (c *call) arn(account cloud.AccountID, kind, id string) string {
	if kind == "image" {
		account = "" // as EC2 writes them: images are shared by accounts
	}
	return fmt.Sprintf("arn:aws:ec2:%s:%s:%s/%s", c.Region, account, kind, id)
}

// newID draws an id that nothing has.
func (c *call) newID(prefix string, taken func(id string) bool) (string, error) {
	for range 100 {
		id, err := cloud.NewID(c.Rand, prefix)
		if err != nil {
			return "", err
		}
		if !taken(id) {
			return id, nil
		}
	}
	return "", errors.New("a hundred ids drawn, all of them taken")
}

// has makes of a table's Get what newID asks.
func has[K ~string, T any](r state.Reader, t state.Table[K, T]) func(string) bool {
	return func(id string) bool {
		_, _, ok := t.Get(r, K(id))
		return ok
	}
}

// reply of the actions that say true and nothing else.
type reply struct {
	Return bool `xml:"return"`
}

// accepted is that reply.
func accepted() (*reply, error) { return &reply{true}, nil }
