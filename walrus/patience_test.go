package walrus

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// A client that stands still is given up after a minute, or when the server's
// own deadline has passed.
func TestPatience(t *testing.T) {
	for name, c := range map[string]struct {
		deadline time.Duration // as the server sets it; none if 0
		do       func(net.Conn) error
		want     time.Duration
	}{
		"reading":               {0, read, stallTime},
		"reading, soon late":    {10 * time.Second, read, 10 * time.Second},
		"reading, late one day": {time.Hour, read, stallTime},
		"writing":               {0, write, stallTime},
		"writing, reading late": {10 * time.Second, write, stallTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer near.Close()
				defer far.Close()
				conn := &patient{Conn: near}
				began := time.Now()
				if c.deadline > 0 {
					if err := conn.SetReadDeadline(began.Add(c.deadline)); err != nil {
						t.Fatal(err)
					}
				}
				err := c.do(conn)
				if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != c.want {
					t.Errorf("%v after %v, want a deadline after %v", err, time.Since(began), c.want)
				}
			})
		})
	}
}

func read(c net.Conn) error {
	_, err := c.Read(make([]byte, 1))
	return err
}

func write(c net.Conn) error {
	_, err := c.Write([]byte("x"))
	return err
}
