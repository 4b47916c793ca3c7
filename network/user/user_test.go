package user

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"mallee/network"
	"mallee/network/networktest"
)

func TestOptions(t *testing.T) {
	for what, o := range map[string]Options{
		"IPv6":         {Prefix: netip.MustParsePrefix("fd00::/64")},
		"tiny subnet":  {Prefix: netip.MustParsePrefix("10.0.0.0/29")},
		"whole world":  {Prefix: netip.MustParsePrefix("0.0.0.0/0")},
		"tiny frames":  {MTU: 500},
		"giant frames": {MTU: MaxMTU + 1},
	} {
		if u, err := New(o); err == nil {
			u.Close()
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestAssignable(t *testing.T) {
	u := open(t, Options{Prefix: netip.MustParsePrefix("10.1.2.64/26")})
	defer u.Close()
	for s, want := range map[string]bool{
		"10.1.2.63": false, "10.1.2.64": false, "10.1.2.65": false, "10.1.2.66": false, "10.1.2.67": false,
		"10.1.2.68": true, "10.1.2.126": true, "10.1.2.127": false, "10.1.2.128": false, "::1": false,
	} {
		if got := u.assignable(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: %v, want %v", s, got, want)
		}
	}
}

func TestWhatAPortCantBe(t *testing.T) {
	u := open(t, Options{})
	defer u.Close()
	for what, spoil := range map[string]func(p *network.Port){
		"router's MAC":      func(p *network.Port) { p.MAC = net.HardwareAddr(routerMAC[:]).String() },
		"group MAC":         func(p *network.Port) { p.MAC = "01:00:5e:00:00:01" },
		"router's address":  func(p *network.Port) { p.Local = netip.MustParseAddr("172.31.0.1") },
		"strange address":   func(p *network.Port) { p.Local = netip.MustParseAddr("10.0.0.10") },
		"world's address":   func(p *network.Port) { p.Public = netip.MustParseAddr("0.0.0.0") },
		"no loopback":       func(p *network.Port) { p.Public = netip.MustParseAddr("198.51.100.1") },
		"relative folder":   func(p *network.Port) { p.Dir = "machine" },
		"folder that isn't": func(p *network.Port) { p.Dir += "/nowhere" },
	} {
		p := networktest.Port(t, "a", 1)
		spoil(&p)
		if _, err := u.Ensure(t.Context(), p); err == nil {
			t.Errorf("%s: ensured", what)
		}
		if len(u.lans) > 0 {
			t.Errorf("%s: left a lan", what)
		}
	}
}

// TestFallback: where a service of the host holds a port on every address, or
// privilege is lacking, the public address listens elsewhere and says so.
func TestFallback(t *testing.T) {
	held, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	n := held.Addr().(*net.TCPAddr).AddrPort().Port()
	if n > 65535-fallback {
		t.Skipf("port %d has no fallback", n)
	}
	var log bytes.Buffer
	u := open(t, Options{Publish: []uint16{n, 22}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer u.Close()
	p := networktest.Port(t, "a", 1)
	if _, err := u.Ensure(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	want := n + fallback
	if line := fmt.Sprintf("%d at %s:%d", n, p.Public, want); strings.Count(log.String(), line) != 1 {
		t.Errorf("the log does not say once %q: %s", line, &log)
	}
	if got := endpoint(t, u, p.ID, "", n); got != netip.AddrPortFrom(p.Public, want) {
		t.Errorf("port %d is reached at %s, want %s:%d", n, got, p.Public, want)
	}
	if got := endpoint(t, u, p.ID, "", 22).Port(); got != 22 && got != 22+fallback {
		t.Errorf("SSH is reached at %d", got)
	}
	q := networktest.Port(t, "a", 2)
	q.Public = p.Public
	other := open(t, Options{Publish: []uint16{n, 22}})
	defer other.Close()
	if _, err := other.Ensure(t.Context(), q); err == nil {
		t.Error("two programs publish at one address by falling back")
	}
	if u.Endpoints("i-unknown") != nil {
		t.Error("an unknown port is reached somewhere")
	}
}

// endpointsFile as it is written, and what it says.
func endpointsFile(t *testing.T, dir string) (text string, told []Endpoint) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, EndpointsFile))
	if err == nil {
		err = json.Unmarshal(data, &told)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data), told
}

// TestEndpointsAreTold in the machine's folder, as long as they are there.
func TestEndpointsAreTold(t *testing.T) {
	u := open(t, Options{Publish: []uint16{18022, 18080}, PublishUDP: []uint16{18053}})
	defer u.Close()
	p := networktest.Port(t, "a", 1)
	path := filepath.Join(p.Dir, EndpointsFile)
	if err := os.WriteFile(path, []byte("an earlier program's"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, address := range []netip.Addr{p.Public, networktest.PublicAddr("a", 2)} {
		p.Public = address
		if _, err := u.Ensure(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		text, told := endpointsFile(t, p.Dir)
		want := fmt.Sprintf(`[{"port":18022,"listen":"%[1]s:18022"},{"port":18080,"listen":"%[1]s:18080"},{"port":18053,"listen":"%[1]s:18053","protocol":"udp"}]`+"\n", address)
		if text != want || !slices.Equal(told, u.Endpoints(p.ID)) {
			t.Errorf("told %s, listens at %v", text, u.Endpoints(p.ID))
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
	if err := u.Remove(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("told after the end: %v", err)
	}
}

// TestOnePortIsMissed, held at this address and with no number to fall back to:
// the others are published, and the log says what is missing.
func TestOnePortIsMissed(t *testing.T) {
	p := networktest.Port(t, "a", 1)
	held, err := net.Listen("tcp4", p.Public.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	n := held.Addr().(*net.TCPAddr).AddrPort().Port()
	var log bytes.Buffer
	u := open(t, Options{Publish: []uint16{n, 18081}, PublishUDP: []uint16{}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer u.Close()
	if _, err := u.Ensure(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if _, told := endpointsFile(t, p.Dir); len(told) != 1 || told[0].Port != 18081 {
		t.Errorf("published at %v", told)
	}
	if !strings.Contains(log.String(), fmt.Sprintf("port %d", n)) {
		t.Errorf("the log does not name port %d: %s", n, &log)
	}
	none := open(t, Options{Publish: []uint16{n}, PublishUDP: []uint16{}})
	defer none.Close()
	q := networktest.Port(t, "a", 2)
	q.Public = p.Public
	if _, err := none.Ensure(t.Context(), q); err == nil || !strings.Contains(err.Error(), p.Public.String()) {
		t.Errorf("published nowhere: %v", err)
	}
	if left, err := os.ReadDir(q.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestCheckOutside(t *testing.T) {
	for _, s := range []string{"0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.254", "169.254.169.254", "224.0.0.1", "255.255.255.255", "240.1.1.1"} {
		if checkOutside(netip.MustParseAddr(s)) == nil {
			t.Errorf("%s is outside", s)
		}
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && checkOutside(p.Addr()) == nil {
			t.Errorf("the host's own %s is outside", p.Addr())
		}
	}
}

func TestFlowsAreCounted(t *testing.T) {
	var s flowSet
	var all []*flow
	for f := s.begin(queryFlow); f != nil; f = s.begin(queryFlow) {
		all = append(all, f)
	}
	if len(all) != maxFlows[queryFlow] {
		t.Errorf("%d flows, want %d", len(all), maxFlows[queryFlow])
	}
	if f := s.begin(udpFlow); f == nil {
		t.Error("flows of one kind take the room of another")
	}
	all[0].end()
	all[0].end()
	if s.begin(queryFlow) == nil || s.begin(queryFlow) != nil {
		t.Error("a flow that ended twice gave back other than one")
	}
	s.close()
	if s.begin(tcpFlow) != nil || len(s.open) > 0 || all[1].ctx.Err() == nil {
		t.Error("flows outlive their port")
	}
	r, w := io.Pipe()
	all[1].hold(r)
	if _, err := w.Write([]byte("x")); err != io.ErrClosedPipe {
		t.Errorf("what joins an ended flow stays open: %v", err)
	}
}

// TestGivesAllBack opens flows of every kind and counts what is left after
// removal: goroutines, descriptors, files.
func TestGivesAllBack(t *testing.T) {
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	u := open(t, Options{
		Metadata: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }),
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, server.Addr().String())
		},
	})
	defer u.Close()
	dir := t.TempDir()
	before, open := descriptors(t), ours()
	for range 3 {
		t.Run("once", func(t *testing.T) {
			p := networktest.Port(t, "a", 1)
			p.Dir = dir
			at, err := u.Ensure(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			g := networktest.Plug(t, p, at).Configure()
			occupy(t, u, g, p.ID)
			start := time.Now()
			if err := u.Remove(t.Context(), p.ID); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("removal took %s", took)
			}
		})
	}
	eventually(t, "no goroutine is left", func() bool { return ours() <= open })
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 1 { // the machine's own socket
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// occupy has a guest hold flows of all kinds.
func occupy(t *testing.T, u *User, g *networktest.Guest, id string) {
	t.Helper()
	outside := netip.MustParseAddrPort("198.51.100.7:80")
	tcp, err := g.Dial(t.Context(), outside)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	udp := g.DialUDP(outside)
	t.Cleanup(func() { udp.Close() })
	fmt.Fprint(udp, "hello")
	at := g.Listen(8080)
	t.Cleanup(func() { at.Close() })
	host, err := net.Dial("tcp4", endpoint(t, u, id, "", 8080).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	if _, err := at.Accept(); err != nil {
		t.Fatal(err)
	}
	web, err := g.Dial(t.Context(), netip.MustParseAddrPort("169.254.169.254:80"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Close() })
	fmt.Fprint(web, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := web.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	runtime.GC()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// ours counts goroutines that run code of this package or of its stacks.
func ours() int {
	var b strings.Builder
	pprof.Lookup("goroutine").WriteTo(&b, 2)
	n := 0
	for g := range strings.SplitSeq(b.String(), "\n\n") {
		if strings.Contains(g, "mallee/network/user.") && !strings.Contains(g, "testing.") || strings.Contains(g, "gvisor.dev") {
			n++
		}
	}
	return n
}
