package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOptions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, newDisks(t))
	c := dial(t, path)
	for _, test := range []struct {
		name string
		kind uint32
		data []byte
		want []uint32
		last string
	}{
		{"an unknown one", 99, nil, []uint32{errUnsup}, ""},
		{"TLS", 5, nil, []uint32{errUnsup}, ""},
		{"a list", optList, nil, []uint32{errPolicy}, "exports are not listed"},
		{"a map before structured replies", optSetMeta, queries("rw", baseAllocation), []uint32{errInvalid}, ""},
		{"structured replies with data", optStructuredReply, []byte{1}, []uint32{errInvalid}, ""},
		{"structured replies", optStructuredReply, nil, []uint32{repAck}, ""},
		{"no such export", optInfo, choice("none"), []uint32{errUnknown}, `the export "none": file does not exist`},
		{"a broken export", optInfo, choice("broken"), []uint32{errPlat}, `the export "broken": no way`},
		{"info", optInfo, choice("rw"), []uint32{repInfo, repAck}, ""},
		{"info with block sizes", optInfo, choice("rw", infoBlockSize, 77), []uint32{repInfo, repInfo, repAck}, ""},
		{"info cut", optInfo, choice("rw")[:5], []uint32{errInvalid}, ""},
		{"info with a lie about its name", optInfo, encode(uint32(1<<31), "rw", uint16(0)), []uint32{errInvalid}, ""},
		{"info with a lie about its requests", optInfo, encode(uint32(2), "rw", uint16(9)), []uint32{errInvalid}, ""},
		{"info with a long name", optInfo, choice(strings.Repeat("x", maxName+1)), []uint32{errInvalid}, ""},
		{"info beyond all bounds", optInfo, make([]byte, maxOption+1), []uint32{errTooBig}, ""},
		{"list of maps", optListMeta, queries("rw"), []uint32{repMeta, repAck}, ""},
		{"list of base maps", optListMeta, queries("rw", "base:"), []uint32{repMeta, repAck}, ""},
		{"list of other maps", optListMeta, queries("rw", "qemu:"), []uint32{repAck}, ""},
		{"an unknown map", optSetMeta, queries("rw", "qemu:dirty-bitmap:x"), []uint32{repAck}, ""},
		{"a map with a lie", optSetMeta, encode(uint32(2), "rw", uint32(1<<30)), []uint32{errInvalid}, ""},
		{"a map", optSetMeta, queries("rw", "x:y", baseAllocation), []uint32{repMeta, repAck}, ""},
		{"go", optGo, choice("rw", infoBlockSize), []uint32{repInfo, repInfo, repAck}, ""},
	} {
		kinds, last := c.option(test.kind, test.data)
		if fmt.Sprint(kinds) != fmt.Sprint(test.want) || test.last != "" && string(last) != test.last {
			t.Errorf("%s: %x %q, want %x %q", test.name, kinds, last, test.want, test.last)
		}
	}
	c.request(cmdReqOne, cmdBlockStatus, 1, 0, 1<<20, nil)
	if done, kind, body := c.chunk(1); !done || kind != chunkStatus || !bytes.Equal(body, encode(uint32(allocationID), uint32(8192), uint32(statusHole|statusZero))) {
		t.Errorf("status: %t, %d, %x", done, kind, body)
	}
}

func TestExportName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, newDisks(t))
	c := dial(t, path)
	c.write(uint64(magicOption), uint32(optExportName), uint32(2), "ro")
	if got := c.read(10); !bytes.Equal(got, encode(uint64(4<<20), uint16(flagHasFlags|flagReadOnly|flagMultiConn))) {
		t.Errorf("the export is told as %x", got)
	}
	c.request(0, cmdRead, 7, 8192, 8, nil)
	if number, data := c.simple(7), c.read(8); number != 0 || string(data) != "datadata" {
		t.Errorf("read %d, %q", number, data)
	}
	c = dial(t, path)
	c.write(uint64(magicOption), uint32(optExportName), uint32(4), "none")
	if _, err := c.conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("no such export: %v, want the end", err)
	}
	c = dial(t, path)
	if kinds, _ := c.option(optAbort, nil); kinds[0] != repAck {
		t.Errorf("abort: %x", kinds)
	}
}

