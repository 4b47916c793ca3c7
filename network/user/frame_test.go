package user

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"mallee/network/networktest"
)

// FuzzFrame hands frames to a port's reader as a hostile guest could: with its
// own MAC and, where there is room, its own address, so that they get far. No
// frame may panic, and none may come to a neighbour in another's name.
func FuzzFrame(f *testing.F) {
	u := open(f, Options{
		Dial:      func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("nobody") },
		Resolvers: func() []string { return nil },
	})
	defer u.Close()
	evil := plug(f, u, 1)
	good := plug(f, u, 2)
	p := u.ports["i-a01"]
	router := net.HardwareAddr(routerMAC[:])
	from := netip.AddrPortFrom(evil.Addr(), 68)
	for _, to := range []string{"172.31.0.2:53", "172.31.0.1:67", "198.51.100.7:9", "172.31.0.11:9", "224.0.0.1:9", "127.0.0.1:22"} {
		f.Add(networktest.UDPFrame(router, evil.MAC, from, netip.MustParseAddrPort(to), make([]byte, 260)))
	}
	f.Add(networktest.ARPFrame(evil.MAC, header.ARPRequest, evil.MAC, evil.Addr(), good.Addr()))
	f.Fuzz(func(t *testing.T, frame []byte) {
		frame = bytes.Clone(frame)
		if len(frame) >= headerLen {
			copy(frame[6:12], p.mac[:])
		}
		if len(frame) >= headerLen+ipHeaderLen && frameType(frame) == etherIPv4 {
			own := p.Local.As4()
			copy(frame[headerLen+12:], own[:])
		}
		p.lan.receive(p, frame)
	})
}

// FuzzPacket checks what parsing promises.
func FuzzPacket(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 2, 0, 8, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parsePacket(b)
		if !ok {
			return
		}
		if len(p) > len(b) || len(p.payload()) > len(p)-ipHeaderLen {
			t.Fatalf("a packet of %d bytes in %d", len(p), len(b))
		}
		if _, _, data, ok := p.udp(); ok && len(data) > len(p)-ipHeaderLen-udpHeader {
			t.Fatalf("%d bytes of data in a packet of %d", len(data), len(p))
		}
		p.icmpType()
	})
}

func TestParsePacket(t *testing.T) {
	whole := udpFrame(mac{1}, mac{2}, netip.MustParseAddrPort("10.0.0.1:5"), netip.MustParseAddrPort("10.0.0.2:6"), []byte("hello"))[headerLen:]
	edit := func(at int, b byte) []byte {
		c := bytes.Clone(whole)
		c[at] = b
		return c
	}
	for what, test := range map[string]struct {
		in   []byte
		want int // bytes of the packet; 0 for none
	}{
		"whole":                  {whole, 33},
		"padded":                 {append(bytes.Clone(whole), 0, 0, 0), 33},
		"cut short":              {whole[:32], 0},
		"header cut short":       {whole[:19], 0},
		"nothing":                {nil, 0},
		"version 6":              {edit(0, 0x65), 0},
		"header too short":       {edit(0, 0x44), 0},
		"header longer than all": {edit(0, 0x4f), 0},
		"length below header":    {edit(3, 19), 0},
		"length above all":       {edit(2, 1), 0},
	} {
		if p, ok := parsePacket(test.in); ok != (test.want > 0) || len(p) != test.want {
			t.Errorf("%s: %d bytes, %v", what, len(p), ok)
		}
	}
	if checksum(whole[:ipHeaderLen], 0) != 0 {
		t.Error("the header's checksum is wrong")
	}
	for what, in := range map[string][]byte{
		"fragment": edit(6, 0x20), "TCP": edit(9, protoTCP), "length below header": edit(25, 7), "length above all": edit(25, 99),
	} {
		if _, _, _, ok := packet(in).udp(); ok {
			t.Errorf("UDP: %s passed", what)
		}
	}
	if from, to, data, ok := packet(whole).udp(); !ok || from != 5 || to != 6 || string(data) != "hello" {
		t.Errorf("UDP: %d to %d %q %v", from, to, data, ok)
	}
}
