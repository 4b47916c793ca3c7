package user

import (
	"io"
	"net"
)

// splice passes bytes both ways until both sides have said all, or one breaks:
// then the other is told so by a reset.
func splice(guest *guestConn, host net.Conn) {
	toHost := make(chan struct{})
	go func() {
		defer close(toHost)
		if !pipe(host, guest) {
			reset(guest, host)
		}
	}()
	if !pipe(guest, host) {
		reset(guest, host)
	}
	<-toHost
}

// pipe copies until from has said all, and passes that on; false if either
// side broke.
func pipe(to, from net.Conn) bool {
	if _, err := io.Copy(to, from); err != nil {
		return false
	}
	half, ok := to.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}

func reset(guest *guestConn, host net.Conn) {
	refuse(host)
	guest.abort()
}

// refuse closes a connection of the host's with a reset: nobody answers there.
func refuse(c net.Conn) {
	if tcp, ok := c.(interface{ SetLinger(seconds int) error }); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}
