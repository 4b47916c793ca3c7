package user

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"mallee/network"
)

var (
	self   = [4]byte{172, 31, 0, 10}
	friend = [4]byte{172, 31, 0, 11}
)

// governedBy makes a guard with rules.
func governedBy(ingress, egress []network.Rule) *guard {
	l := newLaw()
	set, _, err := compile(&ruleSet{}, []network.Group{{ID: "sg", Network: "a", Ingress: ingress, Egress: egress}})
	if err != nil {
		panic(err)
	}
	l.enact(set)
	g := newGuard(l, "a")
	g.obey([]string{"sg"})
	return g
}

func about(prefix string) []network.Rule {
	return []network.Rule{{Protocol: -1, From: -1, To: -1, Prefix: netip.MustParsePrefix(prefix)}}
}

// sends and hears pass a packet of a flow through the guard.
func (g *guard) sends(proto byte, n uint16, flags byte, now time.Duration) bool {
	return g.pass(nil, head{proto: proto, src: self, dst: friend, from: n, to: 80, flags: flags}, false, now)
}

func (g *guard) hears(proto byte, n uint16, flags byte, now time.Duration) bool {
	return g.pass(nil, head{proto: proto, src: friend, dst: self, from: 80, to: n, flags: flags}, true, now)
}

// TestTracksAge: answers pass for as long as EC2 tracks the flow.
func TestTracksAge(t *testing.T) {
	const at = time.Hour
	for _, test := range []struct {
		what  string
		proto byte
		say   func(g *guard)
		lasts time.Duration
	}{
		{"a question", protoUDP, func(*guard) {}, unanswered},
		{"a conversation", protoUDP, func(g *guard) { g.hears(protoUDP, 1, 0, at) }, udpStream},
		{"an attempt to connect", protoTCP, func(*guard) {}, unanswered},
		{"a connection", protoTCP, func(g *guard) { g.hears(protoTCP, 1, tcpSYN|tcpACK, at) }, tcpEstablished},
		{"one side closed", protoTCP, func(g *guard) {
			g.hears(protoTCP, 1, tcpSYN|tcpACK, at)
			g.sends(protoTCP, 1, tcpFIN|tcpACK, at)
		}, tcpEstablished},
		{"both closed", protoTCP, func(g *guard) {
			g.hears(protoTCP, 1, tcpFIN|tcpACK, at)
			g.sends(protoTCP, 1, tcpFIN|tcpACK, at)
		}, tcpClosing},
		{"a reset", protoTCP, func(g *guard) { g.hears(protoTCP, 1, tcpRST, at) }, tcpClosing},
		{"protocol 47", 47, func(*guard) {}, unanswered},
	} {
		for age, want := range map[time.Duration]bool{test.lasts - 1: true, test.lasts: false} {
			g := governedBy(nil, about("172.31.0.0/16"))
			if !g.sends(test.proto, 1, tcpSYN, at) {
				t.Fatalf("%s: refused", test.what)
			}
			test.say(g)
			if got := g.hears(test.proto, 1, tcpACK, at+age); got != want {
				t.Errorf("%s: after %s passed is %t", test.what, age, got)
			}
		}
	}
}

// TestTracksAreBounded: a flood takes the place of nothing that is alive.
func TestTracksAreBounded(t *testing.T) {
	g := governedBy(nil, about("172.31.0.0/16"))
	const alive = 500
	for n := range uint16(alive) {
		g.sends(protoTCP, n, tcpSYN, 0)
		g.hears(protoTCP, n, tcpSYN|tcpACK, 0)
	}
	for n := range uint16(3 * maxTracks) {
		g.sends(protoUDP, n, 0, time.Second)
	}
	if len(g.tracks) > maxTracks {
		t.Errorf("%d flows are remembered", len(g.tracks))
	}
	for n := range uint16(alive) {
		if !g.hears(protoTCP, n, tcpACK, 2*time.Second) {
			t.Fatalf("connection %d is forgotten", n)
		}
	}
	g.sends(protoUDP, 1, 0, time.Hour)
	if len(g.tracks) > alive+1 {
		t.Errorf("an hour later %d flows are remembered", len(g.tracks))
	}
}

// TestFullOfLife: where all that is remembered is alive, nothing more begins
// until something is idle.
func TestFullOfLife(t *testing.T) {
	g := governedBy(nil, about("172.31.0.0/16"))
	for n := range uint16(maxTracks) {
		g.sends(protoTCP, n, tcpSYN, 0)
		g.hears(protoTCP, n, tcpSYN|tcpACK, 0)
	}
	if g.sends(protoTCP, maxTracks, tcpSYN, time.Second) {
		t.Error("a flow began without room")
	}
	if !g.sends(protoTCP, maxTracks, tcpSYN, idleEnough+1) || len(g.tracks) > maxTracks {
		t.Errorf("no room is made for a new flow, %d are remembered", len(g.tracks))
	}
}

