package state

import (
	"encoding/json"
	"fmt"
	"slices"

	"mallee/cloud"
)

// GroupName is the kind of the guards that make a security group's name unique
// in its account; GroupUse counts who holds a group: the instances in it, and
// the rules of other groups that name it. A default group, which nobody deletes,
// is not counted.
const (
	GroupName = "group-name"
	GroupUse  = "group-use"
)

// GroupNameGuard is the name under which GroupName guards.
func GroupNameGuard(account cloud.AccountID, name string) string {
	return string(account) + "/" + name
}

// giveDefaultRules to the groups of the time before there were rules, all of
// which were default ones.
func giveDefaultRules(old json.RawMessage) (json.RawMessage, error) {
	var g cloud.SecurityGroup
	if err := json.Unmarshal(old, &g); err != nil {
		return nil, fmt.Errorf("give the group its rules: %w", err)
	}
	g.Rules = cloud.DefaultRules(g.Account, g.ID)
	return json.Marshal(g)
}

// groupsOf are the groups that an instance is in; those of one that was released,
// which its record doesn't tell, too.
func groupsOf(i *cloud.Instance) (ids []cloud.GroupID) {
	for _, g := range i.Groups {
		ids = append(ids, g.ID)
	}
	return ids
}

// PeersOf are the groups that a group's rules name, each once.
func PeersOf(g *cloud.SecurityGroup) (ids []cloud.GroupID) {
	for _, r := range g.Rules {
		if r.Group != "" && !slices.Contains(ids, r.Group) {
			ids = append(ids, r.Group)
		}
	}
	return ids
}

func rulesOf(g *cloud.SecurityGroup) (ids []cloud.RuleID) {
	for _, r := range g.Rules {
		ids = append(ids, r.ID)
	}
	return ids
}

// PutGroup writes a group, new or changed, and tells the nodes that have
// instances in it.
func PutGroup(tx *Tx, g cloud.SecurityGroup) {
	was, _, _ := SecurityGroups.Get(tx, g.ID)
	if was != nil {
		holdPeers(tx, was, -1)
	}
	SecurityGroups.Put(tx, g)
	holdPeers(tx, &g, +1)
	pokeMembers(tx, g.ID)
}

// DeleteGroup removes a group that nothing holds, with its tags.
func DeleteGroup(tx *Tx, g *cloud.SecurityGroup) {
	holdPeers(tx, g, -1)
	tx.Release(GroupName, GroupNameGuard(g.Account, g.Name))
	SecurityGroups.Delete(tx, g.ID)
	TagSets.Delete(tx, string(g.ID))
	for _, r := range g.Rules {
		TagSets.Delete(tx, string(r.ID))
	}
}

// holdPeers counts the group among those who hold the others of its account that
// its rules name: who names another account's keeps nobody from deleting it.
func holdPeers(tx *Tx, g *cloud.SecurityGroup, delta int64) {
	for _, id := range PeersOf(g) {
		if peer, _, ok := SecurityGroups.Get(tx, id); ok && peer.Name != cloud.DefaultGroup && peer.Account == g.Account && id != g.ID {
			tx.Add(GroupUse, string(id), delta)
		}
	}
}

// ChangeGroups puts an instance that holds its addresses into other groups.
func ChangeGroups(tx *Tx, i cloud.Instance, groups []cloud.Group) {
	leaveGroups(tx, &i)
	i.Groups = groups
	joinGroups(tx, &i)
	Instances.Put(tx, i)
	poke(tx, i.Node)
}

func joinGroups(tx *Tx, i *cloud.Instance)  { member(tx, i, +1) }
func leaveGroups(tx *Tx, i *cloud.Instance) { member(tx, i, -1) }

// member counts an instance in or out of its groups, and tells the nodes whose
// instances let those groups' members in.
func member(tx *Tx, i *cloud.Instance, delta int64) {
	for _, g := range i.Groups {
		if g.Name != cloud.DefaultGroup {
			tx.Add(GroupUse, string(g.ID), delta)
		}
		for by := range GroupsByPeer.By(tx, g.ID) {
			pokeMembers(tx, by.ID)
		}
	}
}

// pokeMembers tells the nodes that have an instance in the group. They are few,
// so that most of a large group's instances needn't be looked at.
func pokeMembers(tx *Tx, id cloud.GroupID) {
	total := 0
	for range Nodes.All(tx) {
		total++
	}
	nodes := map[cloud.NodeID]bool{}
	for i := range InstancesByGroup.By(tx, id) {
		if nodes[i.Node] = true; len(nodes) == total {
			break
		}
	}
	for n := range nodes {
		poke(tx, n)
	}
}
