package nbd

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"syscall"
)

// handle does what a request asks and answers it. An error says that the answer
// could not be given.
func (s *session) handle(ctx context.Context, r request, data []byte) error {
	defer recycle(data)
	if err := s.check(r); err != nil {
		return s.finish(r, err)
	}
	switch r.Type {
	case cmdRead:
		if s.structured {
			return s.readPieces(ctx, r)
		}
		return s.readWhole(ctx, r)
	case cmdBlockStatus:
		return s.status(ctx, r)
	}
	err := s.change(ctx, r, data)
	if err != nil && ctx.Err() != nil {
		return ctx.Err() // no answer: a client that reconnects asks again
	}
	if err != nil {
		s.log.Error("writing to an export", "export", s.name, "offset", r.Offset, "length", r.Length, "error", err)
	}
	return s.finish(r, err)
}

// change does what WRITE, TRIM, WRITE_ZEROES and FLUSH ask.
func (s *session) change(ctx context.Context, r request, data []byte) error {
	var err error
	switch {
	case r.Type == cmdFlush && s.readOnly:
		return nil
	case r.Type == cmdFlush:
		return s.export.Flush(ctx)
	case r.Length == 0:
	case r.Type == cmdWrite:
		err = s.export.WriteAt(ctx, data, int64(r.Offset))
	default:
		err = s.export.Zero(ctx, int64(r.Offset), int64(r.Length))
	}
	if err == nil && r.Flags&cmdFUA != 0 {
		err = s.export.Flush(ctx)
	}
	return err
}

// allowed are the flags of each command.
var allowed = map[uint16]uint16{
	cmdRead:        0,
	cmdWrite:       cmdFUA,
	cmdFlush:       0,
	cmdTrim:        cmdFUA,
	cmdWriteZeroes: cmdFUA | cmdNoHole,
	cmdBlockStatus: cmdReqOne,
}

// check refuses what the export can't do.
func (s *session) check(r request) error {
	flags, known := allowed[r.Type]
	changes := r.Type == cmdWrite || r.Type == cmdTrim || r.Type == cmdWriteZeroes
	outside := r.Offset > uint64(s.size) || uint64(r.Length) > uint64(s.size)-r.Offset
	switch {
	case !known || r.Flags&^flags&^cmdFUA != 0: // FUA is to be borne with every command
		return fmt.Errorf("command %d with flags %#x: %w", r.Type, r.Flags, syscall.EINVAL)
	case r.Type == cmdBlockStatus && (!s.mapped || r.Length == 0):
		return fmt.Errorf("no map of allocations was agreed, or of nothing: %w", syscall.EINVAL)
	case changes && s.readOnly:
		return syscall.EPERM
	case r.Type == cmdFlush:
		return nil
	case outside && changes:
		return fmt.Errorf("%d bytes at %d of %d: %w", r.Length, r.Offset, s.size, syscall.ENOSPC)
	case outside:
		return fmt.Errorf("%d bytes at %d of %d: %w", r.Length, r.Offset, s.size, syscall.EINVAL)
	case r.Type == cmdRead && r.Length > maxPayload:
		return fmt.Errorf("%d bytes at once, more than %d: %w", r.Length, maxPayload, syscall.EOVERFLOW)
	}
	return nil
}

// finish ends the answer to a request, well if err is nil.
func (s *session) finish(r request, err error) error {
	switch {
	case !s.structured || err == nil && r.Type != cmdRead:
		return s.simple(r, errno(err), nil)
	case err == nil:
		return s.chunk(r, chunkDone, chunkNone, nil, nil)
	}
	text := err.Error()
	text = text[:min(len(text), maxName)]
	body := binary.BigEndian.AppendUint32(nil, errno(err))
	body = binary.BigEndian.AppendUint16(body, uint16(len(text)))
	return s.chunk(r, chunkDone, chunkError, append(body, text...), nil)
}

