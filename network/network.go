// Package network is the seam between a node and the network of its
// instances: network/user is a switch in userspace that needs no privilege,
// later network/linux uses bridges and nftables; network/fake serves
// simulations. All pass network/networktest.
//
// A port is one interface of one instance, made before its machine starts and
// removed after it is gone. Ports of the same Network reach each other and
// the outside; ports of different Networks never do. A port can use only its
// own MAC and addresses. What is said of a port holds again after a restart of
// this program, when Ensure is called for it anew, without the guest noticing
// more than some lost frames.
package network

import (
	"context"
	"net/netip"
)

// Port is the wish for one interface.
type Port struct {
	ID      string     // the instance's id
	Dir     string     // absolute path of the machine's folder, for what must lie beside the machine (sockets)
	Network string     // who shares an Ethernet: for now the owner's account
	MAC     string     // d0:0d:xx:xx:xx:xx
	Local   netip.Addr // private address, handed out by DHCP
	Public  netip.Addr // address at which the host reaches the instance; zero for none
	Name    string     // host name, for DHCP and DNS: ip-172-31-0-10
}

// Attachment tells a hypervisor how to connect an interface: two UNIX datagram
// sockets, one frame a datagram, with nothing to reconnect when either side
// restarts. Paths are relative to the machine's folder (UNIX socket paths are
// limited to 107 bytes), in which the hypervisor runs.
type Attachment struct {
	Machine string // the machine's own socket: net.sock
	Switch  string // where it sends: switch.sock
	MTU     int    // bytes, what the interface can carry
}

// Network connects machines. Methods may be called at once for different ports.
type Network interface {
	// Ensure makes the port what p says, and says how to connect to it.
	// Idempotent. An address in use by another port of the Network, or a
	// public address at which this host can listen on no port, is an error.
	Ensure(ctx context.Context, p Port) (Attachment, error)

	// Remove the port and all that it holds. Removing what is not there is no
	// error.
	Remove(ctx context.Context, id string) error

	// List names the ports there are, sorted.
	List() []string

	// Close gives back every socket. The wishes are with the caller, who
	// ensures them again in the next program.
	Close() error
}
