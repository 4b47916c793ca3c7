package walrus

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
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

// ReadFrom lets the connection below take a file's bytes in the kernel.
func (c *replay) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }
