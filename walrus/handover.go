package walrus

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// handover is a listener whose connections are those that a front's
// http.Server gave away.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept waits for the next connection given away.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept; later connections are closed at once.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr names no place: nobody can connect here.
func (h *handover) Addr() net.Addr { return &net.UnixAddr{Name: "walrus-handover", Net: "unix"} }

func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close() // shutting down: the client sees a closed connection and retries
	}
}

// ServeHTTP gives the request's connection, and so all that follows on it, to
// the library's server.
func (w *Walrus) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if back, ok := r.Context().Value(handbackKey{}).(*handback); ok {
		back.mine = true
		return
	}
	conn, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		http.Error(rw, "the object store speaks HTTP/1.1 only", http.StatusHTTPVersionNotSupported)
		return
	}
	early := make([]byte, buffered.Reader.Buffered())
	_, err = io.ReadFull(buffered, early)
	if err != nil {
		_ = conn.Close()
		return
	}
	w.handover.give(&replay{Conn: conn, head: append(requestHead(r), early...)})
}

// requestHead writes a request's head as it came, but for the order and the
// case of the header's names, which no signature depends on.
func requestHead(r *http.Request) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/%d.%d\r\nHost: %s\r\n", r.Method, r.RequestURI, r.ProtoMajor, r.ProtoMinor, r.Host)
	for _, encoding := range r.TransferEncoding {
		fmt.Fprintf(&b, "Transfer-Encoding: %s\r\n", encoding)
	}
	for name := range r.Trailer {
		fmt.Fprintf(&b, "Trailer: %s\r\n", name)
	}
	_ = r.Header.Write(&b) // a bytes.Buffer takes everything
	b.WriteString("\r\n")
	return b.Bytes()
}

// replay is a connection whose first bytes have been read already.
type replay struct {
	net.Conn
	head []byte // read by one goroutine at a time, as the connection is
}

// Read returns the bytes read before, then the connection's.
func (c *replay) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// How long a client may take. A request's head must be there within headTime; a
// body may take bodyTime and what slowestBody needs for its length; and neither
// direction may stand still for longer than stallTime.
const (
	headTime    = 30 * time.Second
	bodyTime    = time.Minute
	slowestBody = 32 << 10 // bytes a second
	stallTime   = time.Minute
	idleTime    = 2 * time.Minute
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

// ReadFrom sends a file by the kernel, a piece within each stallTime.
func (c *patient) ReadFrom(r io.Reader) (int64, error) {
	const piece = 4 << 20
	source, limit := r, int64(-1)
	if l, ok := r.(*io.LimitedReader); ok {
		source, limit = l.R, l.N
		defer func() { l.N = limit }()
	}
	if _, ok := source.(*os.File); !ok {
		n, err := io.Copy(struct{ io.Writer }{c}, io.LimitReader(source, limitOr(limit)))
		limit -= n
		return n, err
	}
	var total int64
	for limit != 0 {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(stallTime)); err != nil {
			return total, err
		}
		n, err := io.Copy(c.Conn, io.LimitReader(source, min(piece, limitOr(limit))))
		total += n
		if limit > 0 {
			limit -= n
		}
		if n == 0 || err != nil {
			return total, err
		}
	}
	return total, nil
}

func limitOr(limit int64) int64 {
	if limit < 0 {
		return 1<<63 - 1
	}
	return limit
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
