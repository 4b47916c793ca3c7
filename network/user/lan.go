package user

import (
	"net/netip"
	"sync"
)

// routerMAC is the router's and the resolver's on every lan, locally
// administered, in a range that no port may be in.
var routerMAC = mac{0x02, 0x00, 0xa9, 0xfe, 0xa9, 0xfe}

// Addresses that EC2 serves on every subnet, whatever its range.
var (
	metadataAddr = netip.AddrFrom4([4]byte{169, 254, 169, 254})
	resolverAddr = netip.AddrFrom4([4]byte{169, 254, 169, 253})
)

// lan is one subnet: its ports, its router and the stack that flows end in.
type lan struct {
	user     *User
	name     string
	prefix   netip.Prefix
	router   netip.Addr // .1
	resolver netip.Addr // .2
	stack    *netStack

	mu     sync.RWMutex // guards what follows; never held while a frame is handled
	byAddr map[netip.Addr]*port
	byName map[string]netip.Addr // lower case, without the domain
}

func newLAN(u *User, name string) (*lan, error) {
	router := u.opts.Prefix.Addr().Next()
	l := &lan{
		user: u, name: name, prefix: u.opts.Prefix,
		router: router, resolver: router.Next(),
		byAddr: map[netip.Addr]*port{}, byName: map[string]netip.Addr{},
	}
	var err error
	l.stack, err = newStack(l)
	return l, err
}

// serves says whether the router answers for the address itself.
func (l *lan) serves(a netip.Addr) bool {
	return a == l.router || a == metadataAddr || l.resolves(a)
}

// resolves says whether DNS is to be had at the address.
func (l *lan) resolves(a netip.Addr) bool { return a == l.resolver || a == resolverAddr }

// port that has the address; nil for none.
func (l *lan) port(a netip.Addr) *port {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.byAddr[a]
}

// lookup the address of an instance's name.
func (l *lan) lookup(name string) (netip.Addr, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	a, ok := l.byName[name]
	return a, ok
}

func (l *lan) add(p *port) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byAddr[p.Local] = p
	l.byName[p.hostname()] = p.Local
}

// remove the port and say whether it was the last.
func (l *lan) remove(p *port) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byAddr, p.Local)
	if l.byName[p.hostname()] == p.Local {
		delete(l.byName, p.hostname())
	}
	return len(l.byAddr) == 0
}

// receive handles one frame from a port's machine. What is not for anybody, or
// says it comes from somebody else, is dropped.
func (l *lan) receive(p *port, f []byte) {
	if len(f) < headerLen || len(f) > headerLen+l.user.opts.MTU || frameSrc(f) != p.mac {
		return
	}
	switch frameType(f) {
	case etherARP:
		p.reply(l.answerARP(p, f))
	case etherIPv4:
		if ip, ok := parsePacket(f[headerLen:]); ok {
			l.route(p, f[:headerLen+len(ip)], ip)
		}
	}
}

// route sends a packet to where its destination address is. f is its frame.
func (l *lan) route(p *port, f []byte, ip packet) {
	if from, to, data, ok := ip.udp(); ok && from == dhcpClientPort && to == dhcpServerPort {
		p.reply(l.answerDHCP(p, ip, data))
		return
	}
	if ip.src() != p.Local || ip.leases() {
		return
	}
	dst := ip.dst()
	switch {
	case l.serves(dst):
		l.serve(p, ip)
	case l.prefix.Contains(dst):
		if to := l.port(dst); to != nil && to != p && p.permits(to, ip) {
			to.deliver(f)
		}
	case dst.IsMulticast() || dst == broadcastAddr:
	case p.permits(nil, ip):
		l.outside(p, ip)
	}
}

// serve handles a packet to one of the router's own addresses.
func (l *lan) serve(p *port, ip packet) {
	switch {
	case ip.proto() == protoTCP || p.answers(ip):
		l.stack.inject(ip)
	case ip.proto() == protoUDP:
		from, to, data, ok := ip.udp()
		switch {
		case ok && to == dnsPort && l.resolves(ip.dst()):
			l.answerDNS(p, netip.AddrPortFrom(ip.dst(), to), netip.AddrPortFrom(ip.src(), from), data)
		case ok:
			p.reply(unreachable(p, ip, codePort))
		}
	case ip.proto() == protoICMP:
		switch kind, ok := ip.icmpType(); {
		case ok && kind == icmpEcho:
			p.reply(echoReply(p, ip))
		case ok && kind == icmpUnreachable && ip.dst() == l.router:
			l.stack.inject(ip) // ends the flow that it quotes
		}
	}
}

// outside handles a packet to beyond the subnet.
func (l *lan) outside(p *port, ip packet) {
	switch ip.proto() {
	case protoTCP, protoUDP:
		if !isOutside(ip.dst()) {
			p.reply(unreachable(p, ip, codeProhibited))
			return
		}
		l.stack.inject(ip)
	case protoICMP:
		if kind, ok := ip.icmpType(); ok && kind == icmpEcho {
			l.ping(p, ip)
		}
	}
}
