package user

import (
	"fmt"
	"net"
	"net/netip"
)

// nowhere lists what is never outside: this host's and this link's, what is not
// unicast, what means nothing (RFC 6890).
var nowhere = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"), // multicast, reserved, broadcast
}

// isOutside says whether an address can be beyond the host at all.
func isOutside(a netip.Addr) bool {
	for _, p := range nowhere {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// checkOutside refuses an address that leads to this host, by whatever name the
// host is known to itself: a guest must not get at services that listen for
// the host's own users. It asks the kernel each time, as addresses come and go.
func checkOutside(a netip.Addr) error {
	if !isOutside(a) {
		return fmt.Errorf("%s is not outside", a)
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, o := range own {
		if n, ok := o.(*net.IPNet); ok && n.IP.Equal(a.AsSlice()) {
			return fmt.Errorf("%s is the host's own", a)
		}
	}
	return checkRoute(a)
}

// checkRoute finds addresses that the host takes for its own without having
// them (routes of type local): the kernel would talk to them from themselves.
// Nothing is sent by connecting a datagram socket.
func checkRoute(a netip.Addr) error {
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
	if err != nil {
		return fmt.Errorf("find a way to %s: %w", a, err)
	}
	defer c.Close()
	from := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	if from == a || from.IsLoopback() {
		return fmt.Errorf("%s is the host's own", a)
	}
	return nil
}
