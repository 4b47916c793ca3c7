package user

import (
	"encoding/binary"
	"net/netip"
)

// Ethernet II and IPv4, as far as a switch has to know them. Parsing takes any
// bytes; building writes what is right.

type mac [6]byte

const (
	headerLen   = 14
	etherIPv4   = 0x0800
	etherARP    = 0x0806
	ipHeaderLen = 20
	udpHeader   = 8

	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
)

func frameSrc(f []byte) mac     { return mac(f[6:12]) }
func frameType(f []byte) uint16 { return binary.BigEndian.Uint16(f[12:14]) }

// putEthernet writes the header of f.
func putEthernet(f []byte, dst, src mac, kind uint16) {
	copy(f[0:6], dst[:])
	copy(f[6:12], src[:])
	binary.BigEndian.PutUint16(f[12:14], kind)
}

// packet is a view of an IPv4 packet that is whole: its header and the bytes
// that the header promises are there.
type packet []byte

// parsePacket cuts an Ethernet payload to the packet in it; ok is false where
// it holds none.
func parsePacket(b []byte) (p packet, ok bool) {
	if len(b) < ipHeaderLen || b[0]>>4 != 4 {
		return nil, false
	}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:4]))
	if header < ipHeaderLen || total < header || total > len(b) {
		return nil, false
	}
	return packet(b[:total]), true
}

func (p packet) proto() byte     { return p[9] }
func (p packet) src() netip.Addr { return netip.AddrFrom4([4]byte(p[12:16])) }
func (p packet) dst() netip.Addr { return netip.AddrFrom4([4]byte(p[16:20])) }
func (p packet) payload() []byte { return p[int(p[0]&0xf)*4:] }

// fragment says whether the packet is but a part of one.
func (p packet) fragment() bool { return binary.BigEndian.Uint16(p[6:8])&0x3fff != 0 }

// udp gives the ports and the payload of a UDP packet; ok is false for
// another protocol, for fragments and for what is cut short.
func (p packet) udp() (src, dst uint16, data []byte, ok bool) {
	u := p.payload()
	if p.proto() != protoUDP || p.fragment() || len(u) < udpHeader {
		return 0, 0, nil, false
	}
	n := int(binary.BigEndian.Uint16(u[4:6]))
	if n < udpHeader || n > len(u) {
		return 0, 0, nil, false
	}
	return binary.BigEndian.Uint16(u[0:2]), binary.BigEndian.Uint16(u[2:4]), u[udpHeader:n], true
}

// putIPv4 writes a header without options for a packet that fills p.
func putIPv4(p packet, proto byte, src, dst netip.Addr) {
	clear(p[:ipHeaderLen])
	p[0], p[8], p[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(p[2:4], uint16(len(p)))
	from, to := src.As4(), dst.As4()
	copy(p[12:16], from[:])
	copy(p[16:20], to[:])
	binary.BigEndian.PutUint16(p[10:12], checksum(p[:ipHeaderLen], 0))
}

// udpFrame makes a whole frame.
func udpFrame(dstMAC, srcMAC mac, src, dst netip.AddrPort, data []byte) []byte {
	f := make([]byte, headerLen+ipHeaderLen+udpHeader+len(data))
	putEthernet(f, dstMAC, srcMAC, etherIPv4)
	p := packet(f[headerLen:])
	putIPv4(p, protoUDP, src.Addr(), dst.Addr())
	u := p[ipHeaderLen:]
	binary.BigEndian.PutUint16(u[0:2], src.Port())
	binary.BigEndian.PutUint16(u[2:4], dst.Port())
	binary.BigEndian.PutUint16(u[4:6], uint16(len(u)))
	copy(u[udpHeader:], data)
	sum := checksum(u, sum16(p[12:20], uint32(protoUDP)+uint32(len(u))))
	if sum == 0 { // zero would say that there is none
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(u[6:8], sum)
	return f
}

// sum16 adds b to a running sum of 16-bit words (RFC 1071).
func sum16(b []byte, sum uint32) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func checksum(b []byte, sum uint32) uint16 {
	sum = sum16(b, sum)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
