package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sync/semaphore"
)

// session is the second phase of a connection: requests on one export.
type session struct {
	name       string
	export     Export
	release    func()
	conn       net.Conn
	structured bool // replies are
	mapped     bool // BLOCK_STATUS was agreed
	size       int64
	readOnly   bool
	log        *slog.Logger

	sending sync.Mutex // held while a reply is written to conn
}

func (s *session) flags() uint16 {
	if s.readOnly {
		return flagHasFlags | flagReadOnly | flagMultiConn
	}
	return flagHasFlags | flagFlush | flagFUA | flagTrim | flagWriteZeroes
}

// describe is the answer to which export it is.
func (s *session) describe() []byte {
	out := binary.BigEndian.AppendUint16(nil, infoExport)
	out = binary.BigEndian.AppendUint64(out, uint64(s.size))
	return binary.BigEndian.AppendUint16(out, s.flags())
}

// blockSizes is the answer to how requests should be: smallest, preferred and
// largest. What is unaligned is served too.
func (s *session) blockSizes() []byte {
	smallest := uint32(512)
	if s.size%512 != 0 {
		smallest = 1
	}
	out := binary.BigEndian.AppendUint16(nil, infoBlockSize)
	out = binary.BigEndian.AppendUint32(out, smallest)
	out = binary.BigEndian.AppendUint32(out, pieceSize)
	return binary.BigEndian.AppendUint32(out, maxPayload)
}

// transmit serves requests until the client goes or breaks the protocol, and
// returns when none is left; stop ends those that the client won't hear of.
func (s *session) transmit(ctx context.Context, stop context.CancelFunc) error {
	var group sync.WaitGroup
	defer group.Wait()
	requests := semaphore.NewWeighted(maxRequests)
	payload := semaphore.NewWeighted(maxPayload)
	in := bufio.NewReaderSize(s.conn, 4<<10)
	for {
		r, err := readRequest(in)
		if err != nil {
			return s.ended(err, stop)
		}
		if r.Type == cmdDisconnect {
			return nil
		}
		if requests.Acquire(ctx, 1) != nil {
			return nil
		}
		held := s.holds(r)
		if payload.Acquire(ctx, held) != nil {
			return nil
		}
		data, err := receive(in, r)
		if err != nil {
			return s.ended(err, stop)
		}
		group.Go(func() {
			defer requests.Release(1)
			defer payload.Release(held)
			if err := s.handle(ctx, r, data); err != nil {
				stop()
				s.conn.Close() // a reply was cut: nothing sensible can follow it
			}
		})
	}
}

// ended is nil for the errors of a connection that just ended. Where the server
// is closing what was read is still answered.
func (s *session) ended(err error, stop context.CancelFunc) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	stop()
	for _, end := range []error{io.EOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return nil
		}
	}
	return err
}

func readRequest(in io.Reader) (request, error) {
	var b [requestSize]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return request{}, err
	}
	r := request{
		Magic:  binary.BigEndian.Uint32(b[0:]),
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   binary.BigEndian.Uint16(b[6:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
		Length: binary.BigEndian.Uint32(b[24:]),
	}
	switch {
	case r.Magic != magicRequest:
		return r, fmt.Errorf("the client's request begins with %#x", r.Magic)
	case r.Type == cmdWrite && r.Length > maxPayload:
		return r, fmt.Errorf("the client writes %d bytes at once, more than %d", r.Length, maxPayload)
	}
	return r, nil
}

// holds is how many bytes of memory a request takes.
func (s *session) holds(r request) int64 {
	switch {
	case r.Type == cmdRead && s.structured:
		return min(int64(r.Length), pieceSize)
	case r.Type == cmdWrite || r.Type == cmdRead:
		return min(int64(r.Length), maxPayload)
	}
	return 0
}

// receive reads what follows a WRITE.
func receive(in io.Reader, r request) ([]byte, error) {
	if r.Type != cmdWrite {
		return nil, nil
	}
	data := buffer(int(r.Length))
	if _, err := io.ReadFull(in, data); err != nil {
		return nil, fmt.Errorf("the client's write of %d bytes: %w", r.Length, err)
	}
	return data, nil
}

// pieces are buffers of pieceSize, which most requests fit into.
var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

func buffer(length int) []byte {
	if length > pieceSize {
		return make([]byte, length)
	}
	return pieces.Get().(*[pieceSize]byte)[:length]
}

func recycle(b []byte) {
	if cap(b) == pieceSize {
		pieces.Put((*[pieceSize]byte)(b[:pieceSize]))
	}
}
