package node

import (
	"net/netip"
	"reflect"
	"testing"

	"mallee/cloud"
	"mallee/link"
	"mallee/network"
)

// TestGroupsReachTheNetwork with what they allow, and again after a restart.
func TestGroupsReachTheNetwork(t *testing.T) {
	r := newRig(t)
	r.Step(r.Context())
	if got := r.net.Rules(); got != nil {
		t.Errorf("before any assignment the network is told %+v", got)
	}
	i := instance(1)
	i.Groups = []cloud.Group{{ID: "sg-a", Name: "a"}}
	office, member := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParseAddr("172.31.0.9")
	r.tell(link.Assignment{Instances: []cloud.Instance{i}, Groups: []link.Group{
		{ID: "sg-a", Account: i.Account, Members: []netip.Addr{member}, Rules: []cloud.GroupRule{
			{Protocol: cloud.TCP, From: 22, To: 23, Prefix: office},
			{Protocol: cloud.ICMP, From: 8, To: -1, Group: "sg-a", GroupAccount: i.Account},
			{Protocol: cloud.AnyOf, From: -1, To: -1, Group: "sg-x", GroupAccount: "999999999999"},
			{Egress: true, Protocol: cloud.AnyOf, From: -1, To: -1, Prefix: office},
		}},
	}})
	want := []network.Group{{
		ID: "sg-a", Network: string(i.Account), Members: []netip.Addr{member},
		Ingress: []network.Rule{{Protocol: 6, From: 22, To: 23, Prefix: office}, {Protocol: 1, From: 8, To: -1, Group: "sg-a"}},
		Egress:  []network.Rule{{Protocol: -1, From: -1, To: -1, Prefix: office}},
	}}
	r.wantPhase(cloud.PhaseUp)
	for _, when := range []string{"once assigned", "after a restart"} {
		if got := r.net.Rules(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s the network is told %+v, want %+v", when, got, want)
		}
		if p, ok := r.net.Port(string(i.ID)); !ok || !reflect.DeepEqual(p.Groups, []string{"sg-a"}) {
			t.Errorf("%s the port is %+v", when, p)
		}
		r.open()
		r.wantPhase(cloud.PhaseUp)
	}
}

// TestRunningPortsChange with the groups and the public address of their
// instances; an instance without groups is in none, which lets nothing through.
func TestRunningPortsChange(t *testing.T) {
	r := newRig(t)
	i := instance(1)
	r.assign(i)
	r.wantPhase(cloud.PhaseUp)
	if p, _ := r.net.Port(string(i.ID)); p.Groups == nil || len(p.Groups) != 0 {
		t.Errorf("without groups the port is in %#v", p.Groups)
	}
	i.Groups, i.Public = []cloud.Group{{ID: "sg-b", Name: "b"}}, netip.MustParseAddr("127.9.9.9")
	r.assign(i)
	r.Step(r.Context())
	if p, _ := r.net.Port(string(i.ID)); !reflect.DeepEqual(p.Groups, []string{"sg-b"}) || p.Public != i.Public {
		t.Errorf("changed, the port is %+v", p)
	}
	if n := r.count("start"); n != 1 {
		t.Errorf("the machine was started %d times", n)
	}
}

// TestChangesThatPortsNeed wake a machine, and nothing else does.
func TestChangesThatPortsNeed(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*cloud.Instance)
		want   bool
	}{
		"nothing":        {func(*cloud.Instance) {}, false},
		"groups":         {func(i *cloud.Instance) { i.Groups = []cloud.Group{{ID: "sg-b"}} }, true},
		"public address": {func(i *cloud.Instance) { i.Public = netip.MustParseAddr("127.9.9.9") }, true},
		"wish":           {func(i *cloud.Instance) { i.Wishes++ }, true},
		"tokens":         {func(i *cloud.Instance) { i.TokensRequired = true }, false},
	} {
		is := instance(1)
		test.change(&is)
		if got := moved(instance(1), is); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
