package iam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"mallee/cloud"
	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

// Services that this room answers for, as they stand in a signature's scope.
const (
	ServiceIAM = "iam"
	ServiceSTS = "sts"
)

// action is a line of the table: how a request is answered, and what is said of
// it in the document of what is covered.
type action struct {
	service, name string
	writes        bool
	system        bool // for the cloud's administrators alone
	open          bool // needs no right: whoever signs validly may
	unsigned      bool // is answered to those who don't sign
	in            func() any
	run           func(*call) (any, error)
}

// call is one request on its way.
type call struct {
	*IAM
	ctx       context.Context
	action    *action
	principal Principal
	account   cloud.AccountID // that it is about: the principal's, or that which a system administrator names
	form      wire.Form

	read state.Reader // a View, or tx
	tx   *state.Tx    // nil unless the action writes
}

// common is embedded by every input of IAM.
type common struct {
	DelegateAccount string
}

func (c *common) delegate() string { return c.DelegateAccount }

// subject is an input that tells what it is about: the ARN that the right must
// be for. Others are about all, *.
type subject interface{ arn(*call) string }

// told is an input that knows condition keys of what its action is about, and
// asking one that knows those of what it asks for.
type (
	told   interface{ context(*call) policy.Context }
	asking interface{ request() policy.Context }
)

// none is the reply of actions that have nothing to tell.
type none struct{}

// reading makes an action of a handler that changes nothing.
func reading[P ~*In, In, Out any](handle func(*call, P) (Out, error)) action {
	return action{in: func() any { return new(In) }, run: func(c *call) (any, error) {
		in := P(new(In))
		c.read = c.Store.View()
		if err := c.begin(in); err != nil {
			return nil, err
		}
		return handle(c, in)
	}}
}

// writing makes an action of a handler that changes the state by c.tx alone. It
// may run several times.
func writing[P ~*In, In, Out any](handle func(*call, P) (Out, error)) action {
	return preparing(func(*call, P) error { return nil }, handle)
}

// preparing is writing with a step before the transaction, for what takes long.
func preparing[P ~*In, In, Out any](prepare func(*call, P) error, handle func(*call, P) (Out, error)) action {
	return action{writes: true, in: func() any { return new(In) }, run: func(c *call) (any, error) {
		in := P(new(In))
		c.read = c.Store.View()
		if err := c.begin(in); err != nil {
			return nil, err
		}
		if err := prepare(c, in); err != nil {
			return nil, err
		}
		var out any
		err := c.Store.Update(c.ctx, func(tx *state.Tx) (err error) {
			c.tx, c.read = tx, tx
			out, err = handle(c, in)
			return err
		})
		return out, err
	}}
}

// begin fills the input, and says whether the principal may.
func (c *call) begin(in any) error {
	if err := decode(c.form, in); err != nil {
		return asIAM(err)
	}
	if c.action.system && !c.principal.System {
		return c.denied("*")
	}
	if d, ok := in.(interface{ delegate() string }); ok && d.delegate() != "" {
		if !c.principal.System {
			return c.denied("*")
		}
		id, err := accountNamed(c.read, d.delegate())
		if err != nil {
			return err
		}
		c.account = id
	}
	return c.may(in)
}

// may says whether the principal has the right that the action needs.
func (c *call) may(in any) error {
	if c.action.open {
		return nil
	}
	on, known, asked := "*", policy.Context(nil), policy.Context(nil)
	if s, ok := in.(subject); ok {
		on = s.arn(c)
	}
	if t, ok := in.(told); ok {
		known = t.context(c)
	}
	if a, ok := in.(asking); ok {
		asked = a.request()
	}
	err := c.Authorize(c.principal, c.action.service+":"+c.action.name, on, known, asked)
	if errors.Is(err, ErrDenied) {
		return c.denied(on)
	}
	return err
}

func (c *call) denied(on string) error {
	return wire.Errorf("AccessDenied", "User: %s is not authorized to perform: %s:%s on resource: %s", c.principal.ARN(), c.action.service, c.action.name, on)
}

// Handle answers a request of IAM or STS that was authenticated.
func (s *IAM) Handle(w http.ResponseWriter, r *http.Request, service string, form wire.Form, p Principal, requestID string) {
	namespace := wire.IAMNamespace
	if service == ServiceSTS {
		namespace = wire.STSNamespace
	}
	out, err := s.serve(r.Context(), service, form, p)
	if err == nil {
		if _, nothing := out.(*none); nothing {
			out = nil
		}
		err = wire.WriteQuery(w, namespace, form.Get("Action"), requestID, out)
	}
	if err == nil {
		return
	}
	err = wireError(err)
	if wire.AsError(err).Status >= http.StatusInternalServerError {
		s.Log.Error("request failed", "request", requestID, "service", service, "action", wire.Shorten(form.Get("Action")), "err", err)
	}
	wire.WriteQueryError(w, namespace, requestID, err)
}

// serve is Handle without HTTP.
func (s *IAM) serve(ctx context.Context, service string, form wire.Form, p Principal) (out any, err error) {
	defer func() {
		if v := recover(); v != nil {
			out, err = nil, fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	name := form.Get("Action")
	if name == "" {
		return nil, wire.MissingParameter("Action")
	}
	a := actions[service+":"+name]
	if a == nil {
		return nil, wire.Errorf("InvalidAction", "The action %s of %s is not served by this cloud.", wire.Shorten(name), strings.ToUpper(service))
	}
	if p.Account == "" && !a.unsigned {
		return nil, wire.Errorf("MissingAuthenticationToken", "The request has no signature, which the action %s needs", name)
	}
	return a.run(&call{IAM: s, ctx: ctx, action: a, principal: p, account: p.Account, form: form})
}

// Unsigned says whether an action is answered to those who don't sign.
func Unsigned(service, name string) bool {
	a := actions[service+":"+name]
	return a != nil && a.unsigned
}

// decode refuses what is left over: a parameter is honoured or named.
func decode(form wire.Form, in any) error {
	left, err := wire.Decode(form, in)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return wire.UnknownParameter(left[0])
	}
	return nil
}

// Coverage is what the table says of an action, for the document of what is covered.
type Coverage struct {
	Service, Action string
	Writes          bool
	Parameters      []string // sorted; N stands for the numbers of a list
}

// Covered tells of every action, by service and name.
func Covered() (all []Coverage) {
	for _, a := range actions {
		c := Coverage{a.service, a.name, a.writes, wire.Names(a.in())}
		slices.Sort(c.Parameters)
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Coverage) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Action, b.Action))
	})
	return all
}
