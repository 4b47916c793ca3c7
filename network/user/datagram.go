package user

import (
	"bytes"
	"context"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// datagrams lends buffers to readers while they have something to read.
var datagrams = sync.Pool{New: func() any { return new([1 << 16]byte) }}

// guestDatagrams is the guest's end of a flow of UDP.
type guestDatagrams struct {
	endpoint tcpip.Endpoint
	wait     waiter.Queue
	closed   func() // told of the end; nil for nobody
}

func (g *guestDatagrams) Close() error {
	g.endpoint.Close()
	if g.closed != nil {
		g.closed()
	}
	return nil
}

// write a datagram to the guest, or lose it.
func (g *guestDatagrams) write(b []byte) {
	g.endpoint.Write(bytes.NewReader(b), tcpip.WriteOptions{})
}

// read hands over the guest's datagrams until ctx is done.
func (g *guestDatagrams) read(ctx context.Context, handle func([]byte)) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	g.wait.EventRegister(&entry)
	defer g.wait.EventUnregister(&entry)
	for ctx.Err() == nil {
		if g.readSome(handle) {
			continue
		}
		select {
		case <-ctx.Done():
		case <-ready:
		}
	}
}

// readSome reads one datagram; false if there is none.
func (g *guestDatagrams) readSome(handle func([]byte)) bool {
	buf := datagrams.Get().(*[1 << 16]byte)
	defer datagrams.Put(buf)
	w := tcpip.SliceWriter(buf[:])
	r, err := g.endpoint.Read(&w, tcpip.ReadOptions{})
	if err != nil {
		_, wait := err.(*tcpip.ErrWouldBlock)
		return !wait
	}
	handle(buf[:r.Count])
	return true
}

// readDatagrams hands over what comes from outside until c is closed or
// refused. A socket of the host is given a buffer only when it has something.
func readDatagrams(c net.Conn, handle func([]byte)) {
	socket, ok := c.(syscall.Conn)
	if !ok {
		readPlain(c, handle)
		return
	}
	raw, err := socket.SyscallConn()
	for err == nil {
		var failed error
		err = raw.Read(func(fd uintptr) bool {
			buf := datagrams.Get().(*[1 << 16]byte)
			defer datagrams.Put(buf)
			n, err := unix.Read(int(fd), buf[:])
			switch err {
			case nil:
				handle(buf[:n])
			case unix.EAGAIN:
				return false
			case unix.EINTR:
			default:
				failed = err
			}
			return true
		})
		if failed != nil {
			return
		}
	}
}

func readPlain(c net.Conn, handle func([]byte)) {
	buf := make([]byte, 1<<16)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		handle(buf[:n])
	}
}
