package user

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	dnsPort        = 53
	maxQueries     = 32 // a port's questions that are being forwarded
	forwardTimeout = 2 * time.Second
	localTTL       = 60 // seconds, as EC2's
)

// answerDNS answers a question that came by UDP: at once if the answer is
// known here, else from a goroutine that asks the host's resolvers. A port
// that asks too much at once is told so.
func (l *lan) answerDNS(p *port, self, asker netip.AddrPort, data []byte) {
	send := func(m *dns.Msg, limit int) {
		m.Truncate(limit)
		if b, err := m.Pack(); err == nil {
			p.reply(udpFrame(p.mac, routerMAC, self, asker, b))
		}
	}
	req, limit := new(dns.Msg), dns.MinMsgSize
	if req.Unpack(data) != nil || req.Response {
		return
	}
	if opt := req.IsEdns0(); opt != nil {
		limit = max(limit, min(int(opt.UDPSize()), l.user.opts.MTU-ipHeaderLen-udpHeader))
	}
	if m := l.answerHere(req); m != nil {
		send(m, limit)
		return
	}
	f := p.begin(queryFlow)
	if f == nil {
		send(refusal(req, dns.RcodeServerFailure), limit)
		return
	}
	go func() {
		defer f.end()
		send(l.forward(f.ctx, "udp", req), limit)
	}()
}

// serveDNS answers questions on a connection until it is quiet.
func (l *lan) serveDNS(f *flow, c *guestConn) {
	conn := dns.Conn{Conn: c}
	for {
		c.SetDeadline(time.Now().Add(5 * forwardTimeout))
		req, err := conn.ReadMsg()
		if err != nil || req.Response {
			return
		}
		m := l.answerHere(req)
		if m == nil {
			m = l.forward(f.ctx, "tcp", req)
		}
		if conn.WriteMsg(m) != nil {
			return
		}
	}
}

// answerHere answers what the lan itself knows; nil if it has to be forwarded.
func (l *lan) answerHere(req *dns.Msg) *dns.Msg {
	if req.Opcode != dns.OpcodeQuery {
		return refusal(req, dns.RcodeNotImplemented)
	}
	if len(req.Question) != 1 {
		return refusal(req, dns.RcodeFormatError)
	}
	q := req.Question[0]
	name := strings.ToLower(q.Name)
	if a, ok := reverseAddr(name); ok && l.prefix.Contains(a) {
		return l.answerReverse(req, a)
	}
	domain := "." + strings.ToLower(dns.Fqdn(l.user.opts.Domain))
	host, ok := strings.CutSuffix(name, domain)
	if !ok {
		return nil
	}
	a, ok := l.lookup(host)
	if !ok {
		return refusal(req, dns.RcodeNameError)
	}
	m := refusal(req, dns.RcodeSuccess)
	if q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY {
		m.Answer = append(m.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: localTTL},
			A:   a.AsSlice(),
		})
	}
	return m
}

func (l *lan) answerReverse(req *dns.Msg, a netip.Addr) *dns.Msg {
	p := l.port(a)
	if p == nil {
		return refusal(req, dns.RcodeNameError)
	}
	m, q := refusal(req, dns.RcodeSuccess), req.Question[0]
	if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
		m.Answer = append(m.Answer, &dns.PTR{
			Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: localTTL},
			Ptr: p.hostname() + "." + dns.Fqdn(l.user.opts.Domain),
		})
	}
	return m
}

// reverseAddr reads d.c.b.a.in-addr.arpa.
func reverseAddr(name string) (netip.Addr, bool) {
	digits, ok := strings.CutSuffix(name, ".in-addr.arpa.")
	parts := strings.Split(digits, ".")
	if !ok || len(parts) != 4 {
		return netip.Addr{}, false
	}
	var b [4]byte
	for i, s := range parts {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil {
			return netip.Addr{}, false
		}
		b[3-i] = byte(n)
	}
	return netip.AddrFrom4(b), true
}

// refusal is an answer with nothing in it but its code.
func refusal(req *dns.Msg, code int) *dns.Msg {
	m := new(dns.Msg).SetRcode(req, code)
	m.RecursionAvailable = true
	if opt := req.IsEdns0(); opt != nil {
		m.SetEdns0(dns.DefaultMsgSize, false)
	}
	return m
}

// forward asks the host's resolvers in their order, with an id and a port that
// the guest did not choose, and says SERVFAIL if none answers.
func (l *lan) forward(ctx context.Context, network string, req *dns.Msg) *dns.Msg {
	ask := req.Copy()
	ask.Id = dns.Id()
	client := dns.Client{Net: network, Timeout: forwardTimeout}
	for _, server := range l.user.opts.Resolvers() {
		m, _, err := client.ExchangeContext(ctx, ask, server)
		if err == nil {
			m.Id = req.Id
			return m
		}
	}
	return refusal(req, dns.RcodeServerFailure)
}
