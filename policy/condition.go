package policy

import (
	"strings"
)

// condition is one operator on one key of a statement's Condition.
type condition struct {
	key      string // in lower case
	set      setOperator
	ifExists bool
	negated  bool
	null     bool // the operator Null
	tests    []test
}

// test says whether a value that the request has matches one of the policy's.
type test func(value string, q *Request) bool

type setOperator int

const (
	single setOperator = iota
	forAll
	forAny
)

// readConditions takes {"OPERATOR": {"KEY": VALUE or [VALUES]}}. All must hold.
func readConditions(v any, variables bool) (list []condition, err error) {
	if v == nil {
		return nil, nil
	}
	o, ok := v.(*object)
	if !ok {
		return nil, malformed("Syntax errors in policy. Condition must be an object of operators.")
	}
	for _, name := range o.keys {
		keys, ok := o.values[name].(*object)
		if !ok {
			return nil, malformed("Syntax errors in policy. The condition %s must be an object of keys.", short(name))
		}
		for _, key := range keys.keys {
			values, err := texts(name, keys.values[key])
			if err != nil {
				return nil, err
			}
			c, err := readCondition(name, key, values, variables)
			if err != nil {
				return nil, err
			}
			list = append(list, c)
		}
	}
	return list, nil
}

func readCondition(name, key string, values []string, variables bool) (c condition, err error) {
	if vendor, rest, ok := strings.Cut(key, ":"); !ok || vendor == "" || rest == "" {
		return c, malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.; the condition key is %q.", short(key))
	}
	c.key = strings.ToLower(key)
	base := name
	if rest, ok := strings.CutPrefix(base, "ForAllValues:"); ok {
		c.set, base = forAll, rest
	} else if rest, ok := strings.CutPrefix(base, "ForAnyValue:"); ok {
		c.set, base = forAny, rest
	}
	base, c.ifExists = strings.CutSuffix(base, "IfExists")
	op, known := operators[base]
	if !known || op.null && (c.ifExists || c.set != single) {
		return c, malformed("Invalid Condition type : %s.", short(name))
	}
	c.negated, c.null = op.negated, op.null
	for _, value := range values {
		t, ok := op.compile(value, variables)
		if !ok {
			return c, malformed("Invalid value %q in the condition %s of %s.", short(value), base, short(key))
		}
		c.tests = append(c.tests, t)
	}
	return c, nil
}

// holds says whether the request meets the condition.
func (c *condition) holds(q *Request) bool {
	values := q.Context[c.key]
	if c.null {
		return c.any(boolText(len(values) == 0), q)
	}
	switch {
	case c.set == forAll:
		for _, v := range values {
			if c.any(v, q) == c.negated {
				return false
			}
		}
		return true
	case len(values) == 0:
		return c.ifExists || c.negated && c.set == single
	case c.set == forAny:
		for _, v := range values {
			if c.any(v, q) != c.negated {
				return true
			}
		}
		return false
	}
	for _, v := range values {
		if c.any(v, q) {
			return !c.negated
		}
	}
	return c.negated
}

// any of the policy's values matches.
func (c *condition) any(value string, q *Request) bool {
	for _, t := range c.tests {
		if t(value, q) {
			return true
		}
	}
	return false
}

func boolText(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