func connect(t testing.TB, path, name string, structured bool) *client {
	t.Helper()
	c := dial(t, path)
	if structured {
		c.option(optStructuredReply, nil)
		c.option(optSetMeta, queries(name, baseAllocation))
	}
	if kinds, last := c.option(optGo, choice(name)); kinds[0] != repInfo {
		t.Fatalf("go: %x %q", kinds, last)
	}
	return c
}

func TestCommands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	all := newDisks(t)
	serve(t, path, all)
	d := all.all["rw"]
	c := connect(t, path, "rw", true)

	data, holes, number := d.readAll(c, 1, 0, 4<<20)
	if number != 0 || holes == 0 || !bytes.Equal(data, d.data) {
		t.Errorf("read all: error %d, %d holes, equal %t", number, holes, bytes.Equal(data, d.data))
	}
	for i, test := range []struct {
		name        string
		flags, kind uint16
		offset      uint64
		length      uint32
		want        syscall.Errno
	}{
		{"write", 0, cmdWrite, 100, 512, 0},
		{"write FUA", cmdFUA, cmdWrite, 4<<20 - 512, 512, 0},
		{"write nothing", 0, cmdWrite, 0, 0, 0},
		{"write beyond", 0, cmdWrite, 4<<20 - 100, 512, syscall.ENOSPC},
		{"write far beyond", 0, cmdWrite, 1<<64 - 256, 512, syscall.ENOSPC},
		{"write with DF", 4, cmdWrite, 0, 512, syscall.EINVAL},
		{"flush", 0, cmdFlush, 0, 0, 0},
		{"trim", 0, cmdTrim, 1 << 20, 1 << 20, 0},
		{"trim beyond", 0, cmdTrim, 1 << 20, 1<<32 - 1, syscall.ENOSPC},
		{"zeroes", cmdNoHole | cmdFUA, cmdWriteZeroes, 0, 4 << 20, 0},
		{"fast zeroes", 1 << 4, cmdWriteZeroes, 0, 4096, syscall.EINVAL},
		{"cache", 0, 5, 0, 4096, syscall.EINVAL},
		{"unknown", 0, 1000, 0, 4096, syscall.EINVAL},
	} {
		var payload []byte
		if test.kind == cmdWrite {
			payload = bytes.Repeat([]byte{0xaa}, int(test.length))
		}
		cookie := uint64(100 + i)
		c.request(test.flags, test.kind, cookie, test.offset, test.length, payload)
		if number := c.status(cookie); number != uint32(test.want) {
			t.Errorf("%s: error %d, want %d", test.name, number, test.want)
		}
	}
	d.mu.Lock()
	if d.flushed != 3 || len(bytes.Trim(d.data, "\x00")) != 0 {
		t.Errorf("%d flushes, want 3; all zero: %t", d.flushed, len(bytes.Trim(d.data, "\x00")) == 0)
	}
	d.data[0] = 1
	d.mu.Unlock()
	for i, test := range []struct {
		kind           uint16
		offset, length uint64
		want           syscall.Errno
	}{{cmdRead, 4 << 20, 1, syscall.EINVAL}, {cmdRead, 0, maxPayload + 1, syscall.EINVAL}, {cmdBlockStatus, 0, 0, syscall.EINVAL}, {cmdBlockStatus, 4 << 20, 1, syscall.EINVAL}} {
		c.request(0, test.kind, uint64(i), test.offset, uint32(test.length), nil)
		if number := c.status(uint64(i)); number != uint32(test.want) {
			t.Errorf("%+v: error %d", test, number)
		}
	}
	for i, test := range []struct {
		err  error
		want syscall.Errno
	}{{errors.New("x"), syscall.EIO}, {fmt.Errorf("x: %w", syscall.ENOSPC), syscall.ENOSPC}, {syscall.EDQUOT, syscall.ENOSPC}, {syscall.ENOENT, syscall.EIO}} {
		d.failWith(test.err)
		for _, kind := range []uint16{cmdFlush, cmdTrim} {
			c.request(0, kind, uint64(i), 1<<20, 512, nil)
			if number := c.status(uint64(i)); number != uint32(test.want) {
				t.Errorf("%v: error %d, want %d", test.err, number, test.want)
			}
		}
	}
	d.failWith(errors.New("x"))
	c.request(0, cmdRead, 9, 0, 512, nil)
	if _, _, number := c.readStructured(9, 0, 512); number != uint32(syscall.EIO) {
		t.Errorf("a failing read: error %d", number)
	}
	c.request(0, cmdDisconnect, 1, 0, 0, nil)
	if _, err := c.conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the disconnection: %v, want the end", err)
	}
}

