package user

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// relay passes datagrams between clients of a public address and one of the
// guest's UDP ports: for the guest each client is another port of the router's.
type relay struct {
	pub  *publication
	conn *net.UDPConn
	to   netip.AddrPort

	mu      sync.Mutex // guards clients
	clients map[netip.AddrPort]*client
}

// client is a flow of datagrams from outside.
type client struct {
	flow  *flow
	guest *guestDatagrams
	quiet *time.Timer
}

// run until the socket is closed.
func (r *relay) run() {
	raw, err := r.conn.SyscallConn()
	for err == nil {
		err = raw.Read(func(fd uintptr) bool { return r.readSome(int(fd)) })
	}
}

// readSome hands on one datagram; false if there is none. Only then is a
// buffer held.
func (r *relay) readSome(fd int) bool {
	buf := datagrams.Get().(*[1 << 16]byte)
	defer datagrams.Put(buf)
	n, from, err := unix.Recvfrom(fd, buf[:], 0)
	if errors.Is(err, unix.EAGAIN) {
		return false
	}
	if a, ok := from.(*unix.SockaddrInet4); ok && err == nil {
		r.pass(netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), buf[:n])
	}
	return true
}

// pass a datagram to the guest, if the rules let its client begin.
func (r *relay) pass(from netip.AddrPort, data []byte) {
	r.mu.Lock()
	c := r.clients[from]
	r.mu.Unlock()
	if c == nil {
		c = r.accept(from)
	}
	if c != nil {
		c.quiet.Reset(udpStream)
		c.guest.write(data)
	}
}

// accept a client; nil if it may not come in. Only the reader calls it.
func (r *relay) accept(from netip.AddrPort) *client {
	p := r.pub.port
	q := question{ingress: true, proto: protoUDP, peer: from.Addr().As4(), port: r.to.Port()}
	f := p.begin(udpFlow)
	if f == nil {
		return nil
	}
	if f.ask(p.guard, q, r.pub) == refused || !p.wire.attached() {
		f.end()
		return nil
	}
	guest, err := p.lan.stack.dialUDP(p, r.to)
	if err != nil {
		f.end()
		return nil
	}
	f.hold(guest)
	c := &client{f, guest, time.AfterFunc(udpStream, f.end)}
	r.mu.Lock()
	r.clients[from] = c
	r.mu.Unlock()
	go r.answer(c, from)
	return c
}

// answer the client with what the guest says, until both are quiet.
func (r *relay) answer(c *client, from netip.AddrPort) {
	defer func() {
		r.mu.Lock()
		delete(r.clients, from)
		r.mu.Unlock()
		c.quiet.Stop()
		c.flow.end()
	}()
	c.guest.read(c.flow.ctx, func(b []byte) {
		c.quiet.Reset(udpStream)
		r.conn.WriteToUDPAddrPort(b, from) // what can't be sent is lost, as datagrams are
	})
}

// dialUDP makes the router's end of a flow to one of the guest's UDP ports, and
// a door for what the guest answers.
func (s *netStack) dialUDP(p *port, to netip.AddrPort) (*guestDatagrams, error) {
	g := &guestDatagrams{}
	var terr tcpip.Error
	if g.endpoint, terr = s.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &g.wait); terr != nil {
		return nil, fmt.Errorf("make a socket: %w", stackError(terr))
	}
	terr = g.endpoint.Bind(tcpip.FullAddress{NIC: nic, Addr: stackAddr(s.lan.router)})
	if terr == nil {
		terr = g.endpoint.Connect(tcpip.FullAddress{NIC: nic, Addr: stackAddr(to.Addr()), Port: to.Port()})
	}
	if terr != nil {
		g.endpoint.Close()
		return nil, fmt.Errorf("connect to %s: %w", to, stackError(terr))
	}
	if own, terr := g.endpoint.GetLocalAddress(); terr == nil {
		p.doors.Store(own.Port, nil)
		g.closed = func() { p.doors.Delete(own.Port) }
	}
	return g, nil
}

// answers says whether a packet to the router's address belongs to a flow of
// datagrams from outside. Of fragments the stack finds out.
func (p *port) answers(ip packet) bool {
	if ip.proto() != protoUDP || ip.dst() != p.lan.router {
		return false
	}
	if ip.fragment() {
		return true
	}
	_, to, _, ok := ip.udp()
	_, open := p.doors.Load(to)
	return ok && open
}
