package networktest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"mallee/network"
)

// whoAmI answers with the port that asks.
func whoAmI(w http.ResponseWriter, r *http.Request) {
	id, ok := network.Caller(r.Context())
	fmt.Fprint(w, id, " ", ok, " ", r.URL.Path)
}

func metadata(t *testing.T, d Driver) {
	n := d.open(t, World{Metadata: http.HandlerFunc(whoAmI)})
	for _, account := range []string{"a", "b"} { // twins by address
		for i := range byte(2) {
			g, p := guest(t, n, account, 1+i)
			if got, want := g.get("http://169.254.169.254/x"), p.ID+" true /x"; got != want {
				t.Errorf("told %q, want %q", got, want)
			}
		}
	}
	g, _ := guest(t, n, "a", 9)
	for _, closed := range []string{"169.254.169.254:81", "172.31.0.1:80", "172.31.0.2:80"} {
		if c, err := g.Dial(t.Context(), netip.MustParseAddrPort(closed)); err == nil {
			c.Close()
			t.Errorf("somebody listens at %s", closed)
		}
	}
}

// get a page in the guest.
func (g *Guest) get(url string) string {
	g.t.Helper()
	r, err := g.HTTP().Get(url)
	if err != nil {
		g.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(b)
}

func names(t *testing.T, d Driver) {
	n := d.open(t, World{Resolvers: func() []string { return nil }})
	a, p := guest(t, n, "a", 1)
	_, q := guest(t, n, "a", 2)
	guest(t, n, "b", 3)
	domain := "." + a.Lease.DomainName() + "."
	for _, transport := range []string{"udp", "tcp"} {
		for _, test := range []struct {
			name  string
			kind  uint16
			rcode int
			want  string // the first answer's data
		}{
			{p.Name + domain, dns.TypeA, dns.RcodeSuccess, p.Local.String()},
			{"IP-172-31-0-11" + domain, dns.TypeA, dns.RcodeSuccess, q.Local.String()},
			{p.Name + domain, dns.TypeAAAA, dns.RcodeSuccess, ""},
			{"10.0.31.172.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, p.Name + domain},
			{"12.0.31.172.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, ""},
			{"ip-172-31-0-12" + domain, dns.TypeA, dns.RcodeNameError, ""}, // of another network
			{"nobody" + domain, dns.TypeA, dns.RcodeNameError, ""},
			{"example.org.", dns.TypeA, dns.RcodeServerFailure, ""}, // nobody to ask
		} {
			m := a.Ask(transport, test.name, test.kind)
			if m.Rcode != test.rcode || firstAnswer(m) != test.want {
				t.Errorf("%s %s %s: %s %q, want %s %q", transport, dns.TypeToString[test.kind], test.name,
					dns.RcodeToString[m.Rcode], firstAnswer(m), dns.RcodeToString[test.rcode], test.want)
			}
		}
	}
}

func firstAnswer(m *dns.Msg) string {
	if len(m.Answer) == 0 {
		return ""
	}
	return dns.Field(m.Answer[0], 1)
}

func namesForwarded(t *testing.T, d Driver) {
	server := resolver(t)
	n := d.open(t, World{Resolvers: func() []string { return []string{closedPort(t), server} }})
	g, _ := guest(t, n, "a", 1)
	for _, transport := range []string{"udp", "tcp"} {
		if m := g.Ask(transport, "example.org.", dns.TypeA); firstAnswer(m) != "192.0.2.1" {
			t.Errorf("%s: answered\n%s", transport, m)
		}
	}
	if m := g.Ask("udp", "big.example.org.", dns.TypeTXT); !m.Truncated {
		t.Errorf("an answer too long for UDP came as\n%s", m)
	}
	if m := g.Ask("tcp", "big.example.org.", dns.TypeTXT); m.Truncated || len(m.Answer) != 40 {
		t.Errorf("an answer too long for UDP came by TCP as\n%s", m)
	}
}

// resolver of the host, which knows everything.
func resolver(t *testing.T) string {
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp4", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		lines := []string{"A 192.0.2.1"}
		if r.Question[0].Qtype == dns.TypeTXT {
			lines = make([]string, 40)
			for i := range lines {
				lines[i] = fmt.Sprintf("TXT this-is-long-enough-for-forty-of-them-%d", i)
			}
		}
		for _, l := range lines {
			rr, err := dns.NewRR(r.Question[0].Name + " 60 IN " + l)
			if err != nil {
				t.Error(err)
				return
			}
			m.Answer = append(m.Answer, rr)
		}
		if _, isUDP := w.RemoteAddr().(*net.UDPAddr); isUDP {
			m.Truncate(dns.MinMsgSize)
		}
		w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: answer}, {Listener: tcp, Handler: answer}} {
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		go s.ActivateAndServe()
		<-ready
		t.Cleanup(func() { s.Shutdown() })
	}
	return udp.LocalAddr().String()
}

// closedPort of the host: an address where nobody listens.
func closedPort(t testing.TB) string {
	at, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	return at.Addr().String()
}
