package controller

import (
	"maps"
	"net/netip"
	"slices"

	"mallee/cloud"
	"mallee/link"
	"mallee/state"
)

// groups that matter to a node with these instances: those that they are in, and
// those whose members the rules of those let through.
func groups(view *state.View, instances []cloud.Instance) []link.Group {
	all := map[cloud.GroupID]link.Group{}
	for _, i := range instances {
		for _, ref := range i.Groups {
			if _, done := all[ref.ID]; done {
				continue
			}
			if g, _, ok := state.SecurityGroups.Get(view, ref.ID); ok {
				all[g.ID] = link.Group{ID: g.ID, Account: g.Account, Rules: g.Rules}
			}
		}
	}
	named := map[cloud.GroupID]bool{}
	for _, g := range all {
		for _, r := range g.Rules {
			if r.GroupAccount == g.Account {
				named[r.Group] = true
			}
		}
	}
	for id := range named {
		if g, _, ok := state.SecurityGroups.Get(view, id); ok {
			all[id] = link.Group{ID: id, Account: g.Account, Rules: all[id].Rules, Members: members(view, id)}
		}
	}
	list := make([]link.Group, 0, len(all))
	for _, id := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[id])
	}
	return list
}

// members of a group have their private addresses still.
func members(view *state.View, id cloud.GroupID) (addresses []netip.Addr) {
	for i := range state.InstancesByGroup.By(view, id) {
		if state.Owner(view, state.LocalAddress, i.Local.String()) == string(i.ID) {
			addresses = append(addresses, i.Local)
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return addresses
}
