// Package policy is IAM's policy language: it reads documents and decides on
// requests. It does no I/O and knows nothing of who wrote a policy.
//
// # Terms
//
//	document   the JSON that a person writes
//	Policy     a document that was read, compiled for speed; it never changes
//	statement  Allow, Deny or (Eucalyptus's) Limit, of actions on resources, if conditions hold
//	Request    who asks for which action on which resource, and what is known around it
//	Rights     all policies that have a say about a Request
//	Verdict    Allowed, ImplicitDeny or ExplicitDeny
//
// # How it is decided
//
//	any Deny that matches ─▶ ExplicitDeny
//	the resource's policy names the principal itself, in one account ─▶ Allowed
//	its own policies AND its boundary AND its session's policies Allow,
//	and, between two accounts, the resource's policy too ─▶ Allowed
//	else ─▶ ImplicitDeny
//
// So a Deny always wins, and adding one never grants; the tests hold the
// package to both.
//
// # What can go wrong
//
// A document that AWS would refuse is a *MalformedError, which says where and
// why. No document makes deciding fail: what can't be compared doesn't match.
//
// Source: the IAM User Guide's "Policy reference" (grammar, evaluation logic,
// condition operators, variables).
package policy

import "fmt"

// Kind of a document: what it is attached to decides what it must and may have.
type Kind int

// The kinds.
const (
	Identity Kind = iota // of a user, group or role: no principals
	Resource             // of a resource, such as a bucket: principals
	Trust                // of a role: principals, and no resources
	Account              // of an account, Eucalyptus's: Deny and Limit
)

// Policy is a document that was read.
type Policy struct {
	Version    string // 2012-10-17, or 2008-10-17, which has no variables
	ID         string
	statements []statement
}

// statement is one of a Policy's.
type statement struct {
	sid        string
	effect     effect
	principals *principals // nil where the kind has none
	actions    actions
	resources  resources
	conditions []condition
}

type effect int

const (
	allow effect = iota
	deny
	limit
)

// MalformedError says why a document is no policy.
type MalformedError struct{ Message string }

func (e *MalformedError) Error() string { return e.Message }

func malformed(format string, args ...any) error {
	return &MalformedError{fmt.Sprintf(format, args...)}
}

// current is the version of the language that has variables.
const current = "2012-10-17"

// Parse reads a document of that kind.
func Parse(document string, kind Kind) (*Policy, error) {
	root, err := parseJSON(document)
	if err != nil {
		return nil, malformed("Syntax errors in policy. %v", err)
	}
	o, ok := root.(*object)
	if !ok {
		return nil, malformed("Syntax errors in policy. The document must be a JSON object.")
	}
	if err := o.only("Version", "Id", "Statement"); err != nil {
		return nil, err
	}
	p := &Policy{Version: "2008-10-17"}
	if p.ID, _, err = o.text("Id"); err != nil {
		return nil, err
	}
	if version, given, err := o.text("Version"); err != nil {
		return nil, err
	} else if given && version != current && version != p.Version {
		return nil, malformed("The policy must contain a valid version string; Version is %q, and 2012-10-17 or 2008-10-17 is known.", short(version))
	} else if given {
		p.Version = version
	}
	return p, p.readStatements(o.values["Statement"], kind)
}

func (p *Policy) readStatements(v any, kind Kind) error {
	list, ok := v.([]any)
	if v != nil && !ok {
		list = []any{v}
	}
	if len(list) == 0 {
		return malformed("Syntax errors in policy. The document must have a Statement.")
	}
	seen := map[string]bool{}
	for i, item := range list {
		o, ok := item.(*object)
		if !ok {
			return malformed("Syntax errors in policy. Statement %d is not a JSON object.", i+1)
		}
		s, err := readStatement(o, kind, p.Version == current)
		if err != nil {
			return err
		}
		if s.sid != "" && seen[s.sid] {
			return malformed("Statement IDs (SID) in a single policy must be unique; %q is there twice.", short(s.sid))
		}
		seen[s.sid] = true
		p.statements = append(p.statements, s)
	}
	return nil
}

// short cuts a document's words to what fits into a message.
func short(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
