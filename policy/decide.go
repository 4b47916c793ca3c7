package policy

import "slices"

// Source is a policy that has a say, and where it stands.
type Source struct {
	Policy *Policy
	ID     string // its name or ARN
	Type   string // as SimulatePrincipalPolicy calls it: "IAM Policy", "User Policy", …
}

// Rights are all policies that have a say about a request.
type Rights struct {
	Everything bool     // the principal is its account's root or admin, whom identity policies don't bind
	Identity   []Source // of the user and its groups, or of the role
	Guard      []Source // of the account: only their Deny counts
	Boundary   *Policy  // of the user or role; nil for none
	Session    []Source // of the session
	InSession  bool     // whether Session bounds, even empty
	Resource   *Policy  // of the resource, or the role's trust; nil for none
	Trusts     bool     // Resource must agree, as a role's trust must
}

// Verdict on a request.
type Verdict int

// The verdicts.
const (
	ImplicitDeny Verdict = iota
	ExplicitDeny
	Allowed
)

// String is the verdict as IAM's simulation writes it.
func (v Verdict) String() string {
	return [...]string{"implicitDeny", "explicitDeny", "allowed"}[v]
}

// Match is a statement that made the verdict.
type Match struct {
	Source *Source // nil for the boundary and the resource's
	Sid    string
}

// Decide on a request.
func (r *Rights) Decide(q *Request) Verdict {
	v, _ := r.decide(q, false)
	return v
}

// Explain decides, and tells the identity's and the account's statements that
// it was decided by.
func (r *Rights) Explain(q *Request) (Verdict, []Match) { return r.decide(q, true) }

func (r *Rights) decide(q *Request, explain bool) (Verdict, []Match) {
	var matches []Match
	for _, list := range [][]Source{r.Guard, r.Identity, r.Session} {
		if m, hit := find(list, q, deny, explain); hit {
			return ExplicitDeny, m
		}
	}
	if r.Boundary.has(deny, q) != nil || r.Resource.reaches(deny, q) != nobody {
		return ExplicitDeny, nil
	}
	own := r.Everything
	if !own {
		matches, own = find(r.Identity, q, allow, explain)
	}
	bounded := r.Boundary == nil || r.Boundary.has(allow, q) != nil
	if r.InSession && bounded {
		_, bounded = find(r.Session, q, allow, false)
	}
	if r.join(q, own, bounded) {
		return Allowed, matches
	}
	return ImplicitDeny, nil
}

// join what the principal's own policies and the resource's say. Where both are
// of one account, being named in the resource's is enough; between two, both
// must agree.
func (r *Rights) join(q *Request, own, bounded bool) bool {
	granted := r.Resource.reaches(allow, q)
	foreign := q.Owner != "" && q.Owner != q.Principal.Account
	switch {
	case q.Principal.Account == "" || q.Principal.Kind != "" && q.Principal.Kind != "AWS":
		return granted == itself
	case foreign:
		return granted != nobody && own && bounded
	case granted == itself:
		return bounded || !r.InSession
	case granted == role:
		return bounded
	case r.Trusts && granted == nobody:
		return false
	}
	return own && bounded
}

// find the statements of that effect that match; all of them where all is set,
// else the first is enough.
func find(list []Source, q *Request, e effect, all bool) (matches []Match, hit bool) {
	for i := range list {
		s := list[i].Policy.has(e, q)
		if s == nil {
			continue
		}
		if !all {
			return nil, true
		}
		matches, hit = append(matches, Match{&list[i], s.sid}), true
	}
	return matches, hit
}

// has finds the first statement of that effect that matches, whoever asks.
func (p *Policy) has(e effect, q *Request) *statement {
	if p == nil {
		return nil
	}
	for i := range p.statements {
		if s := &p.statements[i]; s.effect == e && s.matches(q) {
			return s
		}
	}
	return nil
}

// reaches says how closely a resource's policy names the principal in a
// statement of that effect that matches.
func (p *Policy) reaches(e effect, q *Request) (best reach) {
	if p == nil {
		return nobody
	}
	for i := range p.statements {
		s := &p.statements[i]
		if s.effect != e || s.principals == nil {
			continue
		}
		if how := s.principals.match(q); how > best && s.matches(q) {
			best = how
		}
	}
	return best
}

// ContextKeys are the condition keys that the policies read, sorted.
func ContextKeys(list ...*Policy) []string {
	seen := map[string]bool{}
	for _, p := range list {
		for _, s := range p.statements {
			for _, c := range s.conditions {
				seen[c.key] = true
			}
		}
	}
	keys := make([]string, 0, len(seen))
	for k := range seen {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
