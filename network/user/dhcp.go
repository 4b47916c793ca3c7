package user

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	dhcpServerPort = 67
	dhcpClientPort = 68
	dhcpLease      = time.Hour // as in EC2
)

var broadcastAddr = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// answerDHCP offers a port its one address, whatever it asks for; nil if there
// is nothing to say. The lease never ends while the port is there.
func (l *lan) answerDHCP(p *port, ip packet, data []byte) []byte {
	req, err := dhcpv4.FromBytes(data)
	if err != nil || req.OpCode != dhcpv4.OpcodeBootRequest || mac(pad6(req.ClientHWAddr)) != p.mac {
		return nil
	}
	if id := req.ServerIdentifier(); id != nil && !id.Equal(l.router.AsSlice()) {
		return nil
	}
	kind, ok := leaseAnswer(req, p.Local)
	if !ok {
		return nil
	}
	reply, err := dhcpv4.NewReplyFromRequest(req, l.lease(p, req, kind)...)
	if err != nil {
		return nil
	}
	to := broadcastAddr
	if ip.src() == p.Local { // a renewal
		to = p.Local
	}
	return udpFrame(p.mac, routerMAC, netip.AddrPortFrom(l.router, dhcpServerPort),
		netip.AddrPortFrom(to, dhcpClientPort), reply.ToBytes())
}

// leases says whether a guest plays DHCP server: by any rule, none may.
func (p packet) leases() bool {
	b := p.payload()
	return p.proto() == protoUDP && p.offset() == 0 && len(b) >= 4 &&
		binary.BigEndian.Uint16(b) == dhcpServerPort && binary.BigEndian.Uint16(b[2:]) == dhcpClientPort
}

// pad6 takes a hardware address of any length.
func pad6(b []byte) []byte {
	return append(append(make([]byte, 0, 6+len(b)), b...), 0, 0, 0, 0, 0, 0)[:6]
}

// leaseAnswer says what a request is answered with: offer, ack or nak.
func leaseAnswer(req *dhcpv4.DHCPv4, local netip.Addr) (dhcpv4.MessageType, bool) {
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return dhcpv4.MessageTypeOffer, true
	case dhcpv4.MessageTypeInform:
		return dhcpv4.MessageTypeAck, true
	case dhcpv4.MessageTypeRequest:
		want := req.RequestedIPAddress()
		if want == nil {
			want = req.ClientIPAddr
		}
		if want.Equal(local.AsSlice()) {
			return dhcpv4.MessageTypeAck, true
		}
		return dhcpv4.MessageTypeNak, true
	}
	return 0, false
}

// lease of the port, as an answer of a kind.
func (l *lan) lease(p *port, req *dhcpv4.DHCPv4, kind dhcpv4.MessageType) []dhcpv4.Modifier {
	router := net.IP(l.router.AsSlice())
	m := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(router)),
	}
	if kind == dhcpv4.MessageTypeNak {
		return m
	}
	if req.MessageType() != dhcpv4.MessageTypeInform {
		m = append(m, dhcpv4.WithYourIP(p.Local.AsSlice()), dhcpv4.WithLeaseTime(uint32(dhcpLease/time.Second)))
	}
	return append(m,
		dhcpv4.WithNetmask(net.CIDRMask(l.prefix.Bits(), 32)),
		dhcpv4.WithRouter(router),
		dhcpv4.WithDNS(l.resolver.AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptHostName(p.Name)),
		dhcpv4.WithOption(dhcpv4.OptDomainName(l.user.opts.Domain)),
		dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{byte(l.user.opts.MTU >> 8), byte(l.user.opts.MTU)}),
	)
}
