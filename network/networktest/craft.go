package networktest

import (
	"bytes"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// UDPFrame is a frame that says anything.
func UDPFrame(dst, src net.HardwareAddr, from, to netip.AddrPort, data []byte) []byte {
	const udpAt = header.EthernetMinimumSize + header.IPv4MinimumSize
	f := make([]byte, udpAt+header.UDPMinimumSize+len(data))
	putEthernet(f, dst, src, ipv4.ProtocolNumber)
	source, target := tcpip.AddrFrom4(from.Addr().As4()), tcpip.AddrFrom4(to.Addr().As4())
	ip := header.IPv4(f[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber), SrcAddr: source, DstAddr: target})
	ip.SetChecksum(^ip.CalculateChecksum())
	u := header.UDP(f[udpAt:])
	u.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: uint16(len(u))})
	copy(u.Payload(), data)
	pseudo := header.PseudoHeaderChecksum(header.UDPProtocolNumber, source, target, uint16(len(u)))
	u.SetChecksum(^u.CalculateChecksum(checksum.Checksum(data, pseudo)))
	return f
}

// udpPayload of a frame to a port; nil if it is none.
func udpPayload(f []byte, port uint16) []byte {
	if len(f) < header.EthernetMinimumSize || header.Ethernet(f).Type() != ipv4.ProtocolNumber {
		return nil
	}
	ip := header.IPv4(f[header.EthernetMinimumSize:])
	if !ip.IsValid(len(ip)) || ip.TransportProtocol() != header.UDPProtocolNumber {
		return nil
	}
	if u := header.UDP(ip.Payload()); len(u) >= header.UDPMinimumSize && u.DestinationPort() == port {
		return u.Payload()
	}
	return nil
}

func dhcpFrame(from net.HardwareAddr, m *dhcpv4.DHCPv4) []byte {
	return UDPFrame(broadcast, from, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), m.ToBytes())
}

// ARPFrame asks for target, or says (op 2) that sender is at hw.
func ARPFrame(src net.HardwareAddr, op header.ARPOp, hw net.HardwareAddr, sender, target netip.Addr) []byte {
	f := make([]byte, header.EthernetMinimumSize+header.ARPSize)
	putEthernet(f, broadcast, src, arp.ProtocolNumber)
	a := header.ARP(f[header.EthernetMinimumSize:])
	a.SetIPv4OverEthernet()
	a.SetOp(op)
	copy(a.HardwareAddressSender(), hw)
	copy(a.ProtocolAddressSender(), sender.AsSlice())
	copy(a.ProtocolAddressTarget(), target.AsSlice())
	return f
}

func putEthernet(f []byte, dst, src net.HardwareAddr, kind tcpip.NetworkProtocolNumber) {
	header.Ethernet(f).Encode(&header.EthernetFields{SrcAddr: tcpip.LinkAddress(src), DstAddr: tcpip.LinkAddress(dst), Type: kind})
}

// echoFrame asks for an echo of data.
func echoFrame(dst, src net.HardwareAddr, from, to netip.Addr, data []byte) []byte {
	const icmpAt = header.EthernetMinimumSize + header.IPv4MinimumSize
	f := make([]byte, icmpAt+header.ICMPv4MinimumSize+len(data))
	putEthernet(f, dst, src, ipv4.ProtocolNumber)
	ip := header.IPv4(f[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
		SrcAddr: tcpip.AddrFrom4(from.As4()), DstAddr: tcpip.AddrFrom4(to.As4()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	i := header.ICMPv4(f[icmpAt:])
	i.SetType(header.ICMPv4Echo)
	copy(i.Payload(), data)
	i.SetChecksum(^checksum.Checksum(i, 0))
	return f
}

// icmpOf a frame: its sender, type, code and what follows the header.
func icmpOf(f []byte) (from netip.Addr, kind header.ICMPv4Type, code header.ICMPv4Code, data []byte) {
	if len(f) < header.EthernetMinimumSize || header.Ethernet(f).Type() != ipv4.ProtocolNumber {
		return
	}
	ip := header.IPv4(f[header.EthernetMinimumSize:])
	if !ip.IsValid(len(ip)) || ip.TransportProtocol() != header.ICMPv4ProtocolNumber || len(ip.Payload()) < header.ICMPv4MinimumSize {
		return
	}
	i := header.ICMPv4(ip.Payload())
	return netip.AddrFrom4(ip.SourceAddress().As4()), i.Type(), i.Code(), i.Payload()
}

// synFrame opens a connection whose answer nobody expects.
func synFrame(gateway net.HardwareAddr, g *Guest, port uint16, to netip.AddrPort) []byte {
	const tcpAt = header.EthernetMinimumSize + header.IPv4MinimumSize
	f := make([]byte, tcpAt+header.TCPMinimumSize)
	putEthernet(f, gateway, g.MAC, ipv4.ProtocolNumber)
	source, target := tcpip.AddrFrom4(g.Addr().As4()), tcpip.AddrFrom4(to.Addr().As4())
	ip := header.IPv4(f[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip)), TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: source, DstAddr: target})
	ip.SetChecksum(^ip.CalculateChecksum())
	s := header.TCP(f[tcpAt:])
	s.Encode(&header.TCPFields{SrcPort: port, DstPort: to.Port(), SeqNum: 1, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 65535})
	s.SetChecksum(^s.CalculateChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, source, target, uint16(len(s)))))
	return f
}

