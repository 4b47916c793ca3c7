package networktest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"mallee/network"
)

const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
)

var everybody = netip.MustParsePrefix("0.0.0.0/0")

// all is a rule that allows everything.
var all = network.Rule{Protocol: -1, From: -1, To: -1, Prefix: everybody}

func rule(protocol, from, to int, prefix string) network.Rule {
	return network.Rule{Protocol: protocol, From: from, To: to, Prefix: netip.MustParsePrefix(prefix)}
}

func fromGroup(protocol, from, to int, group string) network.Rule {
	return network.Rule{Protocol: protocol, From: from, To: to, Group: group}
}

func govern(t testing.TB, n network.Network, groups ...network.Group) {
	t.Helper()
	if err := n.Groups(t.Context(), groups); err != nil {
		t.Fatal(err)
	}
}

// governed is a guest whose port obeys groups.
func governed(t *testing.T, n network.Network, account string, i byte, groups ...string) (*Guest, network.Port) {
	t.Helper()
	p := Port(t, account, i)
	p.Groups = append([]string{}, groups...)
	return Plug(t, p, ensure(t, n, p)).Configure(), p
}

// markers tell calls of hears apart.
var markers atomic.Int64

// hears says whether a frame with this in it reaches the guest when from sends
// frames. Frames of a port are handled in order, and so are those that reach
// it: what has not come before the answer to a question that is always answered
// does not come.
func (g *Guest) hears(from *Guest, trace string, frames ...[]byte) bool {
	g.t.Helper()
	var heard atomic.Bool
	marker := fmt.Appendf(nil, "marker %d", markers.Add(1))
	gateway := g.resolve(g.router())
	g.Await(func() {
		for _, f := range frames {
			from.Send(f)
		}
		from.settle()
		g.Send(echoFrame(gateway, g.MAC, g.Addr(), g.router(), marker))
	}, func(f []byte) bool {
		if bytes.Contains(f, []byte(trace)) {
			heard.Store(true)
		}
		return bytes.Contains(f, marker)
	})
	return heard.Load()
}

// crafted frames between two guests, of which the trace is the payload.
type crafted struct{ from, to *Guest }

func (c crafted) tcp(flags header.TCPFlags, from, to uint16, trace string) []byte {
	return TCPFrame(c.to.MAC, c.from.MAC, netip.AddrPortFrom(c.from.Addr(), from), netip.AddrPortFrom(c.to.Addr(), to), flags, []byte(trace))
}

func (c crafted) udp(from, to uint16, trace string) []byte {
	return UDPFrame(c.to.MAC, c.from.MAC, netip.AddrPortFrom(c.from.Addr(), from), netip.AddrPortFrom(c.to.Addr(), to), []byte(trace))
}

func (c crafted) icmp(kind, code byte, id uint16, data string) []byte {
	return ICMPFrame(c.to.MAC, c.from.MAC, c.from.Addr(), c.to.Addr(), kind, code, id, []byte(data))
}

func (c crafted) other(protocol byte, trace string) []byte {
	return IPFrame(c.to.MAC, c.from.MAC, c.from.Addr(), c.to.Addr(), protocol, []byte(trace))
}

func (c crafted) back() crafted { return crafted{c.to, c.from} }

// attempt is a packet that should pass or should not.
type attempt struct {
	what  string
	frame func(c crafted, trace string) []byte
	pass  bool
}

func syn(port uint16) func(crafted, string) []byte {
	return func(c crafted, trace string) []byte { return c.tcp(header.TCPFlagSyn, 4000, port, trace) }
}

func datagram(port uint16) func(crafted, string) []byte {
	return func(c crafted, trace string) []byte { return c.udp(4000, port, trace) }
}

func message(kind, code byte) func(crafted, string) []byte {
	return func(c crafted, trace string) []byte { return c.icmp(kind, code, 7, trace) }
}

func protocol(n byte) func(crafted, string) []byte {
	return func(c crafted, trace string) []byte { return c.other(n, trace) }
}

var attempts = []attempt{
	{"TCP below the range", syn(79), false},
	{"TCP, first port", syn(80), true},
	{"TCP, last port", syn(82), true},
	{"TCP above the range", syn(83), false},
	{"TCP of a rule of UDP", syn(53), false},
	{"UDP, its port", datagram(53), true},
	{"UDP, another port", datagram(54), false},
	{"UDP of a rule of TCP", datagram(80), false},
	{"ICMP echo", message(8, 0), true},
	{"ICMP timestamp", message(13, 0), false},
	{"ICMP type and code", message(42, 3), true},
	{"ICMP type, another code", message(42, 4), false},
	{"ICMP answer that nobody asked for", message(0, 0), false},
	{"ICMP error about nothing", message(3, 1), false},
	{"protocol 47", protocol(47), true},
	{"protocol 50", protocol(50), false},
	{"a piece of a connection that never was", func(c crafted, trace string) []byte {
		return c.tcp(header.TCPFlagAck|header.TCPFlagPsh, 4000, 22, trace)
	}, false},
}

