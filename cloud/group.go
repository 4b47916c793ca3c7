package cloud

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"time"
)

// DefaultGroup is the security group that every account has, and that a
// launch takes which names no other.
const DefaultGroup = "default"

// SecurityGroup says what may reach the instances in it. Nothing else may: what
// no rule of any of an instance's groups allows is dropped, and the answers to
// what is allowed pass.
type SecurityGroup struct {
	ID          GroupID     `json:"id"`
	Account     AccountID   `json:"account"`
	Name        string      `json:"name"` // unique in the account, never changed
	Description string      `json:"description"`
	CreatedAt   time.Time   `json:"created_at"`
	Rules       []GroupRule `json:"rules,omitempty"`
}

// Ref of the group, as an instance keeps it.
func (g *SecurityGroup) Ref() Group { return Group{ID: g.ID, Name: g.Name} }

// AnyOf stands for all protocols, all ports, all types and codes of ICMP.
const AnyOf = -1

// The protocols that EC2 has names for; any other is a number.
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
)

// GroupRule allows traffic between the members of its group and a peer, which is
// a prefix or the members of a group.
type GroupRule struct {
	ID           RuleID       `json:"id"`
	Egress       bool         `json:"egress,omitempty"` // what they begin, not what begins with the peer
	Protocol     int          `json:"protocol"`
	From         int          `json:"from"` // port; of ICMP the type
	To           int          `json:"to"`   // port; of ICMP the code
	Prefix       netip.Prefix `json:"prefix,omitzero"`
	Group        GroupID      `json:"group,omitempty"`
	GroupAccount AccountID    `json:"group_account,omitempty"`
	Description  string       `json:"description,omitempty"`
}

// Same says whether two rules allow the same: a group has no two of those.
func (r GroupRule) Same(o GroupRule) bool {
	r.ID, r.GroupAccount, r.Description = o.ID, o.GroupAccount, o.Description
	return r == o
}

// NewDefaultGroup of an account. Its id follows from the account's, so that it is
// there before anything made it.
func NewDefaultGroup(account AccountID, now time.Time) *SecurityGroup {
	id := GroupID(DerivedID(PrefixGroup, "security group default of "+string(account)))
	return &SecurityGroup{
		ID: id, Account: account, Name: DefaultGroup, Description: "default group", CreatedAt: now,
		Rules: DefaultRules(account, id),
	}
}

// DefaultRules of a default group: its members reach each other and everything.
func DefaultRules(account AccountID, id GroupID) []GroupRule {
	return []GroupRule{{
		ID:       RuleID(DerivedID(PrefixRule, "members of "+string(id))),
		Protocol: AnyOf, From: AnyOf, To: AnyOf, Group: id, GroupAccount: account,
	}, OutgoingRule(RuleID(DerivedID(PrefixRule, "everywhere from "+string(id))))}
}

// OutgoingRule is the one that a new group begins with: to everywhere.
func OutgoingRule(id RuleID) GroupRule {
	return GroupRule{
		ID: id, Egress: true, Protocol: AnyOf, From: AnyOf, To: AnyOf,
		Prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0),
	}
}

// DerivedID is an id that follows from what it is of, for things that are there
// before anything made them.
func DerivedID(prefix, of string) string {
	sum := sha256.Sum256([]byte(of))
	return prefix + "-" + hex.EncodeToString(sum[:4])
}
