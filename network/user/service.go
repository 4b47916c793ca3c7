package user

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"mallee/network"
)

// Limits of a guest's request for metadata.
const (
	maxHeaderBytes = 16 << 10
	requestTimeout = 10 * time.Second
	idleTimeout    = 15 * time.Second
)

// acceptService connects a guest to one of the router's own services, or
// refuses it.
func (l *lan) acceptService(f *flow, p *port, r *tcp.ForwarderRequest, to netip.AddrPort) {
	switch {
	case to == netip.AddrPortFrom(metadataAddr, 80):
		if c := acceptGuest(f, r); c == nil || !l.user.web.pass(&callerConn{guestConn: c, flow: f, port: p.ID}) {
			f.end()
		}
	case l.resolves(to.Addr()) && to.Port() == dnsPort:
		defer f.end()
		if c := acceptGuest(f, r); c != nil {
			l.serveDNS(f, c)
		}
	default:
		r.Complete(true)
		f.end()
	}
}

// callerConn is a connection of which is known whose guest made it. Its flow
// ends with it.
type callerConn struct {
	*guestConn
	flow *flow
	port string
}

func (c *callerConn) Close() error {
	c.flow.end()
	return nil
}

// web serves metadata to the guests of all lans: its connections come out of
// the stacks.
type web struct {
	server *http.Server
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once
}

func newWeb(h http.Handler) *web {
	w := &web{conns: make(chan net.Conn), done: make(chan struct{})}
	w.server = &http.Server{
		Handler:           h,
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			caller := c.(*callerConn)
			return network.WithHops(network.WithCaller(ctx, caller.port), caller.limitHops)
		},
	}
	go w.server.Serve(w) // returns when w is closed
	return w
}

// pass a connection to the server; false if it is closed.
func (w *web) pass(c net.Conn) bool {
	select {
	case w.conns <- c:
		return true
	case <-w.done:
		return false
	}
}

// Accept, Close and Addr make it the server's listener.
func (w *web) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *web) Close() error {
	w.once.Do(func() { close(w.done) })
	return nil
}

func (w *web) Addr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPortFrom(metadataAddr, 80)) }