// theRules that attempts are made against, with a peer.
func theRules(prefix string) []network.Rule {
	return []network.Rule{
		rule(protoTCP, 80, 82, prefix), rule(protoUDP, 53, 53, prefix), rule(protoICMP, 8, -1, prefix), rule(protoICMP, 42, 3, prefix), rule(47, -1, -1, prefix),
	}
}

func (a attempt) try(t *testing.T, c crafted, refuse bool) {
	t.Helper()
	trace := fmt.Sprintf("%s from %s", a.what, c.from.Addr())
	if got, want := c.to.hears(c.from, trace, a.frame(c, trace)), a.pass && !refuse; got != want {
		t.Errorf("%s to %s: passed is %t, want %t", trace, c.to.Addr(), got, want)
	}
}

// ingressRules let pass each packet that is described, from whom it is.
func ingressRules(t *testing.T, d Driver) {
	n := d.open(t, World{})
	govern(t, n, network.Group{ID: "sg-in", Network: "a", Ingress: theRules("172.31.0.10/31")}, network.Group{ID: "sg-out", Network: "a", Egress: []network.Rule{all}})
	friend, _ := governed(t, n, "a", 1, "sg-out")   // 172.31.0.10
	stranger, _ := governed(t, n, "a", 5, "sg-out") // 172.31.0.14
	to, _ := governed(t, n, "a", 2, "sg-in")
	for _, a := range attempts {
		a.try(t, crafted{friend, to}, false)
		a.try(t, crafted{stranger, to}, true)
	}
}

// egressRules do so with what is sent, whatever the receiver would take.
func egressRules(t *testing.T, d Driver) {
	n := d.open(t, World{})
	govern(t, n, network.Group{ID: "sg-in", Network: "a", Ingress: []network.Rule{all}}, network.Group{ID: "sg-out", Network: "a", Egress: theRules("172.31.0.10/31")})
	from, _ := governed(t, n, "a", 5, "sg-out")
	near, _ := governed(t, n, "a", 1, "sg-in")
	far, _ := governed(t, n, "a", 6, "sg-in")
	for _, a := range attempts {
		a.try(t, crafted{from, near}, false)
		a.try(t, crafted{from, far}, true)
	}
}

// groupRules are about members, who come and go, and about this network's only.
func groupRules(t *testing.T, d Driver) {
	n := d.open(t, World{})
	from, _ := governed(t, n, "a", 1, "sg-out")
	to, _ := governed(t, n, "a", 2, "sg-in")
	in := network.Group{ID: "sg-in", Network: "a", Ingress: []network.Rule{fromGroup(protoUDP, 1, 9, "sg-members")}}
	out := network.Group{ID: "sg-out", Network: "a", Egress: []network.Rule{fromGroup(-1, -1, -1, "sg-in")}}
	members := network.Group{ID: "sg-members", Network: "a"}
	in.Members = []netip.Addr{to.Addr()}
	for i, step := range []struct {
		what   string
		change func()
		pass   bool
	}{
		{"no groups yet", func() {}, false},
		{"not a member", func() { govern(t, n, in, out, members) }, false},
		{"a member", func() { members.Members = []netip.Addr{from.Addr()}; govern(t, n, in, out, members) }, true},
		{"of another network", func() { members.Network = "b"; govern(t, n, in, out, members) }, false},
		{"a member again", func() { members.Network = "a"; govern(t, n, members, in, out) }, true},
		{"no egress to it", func() { in.Members = nil; govern(t, n, members, in, out) }, false},
		{"the groups of another network", func() {
			in.Members, in.Network = []netip.Addr{to.Addr()}, "b"
			govern(t, n, members, in, out)
		}, false},
	} {
		step.change()
		c, trace := crafted{from, to}, step.what
		if got := to.hears(from, trace, c.udp(uint16(5000+i), 9, trace)); got != step.pass {
			t.Errorf("%s: passed is %t", step.what, got)
		}
	}
}

// twinRules: networks with the same addresses have nothing of each other's.
func twinRules(t *testing.T, d Driver) {
	n := d.open(t, World{})
	for _, account := range []string{"a", "b"} {
		from, _ := governed(t, n, account, 1, "sg-"+account)
		to, _ := governed(t, n, account, 2, "sg-"+account)
		open := network.Group{ID: "sg-a", Network: "a", Ingress: []network.Rule{all}, Egress: []network.Rule{all}}
		shut := network.Group{ID: "sg-b", Network: "b", Egress: []network.Rule{all}, Members: []netip.Addr{from.Addr()}}
		govern(t, n, open, shut)
		trace := "in network " + account
		if got, want := to.hears(from, trace, crafted{from, to}.udp(9, 9, trace)), account == "a"; got != want {
			t.Errorf("%s: passed is %t", trace, got)
		}
	}
}

