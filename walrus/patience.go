package walrus

import (
	"io"
	"net"
	"time"
)

// How long a client may take. A request's head must be there within headTime; a
// body may take bodyTime and what slowestBody needs for its length; and neither
// direction may stand still for longer than stallTime.
const (
	headTime    = 30 * time.Second
	bodyTime    = time.Minute
	slowestBody = 32 << 10 // bytes a second
	stallTime   = time.Minute
	idleTime    = 2 * time.Minute
	pieceSize   = 1 << 20 // bytes
)

// patient bounds how long a connection stands still: each read and write has
// its own deadline, within the one that the server sets.
type patient struct {
	net.Conn
	deadline time.Time // for reading, as the server set it; used by its goroutine only
}

// SetReadDeadline keeps the server's deadline for the reads to come.
func (c *patient) SetReadDeadline(t time.Time) error {
	c.deadline = t
	return c.Conn.SetReadDeadline(t)
}

// Read reads within stallTime and the server's deadline.
func (c *patient) Read(p []byte) (int, error) {
	limit := time.Now().Add(stallTime)
	if c.deadline.IsZero() || limit.Before(c.deadline) {
		if err := c.Conn.SetReadDeadline(limit); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(p)
}

// Write writes within stallTime.
func (c *patient) Write(p []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(stallTime)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// ReadFrom sends an object piece by piece, each within stallTime. A whole file's
// bytes go from the page cache to the socket by the kernel.
func (c *patient) ReadFrom(r io.Reader) (total int64, err error) {
	for {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(stallTime)); err != nil {
			return total, err
		}
		n, err := io.CopyN(c.Conn, r, pieceSize)
		total += n
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// patience makes a listener's connections patient.
type patience struct{ net.Listener }

// Accept waits for the next connection.
func (l patience) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &patient{Conn: c}, nil
}
