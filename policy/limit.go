package policy

import (
	"strconv"
	"strings"
)

// A quota is a statement of effect Limit, as Eucalyptus has it: the action may
// be done as long as the count that it would make is at most a number.
//
//	{"Effect": "Limit", "Action": "ec2:RunInstances", "Resource": "*",
//	 "Condition": {"NumericLessThanEquals": {"ec2:quota-vminstancenumber": "4"}}}

// Within says whether value, to which the request would bring the quota of that
// key (ec2:quota-vminstancenumber), is within all of the policies' limits; if
// not, the quota is exceeded.
func Within(list []Source, q *Request, key string, value int64) bool {
	key = strings.ToLower(key)
	asked := *q
	asked.Context = Context{}
	for k, v := range q.Context {
		asked.Context[k] = v
	}
	asked.Context[key] = []string{strconv.FormatInt(value, 10)}
	for _, source := range list {
		for i := range source.Policy.statements {
			if s := &source.Policy.statements[i]; s.effect == limit && s.exceeded(&asked, key) {
				return false
			}
		}
	}
	return true
}

// exceeded: the statement is about the request and the key, all its other
// conditions hold, and one on the key doesn't.
func (s *statement) exceeded(q *Request, key string) bool {
	if !s.actions.match(q.action) || !s.resources.match(q) {
		return false
	}
	over := false
	for i := range s.conditions {
		c := &s.conditions[i]
		holds := c.holds(q)
		if c.key == key {
			over = over || !holds
		} else if !holds && !strings.Contains(c.key, ":quota-") {
			return false
		}
	}
	return over
}
