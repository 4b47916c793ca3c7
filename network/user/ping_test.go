package user

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHostPings, where the kernel lets this user.
func TestHostPings(t *testing.T) {
	c, err := dialPing(t.Context(), netip.MustParseAddr("127.0.0.1"))
	if errors.Is(err, unix.EACCES) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	request := []byte{icmpEcho, 0, 0, 0, 0, 7, 0, 1, 'm', 'a', 'l', 'l', 'e', 'e'}
	putICMP(request, icmpEcho, 0)
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	var got string
	readDatagrams(c, func(m []byte) {
		if m[0] == icmpEchoReply {
			got = string(m[8:])
			c.SetReadDeadline(time.Now()) // enough
		}
	})
	if got != "mallee" {
		t.Errorf("the answer is %q", got)
	}
}
