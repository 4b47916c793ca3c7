package policy

import "strings"

// Request is what is decided on. NewRequest makes one.
type Request struct {
	Principal Principal
	Action    string // ec2:RunInstances
	Resource  string // ARN, or * where the action is about none
	Owner     string // account of the resource, where it has one; empty is the principal's own
	Context   Context

	action string // in lower case
}

// Principal is who asks.
type Principal struct {
	ARN     string // of the user, or of the session
	Role    string // ARN of the role that the session is of; empty for none
	Account string // 12 digits; empty for anonymous ones
	Kind    string // Federated or Service where it is no principal of an account, with Name
	Name    string // what it is named then
}

// Context is what is known around a request, by condition key. Keys are in
// lower case; a key without values isn't there.
type Context map[string][]string

// Set makes a key have one value; "" is one too.
func (c Context) Set(key, value string) { c[strings.ToLower(key)] = []string{value} }

// Add further values.
func (c Context) Add(key string, values ...string) {
	key = strings.ToLower(key)
	c[key] = append(c[key], values...)
}

// NewRequest completes a request for deciding.
func NewRequest(r Request) *Request {
	r.action = strings.ToLower(r.Action)
	if r.Context == nil {
		r.Context = Context{}
	}
	return &r
}

// variable is the value of a key that stands in ${}; a key with several has none.
func (q *Request) variable(p part) (string, bool) {
	if values := q.Context[p.text]; len(values) == 1 {
		return values[0], true
	} else if len(values) > 1 {
		return "", false
	}
	return p.otherwise, p.hasDefault
}
