package user

import (
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
