package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"
)

// disk is an export in memory, in which whole pages of zeroes are holes.
type disk struct {
	t        testing.TB
	readOnly bool

	mu      sync.Mutex // guards what follows
	data    []byte
	flushed int
	fail    error
	block   chan struct{} // if any, reads wait until it is closed
}

const holeSize = 4096

func (d *disk) Size() int64    { return int64(len(d.data)) }
func (d *disk) ReadOnly() bool { return d.readOnly }

func (d *disk) inside(offset, length int64) {
	if offset < 0 || length <= 0 || offset+length > d.Size() {
		d.t.Errorf("called with %d bytes at %d of %d", length, offset, d.Size())
	}
}

func (d *disk) ReadAt(ctx context.Context, p []byte, offset int64) error {
	d.inside(offset, int64(len(p)))
	if d.block != nil {
		select {
		case <-d.block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(p, d.data[offset:])
	return d.fail
}

func (d *disk) WriteAt(_ context.Context, p []byte, offset int64) error {
	d.inside(offset, int64(len(p)))
	if d.readOnly {
		d.t.Error("a read-only export was written to")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.data[offset:], p)
	return d.fail
}

func (d *disk) Zero(_ context.Context, offset, length int64) error {
	d.inside(offset, length)
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[offset : offset+length])
	return d.fail
}

func (d *disk) Flush(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushed++
	return d.fail
}

func (d *disk) Extent(_ context.Context, offset int64) (int64, bool) {
	d.inside(offset, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	end := min((offset/holeSize+1)*holeSize, d.Size())
	return end - offset, len(bytes.Trim(d.data[offset:end], "\x00")) == 0
}

func (d *disk) failWith(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

// disks are the exports by name; how many are open is counted.
type disks struct {
	mu   sync.Mutex
	all  map[string]*disk
	open int // guarded by mu
}

func (d *disks) Open(_ context.Context, name string) (Export, func(), error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name == "broken" {
		return nil, nil, errors.New("no way")
	}
	e, ok := d.all[name]
	if !ok {
		return nil, nil, fs.ErrNotExist
	}
	d.open++
	return e, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.open--
	}, nil
}

func (d *disks) opened() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open
}

func serve(t testing.TB, path string, all *disks) *Server {
	t.Helper()
	s, err := Serve(path, all, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if n := all.opened(); n != 0 {
			t.Errorf("%d exports are open after Close", n)
		}
	})
	return s
}

// client speaks the protocol by hand.
type client struct {
	t    testing.TB
	conn net.Conn
}

func dial(t testing.TB, path string) *client {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	c := &client{t, conn}
	if hello := c.read(18); string(hello[:16]) != "NBDMAGICIHAVEOPT" || hello[17] != 3 {
		t.Fatalf("the server greets with %q", hello)
	}
	c.write(uint32(3))
	return c
}

func (c *client) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.conn, b); err != nil {
		c.t.Fatalf("reading %d bytes: %v", n, err)
	}
	return b
}

func (c *client) write(values ...any) {
	c.t.Helper()
	var b bytes.Buffer
	for _, v := range values {
		if s, ok := v.(string); ok {
			v = []byte(s)
		}
		if err := binary.Write(&b, binary.BigEndian, v); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := c.conn.Write(b.Bytes()); err != nil {
		c.t.Fatalf("writing: %v", err)
	}
}

func encode(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		if s, ok := v.(string); ok {
			v = []byte(s)
		}
		binary.Write(&b, binary.BigEndian, v)
	}
	return b.Bytes()
}

// option sends one and returns the kinds of the replies up to the last, and the
// last one's data.
func (c *client) option(kind uint32, data []byte) (kinds []uint32, last []byte) {
	c.t.Helper()
	c.write(uint64(magicOption), kind, uint32(len(data)), data)
	for {
		h := c.read(20)
		if binary.BigEndian.Uint64(h) != magicReply || binary.BigEndian.Uint32(h[8:]) != kind {
			c.t.Fatalf("reply to option %d begins with %x", kind, h)
		}
		reply := binary.BigEndian.Uint32(h[12:])
		last = c.read(int(binary.BigEndian.Uint32(h[16:])))
		kinds = append(kinds, reply)
		if reply == repAck || reply >= repError {
			return kinds, last
		}
	}
}

func choice(name string, infos ...uint16) []byte {
	return encode(uint32(len(name)), name, uint16(len(infos)), infos)
}

func queries(name string, all ...string) []byte {
	b := encode(uint32(len(name)), name, uint32(len(all)))
	for _, q := range all {
		b = append(b, encode(uint32(len(q)), q)...)
	}
	return b
}

func (c *client) request(flags, kind uint16, cookie, offset uint64, length uint32, data []byte) {
	c.t.Helper()
	c.write(uint32(magicRequest), flags, kind, cookie, offset, length, data)
}

func (c *client) simple(cookie uint64) uint32 {
	c.t.Helper()
	h := c.read(16)
	if binary.BigEndian.Uint32(h) != magicSimple || binary.BigEndian.Uint64(h[8:]) != cookie {
		c.t.Fatalf("reply to %d begins with %x", cookie, h)
	}
	return binary.BigEndian.Uint32(h[4:])
}

// chunk is one of a structured reply.
func (c *client) chunk(cookie uint64) (done bool, kind uint16, data []byte) {
	c.t.Helper()
	h := c.read(20)
	if binary.BigEndian.Uint32(h) != magicChunk || binary.BigEndian.Uint64(h[8:]) != cookie {
		c.t.Fatalf("chunk for %d begins with %x", cookie, h)
	}
	return h[5]&chunkDone != 0, binary.BigEndian.Uint16(h[6:]), c.read(int(binary.BigEndian.Uint32(h[16:])))
}

// readStructured puts the chunks of a READ together.
func (c *client) readStructured(cookie, offset uint64, length int) (data []byte, holes int, number uint32) {
	c.t.Helper()
	data = bytes.Repeat([]byte{0xee}, length)
	for {
		done, kind, body := c.chunk(cookie)
		switch kind {
		case chunkData:
			copy(data[binary.BigEndian.Uint64(body)-offset:], body[8:])
		case chunkHole:
			from := binary.BigEndian.Uint64(body) - offset
			clear(data[from : from+uint64(binary.BigEndian.Uint32(body[8:]))])
			holes++
		case chunkError:
			number = binary.BigEndian.Uint32(body)
		}
		if done {
			return data, holes, number
		}
	}
}

func newDisks(t testing.TB) *disks {
	data := make([]byte, 4<<20)
	copy(data[8192:], bytes.Repeat([]byte("data"), 4096))
	copy(data[1<<20:], bytes.Repeat([]byte("more"), 300<<10))
	return &disks{all: map[string]*disk{
		"rw":  {t: t, data: data},
		"ro":  {t: t, data: bytes.Clone(data), readOnly: true},
		"odd": {t: t, data: []byte("odd")},
	}}
}
