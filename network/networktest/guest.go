package networktest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"mallee/network"
)

const (
	patience = 10 * time.Second // for what should come at once
	nic      = 1
)

// Guest is a machine's end of a wire with a network stack of its own, as
// independent of the driver as a real guest. It can also say what no honest
// guest says.
type Guest struct {
	MAC   net.HardwareAddr
	Lease *dhcpv4.DHCPv4 // after Configure

	t      testing.TB
	port   network.Port
	link   *guestLink
	stack  *stack.Stack
	unplug func() // ends the machine

	mu   sync.Mutex // guards wire's outgoing side and what follows
	wire *wire
	tap  func(frame []byte) // hears every frame before the stack does
}

// guestLink sends what the guest's stack writes.
type guestLink struct {
	*channel.Endpoint
	guest *Guest
}

func (l *guestLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		v := pkt.ToView()
		l.guest.Send(v.AsSlice())
		v.Release()
	}
	return pkts.Len(), nil
}

// Plug attaches a guest to a port, as a hypervisor would. It is unplugged at
// the test's end.
func Plug(t testing.TB, p network.Port, at network.Attachment) *Guest {
	t.Helper()
	hw, err := net.ParseMAC(p.MAC)
	if err != nil {
		t.Fatal(err)
	}
	g := &Guest{MAC: hw, t: t, port: p}
	if g.wire, err = newWire(p.Dir, at); err != nil {
		t.Fatal(err)
	}
	g.link = &guestLink{channel.New(1, uint32(at.MTU+header.EthernetMinimumSize), tcpip.LinkAddress(hw)), g}
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := g.stack.CreateNIC(nic, ethernet.New(g.link)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.receive()
	}()
	g.unplug = sync.OnceFunc(func() {
		g.wire.in.Close()
		<-ended
		g.stack.Destroy()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.wire.close()
	})
	t.Cleanup(g.unplug)
	return g
}

// receive frames until the wire is closed.
func (g *Guest) receive() {
	buf := make([]byte, 1<<17)
	for {
		n, err := g.wire.in.Read(buf)
		if err != nil {
			return
		}
		g.mu.Lock()
		tap := g.tap
		g.mu.Unlock()
		if tap != nil {
			tap(bytes.Clone(buf[:n]))
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(buf[:n])})
		g.link.InjectInbound(0, pkt)
		pkt.DecRef()
	}
}

// Send a frame as it is.
func (g *Guest) Send(frame []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wire.send(frame)
}

// Await a frame that match accepts, after do, which is done again where nothing
// comes: a wire that is full loses frames.
func (g *Guest) Await(do func(), match func(frame []byte) bool) []byte {
	g.t.Helper()
	found := make(chan []byte, 1)
	g.watch(func(f []byte) {
		if match(f) {
			select {
			case found <- f:
			default:
			}
		}
	})
	defer g.watch(nil)
	for range 10 {
		do()
		select {
		case f := <-found:
			return f
		case <-time.After(patience / 10):
		}
	}
	g.t.Fatal("the frame that was awaited did not come")
	return nil
}

func (g *Guest) watch(tap func([]byte)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tap = tap
}

// Configure gets a lease and configures the stack by it.
func (g *Guest) Configure() *Guest {
	g.t.Helper()
	discover, err := dhcpv4.NewDiscovery(g.MAC, dhcpv4.WithBroadcast(true))
	if err != nil {
		g.t.Fatal(err)
	}
	offer := g.askDHCP(discover, dhcpv4.MessageTypeOffer)
	request, err := dhcpv4.NewRequestFromOffer(offer)
	if err != nil {
		g.t.Fatal(err)
	}
	g.Lease = g.askDHCP(request, dhcpv4.MessageTypeAck)
	g.address(g.Lease)
	return g
}

// address the stack by a lease.
func (g *Guest) address(l *dhcpv4.DHCPv4) {
	g.t.Helper()
	bits, _ := l.SubnetMask().Size()
	own := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(l.YourIPAddr.To4()), PrefixLen: bits}
	err := g.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: own}, stack.AddressProperties{})
	if err != nil {
		g.t.Fatal(err)
	}
	g.stack.SetRouteTable([]tcpip.Route{
		{Destination: own.Subnet(), NIC: nic},
		{Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFromSlice(l.Router()[0].To4()), NIC: nic},
	})
}

// askDHCP broadcasts a message and awaits the answer of a kind.
func (g *Guest) askDHCP(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	g.t.Helper()
	var answer *dhcpv4.DHCPv4
	g.Await(func() { g.Send(dhcpFrame(g.MAC, m)) }, func(f []byte) bool {
		a, err := dhcpv4.FromBytes(udpPayload(f, 68))
		if err == nil && a.TransactionID == m.TransactionID && a.MessageType() == kind {
			answer = a
			return true
		}
		return false
	})
	return answer
}

// Addr is the guest's own address.
func (g *Guest) Addr() netip.Addr {
	a, _ := netip.AddrFromSlice(g.Lease.YourIPAddr.To4())
	return a
}

// Dial over TCP.
func (g *Guest) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return gonet.DialContextTCP(ctx, g.stack, fullAddr(to), ipv4.ProtocolNumber)
}

// DialUDP connects a datagram socket.
func (g *Guest) DialUDP(to netip.AddrPort) net.Conn {
	g.t.Helper()
	remote := fullAddr(to)
	c, err := gonet.DialUDP(g.stack, nil, &remote, ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// Listen for TCP.
func (g *Guest) Listen(n uint16) net.Listener {
	g.t.Helper()
	at, err := gonet.ListenTCP(g.stack, tcpip.FullAddress{NIC: nic, Port: n}, ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	return at
}

// ListenUDP for datagrams.
func (g *Guest) ListenUDP(n uint16) net.PacketConn {
	g.t.Helper()
	at, err := gonet.DialUDP(g.stack, &tcpip.FullAddress{NIC: nic, Port: n}, nil, ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	return at
}

// HTTP is a client in the guest.
func (g *Guest) HTTP() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, fmt.Errorf("guests dial addresses: %w", err)
			}
			return g.Dial(ctx, to)
		},
	}}
}

// Ask the lan's resolver, over udp or tcp.
func (g *Guest) Ask(transport, name string, kind uint16) *dns.Msg {
	g.t.Helper()
	server, _ := netip.AddrFromSlice(g.Lease.DNS()[0].To4())
	to := netip.AddrPortFrom(server, 53)
	var c net.Conn
	if transport == "udp" {
		c = g.DialUDP(to)
	} else {
		var err error
		if c, err = g.Dial(g.t.Context(), to); err != nil {
			g.t.Fatal(err)
		}
	}
	defer c.Close()
	client := dns.Client{Net: transport, Timeout: patience}
	m, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(name, kind), &dns.Conn{Conn: c})
	if err != nil {
		g.t.Fatalf("ask %s for %s: %v", transport, name, err)
	}
	return m
}

func fullAddr(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(a.Addr().As4()), Port: a.Port()}
}
