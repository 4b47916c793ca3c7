package user

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	dialTimeout = 10 * time.Second
	udpIdle     = time.Minute
	udpAnswer   = 10 * time.Second // idle, where one answer is all there is: DNS, NTP
)

// dialOutside is how guests reach the outside by default.
func dialOutside(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// acceptTCP handles a guest's connection in a goroutine of its own. The guest
// is answered only when the other side has answered, so that what refuses the
// host refuses the guest.
func (l *lan) acceptTCP(r *tcp.ForwarderRequest) {
	id := r.ID()
	to := netip.AddrPortFrom(netipAddr(id.LocalAddress), id.LocalPort)
	p := l.port(netipAddr(id.RemoteAddress))
	if p == nil {
		r.Complete(false)
		return
	}
	f := p.begin(tcpFlow)
	if f == nil {
		r.Complete(true)
		return
	}
	if l.serves(to.Addr()) {
		l.acceptService(f, p, r, to)
		return
	}
	f.ask(p.guard, egress(protoTCP, to), nil)
	defer f.end()
	host, err := l.dial(f.ctx, "tcp4", to)
	if err != nil {
		r.Complete(true)
		return
	}
	f.hold(host)
	if guest := acceptGuest(f, r); guest != nil {
		splice(guest, host)
	}
}

// egress is the question that was answered when the packet passed the port's
// guard: it is asked again when rules change.
func egress(proto byte, to netip.AddrPort) question {
	return question{proto: proto, peer: to.Addr().As4(), port: to.Port()}
}

// acceptGuest finishes the handshake with the guest; nil if it went away.
func acceptGuest(f *flow, r *tcp.ForwarderRequest) *guestConn {
	c := &guestConn{}
	ep, terr := r.CreateEndpoint(&c.wait)
	if terr != nil {
		r.Complete(true)
		return nil
	}
	r.Complete(false)
	c.take(ep, f)
	f.hold(c)
	return c
}

// dial the outside for a guest.
func (l *lan) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	if err := checkOutside(to.Addr()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := l.user.opts.Dial(ctx, network, to.String())
	if err != nil {
		return nil, fmt.Errorf("dial %s for a guest: %w", to, err)
	}
	return c, nil
}

// acceptUDP begins a flow with a guest's first datagram to somewhere. It is
// called with the frame's reader and must not wait.
func (l *lan) acceptUDP(r *udp.ForwarderRequest) bool {
	id := r.ID()
	to := netip.AddrPortFrom(netipAddr(id.LocalAddress), id.LocalPort)
	p := l.port(netipAddr(id.RemoteAddress))
	if p == nil || l.serves(to.Addr()) {
		return true
	}
	f := p.begin(udpFlow)
	if f == nil {
		return true
	}
	guest := &guestDatagrams{}
	var terr tcpip.Error
	if guest.endpoint, terr = r.CreateEndpoint(&guest.wait); terr != nil {
		f.end()
		return true
	}
	f.hold(guest)
	f.ask(p.guard, egress(protoUDP, to), nil)
	go l.relay(f, guest, to)
	return true
}

// relay datagrams between a guest and the outside until both are quiet.
func (l *lan) relay(f *flow, guest *guestDatagrams, to netip.AddrPort) {
	defer f.end()
	host, err := l.dial(f.ctx, "udp4", to)
	if err != nil {
		return
	}
	f.hold(host)
	idle := udpIdle
	if to.Port() == dnsPort || to.Port() == 123 {
		idle = udpAnswer
	}
	quiet := time.AfterFunc(idle, f.end)
	defer quiet.Stop()
	go func() {
		defer f.end()
		readDatagrams(host, func(b []byte) { quiet.Reset(idle); guest.write(b) })
	}()
	guest.read(f.ctx, func(b []byte) { quiet.Reset(idle); host.Write(b) }) // what can't be sent is lost, as datagrams are
}
