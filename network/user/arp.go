package user

import (
	"bytes"
	"encoding/binary"
	"net/netip"
)

const arpLen = 28

// The fixed part of every ARP packet for IPv4 on Ethernet, and the operations.
var arpKind = []byte{0, 1, 8, 0, 6, 4}

const (
	arpRequest = 1
	arpReply   = 2
)

// answerARP answers a port's request from the lan's table; nil if there is
// nothing to say. Guests' own replies and announcements are nobody's business,
// as no request ever reaches a guest.
func (l *lan) answerARP(p *port, f []byte) []byte {
	a := f[headerLen:]
	if len(a) < arpLen || !bytes.Equal(a[:6], arpKind) || binary.BigEndian.Uint16(a[6:8]) != arpRequest {
		return nil
	}
	asker, target := netip.AddrFrom4([4]byte(a[14:18])), netip.AddrFrom4([4]byte(a[24:28]))
	if mac(a[8:14]) != p.mac || asker != p.Local && !asker.IsUnspecified() {
		return nil
	}
	owner, ok := l.macOf(target)
	if !ok || target == p.Local { // a guest that probes its own address may have it
		return nil
	}
	r := make([]byte, headerLen+arpLen)
	putEthernet(r, p.mac, owner, etherARP)
	copy(r[headerLen:], arpKind)
	binary.BigEndian.PutUint16(r[headerLen+6:], arpReply)
	copy(r[headerLen+8:], owner[:])
	copy(r[headerLen+14:], a[24:28])
	copy(r[headerLen+18:], a[8:18])
	return r
}

// macOf says at which MAC an address of the lan is reached.
func (l *lan) macOf(a netip.Addr) (mac, bool) {
	if l.serves(a) {
		return routerMAC, true
	}
	if p := l.port(a); p != nil {
		return p.mac, true
	}
	return mac{}, false
}
