package user

import "encoding/binary"

const (
	tcpFIN = 1
	tcpSYN = 2
	tcpRST = 4
	tcpACK = 16
)

// head is what rules and flows are about in a packet.
type head struct {
	proto    byte
	src, dst [4]byte
	from, to uint16 // ports; for ICMP the id of a query, and type<<8 | code
	flags    byte   // of TCP
	unheard  bool   // answers come another way: the guard doesn't hear them
}

// tuple names a flow from one port's side. Both directions have the same, but
// a query of ICMP, whose answer is of another type, has one for each side that
// may begin it.
type tuple struct {
	peer          [4]byte
	proto         byte
	local, remote uint16
}

// queries of ICMP, with their answers.
var queries = map[byte]byte{8: 0, 13: 14, 15: 16, 17: 18}

// answers of ICMP, with their queries.
var answers = map[byte]byte{0: 8, 14: 13, 16: 15, 18: 17}

// readHead of a packet that is whole or a first fragment. A first fragment that
// is too short to tell is no head, as later ones could say anything.
func readHead(ip packet) (h head, ok bool) {
	h = head{proto: ip.proto(), src: [4]byte(ip[12:16]), dst: [4]byte(ip[16:20])}
	return h, h.read(ip.payload(), 20)
}

// read the transport's header, of which TCP's has at least some bytes: a quote
// has fewer.
func (h *head) read(b []byte, tcpBytes int) bool {
	switch h.proto {
	case protoTCP:
		if len(b) < tcpBytes {
			return false
		}
		if tcpBytes > 13 {
			h.flags = b[13]
		}
	case protoUDP, protoICMP:
		if len(b) < 8 {
			return false
		}
	default:
		return true
	}
	h.from, h.to = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if h.proto == protoICMP {
		h.from, h.to = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b)
	}
	return true
}

// readQuote of an ICMP error: the packet that it is about.
func readQuote(ip packet) (h head, ok bool) {
	b := ip.payload()
	if ip.proto() != protoICMP || len(b) < 8+ipHeaderLen || !isError(b[0]) {
		return head{}, false
	}
	b = b[8:]
	size := int(b[0]&0xf) * 4
	if b[0]>>4 != 4 || size < ipHeaderLen || size > len(b) || binary.BigEndian.Uint16(b[6:8])&0x1fff != 0 {
		return head{}, false
	}
	h = head{proto: b[9], src: [4]byte(b[12:16]), dst: [4]byte(b[16:20])}
	return h, h.read(b[size:], 8)
}

// isError says whether a type of ICMP is about another packet: unreachable,
// source quench, time exceeded, parameter problem. A redirect would be too, but
// there is nothing to redirect to.
func isError(kind byte) bool { return kind == 3 || kind == 4 || kind == 11 || kind == 12 }

// question that the rules are asked about the head.
func (h head) question(ingress bool) question {
	q := question{ingress: ingress, proto: h.proto, peer: h.dst, port: h.to}
	if ingress {
		q.peer = h.src
	}
	return q
}

// tuple of the head's flow, and whether it is of one: messages of ICMP that
// are neither query nor answer each stand alone.
func (h head) tuple(ingress bool) (t tuple, ok bool) {
	t = tuple{peer: h.dst, proto: h.proto, local: h.from, remote: h.to}
	if ingress {
		t = tuple{peer: h.src, proto: h.proto, local: h.to, remote: h.from}
	}
	if h.proto != protoICMP {
		return t, true
	}
	kind, theirs := byte(h.to>>8), ingress
	if query, is := answers[kind]; is {
		kind, theirs = query, !ingress
	}
	t.local, t.remote = h.from, uint16(kind)<<1
	if theirs {
		t.remote |= 1
	}
	_, ok = queries[kind]
	return t, ok
}

// begins says whether a packet asks for a new flow even where there is one.
func (h head) begins() bool { return h.proto == protoTCP && h.flags&(tcpSYN|tcpACK) == tcpSYN }

// answer says whether the head is an ICMP answer, which begins nothing.
func (h head) answer() bool {
	_, is := answers[byte(h.to>>8)]
	return h.proto == protoICMP && is
}

// midstream says whether the packet belongs to a connection that began before.
func (h head) midstream() bool {
	return h.proto == protoTCP && h.flags&(tcpSYN|tcpRST|tcpACK) == tcpACK
}

// reverse is the question whether the peer of a midstream packet could have
// been the one who was called.
func (h head) reverse(ingress bool) question {
	q := question{ingress: !ingress, proto: h.proto, peer: h.src, port: h.from}
	if !ingress {
		q.peer = h.dst
	}
	return q
}
