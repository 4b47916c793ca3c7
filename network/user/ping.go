package user

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pingIdle is how long answers to an echo request are waited for.
const pingIdle = 10 * time.Second

// pings of a port to the outside.
type pings struct {
	mu   sync.Mutex // guards open
	open map[pingKey]*ping
}

type pingKey struct {
	to netip.Addr
	id uint16
}

// ping is a flow of echo requests with one id to one address.
type ping struct {
	flow *flow

	mu    sync.Mutex // guards what follows
	conn  net.Conn   // nil before it is made: what is sent then is lost
	quiet *time.Timer
}

// dialPing makes a socket for echo requests, which the kernel lets ordinary
// users have where net.ipv4.ping_group_range says so. What is written and read
// are ICMP messages, whose id is the kernel's.
func dialPing(_ context.Context, to netip.Addr) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, fmt.Errorf("make a socket for ping (net.ipv4.ping_group_range says who may): %w", err)
	}
	file := os.NewFile(uintptr(fd), "ping")
	defer file.Close()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
		return nil, fmt.Errorf("ping %s: %w", to, err)
	}
	return net.FileConn(file)
}

// ping sends a guest's echo request to the outside, beginning a flow if there
// is none.
func (l *lan) ping(p *port, ip packet) {
	if !isOutside(ip.dst()) {
		p.reply(unreachable(p, ip, codeProhibited))
		return
	}
	key := pingKey{ip.dst(), binary.BigEndian.Uint16(ip.payload()[4:])}
	p.pings.mu.Lock()
	defer p.pings.mu.Unlock()
	if g := p.pings.open[key]; g != nil {
		g.send(ip.payload())
		return
	}
	f := p.begin(pingFlow)
	if f == nil {
		return
	}
	if p.pings.open == nil {
		p.pings.open = map[pingKey]*ping{}
	}
	g := &ping{flow: f}
	p.pings.open[key] = g
	f.ask(p.guard, question{proto: protoICMP, peer: key.to.As4(), port: icmpEcho << 8}, nil)
	go l.runPing(p, g, key, bytes.Clone(ip))
}

// runPing makes the socket, sends the first request and passes answers to the
// guest until there are none. A host that may not ping refuses in words that a
// guest understands.
func (l *lan) runPing(p *port, g *ping, key pingKey, first packet) {
	defer func() {
		p.pings.mu.Lock()
		delete(p.pings.open, key)
		p.pings.mu.Unlock()
		g.flow.end()
	}()
	conn, err := l.openPing(g.flow.ctx, key.to)
	if err != nil {
		p.reply(unreachable(p, first, codeProhibited))
		return
	}
	g.flow.hold(conn)
	g.begin(conn)
	g.send(first.payload())
	readDatagrams(conn, func(m []byte) { p.pong(key, m) })
}

func (l *lan) openPing(ctx context.Context, to netip.Addr) (net.Conn, error) {
	if err := checkOutside(to); err != nil {
		return nil, err
	}
	return l.user.opts.Ping(ctx, to)
}

func (g *ping) begin(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conn, g.quiet = conn, time.AfterFunc(pingIdle, g.flow.end)
}

// send a message, or lose it.
func (g *ping) send(message []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conn != nil {
		g.quiet.Reset(pingIdle)
		g.conn.Write(message)
	}
}

// pong passes an answer to the guest, with the id that it asked with.
func (p *port) pong(key pingKey, message []byte) {
	if len(message) < 8 || message[0] != icmpEchoReply || len(message) > p.lan.user.opts.MTU-ipHeaderLen {
		return
	}
	f := make([]byte, headerLen+ipHeaderLen+len(message))
	putEthernet(f, p.mac, routerMAC, etherIPv4)
	ip := packet(f[headerLen:])
	putIPv4(ip, protoICMP, key.to, p.Local)
	m := ip[ipHeaderLen:]
	copy(m, message)
	binary.BigEndian.PutUint16(m[4:], key.id)
	putICMP(m, icmpEchoReply, 0)
	p.wire.send(f)
}
