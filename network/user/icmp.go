package user

import "encoding/binary"

const (
	icmpEchoReply   = 0
	icmpUnreachable = 3
	icmpEcho        = 8

	codeProhibited = 13 // communication administratively prohibited
	codePort       = 3
)

func (p packet) icmpType() (byte, bool) {
	b := p.payload()
	if p.proto() != protoICMP || p.fragment() || len(b) < 8 {
		return 0, false
	}
	return b[0], true
}

// echoReply turns an echo request, which is whole, into its answer's frame.
func echoReply(p *port, req packet) []byte {
	body := req.payload()
	f := make([]byte, headerLen+ipHeaderLen+len(body))
	putEthernet(f, p.mac, routerMAC, etherIPv4)
	ip := packet(f[headerLen:])
	putIPv4(ip, protoICMP, req.dst(), req.src())
	copy(ip[ipHeaderLen:], body)
	putICMP(ip[ipHeaderLen:], icmpEchoReply, body[1])
	return f
}

// unreachable tells the sender of req that it goes nowhere, with as much of it
// as RFC 792 wants.
func unreachable(p *port, req packet, code byte) []byte {
	quote := req[:min(len(req), len(req)-len(req.payload())+8)]
	f := make([]byte, headerLen+ipHeaderLen+8+len(quote))
	putEthernet(f, p.mac, routerMAC, etherIPv4)
	ip := packet(f[headerLen:])
	putIPv4(ip, protoICMP, p.lan.router, req.src())
	copy(ip[ipHeaderLen+8:], quote)
	putICMP(ip[ipHeaderLen:], icmpUnreachable, code)
	return f
}

// putICMP writes type, code and checksum of a message whose rest is there.
func putICMP(b []byte, kind, code byte) {
	b[0], b[1], b[2], b[3] = kind, code, 0, 0
	binary.BigEndian.PutUint16(b[2:4], checksum(b, 0))
}
