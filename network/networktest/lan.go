package networktest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func leases(t *testing.T, d Driver) {
	n := d.open(t, World{})
	p := Port(t, "a", 1)
	at := ensure(t, n, p)
	g := Plug(t, p, at).Configure()
	l := g.Lease
	bits, _ := l.SubnetMask().Size()
	for what, ok := range map[string]bool{
		"address":     g.Addr() == p.Local,
		"mask":        bits == 16,
		"router":      len(l.Router()) == 1 && g.router() == netip.MustParseAddr("172.31.0.1"),
		"resolver":    len(l.DNS()) == 1 && l.DNS()[0].String() == "172.31.0.2",
		"host name":   l.HostName() == p.Name,
		"domain name": l.DomainName() != "",
		"MTU":         bytes.Equal(l.Options.Get(dhcpv4.OptionInterfaceMTU), binary.BigEndian.AppendUint16(nil, uint16(at.MTU))),
		"lease time":  l.IPAddressLeaseTime(0) >= time.Minute,
	} {
		if !ok {
			t.Errorf("wrong %s in lease %s", what, l.Summary())
		}
	}
	wish := dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(172, 31, 0, 200)))
	other, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(g.MAC), wish)
	if err != nil {
		t.Fatal(err)
	}
	g.askDHCP(other, dhcpv4.MessageTypeNak)
}

func neighbours(t *testing.T, d Driver) {
	n := d.open(t, World{})
	a, _ := guest(t, n, "a", 1)
	b, _ := guest(t, n, "a", 2)
	echo(t, b.Listen(7))
	c, err := a.Dial(t.Context(), netip.AddrPortFrom(b.Addr(), 7))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	converse(t, c, 4<<20)
}

