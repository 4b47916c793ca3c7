package networktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"mallee/network"
)

// echoDatagrams says back each datagram, with who it came from before it.
func echoDatagrams(t testing.TB, at net.PacketConn) {
	t.Cleanup(func() { at.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := at.ReadFrom(buf)
			if err != nil {
				return
			}
			at.WriteTo(fmt.Appendf(nil, "%s %s", from, buf[:n]), from)
		}
	}()
}

// answered sends a datagram until it is answered; what the guest saw as sender.
func answered(t testing.TB, c net.Conn, said string) (from netip.AddrPort) {
	t.Helper()
	buf := make([]byte, 1<<16)
	for range 10 {
		if _, err := c.Write([]byte(said)); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(patience / 10))
		n, err := c.Read(buf)
		if err != nil {
			continue
		}
		who, what, _ := bytes.Cut(buf[:n], []byte(" "))
		if string(what) != said {
			t.Fatalf("said %.40q, answered %.40q", said, what)
		}
		return netip.MustParseAddrPort(string(who))
	}
	t.Fatalf("nobody answers %.40q", said)
	return from
}

// publicUDP: datagrams reach the guest's port by its public address, if the
// rules let them; each client has its own answers.
func publicUDP(t *testing.T, d Driver) {
	n := d.open(t, World{})
	g, p := governed(t, n, "a", 1, "sg")
	sg := func(rules ...network.Rule) {
		t.Helper()
		govern(t, n, network.Group{ID: "sg", Network: "a", Ingress: rules})
	}
	echoDatagrams(t, g.ListenUDP(1194))
	to := d.ReachUDP(n, p.ID, 1194)
	if to.Addr() != p.Public {
		t.Fatalf("reached at %s, want %s", to, p.Public)
	}
	client := func(from string) net.Conn {
		t.Helper()
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, net.UDPAddrFromAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	one, two, friend := client("127.0.0.1"), client("127.0.0.1"), client("127.0.0.2")
	sg(rule(protoUDP, 1194, 1194, "127.0.0.2/32"), rule(protoTCP, 1194, 1194, "0.0.0.0/0"))
	var heard atomic.Bool
	g.watch(func(f []byte) {
		if bytes.Contains(f, []byte("refused")) {
			heard.Store(true)
		}
	})
	fmt.Fprint(one, "refused")
	answered(t, friend, "allowed") // what comes to an address is handled in order
	sg(rule(protoUDP, 1194, 1194, "127.0.0.0/8"))
	a := answered(t, one, "hello")
	b := answered(t, two, string(make([]byte, 20000))) // in fragments
	if a == b || a.Addr() != g.router() {
		t.Errorf("the guest's clients are %s and %s", a, b)
	}
	answered(t, one, "again")
	sg()
	answered(t, one, "a flow that was there")
	fmt.Fprint(client("127.0.0.1"), "refused, as it is new")
	answered(t, one, "after it")
	g.watch(nil)
	if heard.Load() {
		t.Error("a datagram that no rule allows reached the guest")
	}
}

// outsidePing: the outside's answers come back with the guest's id, and
// nobody is asked whom the rules or the host don't allow.
func outsidePing(t *testing.T, d Driver) {
	var mu sync.Mutex // guards dialed
	dialed := map[string]bool{}
	n := d.open(t, World{Ping: func(_ context.Context, to netip.Addr) (net.Conn, error) {
		mu.Lock()
		dialed[to.String()] = true
		mu.Unlock()
		if to != netip.MustParseAddr("198.51.100.7") {
			return nil, unix.EACCES
		}
		here, there := net.Pipe()
		go pongs(there)
		return here, nil
	}})
	g, _ := governed(t, n, "a", 1, "sg")
	govern(t, n, network.Group{ID: "sg", Network: "a", Egress: []network.Rule{rule(protoICMP, 8, -1, "198.51.100.0/28"), rule(protoICMP, 8, 0, "127.0.0.1/32")}})
	gateway := g.resolve(g.router())
	send := func(to string, id uint16, data string) {
		g.Send(ICMPFrame(gateway, g.MAC, g.Addr(), netip.MustParseAddr(to), 8, 0, id, []byte(data)))
	}
	send("198.51.100.99", 1, "refused by the rules")
	g.settle()
	for _, id := range []uint16{7, 8, 7} {
		f := g.Await(func() { send("198.51.100.7", id, fmt.Sprint("data of ", id)) }, func(f []byte) bool {
			from, kind, _, got := icmpOf(f)
			return kind == header.ICMPv4EchoReply && from.String() == "198.51.100.7" && string(got) == fmt.Sprint("data of ", id)
		})
		if got := header.ICMPv4(header.IPv4(f[header.EthernetMinimumSize:]).Payload()).Ident(); got != id {
			t.Errorf("answered with id %d, want %d", got, id)
		}
	}
	g.Await(func() { send("198.51.100.8", 9, "not by this host") }, func(f []byte) bool {
		_, kind, _, _ := icmpOf(f)
		return kind == header.ICMPv4DstUnreachable
	})
	g.Await(func() { send("127.0.0.1", 9, "not the host") }, func(f []byte) bool {
		_, kind, _, _ := icmpOf(f)
		return kind == header.ICMPv4DstUnreachable
	})
	mu.Lock()
	defer mu.Unlock()
	if got := fmt.Sprint(dialed); got != "map[198.51.100.7:true 198.51.100.8:true]" {
		t.Errorf("dialed %s", got)
	}
}

// pongs answers echo requests as the kernel does, which has an id of its own.
func pongs(c net.Conn) {
	buf := make([]byte, 1<<16)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		m := header.ICMPv4(buf[:n])
		m.SetType(header.ICMPv4EchoReply)
		m.SetIdent(4242)
		c.Write(m)
	}
}
