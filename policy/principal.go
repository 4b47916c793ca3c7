package policy

import (
	"regexp"
	"slices"
	"strings"
)

// principals that a statement is about.
type principals struct {
	everybody bool
	accounts  []string            // 12 digits: whoever the account lets
	arns      []string            // users, roles, sessions
	others    map[string][]string // Service, Federated, CanonicalUser: their names
	not       bool
}

// principalKinds are the members of a Principal.
var principalKinds = []string{"AWS", "Service", "Federated", "CanonicalUser"}

func readPrincipals(o *object) (*principals, error) {
	v, given := o.values["Principal"]
	not, givenNot := o.values["NotPrincipal"]
	switch {
	case given && givenNot:
		return nil, malformed("Syntax errors in policy. A statement has either Principal or NotPrincipal, not both.")
	case !given && !givenNot:
		return nil, malformed("Missing required field Principal")
	case givenNot:
		v = not
	}
	p := &principals{not: givenNot, others: map[string][]string{}}
	if v == "*" {
		p.everybody = true
		return p, nil
	}
	members, ok := v.(*object)
	if !ok || len(members.keys) == 0 {
		return nil, malformed("Invalid principal in policy: it must be \"*\" or an object with one of %s.", strings.Join(principalKinds, ", "))
	}
	if err := members.only(principalKinds...); err != nil {
		return nil, err
	}
	for _, kind := range members.keys {
		list, err := texts("Principal", members.values[kind])
		if err != nil {
			return nil, err
		}
		if err := p.add(kind, list); err != nil {
			return nil, err
		}
	}
	return p, nil
}

var (
	accountForm   = regexp.MustCompile(`^[0-9]{12}$`)
	rootForm      = regexp.MustCompile(`^arn:aws:iam::([0-9]{12}):root$`)
	principalForm = regexp.MustCompile(`^arn:aws:(iam|sts)::[0-9]{12}:(user|role|assumed-role|federated-user)/[^*?]+$`)
)

func (p *principals) add(kind string, list []string) error {
	for _, name := range list {
		root := rootForm.FindStringSubmatch(name)
		switch {
		case name == "":
			return malformed("Invalid principal in policy: %q:%q", kind, name)
		case kind != "AWS":
			p.others[kind] = append(p.others[kind], name)
		case name == "*":
			p.everybody = true
		case accountForm.MatchString(name):
			p.accounts = append(p.accounts, name)
		case root != nil:
			p.accounts = append(p.accounts, root[1])
		case principalForm.MatchString(name):
			p.arns = append(p.arns, name)
		default:
			return malformed("Invalid principal in policy: \"AWS\":%q", short(name))
		}
	}
	return nil
}

// reach is how a statement's principals name who asks.
type reach int

const (
	nobody  reach = iota
	account       // its account, which then decides by its own policies
	role          // the role that it has assumed
	itself
)

// match says how the request's principal is named.
func (p *principals) match(q *Request) reach {
	hit := p.find(q)
	switch {
	case !p.not:
		return hit
	case hit == nobody:
		return itself
	}
	return nobody
}

func (p *principals) find(q *Request) reach {
	w := &q.Principal
	switch {
	case slices.Contains(p.others[w.Kind], w.Name) && w.Kind != "":
		return itself
	case w.Kind != "" && w.Kind != "AWS":
		if p.everybody {
			return itself
		}
		return nobody
	case slices.Contains(p.arns, w.ARN), p.everybody:
		return itself
	case w.Role != "" && slices.Contains(p.arns, w.Role):
		return role
	case w.Account != "" && slices.Contains(p.accounts, w.Account):
		return account
	}
	return nobody
}
