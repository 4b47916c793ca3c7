// Package network is the seam between a node and the network of its
// instances: network/user is a switch in userspace that needs no privilege,
// later network/linux uses bridges and nftables; network/fake serves
// simulations. All pass network/networktest.
//
// A port is one interface of one instance, made before its machine starts and
// removed after it is gone. Ports of the same Network reach each other and
// the outside; ports of different Networks never do. A port can use only its
// own MAC and addresses, and only as its groups' rules allow. What is said of a port holds again after a restart of
// this program, when Ensure is called for it anew, without the guest noticing
// more than some lost frames.
package network

import (
	"context"
	"net/netip"
	"slices"
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

	// Groups whose rules say what the port may send and receive: what one of
	// them allows is allowed, all else is refused. Of a group that isn't known
	// (yet) nothing is allowed. Nil: nobody governs the port, all is allowed.
	Groups []string
}

// Equal says whether two wishes are the same.
func (p Port) Equal(q Port) bool {
	if (p.Groups == nil) != (q.Groups == nil) || !slices.Equal(p.Groups, q.Groups) {
		return false
	}
	return p.ID == q.ID && p.Dir == q.Dir && p.Network == q.Network && p.MAC == q.MAC &&
		p.Local == q.Local && p.Public == q.Public && p.Name == q.Name
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

// Rule allows what it describes. There is none that refuses.
type Rule struct {
	Protocol int // IP protocol number; -1 for all

	// From and To are the first and the last port, of the receiver, for TCP and
	// UDP; type and code for ICMP. -1 for any. Other protocols have none.
	From, To int

	// The peer: any address in Prefix, or else a member of Group, which is a
	// group of the same Network. From outside, the peer is whoever connects to
	// the public address, as the host sees it.
	Prefix netip.Prefix
	Group  string
}

// Group is a security group.
type Group struct {
	ID, Network     string
	Ingress, Egress []Rule
	Members         []netip.Addr // private addresses of its instances, on any node
}

// Network connects machines. Methods may be called at once for different ports.
type Network interface {
	// Ensure makes the port what p says, and says how to connect to it.
	// Idempotent. An address in use by another port of the Network, or a
	// public address at which this host can listen on no port, is an error.
	// Another Public address or other Groups change a running port without its
	// guest noticing: where that fails the port is what it was. Two ports
	// exchange addresses by way of one having none.
	Ensure(ctx context.Context, p Port) (Attachment, error)

	// Remove the port and all that it holds. Removing what is not there is no
	// error.
	Remove(ctx context.Context, id string) error

	// Groups says what all groups are, in place of what was said before: at
	// once, and for the next packet of every port. What came before it is kept
	// by the driver and not changed by the caller. As in EC2 rules are stateful:
	// answers to what was allowed are allowed, and so are ICMP errors about it.
	// Once a rule is gone nothing begins by it; what it began goes on while it
	// is tracked, and ends at once where it was not, because rules of both
	// directions were open to everybody (0.0.0.0/0). DHCP, ARP, DNS and metadata
	// are nobody's rule and always there. A rule that can't be is an error, and
	// all is as it was.
	Groups(ctx context.Context, groups []Group) error

	// List names the ports there are, sorted.
	List() []string

	// Close gives back every socket. The wishes are with the caller, who
	// ensures them again in the next program.
	Close() error
}