func (d *disk) readAll(c *client, cookie, offset uint64, length int) ([]byte, int, uint32) {
	c.request(0, cmdRead, cookie, offset, uint32(length), nil)
	return c.readStructured(cookie, offset, length)
}

// status reads a reply of either form that has no data.
func (c *client) status(cookie uint64) uint32 {
	c.t.Helper()
	magic := c.read(4)
	if binary.BigEndian.Uint32(magic) == magicSimple {
		h := c.read(12)
		if binary.BigEndian.Uint64(h[4:]) != cookie {
			c.t.Fatalf("reply to %d is for %x", cookie, h[4:])
		}
		return binary.BigEndian.Uint32(h)
	}
	h := c.read(16)
	body := c.read(int(binary.BigEndian.Uint32(h[12:])))
	if binary.BigEndian.Uint16(h[2:]) != chunkError {
		c.t.Fatalf("reply to %d is %x %x", cookie, h, body)
	}
	return binary.BigEndian.Uint32(body)
}

func TestReadOnlyAndOdd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, newDisks(t))
	c := connect(t, path, "ro", false)
	for _, kind := range []uint16{cmdWrite, cmdTrim, cmdWriteZeroes} {
		var payload []byte
		if kind == cmdWrite {
			payload = make([]byte, 512)
		}
		c.request(0, kind, 5, 0, 512, payload)
		if number := c.simple(5); number != uint32(syscall.EPERM) {
			t.Errorf("command %d: error %d, want EPERM", kind, number)
		}
	}
	c.request(0, cmdFlush, 6, 0, 0, nil)
	if number := c.simple(6); number != 0 {
		t.Errorf("flush: error %d", number)
	}
	c.request(0, cmdBlockStatus, 6, 0, 512, nil)
	if number := c.simple(6); number != uint32(syscall.EINVAL) {
		t.Errorf("status that wasn't agreed: error %d", number)
	}
	c = connect(t, path, "odd", true)
	c.request(0, cmdRead, 1, 1, 2, nil)
	if data, _, _ := c.readStructured(1, 1, 2); string(data) != "dd" {
		t.Errorf("read %q", data)
	}
}

func TestRequestsOvertake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	all := newDisks(t)
	gate := make(chan struct{})
	all.all["rw"].block = gate
	serve(t, path, all)
	c := connect(t, path, "rw", false)
	c.request(0, cmdRead, 1, 0, 512, nil)
	c.request(0, cmdFlush, 2, 0, 0, nil)
	if number := c.simple(2); number != 0 {
		t.Errorf("flush: %d", number)
	}
	close(gate)
	if number := c.simple(1); number != 0 {
		t.Errorf("read: %d", number)
	}
	c.read(512)
}

// TestProtocolBreakers expects the end of their connection, and of no other.
func TestProtocolBreakers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, newDisks(t))
	good := connect(t, path, "rw", false)
	bad := func(c *client) {
		t.Helper()
		if n, err := c.conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d, %v; want the end", n, err)
		}
	}
	c := connect(t, path, "rw", false)
	c.write(uint32(0xdeadbeef), make([]byte, 24))
	bad(c)
	c = connect(t, path, "rw", false)
	c.request(0, cmdWrite, 1, 0, maxPayload+1, nil)
	bad(c)
	c = dial(t, path)
	c.write(uint64(1), uint64(2))
	bad(c)
	c = dial(t, path)
	c.write(uint64(magicOption), uint32(optGo), uint32(maxPayload+1))
	bad(c)
	c = connect(t, path, "rw", false)
	c.request(0, cmdWrite, 1, 0, 4096, make([]byte, 100))
	c.conn.Close()
	good.request(0, cmdFlush, 1, 0, 0, nil)
	if number := good.simple(1); number != 0 {
		t.Errorf("flush: %d", number)
	}
}

