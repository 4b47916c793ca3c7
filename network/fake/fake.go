// Package fake is a network for simulations: ports in memory, with the
// conflicts of real ones and nothing that moves. It is deterministic and has no
// goroutines. As with real drivers the ports are gone with Close, and the
// caller ensures them again in the next program: give the next program a new
// Network, and the same Host if public addresses shall stay in one hand.
package fake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"mallee/network"
)

// Host is the machine that networks run on: no two of them hold the same
// public address, as no two programs listen at one.
type Host struct {
	mu     sync.Mutex // guards public
	public map[netip.Addr]*Network
}

// NewHost without networks.
func NewHost() *Host { return &Host{public: map[netip.Addr]*Network{}} }

// take the address for n; false if another network has it.
func (h *Host) take(a netip.Addr, n *Network) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if owner := h.public[a]; owner != nil && owner != n {
		return false
	}
	h.public[a] = n
	return true
}

func (h *Host) give(a netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.public, a)
}

// Network is a network.Network in memory.
type Network struct {
	host *Host

	mu     sync.Mutex // guards what follows
	closed bool
	ports  map[string]network.Port
	groups []network.Group
}

var _ network.Network = (*Network)(nil)

// New network of the host.
func New(h *Host) *Network { return &Network{host: h, ports: map[string]network.Port{}} }

// Ensure implements network.Network.
func (n *Network) Ensure(ctx context.Context, p network.Port) (network.Attachment, error) {
	if err := ctx.Err(); err != nil {
		return network.Attachment{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.place(p); err != nil {
		return network.Attachment{}, fmt.Errorf("ensure the port of %q: %w", p.ID, err)
	}
	return network.Attachment{Machine: "net.sock", Switch: "switch.sock", MTU: 9001}, nil
}

// place the port if nothing speaks against it. The caller holds mu.
func (n *Network) place(p network.Port) error {
	if n.closed {
		return errors.New("the network is closed")
	}
	if _, err := net.ParseMAC(p.MAC); err != nil {
		return err
	}
	if p.ID == "" || p.Name == "" || p.Dir == "" || !p.Local.Is4() {
		return fmt.Errorf("a port needs an id, a name, a folder and an address: %+v", p)
	}
	for _, id := range slices.Sorted(maps.Keys(n.ports)) {
		if err := conflict(n.ports[id], p); err != nil {
			return err
		}
	}
	if p.Public.IsValid() && !n.host.take(p.Public, n) {
		return fmt.Errorf("public address %s is in use by another program", p.Public)
	}
	if was := n.ports[p.ID].Public; was.IsValid() && was != p.Public {
		n.host.give(was)
	}
	n.ports[p.ID] = p
	return nil
}

// conflict of a wish with another port.
func conflict(have, want network.Port) error {
	neighbours := have.Network == want.Network
	switch {
	case have.ID == want.ID:
		return nil
	case neighbours && have.Local == want.Local:
		return fmt.Errorf("address %s is in use by %s", want.Local, have.ID)
	case neighbours && have.MAC == want.MAC:
		return fmt.Errorf("MAC address %s is in use by %s", want.MAC, have.ID)
	case want.Public.IsValid() && have.Public == want.Public:
		return fmt.Errorf("public address %s is in use by %s", want.Public, have.ID)
	case have.Dir == want.Dir:
		return fmt.Errorf("folder %s is in use by %s", want.Dir, have.ID)
	}
	return nil
}

// Remove implements network.Network.
func (n *Network) Remove(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop(id)
	return nil
}

// drop the port, if it is there. The caller holds mu.
func (n *Network) drop(id string) {
	if a := n.ports[id].Public; a.IsValid() {
		n.host.give(a)
	}
	delete(n.ports, id)
}

// Groups implements network.Network.
func (n *Network) Groups(ctx context.Context, groups []network.Group) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := network.CheckGroups(groups); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errors.New("the network is closed")
	}
	n.groups = slices.Clone(groups)
	return nil
}

// Rules are the groups that were last said, for a simulation to look at.
func (n *Network) Rules() []network.Group {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.groups)
}

// List implements network.Network.
func (n *Network) List() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.ports))
}

// Port as it was ensured, for a simulation to look at.
func (n *Network) Port(id string) (network.Port, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, ok := n.ports[id]
	return p, ok
}

// Close implements network.Network.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, id := range slices.Sorted(maps.Keys(n.ports)) {
		n.drop(id)
	}
	return nil
}
