package user

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"mallee/network"
)

// verdict of the rules about what begins.
type verdict int

const (
	refused verdict = iota
	allowed
	// allowedOpen is by a rule for everybody, and rules for everybody let all
	// answers pass: EC2 does not track such a flow, so that it ends with its
	// rule.
	allowedOpen
)

// ruleSet is what all groups say at one time. It never changes: what changed
// comes as another, with the groups that did not change in it.
type ruleSet struct {
	index  map[string]int // by id, in groups
	groups []*ruleGroup
}

// ruleGroup is a group, compiled.
type ruleGroup struct {
	said    network.Group // as it was told
	ingress rules
	egress  rules
	members map[[4]byte]struct{}
}

// rules of one direction, by what they are about.
type rules struct {
	tcp, udp, icmp, other []rule
	openTCP, openUDP      bool // everything of everybody
}

// rule as packets are compared with it: a peer has the bits, or is a member.
type rule struct {
	from, to   uint16 // ports, or type<<8 | code
	proto      int16  // -1 for all; looked at for others than TCP, UDP and ICMP
	mask, bits uint32
	group      string // no bits then
}

// question about a flow: may it begin?
type question struct {
	ingress bool
	proto   byte
	peer    [4]byte
	port    uint16 // the receiver's, or type<<8 | code
}

// compile the groups, taking over from the last set what is the same: usually
// all but one, in the same order. changed has the ids of those that are not, or
// are no more.
func compile(last *ruleSet, groups []network.Group) (set *ruleSet, changed []string, err error) {
	set = &ruleSet{index: last.index, groups: make([]*ruleGroup, len(groups))}
	inPlace := len(groups) == len(last.groups)
	for i := range groups {
		g := &groups[i]
		have := last.at(i, g.ID)
		inPlace = inPlace && have == last.groups[i]
		if have == nil || !sameGroup(&have.said, g) {
			if have, err = compileGroup(*g); err != nil {
				return nil, nil, err
			}
			changed = append(changed, g.ID)
		}
		set.groups[i] = have
	}
	if inPlace {
		return set, changed, nil
	}
	if set.index, err = indexOf(set.groups); err != nil {
		return nil, nil, err
	}
	return set, append(changed, last.without(set)...), nil
}

// at gives the group with an id, which is likely to be the i-th; nil for none.
func (s *ruleSet) at(i int, id string) *ruleGroup {
	if i < len(s.groups) && s.groups[i].said.ID == id {
		return s.groups[i]
	}
	return s.group(id)
}

// group with an id; nil for none.
func (s *ruleSet) group(id string) *ruleGroup {
	if i, ok := s.index[id]; ok {
		return s.groups[i]
	}
	return nil
}

// without lists the groups that are not in another set.
func (s *ruleSet) without(other *ruleSet) (gone []string) {
	for _, g := range s.groups {
		if other.group(g.said.ID) == nil {
			gone = append(gone, g.said.ID)
		}
	}
	return gone
}

func indexOf(groups []*ruleGroup) (map[string]int, error) {
	index := make(map[string]int, len(groups))
	for i, g := range groups {
		if _, twice := index[g.said.ID]; twice {
			return nil, fmt.Errorf("group %s is named twice", g.said.ID)
		}
		index[g.said.ID] = i
	}
	return index, nil
}

func sameGroup(a, b *network.Group) bool {
	return a.Network == b.Network && same(a.Ingress, b.Ingress) && same(a.Egress, b.Egress) && same(a.Members, b.Members)
}

// same slices, which are usually the very same: nobody writes to them.
func same[T comparable](a, b []T) bool {
	if len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) {
		return true
	}
	return slices.Equal(a, b)
}

func compileGroup(g network.Group) (*ruleGroup, error) {
	if err := g.Check(); err != nil {
		return nil, err
	}
	c := &ruleGroup{
		said: g, ingress: compileRules(g.Ingress), egress: compileRules(g.Egress),
		members: make(map[[4]byte]struct{}, len(g.Members)),
	}
	for _, a := range g.Members {
		if a.Is4() {
			c.members[a.As4()] = struct{}{}
		}
	}
	return c, nil
}

func compileRules(said []network.Rule) (r rules) {
	for _, s := range said {
		c, ok := compileRule(s)
		if !ok {
			continue
		}
		all := s.Protocol == -1
		whole := c.group == "" && c.mask == 0 && c.from == 0 && c.to == 65535
		if all || s.Protocol == protoTCP {
			r.tcp, r.openTCP = append(r.tcp, c), r.openTCP || whole
		}
		if all || s.Protocol == protoUDP {
			r.udp, r.openUDP = append(r.udp, c), r.openUDP || whole
		}
		if all || s.Protocol == protoICMP {
			r.icmp = append(r.icmp, c)
		}
		if s.Protocol != protoTCP && s.Protocol != protoUDP && s.Protocol != protoICMP {
			r.other = append(r.other, c)
		}
	}
	return r
}

// compileRule; false for one of IPv6, which this network does not carry.
func compileRule(s network.Rule) (rule, bool) {
	c := rule{to: 65535, proto: int16(s.Protocol), group: s.Group}
	switch {
	case s.Protocol == protoICMP && s.From >= 0 && s.To >= 0:
		c.from = uint16(s.From<<8 | s.To)
		c.to = c.from
	case s.Protocol == protoICMP && s.From >= 0:
		c.from, c.to = uint16(s.From<<8), uint16(s.From<<8|0xff)
	case (s.Protocol == protoTCP || s.Protocol == protoUDP) && s.From >= 0:
		c.from, c.to = uint16(s.From), uint16(s.To)
	}
	if s.Group != "" {
		return c, true
	}
	if !s.Prefix.Addr().Is4() {
		return c, false
	}
	a := s.Prefix.Addr().As4()
	c.mask = ^uint32(0) << (32 - s.Prefix.Bits())
	c.bits = binary.BigEndian.Uint32(a[:]) & c.mask
	return c, true
}

// judge what a port with these groups may begin. Only the port's own groups
// cost time.
func (s *ruleSet) judge(groups []string, network string, q question) verdict {
	v, answers := refused, false
	for _, id := range groups {
		g := s.group(id)
		if g == nil || g.said.Network != network {
			continue
		}
		forth, back := &g.egress, &g.ingress
		if q.ingress {
			forth, back = back, forth
		}
		v = max(v, s.match(forth.of(q.proto), network, q))
		answers = answers || q.proto == protoTCP && back.openTCP || q.proto == protoUDP && back.openUDP
	}
	if v == allowedOpen && !answers {
		return allowed
	}
	return v
}

func (r *rules) of(proto byte) []rule {
	switch proto {
	case protoTCP:
		return r.tcp
	case protoUDP:
		return r.udp
	case protoICMP:
		return r.icmp
	}
	return r.other
}

func (s *ruleSet) match(rules []rule, network string, q question) verdict {
	best, peer := refused, binary.BigEndian.Uint32(q.peer[:])
	for i := range rules {
		r := &rules[i]
		if q.port < r.from || q.port > r.to || peer&r.mask != r.bits && r.group == "" ||
			r.proto >= 0 && r.proto != int16(q.proto) {
			continue
		}
		if r.group != "" {
			if s.member(r.group, network, q.peer) {
				best = allowed
			}
			continue
		}
		if r.mask == 0 {
			return allowedOpen
		}
		best = allowed
	}
	return best
}

func (s *ruleSet) member(group, network string, peer [4]byte) bool {
	g := s.group(group)
	if g == nil || g.said.Network != network {
		return false
	}
	_, ok := g.members[peer]
	return ok
}

// Groups implements network.Network.
func (u *User) Groups(_ context.Context, groups []network.Group) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return errors.New("the network is closed")
	}
	set, changed, err := compile(u.law.rules.Load(), groups)
	if err != nil || len(changed) == 0 {
		return err
	}
	u.law.enact(set)
	for _, id := range changed {
		for p := range u.governed[id] {
			p.recheck()
		}
	}
	return nil
}

// govern notes whose rules the port now has to obey. The caller holds mu.
func (u *User) govern(p *port, groups []string) {
	for _, id := range p.Groups {
		delete(u.governed[id], p)
		if len(u.governed[id]) == 0 {
			delete(u.governed, id)
		}
	}
	for _, id := range groups {
		if u.governed[id] == nil {
			u.governed[id] = map[*port]struct{}{}
		}
		u.governed[id][p] = struct{}{}
	}
	p.Groups = slices.Clone(groups)
	p.guard.obey(p.Groups)
}
