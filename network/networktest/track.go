package networktest

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"mallee/network"
)

// pair of governed guests: one may send anything, to the other's UDP port 9 and
// TCP port 7, and echo, from the prefix.
func pair(t *testing.T, n network.Network, prefix string) (c crafted, revoke func()) {
	t.Helper()
	client := network.Group{ID: "sg-client", Network: "a", Egress: []network.Rule{all}}
	server := network.Group{ID: "sg-server", Network: "a", Egress: []network.Rule{all}, Ingress: []network.Rule{
		rule(protoUDP, 9, 9, prefix), rule(protoTCP, 7, 7, prefix), rule(protoICMP, 8, -1, prefix)}}
	govern(t, n, client, server)
	from, _ := governed(t, n, "a", 1, client.ID)
	to, _ := governed(t, n, "a", 2, server.ID)
	return crafted{from, to}, func() {
		t.Helper()
		none := server
		none.Ingress = nil
		govern(t, n, client, none)
	}
}

// say sends one packet and says whether it arrived.
func (c crafted) say(frame func(trace string) []byte) bool {
	trace := fmt.Sprintf("trace %d.", markers.Add(1))
	return c.to.hears(c.from, trace, frame(trace))
}

func check(t *testing.T, what string, got, want bool) {
	t.Helper()
	if got != want {
		t.Errorf("%s: passed is %t", what, got)
	}
}

// repliesPass, to what was allowed and nothing else.
func repliesPass(t *testing.T, d Driver) {
	n := d.open(t, World{})
	c, _ := pair(t, n, "172.31.0.0/16")
	b := c.back()
	answer := func(trace string) []byte { return b.udp(9, 4001, trace) }
	check(t, "an answer before the question", b.say(answer), false)
	check(t, "the question", c.say(func(s string) []byte { return c.udp(4001, 9, s) }), true)
	check(t, "the answer", b.say(answer), true)
	check(t, "an answer to another port", b.say(func(s string) []byte { return b.udp(9, 4002, s) }), false)
	check(t, "an answer from another port", b.say(func(s string) []byte { return b.udp(10, 4001, s) }), false)

	check(t, "ping", c.say(func(s string) []byte { return c.icmp(8, 0, 5, s) }), true)
	check(t, "pong", b.say(func(s string) []byte { return b.icmp(0, 0, 5, s) }), true)
	check(t, "pong of another", b.say(func(s string) []byte { return b.icmp(0, 0, 6, s) }), false)
	check(t, "ping the other way", b.say(func(s string) []byte { return b.icmp(8, 0, 5, s) }), false)

	echo(t, c.to.Listen(7))
	conn, err := c.from.Dial(t.Context(), netip.AddrPortFrom(c.to.Addr(), 7))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	converse(t, conn, 1<<20)
	local := netip.MustParseAddrPort(conn.LocalAddr().String()).Port()
	check(t, "a connection the other way by the same ports", b.say(func(s string) []byte { return b.tcp(header.TCPFlagSyn, 7, local, s) }), false)
	converse(t, conn, 1000)
}

// errorsPass, about what was allowed, from who it is about.
func errorsPass(t *testing.T, d Driver) {
	n := d.open(t, World{})
	c, _ := pair(t, n, "172.31.0.0/16")
	third, _ := governed(t, n, "a", 3, "sg-client")
	trace := "to port 9"
	sent := c.udp(4001, 9, trace)
	unknown := c.udp(4003, 9, trace)
	check(t, "the packet", c.to.hears(c.from, trace, sent), true)
	about := func(by *Guest, f []byte, mark byte) (frame []byte, trace string) {
		quote := append(bytes.Clone(f[header.EthernetMinimumSize:][:28]), mark, 'e', 'r', 'r', mark)
		return crafted{by, c.from}.icmp(3, 3, 0, string(quote)), string(quote)
	}
	for i, test := range []struct {
		what string
		by   *Guest
		f    []byte
		pass bool
	}{
		{"about what was sent", c.to, sent, true},
		{"about what was not", c.to, unknown, false},
		{"from a third", third, sent, false},
	} {
		f, trace := about(test.by, test.f, byte('0'+i))
		check(t, "an error "+test.what, c.from.hears(test.by, trace, f), test.pass)
	}
}

