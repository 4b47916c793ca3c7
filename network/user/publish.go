package user

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// fallback is added to a port that can't be listened on: below 1024 without
// privilege, or held on every address of the host by a service of its own.
const fallback = 10000

// probeAddr is a loopback address that no instance gets, to find out whether a
// port is held on every address.
var probeAddr = netip.AddrFrom4([4]byte{127, 255, 255, 254})

// publication listens for a port at its public address.
type publication struct {
	port      *port
	address   netip.Addr
	endpoints []Endpoint
	listeners []net.Listener
	relays    []*relay
	running   sync.WaitGroup
}

// publish a port at an address: opens the listeners, and tells in the machine's folder where they
// are. A port that can't be had is left out; an address of which none can is an
// error.
func publish(p *port, at netip.Addr) (*publication, error) {
	pub := &publication{port: p, address: at}
	if !at.IsValid() {
		removeEndpoints(p.Dir)
		return pub, nil
	}
	if err := pub.open(); err != nil {
		return nil, fmt.Errorf("publish %s at %s: %w", p.ID, at, err)
	}
	if err := writeEndpoints(p.Dir, pub.endpoints); err != nil {
		pub.close()
		return nil, err
	}
	pub.tell()
	return pub, nil
}

func (pub *publication) open() error {
	var missing []error
	for _, n := range pub.port.lan.user.opts.Publish {
		at, err := listen(pub.address, n, listenTCP)
		if err != nil {
			missing = append(missing, fmt.Errorf("port %d: %w", n, err))
			continue
		}
		pub.listeners = append(pub.listeners, at)
		pub.endpoints = append(pub.endpoints, Endpoint{Port: n, Listen: at.Addr().(*net.TCPAddr).AddrPort()})
	}
	if len(missing) > 0 && len(pub.listeners) == 0 {
		return errors.Join(missing...)
	}
	for _, err := range append(missing, pub.openUDP()...) {
		pub.log().Warn("a port is not published", "instance", pub.port.ID, "err", err)
	}
	return nil
}

// openUDP opens the sockets for datagrams, and says which can't be had: an
// address is worth something without them.
func (pub *publication) openUDP() (missing []error) {
	for _, n := range pub.port.lan.user.opts.PublishUDP {
		at, err := listen(pub.address, n, listenUDP)
		if err != nil {
			missing = append(missing, fmt.Errorf("UDP port %d: %w", n, err))
			continue
		}
		to := netip.AddrPortFrom(pub.port.Local, n)
		pub.relays = append(pub.relays, &relay{pub: pub, conn: at, to: to, clients: map[netip.AddrPort]*client{}})
		pub.endpoints = append(pub.endpoints, Endpoint{Port: n, Listen: at.LocalAddr().(*net.UDPAddr).AddrPort(), Proto: "udp"})
	}
	return missing
}

// tell whoever reads the log which ports are reached by another number.
func (pub *publication) tell() {
	var moved []string
	for _, e := range pub.endpoints {
		if e.moved() {
			moved = append(moved, fmt.Sprintf("%d at %s", e.Port, e.Listen)+strings.TrimRight(" "+e.Proto, " "))
		}
	}
	if len(moved) > 0 {
		pub.log().Info("ports are published at other numbers", "instance", pub.port.ID, "ports", strings.Join(moved, ", "))
	}
}

func (pub *publication) log() *slog.Logger { return pub.port.lan.user.opts.Log }

// listen at the port, or where it falls back to.
func listen[L io.Closer](a netip.Addr, n uint16, open func(netip.AddrPort) (L, error)) (L, error) {
	at, err := open(netip.AddrPortFrom(a, n))
	if err == nil {
		return at, nil
	}
	held := errors.Is(err, unix.EADDRINUSE) && heldEverywhere(n, open)
	if !held && !errors.Is(err, unix.EACCES) || n > 65535-fallback {
		return at, err
	}
	return open(netip.AddrPortFrom(a, n+fallback))
}

func listenTCP(a netip.AddrPort) (*net.TCPListener, error) {
	return net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(a))
}

func listenUDP(a netip.AddrPort) (*net.UDPConn, error) {
	return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(a))
}

// heldEverywhere says whether a service of the host listens on the port at
// every address (sshd does), rather than another instance at this one.
func heldEverywhere[L io.Closer](n uint16, open func(netip.AddrPort) (L, error)) bool {
	at, err := open(netip.AddrPortFrom(probeAddr, n))
	if err == nil {
		at.Close()
	}
	return errors.Is(err, unix.EADDRINUSE)
}

// start accepting.
func (pub *publication) start() {
	for i, at := range pub.listeners {
		to := netip.AddrPortFrom(pub.port.Local, pub.endpoints[i].Port)
		pub.running.Go(func() { pub.accept(at, to) })
	}
	for _, r := range pub.relays {
		pub.running.Go(r.run)
	}
}

// accept connections for one of the guest's ports until the listener closes.
func (pub *publication) accept(at net.Listener, to netip.AddrPort) {
	for {
		host, err := at.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors or memory: others have to give some back first
			pub.log().Warn("accept at a public address", "instance", pub.port.ID, "listen", at.Addr(), "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		f := pub.port.begin(tcpFlow)
		if f == nil || f.ask(pub.port.guard, pub.question(host, to), pub) == refused || !pub.port.wire.attached() {
			refuse(host)
			if f != nil {
				f.end()
			}
			continue
		}
		f.hold(host)
		go pub.connect(f, host, to)
	}
}

// question whether a client may connect to one of the guest's ports.
func (pub *publication) question(host net.Conn, to netip.AddrPort) question {
	q := question{ingress: true, proto: protoTCP, port: to.Port()}
	if a, ok := host.RemoteAddr().(*net.TCPAddr); ok {
		q.peer = a.AddrPort().Addr().Unmap().As4()
	}
	return q
}

// connect a client of the host's to the guest; a client is reset where the
// guest does not answer.
func (pub *publication) connect(f *flow, host net.Conn, to netip.AddrPort) {
	defer f.end()
	guest, err := pub.port.lan.stack.dial(f, to)
	if err != nil {
		refuse(host)
		return
	}
	f.hold(guest)
	splice(guest, host)
}

func (pub *publication) close() {
	for _, at := range pub.listeners {
		at.Close()
	}
	for _, r := range pub.relays {
		r.conn.Close()
	}
	pub.running.Wait()
}
