package controller

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"mallee/cloud"
	"mallee/link"
	"mallee/state"
)

// enter puts an instance into groups.
func (d *desk) enter(id cloud.InstanceID, groups ...cloud.GroupID) {
	d.Helper()
	var refs []cloud.Group
	for _, g := range groups {
		refs = append(refs, cloud.Group{ID: g, Name: string(g)})
	}
	d.update(func(tx *state.Tx) {
		i, _, _ := state.Instances.Get(tx, id)
		state.ChangeGroups(tx, *i, refs)
	})
}

func (d *desk) group(id cloud.GroupID, peers ...cloud.GroupID) {
	d.Helper()
	g := cloud.SecurityGroup{ID: id, Account: "123456789012", Name: string(id)}
	for n, p := range peers {
		g.Rules = append(g.Rules, cloud.GroupRule{ID: cloud.RuleID(fmt.Sprintf("sgr-%s-%d", id, n)), Protocol: cloud.AnyOf, Group: p, GroupAccount: g.Account})
	}
	d.update(func(tx *state.Tx) { state.PutGroup(tx, g) })
}

// assigned are the groups of the node's assignment, and whose addresses are in
// them.
func (d *desk) assigned(node cloud.NodeID) string {
	names := map[netip.Addr]cloud.InstanceID{}
	for i := range state.Instances.All(d.Store.View()) {
		names[i.Local] = i.ID
	}
	text := ""
	for _, g := range d.Assignment(node).Groups {
		var members []string
		for _, a := range g.Members {
			members = append(members, string(names[a]))
		}
		slices.Sort(members)
		text += fmt.Sprintf("%s %d %v; ", g.ID, len(g.Rules), members)
	}
	return text
}

// TestGroupsReachTheirNodes: each change makes the assignment newer of the nodes
// that it matters to, and of no other.
func TestGroupsReachTheirNodes(t *testing.T) {
	d := newDesk(t)
	d.report("node-3", 0)
	for n, id := range []cloud.InstanceID{"i-00000001", "i-00000002", "i-00000003"} {
		d.launch(id, cloud.NodeID(fmt.Sprintf("node-%d", n+1)))
	}
	nodes := []cloud.NodeID{"node-1", "node-2", "node-3"}
	for _, step := range []struct {
		name string
		do   func()
		told string // the nodes whose assignments are newer
		want string // of the first node
	}{
		{"a group without instances", func() { d.group("sg-a"); d.group("sg-b") }, "", ""},
		{"the first enters", func() { d.enter("i-00000001", "sg-a") }, "1", "sg-a 0 []; "},
		{"its group lets another's members in", func() { d.group("sg-a", "sg-b") }, "1", "sg-a 1 []; sg-b 0 []; "},
		{"the second enters that", func() { d.enter("i-00000002", "sg-b") }, "12", "sg-a 1 []; sg-b 0 [i-00000002]; "},
		{"one whom nobody lets in", func() { d.group("sg-c"); d.enter("i-00000003", "sg-c") }, "3", "sg-a 1 []; sg-b 0 [i-00000002]; "},
		{"a group lets itself in", func() { d.group("sg-a", "sg-a") }, "1", "sg-a 1 [i-00000001]; "},
		{"and the other one too", func() { d.group("sg-a", "sg-a", "sg-b") }, "1", "sg-a 2 [i-00000001]; sg-b 0 [i-00000002]; "},
		{"the second is to end", func() { d.want("i-00000002", cloud.WishTerminated) }, "2", "sg-a 2 [i-00000001]; sg-b 0 [i-00000002]; "},
		{"and has ended", func() { d.report("node-2", d.current("node-2")) }, "12", "sg-a 2 [i-00000001]; sg-b 0 []; "},
		{"the first leaves", func() { d.enter("i-00000001") }, "1", ""},
	} {
		before := map[cloud.NodeID]int64{}
		for _, n := range nodes {
			before[n] = d.current(n)
		}
		step.do()
		told := ""
		for _, n := range nodes {
			if d.current(n) > before[n] {
				told += string(n[len("node-"):])
			}
		}
		if told != step.told {
			t.Errorf("%s: told node %q, want %q", step.name, told, step.told)
		}
		if got := d.assigned("node-1"); got != step.want {
			t.Errorf("%s: node 1 knows %q, want %q", step.name, got, step.want)
		}
	}
}

// TestGroupsAreNotKeptByOthers: who names another account's group is told nothing
// of it, and keeps nobody from deleting it.
func TestGroupsAreNotKeptByOthers(t *testing.T) {
	d := newDesk(t)
	d.launch("i-00000001", "node-1")
	d.update(func(tx *state.Tx) {
		state.PutGroup(tx, cloud.SecurityGroup{ID: "sg-b", Account: "999999999999", Name: "b"})
		state.PutGroup(tx, cloud.SecurityGroup{ID: "sg-a", Account: "123456789012", Name: "a", Rules: []cloud.GroupRule{{ID: "sgr-1", Group: "sg-b", GroupAccount: "999999999999"}}})
	})
	d.enter("i-00000001", "sg-a")
	groups := d.Assignment("node-1").Groups
	if !slices.EqualFunc(groups, []cloud.GroupID{"sg-a"}, func(g link.Group, id cloud.GroupID) bool { return g.ID == id }) {
		t.Errorf("the node is told %+v", groups)
	}
	if n := state.Count(d.Store.View(), state.GroupUse, "sg-b"); n != 0 {
		t.Errorf("the other's group is held %d times", n)
	}
}
