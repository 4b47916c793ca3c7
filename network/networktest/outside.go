package networktest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// outside is a world beyond the subnet: 198.51.100.7 is a server of the test's,
// 198.51.100.8 refuses. It remembers who was dialed.
type outside struct {
	tcp, udp, closed string

	mu     sync.Mutex // guards what follows
	dialed []string
	open   int // connections that the driver holds now
	most   int // and held at once so far
}

func newOutside(t testing.TB) *outside {
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	echo(t, tcp)
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			udp.WriteTo(buf[:n], from)
		}
	}()
	return &outside{tcp: tcp.Addr().String(), udp: udp.LocalAddr().String(), closed: closedPort(t)}
}

func (o *outside) dial(ctx context.Context, network, address string) (net.Conn, error) {
	o.mu.Lock()
	o.dialed = append(o.dialed, network+" "+address)
	o.mu.Unlock()
	to := o.closed
	if host, _, _ := net.SplitHostPort(address); host == "198.51.100.7" {
		to = map[string]string{"tcp4": o.tcp, "udp4": o.udp}[network]
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, to)
	if err != nil {
		return nil, err
	}
	o.count(1)
	closed := sync.OnceFunc(func() { o.count(-1) })
	if tcp, ok := c.(*net.TCPConn); ok {
		return &outsideTCPConn{tcp, closed}, nil
	}
	return &outsideUDPConn{c.(*net.UDPConn), closed}, nil
}

// outsideTCPConn and outsideUDPConn tell when they are closed.
type (
	outsideTCPConn struct {
		*net.TCPConn
		closed func()
	}
	outsideUDPConn struct {
		*net.UDPConn
		closed func()
	}
)

func (c *outsideTCPConn) Close() error { c.closed(); return c.TCPConn.Close() }
func (c *outsideUDPConn) Close() error { c.closed(); return c.UDPConn.Close() }

func (o *outside) count(by int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open += by
	o.most = max(o.most, o.open)
}

// crowd is how many connections were held at once.
func (o *outside) crowd() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.most
}

func (o *outside) seen() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.dialed)
}

func outsideTCP(t *testing.T, d Driver) {
	world := newOutside(t)
	n := d.open(t, World{Dial: world.dial})
	g, _ := guest(t, n, "a", 1)
	c, err := g.Dial(t.Context(), netip.MustParseAddrPort("198.51.100.7:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	converse(t, c, 4<<20)
	halfClose(t, c)
	start := time.Now()
	if c, err := g.Dial(t.Context(), netip.MustParseAddrPort("198.51.100.8:80")); err == nil {
		c.Close()
		t.Error("connected to what refuses")
	}
	if took := time.Since(start); took > patience/2 {
		t.Errorf("it took %s to be refused", took)
	}
	if got, want := world.seen(), []string{"tcp4 198.51.100.7:80", "tcp4 198.51.100.8:80"}; !slices.Equal(got, want) {
		t.Errorf("dialed %q, want %q", got, want)
	}
}

// halfClose says the last word to an echo and hears it.
func halfClose(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "last"); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "last" {
		t.Errorf("after a half-close: %q, %v", b, err)
	}
}

func outsideUDP(t *testing.T, d Driver) {
	world := newOutside(t)
	n := d.open(t, World{Dial: world.dial})
	g, _ := guest(t, n, "a", 1)
	c := g.DialUDP(netip.MustParseAddrPort("198.51.100.7:123"))
	defer c.Close()
	for _, size := range []int{1, 1400, 30000} { // the last comes in fragments
		said, heard := make([]byte, size), make([]byte, 1<<16)
		said[0] = byte(size)
		if _, err := c.Write(said); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Read(heard); err != nil || got != size || heard[0] != said[0] {
			t.Fatalf("of %d bytes came %d: %v", size, got, err)
		}
	}
	if got := world.seen(); len(got) != 1 {
		t.Errorf("one flow dialed %q", got)
	}
}

// hostRefused checks that no way leads to the host through the outside, and
// that nobody is even asked.
func hostRefused(t *testing.T, d Driver) {
	world := newOutside(t)
	n := d.open(t, World{Dial: world.dial})
	g, _ := guest(t, n, "a", 1)
	targets := []netip.Addr{g.router(), netip.MustParseAddr("172.31.0.2")}
	for _, s := range []string{"127.0.0.1", "127.9.9.9", "0.0.0.1", "169.254.1.1", "169.254.169.250", "240.0.0.1"} {
		targets = append(targets, netip.MustParseAddr(s))
	}
	targets = append(targets, hostAddrs(t)...)
	gateway := g.resolve(g.router())
	for i, to := range targets {
		g.Send(UDPFrame(gateway, g.MAC, netip.AddrPortFrom(g.Addr(), 99), netip.AddrPortFrom(to, 22), []byte("hello")))
		port := 1000 + uint16(i)
		g.Await(func() { g.Send(synFrame(gateway, g, port, netip.AddrPortFrom(to, 22))) }, func(f []byte) bool {
			_, kind, _, quoted := icmpOf(f)
			return kind == header.ICMPv4DstUnreachable && bytes.Contains(quoted, to.AsSlice()) || isReset(f, to, port)
		})
	}
	if got := world.seen(); len(got) > 0 {
		t.Errorf("dialed %q", got)
	}
}

// hostAddrs are the host's own, of IPv4.
func hostAddrs(t *testing.T) (own []netip.Addr) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			own = append(own, p.Addr())
		}
	}
	return own
}

func publicAddress(t *testing.T, d Driver) {
	n := d.open(t, World{})
	g, p := guest(t, n, "a", 1)
	to := d.Reach(n, p.ID, 8080)
	if to.Addr() != p.Public {
		t.Fatalf("reached at %s, want %s", to, p.Public)
	}
	if err := dialHost(to); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a port where the guest refuses: %v", err)
	}
	at := g.Listen(8080)
	peers := make(chan netip.AddrPort, 1)
	go func() {
		c, err := at.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		peers <- c.RemoteAddr().(*net.TCPAddr).AddrPort()
		io.Copy(c, c)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	c, err := net.Dial("tcp4", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	converse(t, c, 4<<20)
	halfClose(t, c)
	if peer := <-peers; peer.Addr() != g.router() {
		t.Errorf("the guest's client is %s, want the router %s", peer, g.router())
	}
}

// dialHost connects from the host and waits for what comes of it.
func dialHost(to netip.AddrPort) error {
	c, err := net.DialTimeout("tcp4", to.String(), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	_, err = c.Read(make([]byte, 1))
	return err
}