func (s *session) simple(r request, number uint32, data []byte) error {
	header := binary.BigEndian.AppendUint32(nil, magicSimple)
	header = binary.BigEndian.AppendUint32(header, number)
	header = binary.BigEndian.AppendUint64(header, r.Cookie)
	return s.send(header, data)
}

func (s *session) chunk(r request, flags, kind uint16, body, data []byte) error {
	header := binary.BigEndian.AppendUint32(nil, magicChunk)
	header = binary.BigEndian.AppendUint16(header, flags)
	header = binary.BigEndian.AppendUint16(header, kind)
	header = binary.BigEndian.AppendUint64(header, r.Cookie)
	header = binary.BigEndian.AppendUint32(header, uint32(len(body)+len(data)))
	return s.send(append(header, body...), data)
}

func (s *session) send(header, data []byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	out := net.Buffers{header, data}
	_, err := out.WriteTo(s.conn)
	return err
}

// readWhole answers a READ in one: what goes wrong must be known before.
func (s *session) readWhole(ctx context.Context, r request) error {
	data := buffer(int(r.Length))
	defer recycle(data)
	if err := s.fetch(ctx, data, int64(r.Offset)); err != nil {
		return s.failRead(ctx, r, err)
	}
	return s.simple(r, 0, data)
}

// readPieces answers a READ piece by piece, holes as such.
func (s *session) readPieces(ctx context.Context, r request) error {
	data := buffer(pieceSize)
	defer recycle(data)
	end := int64(r.Offset) + int64(r.Length)
	for at := int64(r.Offset); at < end; {
		length, hole := s.extent(ctx, at, end)
		if !hole {
			length = min(length, pieceSize-at%pieceSize)
		}
		body := binary.BigEndian.AppendUint64(nil, uint64(at))
		var err error
		if hole {
			err = s.chunk(r, 0, chunkHole, binary.BigEndian.AppendUint32(body, uint32(length)), nil)
		} else {
			if err := s.fetch(ctx, data[:length], at); err != nil {
				return s.failRead(ctx, r, err)
			}
			err = s.chunk(r, 0, chunkData, body, data[:length])
		}
		if err != nil {
			return err
		}
		at += length
	}
	return s.finish(r, nil)
}

func (s *session) fetch(ctx context.Context, data []byte, offset int64) error {
	if len(data) == 0 {
		return nil
	}
	return s.export.ReadAt(ctx, data, offset)
}

func (s *session) failRead(ctx context.Context, r request, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.log.Error("reading from an export", "export", s.name, "offset", r.Offset, "length", r.Length, "error", err)
	return s.finish(r, err)
}

// extent is Export.Extent, of at least one byte and not beyond end.
func (s *session) extent(ctx context.Context, offset, end int64) (length int64, hole bool) {
	length, hole = s.export.Extent(ctx, offset)
	if length <= 0 {
		return end - offset, false
	}
	return min(length, end-offset), hole
}

// status answers BLOCK_STATUS.
func (s *session) status(ctx context.Context, r request) error {
	most := maxExtents
	if r.Flags&cmdReqOne != 0 {
		most = 1
	}
	end := int64(r.Offset) + int64(r.Length)
	body := binary.BigEndian.AppendUint32(nil, allocationID)
	at := int64(r.Offset)
	for range most {
		length, hole := s.run(ctx, at, end)
		state := uint32(0)
		if hole {
			state = statusHole | statusZero
		}
		body = binary.BigEndian.AppendUint32(body, uint32(length))
		body = binary.BigEndian.AppendUint32(body, state)
		if at += length; at == end {
			break
		}
	}
	return s.chunk(r, chunkDone, chunkStatus, body, nil)
}

// run is the longest extent of one kind from offset, not beyond end.
func (s *session) run(ctx context.Context, offset, end int64) (length int64, hole bool) {
	length, hole = s.extent(ctx, offset, end)
	for offset+length < end {
		more, same := s.extent(ctx, offset+length, end)
		if same != hole {
			break
		}
		length += more
	}
	return length, hole
}
