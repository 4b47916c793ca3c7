package network

import (
	"errors"
	"fmt"
)

// CheckGroups finds what no driver can enforce, for drivers to refuse it in
// the same words.
func CheckGroups(groups []Group) error {
	seen := make(map[string]struct{}, len(groups))
	for _, g := range groups {
		if _, twice := seen[g.ID]; twice {
			return fmt.Errorf("group %s is named twice", g.ID)
		}
		seen[g.ID] = struct{}{}
		if err := g.Check(); err != nil {
			return err
		}
	}
	return nil
}

// Check finds what is wrong with the group by itself.
func (g Group) Check() error {
	if g.ID == "" {
		return errors.New("a group needs an id")
	}
	if err := errors.Join(checkRules(g.Ingress), checkRules(g.Egress)); err != nil {
		return fmt.Errorf("group %s: %w", g.ID, err)
	}
	return nil
}

func checkRules(rules []Rule) error {
	for _, r := range rules {
		if err := r.check(); err != nil {
			return err
		}
	}
	return nil
}

func (r Rule) check() error {
	limit := 65535
	if r.Protocol == 1 {
		limit = 255
	}
	ports := r.Protocol == 6 || r.Protocol == 17
	switch {
	case r.Protocol < -1 || r.Protocol > 255:
		return fmt.Errorf("rule for protocol %d: want -1 to 255", r.Protocol)
	case r.Prefix.IsValid() == (r.Group != ""):
		return fmt.Errorf("rule for %q and %q: want either a prefix or a group", r.Prefix, r.Group)
	case r.From < -1 || r.From > limit || r.To < -1 || r.To > limit:
		return fmt.Errorf("rule from %d to %d: want -1 to %d", r.From, r.To, limit)
	case ports && (r.From > r.To || r.From < 0 && r.To >= 0):
		return fmt.Errorf("rule from port %d to %d: the first is after the last", r.From, r.To)
	}
	return nil
}
