package networktest

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// hostile sends what no guest would, and then lives on.
func hostile(t *testing.T, d Driver) {
	world := newOutside(t)
	n := d.open(t, World{Dial: world.dial})
	evil, _ := guest(t, n, "a", 1)
	good, _ := guest(t, n, "a", 2)
	random := rand.New(rand.NewPCG(1, 2))
	gateway := evil.resolve(evil.router())
	whole := [][]byte{
		UDPFrame(gateway, evil.MAC, netip.AddrPortFrom(evil.Addr(), 9), netip.MustParseAddrPort("172.31.0.2:53"), make([]byte, 40)),
		UDPFrame(gateway, evil.MAC, netip.AddrPortFrom(evil.Addr(), 68), netip.MustParseAddrPort("172.31.0.1:67"), make([]byte, 300)),
		UDPFrame(gateway, evil.MAC, netip.AddrPortFrom(evil.Addr(), 9), netip.MustParseAddrPort("198.51.100.7:9"), make([]byte, 100)),
		UDPFrame(good.MAC, evil.MAC, netip.AddrPortFrom(evil.Addr(), 9), netip.AddrPortFrom(good.Addr(), 9), make([]byte, 100)),
		ARPFrame(evil.MAC, header.ARPRequest, evil.MAC, evil.Addr(), good.Addr()),
		echoFrame(gateway, evil.MAC, evil.Addr(), evil.router(), make([]byte, 50)),
	}
	for range 2000 {
		f := slices.Clone(whole[random.IntN(len(whole))])
		for range random.IntN(4) {
			f[12+random.IntN(len(f)-12)] = byte(random.Uint32())
		}
		evil.Send(f[:random.IntN(len(f)+1)])
	}
	evil.Send(make([]byte, 66000)) // longer than any frame
	evil.settle()
	good.settle()
}

// greedy opens more than its share. Its neighbour notices nothing.
func greedy(t *testing.T, d Driver) {
	world := newOutside(t)
	n := d.open(t, World{Dial: world.dial})
	evil, _ := guest(t, n, "a", 1)
	good, _ := guest(t, n, "a", 2)
	gateway := evil.resolve(evil.router())
	for i := range uint16(1000) { // flows of UDP
		evil.Send(UDPFrame(gateway, evil.MAC, netip.AddrPortFrom(evil.Addr(), 1000+i), netip.MustParseAddrPort("198.51.100.7:9"), []byte("x")))
	}
	for i := range uint16(1000) { // connections that it never answers
		evil.Send(synFrame(gateway, evil, 1000+i, netip.MustParseAddrPort("198.51.100.7:80")))
	}
	evil.settle()
	if got := world.crowd(); got > 1100 { // of 2000
		t.Errorf("one guest made the host hold %d connections at once", got)
	}
	c, err := good.Dial(t.Context(), netip.MustParseAddrPort("198.51.100.7:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	converse(t, c, 1<<20)
}

// sleeper doesn't read its wire: what is sent to it is lost, and the sender
// stays free.
func sleeper(t *testing.T, d Driver) {
	n := d.open(t, World{})
	p := Port(t, "a", 1)
	at := ensure(t, n, p)
	w, err := newWire(p.Dir, at)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	good, _ := guest(t, n, "a", 2)
	friend, _ := guest(t, n, "a", 3)
	gateway := good.resolve(good.router())
	frame := UDPFrame(gateway, good.MAC, netip.AddrPortFrom(good.Addr(), 9), netip.AddrPortFrom(p.Local, 9), make([]byte, 1000))
	start := time.Now()
	for range 5000 {
		good.Send(frame)
	}
	good.settle()
	if took := time.Since(start); took > patience {
		t.Errorf("5000 frames to nobody took %s", took)
	}
	echo(t, friend.Listen(7))
	c, err := good.Dial(t.Context(), netip.AddrPortFrom(friend.Addr(), 7))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	converse(t, c, 1<<20)
}
