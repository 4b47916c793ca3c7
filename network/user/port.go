package user

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"mallee/network"
)

// port is the switch's end of one wire.
type port struct {
	network.Port
	lan    *lan
	mac    mac
	wire   *wire
	public *publication
	flowSet

	read chan struct{} // closed when the reader has ended
}

// openPort makes the wire and what listens at the public address. Nothing
// moves yet.
func openPort(l *lan, want network.Port, m mac) (*port, error) {
	p := &port{Port: want, lan: l, mac: m, read: make(chan struct{})}
	var err error
	if p.wire, err = newWire(want.Dir); err != nil {
		return nil, err
	}
	if p.public, err = publish(p); err != nil {
		return nil, errors.Join(err, p.wire.close())
	}
	return p, nil
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
