package user

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"mallee/network"
)

// port is the switch's end of one wire.
type port struct {
	network.Port
	lan    *lan
	mac    mac
	wire   *wire
	public *publication
	guard  *guard
	flowSet
	pings pings
	doors sync.Map // the router's UDP ports (uint16) that the guest may answer to

	fragments fragments // of the reader only

	read chan struct{} // closed when the reader has ended
}

// openPort makes the wire and what listens at the public address. Nothing
// moves yet.
func openPort(l *lan, want network.Port, m mac) (*port, error) {
	p := &port{Port: want, lan: l, mac: m, read: make(chan struct{}), fragments: fragments{}}
	p.guard, p.Groups = newGuard(l.user.law, want.Network), nil // until govern
	var err error
	if p.wire, err = newWire(want.Dir); err != nil {
		return nil, err
	}
	if p.public, err = publish(p, want.Public); err != nil {
		return nil, errors.Join(err, p.wire.close())
	}
	if p.wire.attached() { // found again after a restart of this program
		p.guard.adopt = l.user.law.now() + adoption
	}
	return p, nil
}

// republish at another address, or at none. Where that fails all is as it was.
func (p *port) republish(a netip.Addr) error {
	next, err := publish(p, a)
	if err != nil {
		return err
	}
	last := p.public
	p.public, p.Public = next, a
	last.close()
	p.endWhere(func(f *flow) bool { return f.through(last) })
	next.start()
	return nil
}

// recheck the flows that are open, when rules have changed.
func (p *port) recheck() {
	p.endWhere(func(f *flow) bool { return f.askAgain(p.guard) == refused })
}

// permits says whether the rules let a packet of the port's go to another port,
// or outside where that is nil.
func (p *port) permits(to *port, ip packet) bool {
	if !p.guard.governed() && (to == nil || !to.guard.governed()) {
		return true
	}
	now := p.guard.law.now()
	if ip.offset() > 0 {
		return p.fragments.follows(ip, now)
	}
	h, ok := readHead(ip)
	h.unheard = to == nil
	ok = ok && p.guard.pass(ip, h, false, now) && (to == nil || to.guard.pass(ip, h, true, now))
	if ip.fragment() {
		p.fragments.decide(ip, ok, now)
	}
	return ok
}

// start handling frames and connections.
func (p *port) start() {
	go func() {
		defer close(p.read)
		p.wire.receive(func(f []byte) { p.lan.receive(p, f) })
	}()
	p.public.start()
}

// close gives everything back: when it returns, addresses and paths are free.
func (p *port) close() error {
	p.public.close()
	removeEndpoints(p.Dir)
	p.flowSet.close()
	err := p.wire.close()
	<-p.read
	return err
}

// reply sends a frame that this process made; nil for none.
func (p *port) reply(f []byte) {
	if f != nil {
		p.wire.send(f)
	}
}

// deliver a neighbour's frame, which may have been sent to a MAC that is
// no longer this address's.
func (p *port) deliver(f []byte) {
	copy(f[:6], p.mac[:])
	p.wire.send(f)
}

// hostname as DNS compares it.
func (p *port) hostname() string { return strings.ToLower(p.Name) }

func parseMAC(s string) (mac, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return mac{}, fmt.Errorf("MAC address %q: want six bytes like d0:0d:01:02:03:04", s)
	}
	m := mac(hw)
	if m[0]&1 != 0 || m == routerMAC || m == (mac{}) {
		return mac{}, fmt.Errorf("MAC address %q can't be an instance's", s)
	}
	return m, nil
}
