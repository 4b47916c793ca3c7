package networktest

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"mallee/network"
)

// World is what a network of the suite has around it.
type World struct {
	Metadata  http.Handler
	Resolvers func() []string
	// Dial is the outside: what guests connect to beyond their subnet.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Ping is how echo requests get there: each message is one of ICMP.
	Ping func(ctx context.Context, to netip.Addr) (net.Conn, error)
}

// Driver moves real frames.
type Driver struct {
	Open func(t testing.TB, w World) network.Network
	// Reach says where the host has to connect for a port of an instance.
	Reach    func(n network.Network, id string, port uint16) netip.AddrPort
	ReachUDP func(n network.Network, id string, port uint16) netip.AddrPort
}

// Frames runs the part of the suite for drivers that move frames.
func Frames(t *testing.T, d Driver) {
	for name, test := range map[string]func(*testing.T, Driver){
		"lease":                 leases,
		"neighbours":            neighbours,
		"ARP":                   answersARP,
		"echo":                  echoes,
		"spoofing":              spoofing,
		"networks are apart":    framesApart,
		"metadata":              metadata,
		"metadata hops":         hops,
		"DNS":                   names,
		"DNS forwarded":         namesForwarded,
		"outside TCP":           outsideTCP,
		"outside UDP":           outsideUDP,
		"outside ping":          outsidePing,
		"public UDP":            publicUDP,
		"host is not outside":   hostRefused,
		"public address":        publicAddress,
		"another address":       anotherAddress,
		"restart of network":    restart,
		"another machine":       anotherMachine,
		"removed port":          removedPort,
		"nobody at the wire":    nobodyThere,
		"hostile frames":        hostile,
		"more than its share":   greedy,
		"neighbour that sleeps": sleeper,

		"rules of ingress":        ingressRules,
		"rules of egress":         egressRules,
		"rules about groups":      groupRules,
		"rules of two networks":   twinRules,
		"rules govern not":        alwaysThere,
		"rules of public address": publicRules,
		"rules of outside":        outsideRules,
		"replies":                 repliesPass,
		"ICMP errors":             errorsPass,
		"fragments":               fragmentsPass,
		"rules revoked":           revoked,
		"other groups":            otherGroups,
		"restart with rules":      governedRestart,
	} {
		t.Run(name, func(t *testing.T) { test(t, d) })
	}
}

// open a network that is closed with the test.
func (d Driver) open(t *testing.T, w World) network.Network {
	n := d.Open(t, w)
	t.Cleanup(func() { closeNetwork(t, n) })
	return n
}

// guest of the n-th port of an account, configured.
func guest(t *testing.T, n network.Network, account string, i byte) (*Guest, network.Port) {
	t.Helper()
	p := Port(t, account, i)
	return Plug(t, p, ensure(t, n, p)).Configure(), p
}

// router's address as the guest has learnt it.
func (g *Guest) router() netip.Addr {
	a, _ := netip.AddrFromSlice(g.Lease.Router()[0].To4())
	return a
}

// resolve an address by ARP.
func (g *Guest) resolve(a netip.Addr) net.HardwareAddr {
	g.t.Helper()
	f := g.Await(func() { g.Send(ARPFrame(g.MAC, header.ARPRequest, g.MAC, g.Addr(), a)) }, func(f []byte) bool {
		return isARPReply(f, a)
	})
	return net.HardwareAddr(header.ARP(f[header.EthernetMinimumSize:]).HardwareAddressSender())
}

func isARPReply(f []byte, about netip.Addr) bool {
	if header.Ethernet(f).Type() != header.ARPProtocolNumber {
		return false
	}
	a := header.ARP(f[header.EthernetMinimumSize:])
	return a.IsValid() && a.Op() == header.ARPReply && bytes.Equal(a.ProtocolAddressSender(), about.AsSlice())
}

// ping an address through the router; the answer has the data of the question.
func (g *Guest) ping(a netip.Addr) {
	g.t.Helper()
	gateway, data := g.resolve(g.router()), []byte("are you "+a.String()+"?")
	g.Await(func() { g.Send(echoFrame(gateway, g.MAC, g.Addr(), a, data)) }, func(f []byte) bool {
		from, kind, _, got := icmpOf(f)
		return kind == header.ICMPv4EchoReply && from == a && bytes.Equal(got, data)
	})
}

// settle returns when all frames that the guest sent before were handled, as
// a port's frames are handled in order.
func (g *Guest) settle() {
	g.t.Helper()
	g.ping(g.router())
}

// unharmed checks that nothing that attack sends from the attacker reaches
// the victim: no frame with this in it comes before the marker that a friend
// sends afterwards.
func unharmed(t *testing.T, victim, friend, attacker *Guest, trace string, attack func()) {
	t.Helper()
	attack()
	attacker.settle()
	marker := []byte("marker after " + trace)
	to, hw := netip.AddrPortFrom(victim.Addr(), 9), victim.MAC
	victim.Await(func() {
		friend.Send(UDPFrame(hw, friend.MAC, netip.AddrPortFrom(friend.Addr(), 9), to, marker))
	}, func(f []byte) bool {
		if bytes.Contains(f, marker) {
			return true
		}
		if bytes.Contains(f, []byte(trace)) {
			t.Errorf("%s: the victim got % x", trace, f)
		}
		return false
	})
}
