package user

import (
	"net/netip"
	"testing"

	"mallee/network"
	"mallee/network/networktest"
)

func TestContract(t *testing.T) {
	networktest.Contract(t, func(t testing.TB) network.Network { return open(t, Options{}) })
}

func open(t testing.TB, o Options) *User {
	t.Helper()
	u, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestFrames(t *testing.T) {
	networktest.Frames(t, networktest.Driver{
		Open: func(t testing.TB, w networktest.World) network.Network {
			return open(t, Options{Metadata: w.Metadata, Resolvers: w.Resolvers, Dial: w.Dial, Ping: w.Ping})
		},
		Reach: func(n network.Network, id string, port uint16) netip.AddrPort {
			return endpoint(t, n.(*User), id, "", port)
		},
		ReachUDP: func(n network.Network, id string, port uint16) netip.AddrPort {
			return endpoint(t, n.(*User), id, "udp", port)
		},
	})
}
