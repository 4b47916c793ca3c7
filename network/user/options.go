package user

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"

	"github.com/miekg/dns"
)

// Options of a userspace network. The zero value is a working one, without
// metadata.
type Options struct {
	// Prefix is the subnet of every lan, 172.31.0.0/16 if zero. As in EC2 its
	// first address above the network's is the router, the next the resolver.
	Prefix netip.Prefix

	// Domain of the instances' names, "ec2.internal" if empty.
	Domain string

	// MTU of the wires in bytes, DefaultMTU if zero; 576 to MaxMTU.
	MTU int

	// Publish lists the TCP ports that public addresses listen on,
	// DefaultPublish if nil.
	Publish []uint16

	// PublishUDP lists the UDP ports, DefaultPublishUDP if nil.
	PublishUDP []uint16

	// Metadata serves http://169.254.169.254; network.Caller tells who asks.
	// Nothing is found if nil.
	Metadata http.Handler

	// Resolvers says which DNS servers (address:port) know what the switch
	// does not. The host's /etc/resolv.conf, read again each time, if nil.
	Resolvers func() []string

	// Dial reaches the outside for guests: networks are tcp4 and udp4, the
	// address is numeric and was allowed. A net.Dialer that refuses to talk to
	// the host itself if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Ping makes a connection of which each message is one of ICMP, to and from
	// an address that was allowed. Where net.ipv4.ping_group_range lets this
	// program ping, the host pings for guests if nil.
	Ping func(ctx context.Context, to netip.Addr) (net.Conn, error)

	// Log hears what no caller can be told. Discarded if nil.
	Log *slog.Logger
}

const (
	// DefaultMTU is that of EC2's subnets.
	DefaultMTU = 9001
	// MaxMTU fits a UNIX datagram and QEMU's receive buffer.
	MaxMTU = 65000

	minMTU = 576 // what every host of IPv4 has to accept
)

// DefaultPublish are the ports of a public address: SSH, HTTP, HTTPS, MySQL,
// RDP, PostgreSQL and HTTP's usual second ports.
var DefaultPublish = []uint16{22, 80, 443, 3306, 3389, 5432, 8000, 8080, 8443}

// DefaultPublishUDP are DNS, HTTP/3, OpenVPN, SIP and WireGuard.
var DefaultPublishUDP = []uint16{53, 443, 1194, 5060, 51820}

func (o Options) withDefaults() Options {
	if !o.Prefix.IsValid() {
		o.Prefix = netip.MustParsePrefix("172.31.0.0/16")
	}
	o.Prefix = o.Prefix.Masked()
	if o.Domain == "" {
		o.Domain = "ec2.internal"
	}
	if o.MTU == 0 {
		o.MTU = DefaultMTU
	}
	if o.Publish == nil {
		o.Publish = DefaultPublish
	}
	if o.PublishUDP == nil {
		o.PublishUDP = DefaultPublishUDP
	}
	if o.Ping == nil {
		o.Ping = dialPing
	}
	if o.Metadata == nil {
		o.Metadata = http.NotFoundHandler()
	}
	if o.Resolvers == nil {
		o.Resolvers = hostResolvers
	}
	if o.Dial == nil {
		o.Dial = dialOutside
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// hostResolvers reads what the host itself asks; none where it can't be read,
// so that guests get a quick SERVFAIL.
func hostResolvers() []string {
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	servers := make([]string, len(conf.Servers))
	for i, s := range conf.Servers {
		servers[i] = net.JoinHostPort(s, conf.Port)
	}
	return servers
}