// alwaysThere: a port that may nothing has its lease, ARP, DNS and metadata.
func alwaysThere(t *testing.T, d Driver) {
	n := d.open(t, World{Metadata: http.HandlerFunc(whoAmI), Resolvers: func() []string { return nil }})
	g, p := governed(t, n, "a", 1)
	q, _ := governed(t, n, "a", 2)
	if got, want := g.get("http://169.254.169.254/x"), p.ID+" true /x"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if m := g.Ask("udp", p.Name+"."+g.Lease.DomainName()+".", dns.TypeA); firstAnswer(m) != p.Local.String() {
		t.Errorf("answered\n%s", m)
	}
	if got := g.resolve(q.Addr()); !bytes.Equal(got, q.MAC) {
		t.Errorf("the neighbour is at %s", got)
	}
	if q.hears(g, "refused", crafted{g, q}.udp(9, 9, "refused")) {
		t.Error("a port without rules sent a packet")
	}
}

// publicRules: who connects to a public address is asked for as the host sees
// them, and what began ends when a rule that was open to all is gone.
func publicRules(t *testing.T, d Driver) {
	n := d.open(t, World{})
	g, p := governed(t, n, "a", 1, "sg")
	echo(t, g.Listen(8080))
	to := d.Reach(n, p.ID, 8080)
	sg := func(rules ...network.Rule) {
		govern(t, n, network.Group{ID: "sg", Network: "a", Ingress: rules, Egress: []network.Rule{all}})
	}
	refuses := func(why string) {
		t.Helper()
		if err := dialHost(to); err == nil || err == io.EOF {
			t.Errorf("%s: connected", why)
		} else if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Errorf("%s: %v", why, err)
		}
	}
	connect := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp4", to.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		converse(t, c, 1000)
		return c
	}
	refuses("no group yet")
	sg(rule(protoTCP, 8080, 8080, "203.0.113.0/24"), rule(protoTCP, 80, 80, "0.0.0.0/0"), rule(protoUDP, 8080, 8080, "0.0.0.0/0"))
	refuses("not for this peer, port, protocol")
	sg(rule(protoTCP, 8080, 8080, "127.0.0.0/8"))
	tracked := connect()
	sg()
	refuses("no rule any more")
	converse(t, tracked, 1000)
	sg(rule(protoTCP, 8000, 9000, "0.0.0.0/0"))
	untracked := connect()
	sg(rule(protoTCP, 1, 2, "0.0.0.0/0"))
	untracked.SetDeadline(time.Now().Add(patience))
	if _, err := untracked.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("a connection by a rule that was open to all: %v", err)
	}
	converse(t, tracked, 1000)
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// outsideRules: guests get out as their rules say, and nobody is dialed for
// what they don't.
func outsideRules(t *testing.T, d Driver) {
	world := newOutside(t)
	n := d.open(t, World{Dial: world.dial})
	g, _ := governed(t, n, "a", 1, "sg")
	govern(t, n, network.Group{ID: "sg", Network: "a", Egress: []network.Rule{rule(protoTCP, 80, 80, "198.51.100.0/29"), rule(protoUDP, 123, 123, "0.0.0.0/0")}})
	gateway := g.resolve(g.router())
	for _, to := range []string{"198.51.100.7:81", "198.51.100.8:80", "198.51.100.7:22"} {
		g.Send(synFrame(gateway, g, 999, netip.MustParseAddrPort(to)))
		g.Send(UDPFrame(gateway, g.MAC, netip.AddrPortFrom(g.Addr(), 99), netip.MustParseAddrPort(to), []byte("x")))
	}
	g.settle()
	c, err := g.Dial(t.Context(), netip.MustParseAddrPort("198.51.100.7:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	u := g.DialUDP(netip.MustParseAddrPort("198.51.100.7:123"))
	defer u.Close()
	converse(t, u, 100)
	govern(t, n, network.Group{ID: "sg", Network: "a"})
	converse(t, c, 100000) // tracked, as the peer was not everybody
	g.Send(synFrame(gateway, g, 998, netip.MustParseAddrPort("198.51.100.7:80")))
	g.settle()
	if got := fmt.Sprint(world.seen()); got != "[tcp4 198.51.100.7:80 udp4 198.51.100.7:123]" {
		t.Errorf("dialed %s", got)
	}
}
