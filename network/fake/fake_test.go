package fake_test

import (
	"testing"

	"mallee/network"
	"mallee/network/fake"
	"mallee/network/networktest"
)

func TestContract(t *testing.T) {
	host := fake.NewHost()
	networktest.Contract(t, func(testing.TB) network.Network { return fake.New(host) })
}
