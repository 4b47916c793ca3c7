// Package networktest is what every network has to pass. Contract asks what
// the interface promises of any driver, simulated ones included; Frames plugs
// guests of its own, without machines, into drivers that move real frames.
package networktest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"mallee/network"
)

// Opener opens a network on this host. The suite closes it.
type Opener func(t testing.TB) network.Network

// Port is a wish for the n-th instance of an account, with a folder of its own.
// Public addresses differ from process to process, as tests may run at once.
func Port(t testing.TB, account string, n byte) network.Port {
	local := netip.AddrFrom4([4]byte{172, 31, 0, 9 + n})
	return network.Port{
		ID: fmt.Sprintf("i-%s%02x", account, n), Dir: folder(t), Network: account,
		MAC: fmt.Sprintf("d0:0d:00:00:00:%02x", n), Local: local,
		Public: PublicAddr(account, n),
		Name:   fmt.Sprintf("ip-172-31-0-%d", 9+n),
	}
}

// PublicAddr is a loopback address for the n-th instance of an account.
func PublicAddr(account string, n byte) netip.Addr {
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(64 + pid>>8%64), byte(pid), n ^ account[0]<<3})
}

// folder whose path is longer than a UNIX socket's may be.
func folder(t testing.TB) string {
	dir := filepath.Join(t.TempDir(), "a-folder-of-a-machine-with-a-name-that-alone-is-as-long-as-a-unix-socket's-path-may-be-at-the-very-most")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Contract runs the part of the suite that holds for every driver.
func Contract(t *testing.T, open Opener) {
	for name, test := range map[string]func(*testing.T, network.Network){
		"ensure is idempotent":     ensureTwice,
		"list is sorted":           listSorted,
		"remove":                   remove,
		"reuse after remove":       reuse,
		"conflicts":                conflicts,
		"networks are apart":       apart,
		"change of a port":         change,
		"many at once":             atOnce,
		"bad wishes leave nothing": badWishes,
		"groups":                   groups,
		"change of a running port": changeRunning,
	} {
		t.Run(name, func(t *testing.T) {
			n := open(t)
			defer closeNetwork(t, n)
			test(t, n)
		})
	}
	t.Run("close gives all back", func(t *testing.T) { closeGives(t, open) })
	t.Run("public address of another", func(t *testing.T) { publicOfAnother(t, open) })
}

func closeNetwork(t testing.TB, n network.Network) {
	t.Helper()
	start := time.Now()
	if err := n.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if took := time.Since(start); took > patience/5 {
		t.Errorf("it took %s to close", took)
	}
}

func ensure(t testing.TB, n network.Network, p network.Port) network.Attachment {
	t.Helper()
	at, err := n.Ensure(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// refused checks that the wish fails and leaves no port.
func refused(t testing.TB, n network.Network, p network.Port, why string) {
	t.Helper()
	before := n.List()
	if _, err := n.Ensure(t.Context(), p); err == nil {
		t.Errorf("%s: ensured %+v", why, p)
	}
	if after := n.List(); !slices.Equal(before, after) {
		t.Errorf("%s: ports were %v, are %v", why, before, after)
	}
}

func list(t testing.TB, n network.Network, want ...string) {
	t.Helper()
	if got := n.List(); !slices.Equal(got, want) {
		t.Errorf("ports are %v, want %v", got, want)
	}
}

func removePort(t testing.TB, n network.Network, id string) {
	t.Helper()
	if err := n.Remove(t.Context(), id); err != nil {
		t.Errorf("remove %s: %v", id, err)
	}
}

func ensureTwice(t *testing.T, n network.Network) {
	p := Port(t, "a", 1)
	first := ensure(t, n, p)
	if again := ensure(t, n, p); again != first {
		t.Errorf("attached by %+v, then by %+v", first, again)
	}
	if first.Machine == "" || first.Switch == "" || first.MTU < 1280 {
		t.Errorf("attachment %+v", first)
	}
	if filepath.IsAbs(first.Machine) || filepath.IsAbs(first.Switch) {
		t.Errorf("attachment %+v is not relative to the machine's folder", first)
	}
	list(t, n, p.ID)
}

func listSorted(t *testing.T, n network.Network) {
	list(t, n)
	for _, i := range []byte{3, 1, 2} {
		ensure(t, n, Port(t, "a", i))
	}
	list(t, n, "i-a01", "i-a02", "i-a03")
}

func remove(t *testing.T, n network.Network) {
	removePort(t, n, "i-never")
	p, q := Port(t, "a", 1), Port(t, "a", 2)
	ensure(t, n, p)
	ensure(t, n, q)
	removePort(t, n, p.ID)
	list(t, n, q.ID)
	removePort(t, n, p.ID)
	removePort(t, n, q.ID)
	list(t, n)
}

func reuse(t *testing.T, n network.Network) {
	for i := range 3 {
		p := Port(t, "a", 1)
		p.ID = fmt.Sprint("i-", i)
		ensure(t, n, p)
		removePort(t, n, p.ID)
	}
}

func conflicts(t *testing.T, n network.Network) {
	p := Port(t, "a", 1)
	ensure(t, n, p)
	for what, spoil := range map[string]func(q *network.Port){
		"address":        func(q *network.Port) { q.Local = p.Local },
		"MAC":            func(q *network.Port) { q.MAC = p.MAC },
		"public address": func(q *network.Port) { q.Public = p.Public },
		"folder":         func(q *network.Port) { q.Dir = p.Dir },
	} {
		q := Port(t, "a", 2)
		spoil(&q)
		refused(t, n, q, what+" in use")
	}
}

func apart(t *testing.T, n network.Network) {
	p, q := Port(t, "a", 1), Port(t, "b", 1)
	ensure(t, n, p) // the same address and MAC in two networks
	ensure(t, n, q)
	list(t, n, p.ID, q.ID)
	r := Port(t, "b", 2)
	r.Public = p.Public
	refused(t, n, r, "public address in use in another network")
}

func change(t *testing.T, n network.Network) {
	p, q := Port(t, "a", 1), Port(t, "a", 2)
	old := p
	ensure(t, n, p)
	p.Local, p.Public, p.MAC = q.Local, q.Public, q.MAC
	ensure(t, n, p)
	refused(t, n, q, "address taken by a change")
	old.ID, old.Dir = "i-other", q.Dir
	ensure(t, n, old) // what the change left is free
	list(t, n, p.ID, old.ID)
}

func atOnce(t *testing.T, n network.Network) {
	var wg sync.WaitGroup
	for i := range byte(16) {
		p := Port(t, "a", 1+i)
		wg.Go(func() {
			for range 3 {
				if _, err := n.Ensure(t.Context(), p); err != nil {
					t.Error(err)
				}
				removePort(t, n, p.ID)
			}
		})
	}
	wg.Wait()
	list(t, n)
}

func badWishes(t *testing.T, n network.Network) {
	for what, spoil := range map[string]func(q *network.Port){
		"no id":        func(q *network.Port) { q.ID = "" },
		"no folder":    func(q *network.Port) { q.Dir = "" },
		"no MAC":       func(q *network.Port) { q.MAC = "" },
		"half a MAC":   func(q *network.Port) { q.MAC = "d0:0d:01" },
		"no address":   func(q *network.Port) { q.Local = netip.Addr{} },
		"IPv6 address": func(q *network.Port) { q.Local = netip.MustParseAddr("fd00::10") },
		"no name":      func(q *network.Port) { q.Name = "" },
	} {
		q := Port(t, "a", 1)
		spoil(&q)
		refused(t, n, q, what)
	}
	ensure(t, n, Port(t, "a", 1))
}

// groups that can't be are refused, whatever they are; ports are governed by
// groups that come later, and not in the way of each other.
func groups(t *testing.T, n network.Network) {
	all := network.Rule{Protocol: -1, From: -1, To: -1, Prefix: netip.MustParsePrefix("0.0.0.0/0")}
	good := network.Group{ID: "sg-1", Network: "a", Egress: []network.Rule{all}}
	for what, spoil := range map[string]func(g *network.Group, r *network.Rule){
		"no id":             func(g *network.Group, _ *network.Rule) { g.ID = "" },
		"id of another":     func(g *network.Group, _ *network.Rule) { g.ID = good.ID },
		"no protocol":       func(_ *network.Group, r *network.Rule) { r.Protocol = 256 },
		"no peer":           func(_ *network.Group, r *network.Rule) { r.Prefix = netip.Prefix{} },
		"two peers":         func(_ *network.Group, r *network.Rule) { r.Group = "sg-1" },
		"no port":           func(_ *network.Group, r *network.Rule) { r.Protocol, r.From, r.To = 6, 1, 65536 },
		"ports upside down": func(_ *network.Group, r *network.Rule) { r.Protocol, r.From, r.To = 17, 2, 1 },
		"no type":           func(_ *network.Group, r *network.Rule) { r.Protocol, r.From = 1, 256 },
	} {
		g, r := network.Group{ID: "sg-2", Network: "a"}, all
		spoil(&g, &r)
		g.Ingress = []network.Rule{r}
		if err := n.Groups(t.Context(), []network.Group{good, g}); err == nil {
			t.Errorf("%s: took %+v", what, g)
		}
	}
	p := Port(t, "a", 1)
	p.Groups = []string{"sg-1", "sg-unknown"}
	ensure(t, n, p)
	for _, now := range [][]network.Group{{good}, {good}, {}, nil} {
		if err := n.Groups(t.Context(), now); err != nil {
			t.Error(err)
		}
	}
	list(t, n, p.ID)
}

// changeRunning changes what can be changed of a running port, and is refused
// an address of another.
func changeRunning(t *testing.T, n network.Network) {
	p, q := Port(t, "a", 1), Port(t, "a", 2)
	first := ensure(t, n, p)
	ensure(t, n, q)
	free := p.Public
	p.Public = q.Public
	refused(t, n, p, "address of another")
	q.Public, q.Groups = netip.Addr{}, []string{}
	ensure(t, n, q)
	if at := ensure(t, n, p); at != first {
		t.Errorf("attached by %+v, then by %+v", first, at)
	}
	q.Public, q.Groups = free, nil
	ensure(t, n, q)
	list(t, n, p.ID, q.ID)
}

func closeGives(t *testing.T, open Opener) {
	p := Port(t, "a", 1)
	for range 3 {
		n := open(t)
		ensure(t, n, p)
		closeNetwork(t, n)
		closeNetwork(t, n)
		refused(t, n, p, "closed")
	}
}

func publicOfAnother(t *testing.T, open Opener) {
	n, m := open(t), open(t)
	defer closeNetwork(t, n)
	defer closeNetwork(t, m)
	p := Port(t, "a", 1)
	ensure(t, n, p)
	q := Port(t, "a", 2)
	q.Public = p.Public
	refused(t, m, q, "public address held by another program")
	removePort(t, n, p.ID)
	ensure(t, m, q)
}
