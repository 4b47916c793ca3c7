// Package user is a network in userspace: a switch, a router and the services
// of a subnet in this process, which needs no privilege.
//
// Terms:
//
//	wire   what joins a machine to the switch: two UNIX datagram sockets in the
//	       machine's folder, one Ethernet frame a datagram
//	port   the switch's end of a wire, with the only MAC and the only address
//	       that frames from there may carry
//	lan    the ports of one network.Port.Network, their subnet and its router
//	flow   one conversation that this process holds open for a port: a
//	       connection by NAT, by a public address, or to a service
//
// A frame's way:
//
//	guest A ── wire ──▶ port A: source MAC and address A's own? else dropped
//	                     │
//	                     ├─ ARP       answered from the table of ports, never passed on
//	                     ├─ DHCP      answered with the port's fixed lease
//	                     ├─ to B      ── A's guard, B's guard ── wire ──▶ guest B   (same lan)
//	                     ├─ to DNS, echo to the router: answered here
//	                     ├─ to 169.254.169.254:80 ──▶ lan's stack ──▶ Options.Metadata
//	                     └─ to the outside ── A's guard ──▶ lan's stack ──▶ a socket of this host
//	host ── 127.x.y.z:22 ── A's guard ──▶ lan's stack ── wire ──▶ guest A, port 22, from the router's address
//
// As in a VPC of EC2 the switch looks only at addresses of IPv4: there is no
// broadcast, no multicast and no learning, and whatever MAC a frame is sent to, its
// destination address decides who gets it. A lan's stack is gVisor's TCP and
// UDP, one for each lan, so that lans with the same addresses can't meet.
//
// A guard lets pass what the rules of its port's groups allow to begin, and what
// belongs to that: it tracks flows, as many as maxTracks for a port, for the
// times of EC2. Rules are compiled once for all ports (ruleSet) and are looked up
// only when something begins, in the port's own groups; all that groups say changes by
// one pointer. What rules allow no more begins no more; what they began ends
// where EC2 would not have tracked it (allowedOpen), else it goes on. Of a
// packet in fragments the first decides. After a restart of this program
// connections between guests go on, as what looks like the middle of one is
// taken for it for some minutes, where rules would allow it to begin from either
// side. Who connects to a public address without being allowed is reset. What goes to the
// router (DHCP, DNS, metadata) and comes from it is nobody's rule, as in EC2.
//
// Who may do what: Ensure and Remove change the tables, one at a time; frames
// of a port are handled by that port's reader, in order; flows have goroutines
// of their own and end with their port.
//
// What can go wrong. The machine may not be there yet, or no longer: frames to
// it are dropped, as on a cable that is out. This program may restart: wires
// are found at the same paths, traffic between guests goes on after some lost
// frames, flows are reset. A guest may be hostile: it can fill its own queue,
// flows, tracks and queries, which are all bounded by port, and nobody else's. The host may
// hold a port itself (as root with sshd at every address) or not let us have
// it (below 1024 without privilege): then it is published 10,000 higher, and
// ports.json in the machine's folder says where each is. Guests never
// reach the host itself through NAT: not its loopback, link-local, nor any
// address that is the host's own. Echo requests to the outside are sent where
// the kernel lets this user ping (net.ipv4.ping_group_range), else refused as
// prohibited; one to a public address never comes here, as the host answers it
// itself. What this network does not carry (IPv6) is refused or dropped.
package user
