package policy

import (
	"regexp"
	"slices"
	"strings"
)

// elements that a statement of each kind may have.
var elements = map[Kind][]string{
	Identity: {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"},
	Account:  {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"},
	Resource: {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"},
	Trust:    {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Condition"},
}

var sidForm = regexp.MustCompile(`^[0-9A-Za-z]*$`)

func readStatement(o *object, kind Kind, variables bool) (s statement, err error) {
	if err := checkElements(o, kind); err != nil {
		return s, err
	}
	if s.sid, _, err = o.text("Sid"); err != nil {
		return s, err
	}
	if kind != Resource && !sidForm.MatchString(s.sid) {
		return s, malformed("Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*; the Sid is %q.", short(s.sid))
	}
	if s.effect, err = readEffect(o, kind); err != nil {
		return s, err
	}
	if s.actions, err = readActions(o); err != nil {
		return s, err
	}
	if kind != Trust {
		if s.resources, err = readResources(o, variables, s.effect); err != nil {
			return s, err
		}
	} else {
		s.resources = resources{patterns: []arnPattern{{any: true}}}
	}
	if kind == Resource || kind == Trust {
		if s.principals, err = readPrincipals(o); err != nil {
			return s, err
		}
	}
	s.conditions, err = readConditions(o.values["Condition"], variables)
	return s, err
}

func checkElements(o *object, kind Kind) error {
	for _, name := range []string{"Principal", "NotPrincipal"} {
		if _, given := o.values[name]; given && (kind == Identity || kind == Account) {
			return malformed("Policy document should not specify a principal.")
		}
	}
	for _, name := range []string{"Resource", "NotResource"} {
		if _, given := o.values[name]; given && kind == Trust {
			return malformed("Has prohibited field %s", name)
		}
	}
	return o.only(elements[kind]...)
}

// readEffect takes Limit where Eucalyptus does; on an account it is Deny or Limit.
func readEffect(o *object, kind Kind) (effect, error) {
	word, given, err := o.text("Effect")
	switch {
	case err != nil:
		return 0, err
	case !given:
		return 0, malformed("Syntax errors in policy. A statement must have an Effect.")
	case word == "Allow" && kind == Account:
		return 0, malformed("A policy of an account limits it: Effect must be Deny or Limit.")
	case word == "Allow":
		return allow, nil
	case word == "Deny":
		return deny, nil
	case word == "Limit" && (kind == Account || kind == Identity):
		return limit, nil
	}
	return 0, malformed("Syntax errors in policy. Effect is %q; it must be Allow or Deny.", short(word))
}

// actions of a statement.
type actions struct {
	patterns []pattern // in lower case
	not      bool
}

// either finds which of two elements, that exclude each other, is given.
func (o *object) either(name, not string) (list []string, negated bool, err error) {
	v, given := o.values[name]
	n, givenNot := o.values[not]
	if given && givenNot {
		return nil, false, malformed("Syntax errors in policy. A statement has either %s or %s, not both.", name, not)
	}
	if givenNot {
		name, v = not, n
	}
	if !given && !givenNot {
		return nil, false, nil
	}
	list, err = texts(name, v)
	return list, givenNot, err
}

var vendorForm = regexp.MustCompile(`^[a-zA-Z0-9-]+$`)

func readActions(o *object) (a actions, err error) {
	list, not, err := o.either("Action", "NotAction")
	if err != nil {
		return a, err
	}
	if len(list) == 0 {
		return a, malformed("Policy statement must contain actions.")
	}
	a.not = not
	for _, text := range list {
		vendor, name, prefixed := strings.Cut(text, ":")
		if text != "*" && !prefixed {
			return a, malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.; the action is %q.", short(text))
		}
		if text != "*" && (!vendorForm.MatchString(vendor) || name == "" || strings.Contains(name, ":")) {
			return a, malformed("Vendor %s is not valid in the action %q.", short(vendor), short(text))
		}
		a.patterns = append(a.patterns, compile(strings.ToLower(text), true, false))
	}
	return a, nil
}

// match an action in lower case.
func (a *actions) match(action string) bool {
	for i := range a.patterns {
		if a.patterns[i].match(action, nil) {
			return !a.not
		}
	}
	return a.not
}

// resources of a statement.
type resources struct {
	patterns []arnPattern
	not      bool
}

// limitForm is Eucalyptus's way to say what a quota is of: ec2:instance.
var limitForm = regexp.MustCompile(`^[a-z0-9-]+:[a-z*-]+$`)

func readResources(o *object, variables bool, e effect) (r resources, err error) {
	list, not, err := o.either("Resource", "NotResource")
	if err != nil {
		return r, err
	}
	if len(list) == 0 {
		return r, malformed("Policy statement must contain resources.")
	}
	r.not = not
	for _, text := range list {
		if e == limit && limitForm.MatchString(text) {
			text = "*"
		}
		if text != "*" && !strings.HasPrefix(text, "arn:") {
			return r, malformed("Resource %s must be in ARN format or \"*\".", short(text))
		}
		r.patterns = append(r.patterns, compileARN(text, variables))
	}
	return r, nil
}

func (r *resources) match(q *Request) bool {
	hit := slices.ContainsFunc(r.patterns, func(p arnPattern) bool { return p.match(q.Resource, q) })
	return hit != r.not
}

// matches says whether the statement is about the request, principals aside.
func (s *statement) matches(q *Request) bool {
	if !s.actions.match(q.action) || !s.resources.match(q) {
		return false
	}
	for i := range s.conditions {
		if !s.conditions[i].holds(q) {
			return false
		}
	}
	return true
}
