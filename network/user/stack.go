package user

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Bounds of a stack's connections.
const (
	maxBuffer     = 1 << 20 // bytes a connection may hold, each way
	defaultBuffer = 256 << 10
	smallBuffer   = 64 << 10 // where a port has many
	maxSYNs       = 1 << 14  // connections being made in a lan; each port's flows are counted besides
	synRetries    = 3        // some 15 s
	nic           = 1
)

// netStack is a lan's TCP and UDP: it takes the packets that guests send to
// the router, or through it to anywhere, and writes to guests' wires.
type netStack struct {
	lan   *lan
	stack *stack.Stack
	link  *stackLink
}

func newStack(l *lan) (*netStack, error) {
	s := &netStack{
		lan:  l,
		link: &stackLink{lan: l},
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
		}),
	}
	if err := s.configure(); err != nil {
		s.stack.Destroy()
		return nil, fmt.Errorf("configure the network stack of %q: %w", l.name, err)
	}
	forwarder := tcp.NewForwarder(s.stack, defaultBuffer, maxSYNs, l.acceptTCP)
	s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, forwarder.HandlePacket)
	s.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s.stack, l.acceptUDP).HandlePacket)
	return s, nil
}

// configure makes the stack take packets to any address (promiscuous), answer
// from that address (spoofing), and send all through its one link.
func (s *netStack) configure() error {
	retries := tcpip.TCPSynRetriesOption(synRetries)
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: defaultBuffer, Max: maxBuffer}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: defaultBuffer, Max: maxBuffer}
	for _, o := range []tcpip.SettableTransportProtocolOption{&retries, &sack, &moderate, &send, &receive} {
		if err := s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return stackError(err)
		}
	}
	if err := s.stack.CreateNIC(nic, s.link); err != nil {
		return stackError(err)
	}
	router := tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: stackAddr(s.lan.router), PrefixLen: s.lan.prefix.Bits()},
	}
	if err := s.stack.AddProtocolAddress(nic, router, stack.AddressProperties{}); err != nil {
		return stackError(err)
	}
	s.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	if err := s.stack.SetPromiscuousMode(nic, true); err != nil {
		return stackError(err)
	}
	if err := s.stack.SetSpoofing(nic, true); err != nil {
		return stackError(err)
	}
	return nil
}

func (s *netStack) close() { s.stack.Destroy() }

// inject a guest's packet, which the caller may reuse after.
func (s *netStack) inject(ip packet) {
	d := s.link.dispatcher.Load()
	if d == nil {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(ip)})
	defer pkt.DecRef()
	(*d).DeliverNetworkPacket(ipv4.ProtocolNumber, pkt)
}

// dial a guest from the router's address, for a flow.
func (s *netStack) dial(f *flow, to netip.AddrPort) (*guestConn, error) {
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	defer cancel()
	c := &guestConn{}
	ep, terr := s.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &c.wait)
	if terr != nil {
		return nil, fmt.Errorf("make a socket: %w", stackError(terr))
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents)
	c.wait.EventRegister(&entry)
	defer c.wait.EventUnregister(&entry)

	terr = ep.Bind(tcpip.FullAddress{NIC: nic, Addr: stackAddr(s.lan.router)})
	if terr == nil {
		terr = ep.Connect(tcpip.FullAddress{NIC: nic, Addr: stackAddr(to.Addr()), Port: to.Port()})
	}
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			ep.Close()
			return nil, fmt.Errorf("connect to %s: %w", to, ctx.Err())
		case <-ready:
			terr = ep.LastError()
		}
	}
	if terr != nil {
		ep.Close()
		return nil, fmt.Errorf("connect to %s: %w", to, stackError(terr))
	}
	return c.take(ep, f), nil
}

// guestConn is a connection with a guest.
type guestConn struct {
	*gonet.TCPConn
	wait     waiter.Queue
	endpoint tcpip.Endpoint
}

// take makes c the connection of ep, whose queue is c's, for a flow, and has
// guests that vanished found out within some minutes.
func (c *guestConn) take(ep tcpip.Endpoint, f *flow) *guestConn {
	if !f.roomy {
		ep.SocketOptions().SetSendBufferSize(smallBuffer, true)
		ep.SocketOptions().SetReceiveBufferSize(smallBuffer, true)
	}
	c.endpoint = ep
	c.TCPConn = gonet.NewTCPConn(&c.wait, ep)
	idle, interval := tcpip.KeepaliveIdleOption(time.Minute), tcpip.KeepaliveIntervalOption(15*time.Second)
	ep.SetSockOpt(&idle)
	ep.SetSockOpt(&interval)
	ep.SetSockOptInt(tcpip.KeepaliveCountOption, 8)
	ep.SocketOptions().SetKeepAlive(true)
	return c
}

// limitHops of what is sent from here on.
func (c *guestConn) limitHops(hops int) { c.endpoint.SetSockOptInt(tcpip.IPv4TTLOption, hops) }

// abort closes with a reset, as a conversation that failed on its other side.
func (c *guestConn) abort() {
	c.endpoint.Abort()
	c.Close()
}

func stackAddr(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }
func netipAddr(a tcpip.Address) netip.Addr { return netip.AddrFrom4(a.As4()) }
func stackError(err tcpip.Error) error     { return errors.New(err.String()) }

// stackLink is the link below a stack: packets that the stack sends become
// frames on the wire of the port that has their destination address.
type stackLink struct {
	lan        *lan
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
}

var _ stack.LinkEndpoint = (*stackLink)(nil)

func (e *stackLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	buf := frames.Get().(*[headerLen + MaxMTU + 1]byte)
	defer frames.Put(buf)
	for _, pkt := range pkts.AsSlice() {
		f := buf[:headerLen]
		for _, part := range pkt.AsSlices() {
			f = append(f, part...)
		}
		ip, ok := parsePacket(f[headerLen:])
		if !ok {
			continue
		}
		if p := e.lan.port(ip.dst()); p != nil {
			putEthernet(f, p.mac, routerMAC, etherIPv4)
			p.wire.send(f)
		}
	}
	return pkts.Len(), nil
}

func (e *stackLink) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		e.dispatcher.Store(nil)
		return
	}
	e.dispatcher.Store(&d)
}

func (e *stackLink) IsAttached() bool                             { return e.dispatcher.Load() != nil }
func (e *stackLink) MTU() uint32                                  { return uint32(e.lan.user.opts.MTU) }
func (e *stackLink) SetMTU(uint32)                                {}
func (e *stackLink) MaxHeaderLength() uint16                      { return 0 }
func (e *stackLink) LinkAddress() tcpip.LinkAddress               { return tcpip.LinkAddress(routerMAC[:]) }
func (e *stackLink) SetLinkAddress(tcpip.LinkAddress)             {}
func (e *stackLink) Capabilities() stack.LinkEndpointCapabilities { return 0 }
func (e *stackLink) Wait()                                        {}
func (e *stackLink) ARPHardwareType() header.ARPHardwareType      { return header.ARPHardwareNone }
func (e *stackLink) AddHeader(*stack.PacketBuffer)                {}
func (e *stackLink) ParseHeader(*stack.PacketBuffer) bool         { return true }
func (e *stackLink) Close()                                       {}
func (e *stackLink) SetOnCloseAction(func())                      {}