func TestCloseAnswersWhatItHas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	all := newDisks(t)
	gate := make(chan struct{})
	all.all["rw"].block = gate
	s := serve(t, path, all)
	c := connect(t, path, "rw", false)
	c.request(0, cmdRead, 1, 8192, 4, nil)
	c.request(0, cmdFlush, 2, 0, 0, nil)
	c.simple(2) // so the read before has been taken too
	idle := dial(t, path)
	done := make(chan error)
	go func() { done <- s.Close() }()
	if _, err := idle.conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one who negotiates: %v, want the end", err)
	}
	close(gate)
	if number, data := c.simple(1), c.read(4); number != 0 || string(data) != "data" {
		t.Errorf("read %d, %q", number, data)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket: %v", err)
	}
}

func TestSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, left := range []string{path, path + ".new"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	serve(t, path, newDisks(t))
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	connect(t, path, "rw", false)
	if _, err := Serve(filepath.Join(t.TempDir(), "none", "s"), newDisks(t), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("served in a folder that is not there")
	}
}

func TestURI(t *testing.T) {
	if got, want := URI("/a b/ü+&=?#%.sock", "vol-1"), "nbd+unix:///vol-1?socket=%2Fa%20b%2F%C3%BC%2B%26%3D%3F%23%25.sock"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, name := range []string{"", "vol-1", "a/b c%+&?#"} {
		socket, export, err := ParseURI(URI("/a b/ü+&=?#%.sock", name))
		if err != nil || socket != "/a b/ü+&=?#%.sock" || export != name {
			t.Errorf("%q reads back as %q, %q, %v", name, socket, export, err)
		}
	}
	for _, bad := range []string{"", "nbd:unix:/s", "nbd+unix://host/x?socket=/s", "nbd+unix:///x", "nbd+unix:///x?socket=/s&socket=/t", "nbd+unix:///x?socket=/s&tls=1", "nbd+unix:///x?%zz", ":"} {
		if socket, export, err := ParseURI(bad); err == nil {
			t.Errorf("%q reads as %q, %q", bad, socket, export)
		}
	}
}

// pair is a connection's two ends.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		conn, err := net.FileConn(f)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		ends[i] = conn.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// fuzzed sends bytes as a client would, and reads what comes.
func fuzzed(t *testing.T, prefix, data []byte) {
	all := &disks{all: map[string]*disk{"": {t: t, data: make([]byte, 1<<20)}, "ro": {t: t, data: make([]byte, 1000), readOnly: true}}}
	s := &Server{exports: all, log: slog.New(slog.DiscardHandler), conns: map[net.Conn]bool{}, ctx: t.Context()}
	ours, theirs := pair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve(theirs)
	}()
	go func() {
		ours.Write(append(bytes.Clone(prefix), data...))
		ours.CloseWrite()
	}()
	io.Copy(io.Discard, ours)
	ours.Close()
	<-done
	if n := all.opened(); n != 0 {
		t.Errorf("%d exports are open", n)
	}
}

func FuzzNegotiation(f *testing.F) {
	option := func(kind uint32, data []byte) []byte {
		return encode(uint64(magicOption), kind, uint32(len(data)), data)
	}
	f.Add(option(optGo, choice("ro", infoBlockSize)))
	f.Add(append(option(optStructuredReply, nil), option(optSetMeta, queries("", baseAllocation))...))
	f.Add(option(optExportName, []byte("ro")))
	f.Add(append(option(optListMeta, queries("ro")), option(optAbort, nil)...))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzed(t, encode(uint32(3)), data) })
}

func FuzzTransmission(f *testing.F) {
	request := func(flags, kind uint16, offset uint64, length uint32, data []byte) []byte {
		return encode(uint32(magicRequest), flags, kind, uint64(1), offset, length, data)
	}
	f.Add(true, request(0, cmdWrite, 0, 4, []byte("abcd")))
	f.Add(true, append(request(0, cmdRead, 100, 5000, nil), request(cmdReqOne, cmdBlockStatus, 0, 1<<20, nil)...))
	f.Add(false, append(request(cmdFUA, cmdWriteZeroes, 100, 5000, nil), request(0, cmdRead, 0, 512, nil)...))
	f.Fuzz(func(t *testing.T, structured bool, data []byte) {
		prefix := encode(uint32(3))
		option := func(kind uint32, data []byte) {
			prefix = append(prefix, encode(uint64(magicOption), kind, uint32(len(data)), data)...)
		}
		if structured {
			option(optStructuredReply, nil)
			option(optSetMeta, queries("", baseAllocation))
		}
		option(optGo, choice(""))
		fuzzed(t, prefix, data)
	})
}