// isReset says whether a frame resets a connection of the guest's port.
func isReset(f []byte, from netip.Addr, port uint16) bool {
	if len(f) < header.EthernetMinimumSize || header.Ethernet(f).Type() != ipv4.ProtocolNumber {
		return false
	}
	ip := header.IPv4(f[header.EthernetMinimumSize:])
	if !ip.IsValid(len(ip)) || ip.TransportProtocol() != header.TCPProtocolNumber || ip.SourceAddress() != tcpip.AddrFrom4(from.As4()) {
		return false
	}
	s := header.TCP(ip.Payload())
	return len(s) >= header.TCPMinimumSize && s.Flags().Contains(header.TCPFlagRst) && s.DestinationPort() == port
}

// IPFrame carries anything in a packet of a protocol.
func IPFrame(dst, src net.HardwareAddr, from, to netip.Addr, protocol byte, data []byte) []byte {
	const dataAt = header.EthernetMinimumSize + header.IPv4MinimumSize
	f := make([]byte, dataAt+len(data))
	putEthernet(f, dst, src, ipv4.ProtocolNumber)
	ip := header.IPv4(f[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip)), TTL: 64, Protocol: protocol,
		SrcAddr: tcpip.AddrFrom4(from.As4()), DstAddr: tcpip.AddrFrom4(to.As4()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	copy(f[dataAt:], data)
	return f
}

// TCPFrame is a segment with these flags.
func TCPFrame(dst, src net.HardwareAddr, from, to netip.AddrPort, flags header.TCPFlags, data []byte) []byte {
	s := header.TCP(append(make([]byte, header.TCPMinimumSize), data...))
	s.Encode(&header.TCPFields{SrcPort: from.Port(), DstPort: to.Port(), SeqNum: 1, DataOffset: header.TCPMinimumSize, Flags: flags, WindowSize: 65535})
	pseudo := header.PseudoHeaderChecksum(header.TCPProtocolNumber, tcpip.AddrFrom4(from.Addr().As4()), tcpip.AddrFrom4(to.Addr().As4()), uint16(len(s)))
	s.SetChecksum(^checksum.Checksum(s, pseudo))
	return IPFrame(dst, src, from.Addr(), to.Addr(), uint8(header.TCPProtocolNumber), s)
}

// ICMPFrame is a message of any kind.
func ICMPFrame(dst, src net.HardwareAddr, from, to netip.Addr, kind, code byte, id uint16, data []byte) []byte {
	m := header.ICMPv4(append(make([]byte, header.ICMPv4MinimumSize), data...))
	m.SetType(header.ICMPv4Type(kind))
	m.SetCode(header.ICMPv4Code(code))
	m.SetIdent(id)
	m.SetChecksum(^checksum.Checksum(m, 0))
	return IPFrame(dst, src, from, to, uint8(header.ICMPv4ProtocolNumber), m)
}

// fragment is a part of a frame's packet: of its data the bytes from and up to.
func fragment(f []byte, id uint16, from, to int, more bool) []byte {
	const dataAt = header.EthernetMinimumSize + header.IPv4MinimumSize
	part := append(bytes.Clone(f[:dataAt]), f[dataAt+from:dataAt+to]...)
	ip := header.IPv4(part[header.EthernetMinimumSize:])
	ip.SetTotalLength(uint16(len(ip)))
	ip.SetID(id)
	var flags uint8
	if more {
		flags = header.IPv4FlagMoreFragments
	}
	ip.SetFlagsFragmentOffset(flags, uint16(from))
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
	return part
}