// fragmentsPass by what the first one is.
func fragmentsPass(t *testing.T, d Driver) {
	n := d.open(t, World{})
	c, _ := pair(t, n, "172.31.0.0/16")
	long := func(port uint16, first, second string) []byte {
		return c.udp(4000, port, fmt.Sprintf("%-64s%-64s", first, second))
	}
	cut := func(id uint16, f []byte, at, from int) (head, tail []byte) {
		return fragment(f, id, 0, at, true), fragment(f, id, from, len(f)-34, false)
	}
	head, tail := cut(1, long(9, "allowed head", "allowed tail"), 72, 72)
	check(t, "first fragment", c.to.hears(c.from, "allowed head", head), true)
	check(t, "second fragment", c.to.hears(c.from, "allowed tail", tail), true)
	head, tail = cut(2, long(10, "refused head", "refused tail"), 72, 72)
	check(t, "refused first", c.to.hears(c.from, "refused head", head), false)
	check(t, "second of a refused", c.to.hears(c.from, "refused tail", tail), false)
	_, tail = cut(3, long(9, "no head", "lonely tail"), 72, 72)
	check(t, "a tail without a head", c.to.hears(c.from, "lonely tail", tail), false)
	head, tail = cut(4, long(9, "good head", "overlapping tail"), 72, 64)
	check(t, "good first", c.to.hears(c.from, "good head", head), true)
	check(t, "a tail that reaches into the head", c.to.hears(c.from, "overlapping tail", tail), false)
	head, _ = cut(1, long(10, "another head of 1", ""), 72, 72)
	_, tail = cut(1, long(10, "", "another tail of 1"), 72, 72)
	check(t, "a refused head in place of an allowed", c.to.hears(c.from, "another head", head), false)
	check(t, "a tail after it", c.to.hears(c.from, "another tail", tail), false)

	tiny := c.tcp(header.TCPFlagSyn, 4000, 7, "tiny")
	head, tail = cut(5, tiny, 8, 8)
	check(t, "the rest of a head in two", c.to.hears(c.from, "tiny", head, tail), false)
}

// revoked rules begin nothing more; what they began goes on where it is
// tracked, and ends where it is not.
func revoked(t *testing.T, d Driver) {
	for prefix, goesOn := range map[string]bool{"172.31.0.0/16": true, "0.0.0.0/0": false} {
		t.Run(prefix, func(t *testing.T) {
			n := d.open(t, World{})
			c, revoke := pair(t, n, prefix)
			old := func(s string) []byte { return c.udp(4001, 9, s) }
			ping := func(s string) []byte { return c.icmp(8, 0, 5, s) }
			check(t, "UDP", c.say(old), true)
			check(t, "ping", c.say(ping), true)
			revoke()
			check(t, "UDP that was there", c.say(old), goesOn)
			check(t, "ping that was there", c.say(ping), true) // always tracked
			check(t, "UDP from another port", c.say(func(s string) []byte { return c.udp(4002, 9, s) }), false)
			check(t, "a connection", c.say(func(s string) []byte { return c.tcp(header.TCPFlagSyn, 4002, 7, s) }), false)
		})
	}
}

// otherGroups of a running port are in force at once, and none are none.
func otherGroups(t *testing.T, d Driver) {
	n := d.open(t, World{})
	open := network.Group{ID: "sg-open", Network: "a", Ingress: []network.Rule{all}, Egress: []network.Rule{all}}
	shut := network.Group{ID: "sg-shut", Network: "a"}
	govern(t, n, open, shut)
	from, _ := governed(t, n, "a", 1, "sg-open")
	to, p := governed(t, n, "a", 2, "sg-shut")
	c := crafted{from, to}
	for i, step := range []struct {
		groups []string
		pass   bool
	}{{[]string{"sg-shut"}, false}, {[]string{"sg-shut", "sg-open"}, true}, {[]string{}, false}, {nil, true}, {[]string{"sg-unknown"}, false}} {
		p.Groups = step.groups
		ensure(t, n, p)
		check(t, fmt.Sprintf("with %q", step.groups), c.say(func(s string) []byte { return c.udp(uint16(i), 9, s) }), step.pass)
	}
}

// governedRestart: as restart, with rules: also a guest that only listens to
// its connection hears the rest of it.
func governedRestart(t *testing.T, d Driver) {
	n := d.Open(t, World{})
	c, _ := pair(t, n, "172.31.0.0/16")
	at := c.to.Listen(7)
	defer at.Close()
	conn, err := c.from.Dial(t.Context(), netip.AddrPortFrom(c.to.Addr(), 7))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	server, err := at.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	closeNetwork(t, n)

	n = d.open(t, World{})
	client := network.Group{ID: "sg-client", Network: "a", Egress: []network.Rule{all}}
	govern(t, n, client, network.Group{ID: "sg-server", Network: "a", Egress: []network.Rule{all}, Ingress: []network.Rule{rule(protoTCP, 7, 7, "0.0.0.0/0")}})
	ensure(t, n, c.from.port)
	ensure(t, n, c.to.port)
	if _, err := server.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	heard := make([]byte, 4)
	if _, err := conn.Read(heard); err != nil || string(heard) != "late" {
		t.Errorf("heard %q, %v", heard, err)
	}
	b := c.back()
	check(t, "a connection that never was", b.say(func(s string) []byte { return b.tcp(header.TCPFlagSyn, 7, 9999, s) }), false)
}
