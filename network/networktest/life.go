package networktest

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// restart closes the network and opens another on the same folders, as a
// restart of the program does: connections between guests go on.
func restart(t *testing.T, d Driver) {
	n := d.Open(t, World{})
	a, p := guest(t, n, "a", 1)
	b, q := guest(t, n, "a", 2)
	echo(t, b.Listen(7))
	c, err := a.Dial(t.Context(), netip.AddrPortFrom(b.Addr(), 7))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	converse(t, c, 1<<20)
	closeNetwork(t, n)
	if _, err := c.Write([]byte("said to nobody")); err != nil {
		t.Fatal(err)
	}
	n = d.open(t, World{})
	ensure(t, n, p)
	ensure(t, n, q)
	c.SetDeadline(time.Now().Add(patience))
	heard := make([]byte, 14)
	if _, err := c.Read(heard); err != nil || string(heard) != "said to nobody" {
		t.Fatalf("heard %q, %v", heard, err)
	}
	converse(t, c, 1<<20)
	a.settle()
}

// anotherAddress of a running port: connections between guests go on, those by
// the address that was end, and it is free.
func anotherAddress(t *testing.T, d Driver) {
	n := d.open(t, World{})
	a, p := guest(t, n, "a", 1)
	b, _ := guest(t, n, "a", 2)
	echo(t, a.Listen(8080))
	inside, err := b.Dial(t.Context(), netip.AddrPortFrom(a.Addr(), 8080))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	old := d.Reach(n, p.ID, 8080)
	c, err := net.Dial("tcp4", old.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	converse(t, c, 1000)
	for _, address := range []netip.Addr{PublicAddr("a", 9), {}, p.Public} {
		p.Public = address
		ensure(t, n, p)
		converse(t, inside, 1000)
		if address.IsValid() {
			next, err := net.Dial("tcp4", d.Reach(n, p.ID, 8080).String())
			if err != nil {
				t.Fatal(err)
			}
			converse(t, next, 1000)
			next.Close()
		}
		if address == old.Addr() {
			continue
		}
		if err := dialHost(old); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("the address that was says %v", err)
		}
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("a connection by the address that was: %v", err)
	}
}

// anotherMachine comes in the place of one that ended.
func anotherMachine(t *testing.T, d Driver) {
	n := d.open(t, World{})
	first, p := guest(t, n, "a", 1)
	first.settle()
	first.unplug()
	Plug(t, p, ensure(t, n, p)).Configure().settle()
}

func removedPort(t *testing.T, d Driver) {
	n := d.open(t, World{})
	victim, _ := guest(t, n, "a", 1)
	friend, _ := guest(t, n, "a", 2)
	gone, p := guest(t, n, "a", 3)
	echo(t, gone.Listen(8080))
	reach := d.Reach(n, p.ID, 8080)
	removePort(t, n, p.ID)
	if err := dialHost(reach); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("after removal the public address says %v", err)
	}
	to := netip.AddrPortFrom(victim.Addr(), 9)
	frame := UDPFrame(victim.MAC, gone.MAC, netip.AddrPortFrom(gone.Addr(), 9), to, []byte("from beyond"))
	unharmed(t, victim, friend, friend, "from beyond", func() { gone.Send(frame) })

	p.ID, p.MAC, p.Dir = "i-next", "d0:0d:00:00:00:77", folder(t) // the address goes to another
	next := Plug(t, p, ensure(t, n, p)).Configure()
	next.Await(func() { // sent to the MAC of old, as ARP caches have it
		friend.Send(UDPFrame(gone.MAC, friend.MAC, netip.AddrPortFrom(friend.Addr(), 9), netip.AddrPortFrom(next.Addr(), 9), []byte("to you")))
	}, func(f []byte) bool { return bytes.Contains(f, []byte("to you")) })
}

// nobodyThere: a port whose machine has not started costs its neighbours
// nothing, and clients are told at once.
func nobodyThere(t *testing.T, d Driver) {
	n := d.open(t, World{})
	a, _ := guest(t, n, "a", 1)
	p := Port(t, "a", 2)
	ensure(t, n, p)
	gateway := a.resolve(a.router())
	for range 100 {
		a.Send(UDPFrame(gateway, a.MAC, netip.AddrPortFrom(a.Addr(), 9), netip.AddrPortFrom(p.Local, 9), []byte("lost")))
	}
	a.settle()
	if err := dialHost(d.Reach(n, p.ID, 8080)); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a port without a machine: %v", err)
	}
}