// echo says back what is said on each connection.
func echo(t testing.TB, at net.Listener) {
	t.Cleanup(func() { at.Close() })
	go func() {
		for {
			c, err := at.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
}

// converse sends bytes to an echo and checks what comes back.
func converse(t testing.TB, c net.Conn, size int) {
	t.Helper()
	c.SetDeadline(time.Now().Add(patience))
	said := bytes.Repeat([]byte("mallee's "), size/9+1)[:size]
	failed := make(chan error, 1)
	go func() {
		_, err := c.Write(said)
		failed <- err
	}()
	heard := make([]byte, size)
	if _, err := io.ReadFull(c, heard); err != nil {
		t.Fatalf("hear the echo: %v", err)
	}
	if err := <-failed; err != nil {
		t.Fatalf("speak: %v", err)
	}
	if !bytes.Equal(said, heard) {
		t.Fatal("the echo differs")
	}
}

func answersARP(t *testing.T, d Driver) {
	n := d.open(t, World{})
	a, _ := guest(t, n, "a", 1)
	b, _ := guest(t, n, "a", 2)
	if got := a.resolve(b.Addr()); !bytes.Equal(got, b.MAC) {
		t.Errorf("the neighbour is at %s, want %s", got, b.MAC)
	}
	router := a.resolve(a.router())
	for _, s := range []string{"172.31.0.2", "169.254.169.254"} {
		if got := a.resolve(netip.MustParseAddr(s)); !bytes.Equal(got, router) {
			t.Errorf("%s is at %s, the router at %s", s, got, router)
		}
	}
	var answered []netip.Addr
	none := []netip.Addr{a.Addr(), netip.MustParseAddr("172.31.9.9"), netip.MustParseAddr("8.8.8.8")}
	a.Await(func() {
		for _, who := range none { // the guest's own: a probe for duplicates
			a.Send(ARPFrame(a.MAC, header.ARPRequest, a.MAC, netip.IPv4Unspecified(), who))
		}
		a.Send(ARPFrame(a.MAC, header.ARPRequest, a.MAC, a.Addr(), a.router()))
	}, func(f []byte) bool {
		for _, who := range none {
			if isARPReply(f, who) {
				answered = append(answered, who)
			}
		}
		return isARPReply(f, a.router())
	})
	if len(answered) > 0 {
		t.Errorf("somebody is at %v", answered)
	}
}

func echoes(t *testing.T, d Driver) {
	n := d.open(t, World{})
	a, _ := guest(t, n, "a", 1)
	b, _ := guest(t, n, "a", 2)
	for _, to := range []netip.Addr{a.router(), netip.MustParseAddr("172.31.0.2"), netip.MustParseAddr("169.254.169.254"), b.Addr()} {
		a.ping(to)
	}
	gateway, outside := a.resolve(a.router()), netip.MustParseAddr("198.51.100.7")
	a.Await(func() { a.Send(echoFrame(gateway, a.MAC, a.Addr(), outside, []byte("12345678"))) }, func(f []byte) bool {
		_, kind, _, _ := icmpOf(f)
		return kind == header.ICMPv4DstUnreachable || kind == header.ICMPv4EchoReply
	})
}

func spoofing(t *testing.T, d Driver) {
	n := d.open(t, World{})
	victim, _ := guest(t, n, "a", 1)
	friend, _ := guest(t, n, "a", 2)
	evil, _ := guest(t, n, "a", 3)
	stranger := net.HardwareAddr{0xd0, 0x0d, 9, 9, 9, 9}
	to := netip.AddrPortFrom(victim.Addr(), 9)
	from := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 9) }
	offer, metadata := []byte("offer"), netip.MustParseAddr("169.254.169.254")
	attacks := map[string][]byte{
		"MAC of another":     UDPFrame(victim.MAC, friend.MAC, from(evil.Addr()), to, []byte("MAC of another")),
		"MAC of nobody":      UDPFrame(victim.MAC, stranger, from(evil.Addr()), to, []byte("MAC of nobody")),
		"address of another": UDPFrame(victim.MAC, evil.MAC, from(friend.Addr()), to, []byte("address of another")),
		"address of nobody":  UDPFrame(victim.MAC, evil.MAC, from(netip.MustParseAddr("172.31.7.7")), to, []byte("address of nobody")),
		"address of router":  UDPFrame(victim.MAC, evil.MAC, from(evil.router()), to, []byte("address of router")),
		"outside address":    UDPFrame(victim.MAC, evil.MAC, from(netip.MustParseAddr("8.8.8.8")), to, []byte("outside address")),
		"no address":         UDPFrame(victim.MAC, evil.MAC, from(netip.IPv4Unspecified()), to, []byte("no address")),
		"broadcast": UDPFrame(broadcast, evil.MAC, from(evil.Addr()),
			netip.MustParseAddrPort("255.255.255.255:9"), []byte("broadcast")),
		"broadcast of the subnet": UDPFrame(broadcast, evil.MAC, from(evil.Addr()),
			netip.MustParseAddrPort("172.31.255.255:9"), []byte("broadcast of the subnet")),
		"multicast": UDPFrame(net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}, evil.MAC, from(evil.Addr()),
			netip.MustParseAddrPort("224.0.0.1:9"), []byte("multicast")),
		"offer": UDPFrame(broadcast, evil.MAC, netip.AddrPortFrom(evil.router(), 67),
			netip.MustParseAddrPort("255.255.255.255:68"), offer),
		"offer as a neighbour": UDPFrame(victim.MAC, evil.MAC, netip.AddrPortFrom(evil.Addr(), 67),
			netip.AddrPortFrom(victim.Addr(), 68), []byte("offer as a neighbour")),
		"offer in pieces!": fragment(UDPFrame(victim.MAC, evil.MAC, netip.AddrPortFrom(evil.Addr(), 67),
			netip.AddrPortFrom(victim.Addr(), 68), []byte("offer in pieces!")), 1, 0, 24, true),
		string(metadata.AsSlice()): TCPFrame(victim.MAC, evil.MAC, from(victim.Addr()), // answered, it would be to the victim
			netip.AddrPortFrom(metadata, 80), header.TCPFlagSyn, nil),
		string(evil.MAC): ARPFrame(evil.MAC, header.ARPReply, evil.MAC, friend.Addr(), victim.Addr()),
		"IPv6":           append(append(bytes.Clone(victim.MAC), evil.MAC...), append([]byte{0x86, 0xdd}, "IPv6"...)...),
		"VLAN":           append(append(bytes.Clone(victim.MAC), evil.MAC...), append([]byte{0x81, 0, 0, 1, 8, 0}, "VLAN"...)...),
	}
	for trace, frame := range attacks {
		t.Run(fmt.Sprintf("%.40q", trace), func(t *testing.T) {
			unharmed(t, victim, friend, evil, trace, func() { evil.Send(frame) })
		})
	}
	if got := victim.resolve(friend.Addr()); !bytes.Equal(got, friend.MAC) {
		t.Errorf("after false announcements the friend is at %s", got)
	}
}

func framesApart(t *testing.T, d Driver) {
	n := d.open(t, World{})
	victim, _ := guest(t, n, "a", 1)
	friend, _ := guest(t, n, "a", 2)
	evil, _ := guest(t, n, "b", 3)
	twin, _ := guest(t, n, "b", 2) // the friend's MAC and address, in another network
	to := netip.AddrPortFrom(victim.Addr(), 9)
	for _, g := range []*Guest{evil, twin} {
		trace := "from another network by " + g.Addr().String()
		unharmed(t, victim, friend, g, trace, func() {
			g.Send(UDPFrame(victim.MAC, g.MAC, netip.AddrPortFrom(g.Addr(), 9), to, []byte(trace)))
			g.Send(UDPFrame(g.resolve(g.router()), g.MAC, netip.AddrPortFrom(g.Addr(), 9), to, []byte(trace)))
		})
	}
	at := victim.Listen(7)
	echo(t, at)
	echo(t, twin.Listen(7))
	c, err := evil.Dial(t.Context(), netip.AddrPortFrom(twin.Addr(), 7)) // its own neighbour, not the friend
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	converse(t, c, 1000)
}
