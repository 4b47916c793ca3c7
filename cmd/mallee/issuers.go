package main

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"mallee/image"
)

// issuers asks OpenID Connect issuers, whose addresses users name: public ones
// alone, and directly, so that the cloud is nobody's way into its own network.
func issuers() *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return image.PublicOnly(at)
	}}
	return &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: 5 * time.Second, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("an issuer that sends elsewhere isn't followed")
		},
	}
}