func TestFragmentsAreBounded(t *testing.T) {
	s := fragments{}
	ip := make(packet, 40)
	putIPv4(ip, protoUDP, netip.AddrFrom4(self), netip.AddrFrom4(friend))
	for id := range 10 * maxFragmented {
		ip[4], ip[5] = byte(id>>8), byte(id)
		s.decide(ip, true, 0)
	}
	if len(s) > maxFragmented {
		t.Errorf("%d packets are remembered", len(s))
	}
	ip[6], ip[7] = 0, 3 // 24 bytes in
	if !s.follows(ip, fragmentTimeout-1) || s.follows(ip, fragmentTimeout) {
		t.Error("a fragment passes too late, or not at all")
	}
}

// crowd of groups with 50 rules each, of which one refers to the next.
func crowd(n int) []network.Group {
	groups := make([]network.Group, n)
	for i := range groups {
		g := network.Group{ID: fmt.Sprintf("sg-%08d", i), Network: "a", Egress: about("0.0.0.0/0")}
		for r := range 49 {
			g.Ingress = append(g.Ingress, network.Rule{Protocol: protoTCP, From: 1000 + r, To: 1000 + r, Prefix: netip.MustParsePrefix("10.0.0.0/8")})
		}
		g.Ingress = append(g.Ingress, network.Rule{Protocol: -1, From: -1, To: -1, Group: fmt.Sprintf("sg-%08d", (i+1)%n)})
		g.Members = []netip.Addr{netip.AddrFrom4([4]byte{172, 31, byte(i >> 8), byte(i)})}
		groups[i] = g
	}
	return groups
}

// populate a network with groups and a port for each.
func populate(b *testing.B, n int) (*User, []network.Group) {
	u, groups := open(b, Options{}), crowd(n)
	for i := range n {
		p := &port{guard: newGuard(u.law, "a")}
		p.Network = "a"
		u.govern(p, []string{groups[i].ID})
	}
	if err := u.Groups(b.Context(), groups); err != nil {
		b.Fatal(err)
	}
	return u, groups
}

// beginFlows has one port hear of a new flow, which the last of its rules
// allows, each time.
func beginFlows(u *User, groups []network.Group, times int) {
	g := newGuard(u.law, "a")
	g.obey([]string{groups[0].ID})
	h := head{proto: protoUDP, src: [4]byte{172, 31, 0, 1}, dst: self, to: 9}
	for i := range times {
		h.from = uint16(i)
		g.pass(nil, h, true, 0)
	}
}

// changeRule of one group, each time.
func changeRule(b *testing.B, u *User, groups []network.Group, times int) {
	for i := range times {
		rules := groups[0].Ingress
		rules = append([]network.Rule{}, rules...)
		rules[0].From, rules[0].To = i%60000, i%60000
		groups[0].Ingress = rules
		if err := u.Groups(b.Context(), groups); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkManyGroups compares 1,000 groups of 50 rules on 1,000 ports with 10
// on 10: what a packet that begins a flow costs, and what a change of one rule
// does.
func BenchmarkManyGroups(b *testing.B) {
	few, fewGroups := populate(b, 10)
	defer few.Close()
	many, manyGroups := populate(b, 1000)
	defer many.Close()
	took := func(f func()) float64 {
		start := time.Now()
		f()
		return float64(time.Since(start).Nanoseconds())
	}
	var packet, change [2]float64
	for b.Loop() {
		packet[0] += took(func() { beginFlows(few, fewGroups, 10000) }) / 10000
		packet[1] += took(func() { beginFlows(many, manyGroups, 10000) }) / 10000
		change[0] += took(func() { changeRule(b, few, fewGroups, 100) }) / 100
		change[1] += took(func() { changeRule(b, many, manyGroups, 100) }) / 100
	}
	b.ReportMetric(packet[1]/float64(b.N), "ns/packet")
	b.ReportMetric(packet[1]/packet[0], "packet:1000/10")
	b.ReportMetric(change[1]/float64(b.N), "ns/change")
	b.ReportMetric(change[1]/change[0], "change:1000/10")
}

// BenchmarkTracked is what a packet of a flow costs that has begun.
func BenchmarkTracked(b *testing.B) {
	g := governedBy(nil, about("172.31.0.0/16"))
	for b.Loop() {
		g.sends(protoUDP, 1, 0, 0)
	}
}
