package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
)

// negotiation is the first phase of a connection.
type negotiation struct {
	conn       net.Conn
	exports    Exports
	noZeroes   bool   // the client doesn't want the padding of EXPORT_NAME
	structured bool   // replies were agreed to be structured
	mapped     string // the export whose map of allocations was agreed to be told
	isMapped   bool
}

// negotiate lets the client choose an export. The session is nil where the
// client went away in good order; the caller calls its release.
func negotiate(ctx context.Context, conn net.Conn, exports Exports) (*session, error) {
	n := &negotiation{conn: conn, exports: exports}
	if err := n.greet(); err != nil {
		return nil, err
	}
	for range maxOptions {
		kind, data, err := n.option()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		session, end, err := n.answer(ctx, kind, data)
		if err != nil || end {
			return session, err
		}
	}
	return nil, fmt.Errorf("the client sent %d options and chose no export", maxOptions)
}

func (n *negotiation) greet() error {
	hello := binary.BigEndian.AppendUint64(nil, magicServer)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint16(hello, handshakeFixed|handshakeNoZeroes)
	if _, err := n.conn.Write(hello); err != nil {
		return err
	}
	var flags [4]byte
	if _, err := io.ReadFull(n.conn, flags[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // somebody who looked whether there is a server
		}
		return err
	}
	got := binary.BigEndian.Uint32(flags[:])
	if got&handshakeFixed == 0 || got&^(handshakeFixed|handshakeNoZeroes) != 0 {
		return fmt.Errorf("the client's handshake flags are %#x", got)
	}
	n.noZeroes = got&handshakeNoZeroes != 0
	return nil
}

// option reads the next one. The error is io.EOF where the client has gone, and
// data is nil where it is too long to be read.
func (n *negotiation) option() (kind uint32, data []byte, err error) {
	var header [16]byte
	if _, err := io.ReadFull(n.conn, header[:]); err != nil {
		return 0, nil, err
	}
	if magic := binary.BigEndian.Uint64(header[:]); magic != magicOption {
		return 0, nil, fmt.Errorf("the client's option begins with %#x", magic)
	}
	kind = binary.BigEndian.Uint32(header[8:])
	length := binary.BigEndian.Uint32(header[12:])
	switch {
	case length > maxPayload:
		return 0, nil, fmt.Errorf("the client's option %d has %d bytes", kind, length)
	case length > maxOption:
		_, err := io.CopyN(io.Discard, n.conn, int64(length))
		return kind, nil, err
	}
	data = make([]byte, length)
	if _, err := io.ReadFull(n.conn, data); err != nil {
		return 0, nil, fmt.Errorf("the client's option %d: %w", kind, err)
	}
	return kind, data, nil
}

// answer one option. Negotiation ends where end is true.
func (n *negotiation) answer(ctx context.Context, kind uint32, data []byte) (s *session, end bool, err error) {
	if data == nil {
		return nil, kind == optExportName, n.reply(kind, errTooBig, nil)
	}
	switch kind {
	case optExportName:
		s, err := n.exportName(ctx, string(data))
		return s, true, err
	case optAbort:
		n.reply(kind, repAck, nil) // the client need not read it
		return nil, true, nil
	case optInfo, optGo:
		s, err := n.choose(ctx, kind, data)
		return s, s != nil, err
	case optStructuredReply:
		if len(data) != 0 {
			return nil, false, n.reply(kind, errInvalid, nil)
		}
		n.structured = true
		return nil, false, n.reply(kind, repAck, nil)
	case optListMeta, optSetMeta:
		return nil, false, n.meta(ctx, kind, data)
	case optList:
		return nil, false, n.reply(kind, errPolicy, []byte("exports are not listed"))
	}
	return nil, false, n.reply(kind, errUnsup, nil)
}

func (n *negotiation) reply(option, kind uint32, data []byte) error {
	out := binary.BigEndian.AppendUint64(nil, magicReply)
	out = binary.BigEndian.AppendUint32(out, option)
	out = binary.BigEndian.AppendUint32(out, kind)
	out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
	_, err := n.conn.Write(append(out, data...))
	return err
}

// exportName is the old way to choose: there is no answer but the export or the
// end of the connection.
func (n *negotiation) exportName(ctx context.Context, name string) (*session, error) {
	s, err := n.open(ctx, name)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint64(nil, uint64(s.export.Size()))
	out = binary.BigEndian.AppendUint16(out, s.flags())
	if !n.noZeroes {
		out = append(out, make([]byte, 124)...)
	}
	if _, err := n.conn.Write(out); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

// choose answers INFO and GO.
func (n *negotiation) choose(ctx context.Context, kind uint32, data []byte) (*session, error) {
	name, infos, ok := decodeChoice(data)
	if !ok {
		return nil, n.reply(kind, errInvalid, nil)
	}
	s, err := n.open(ctx, name)
	if err != nil {
		return nil, n.reply(kind, refusal(err), []byte(err.Error()))
	}
	err = n.reply(kind, repInfo, s.describe())
	if err == nil && slices.Contains(infos, infoBlockSize) {
		err = n.reply(kind, repInfo, s.blockSizes())
	}
	if err == nil {
		err = n.reply(kind, repAck, nil)
	}
	if err != nil || kind == optInfo {
		s.release()
		return nil, err
	}
	return s, nil
}

func (n *negotiation) open(ctx context.Context, name string) (*session, error) {
	export, release, err := n.exports.Open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("the export %.100q: %w", name, err)
	}
	return &session{
		name: name, export: export, release: release, conn: n.conn, structured: n.structured,
		mapped: n.isMapped && n.mapped == name, size: export.Size(), readOnly: export.ReadOnly(),
	}, nil
}

func refusal(err error) uint32 {
	if errors.Is(err, fs.ErrNotExist) {
		return errUnknown
	}
	return errPlat
}

// decodeChoice reads the data of INFO and GO.
func decodeChoice(data []byte) (name string, infos []uint16, ok bool) {
	name, data, ok = cutString(data)
	if !ok || len(name) > maxName || len(data) < 2 {
		return "", nil, false
	}
	count := int(binary.BigEndian.Uint16(data))
	data = data[2:]
	if len(data) != 2*count {
		return "", nil, false
	}
	for i := range count {
		infos = append(infos, binary.BigEndian.Uint16(data[2*i:]))
	}
	return name, infos, true
}

// cutString takes a string and its length before it off the data.
func cutString(data []byte) (s string, rest []byte, ok bool) {
	if len(data) < 4 {
		return "", nil, false
	}
	length := binary.BigEndian.Uint32(data)
	if uint64(length) > uint64(len(data)-4) {
		return "", nil, false
	}
	return string(data[4 : 4+length]), data[4+length:], true
}

// meta answers LIST_META_CONTEXT and SET_META_CONTEXT.
func (n *negotiation) meta(ctx context.Context, kind uint32, data []byte) error {
	name, queries, ok := decodeQueries(data)
	if !ok || kind == optSetMeta && !n.structured {
		return n.reply(kind, errInvalid, nil)
	}
	if kind == optSetMeta {
		n.mapped, n.isMapped = "", false
	}
	s, err := n.open(ctx, name)
	if err != nil {
		return n.reply(kind, refusal(err), []byte(err.Error()))
	}
	s.release()
	if selects(kind, queries) {
		id := uint32(0)
		if kind == optSetMeta {
			n.mapped, n.isMapped, id = name, true, allocationID
		}
		if err := n.reply(kind, repMeta, append(binary.BigEndian.AppendUint32(nil, id), baseAllocation...)); err != nil {
			return err
		}
	}
	return n.reply(kind, repAck, nil)
}

// selects tells whether the queries ask for base:allocation. A list that is asked
// for nothing, or for a namespace, tells what there is.
func selects(kind uint32, queries []string) bool {
	if kind == optListMeta && (len(queries) == 0 || slices.Contains(queries, "base:")) {
		return true
	}
	return slices.Contains(queries, baseAllocation)
}

func decodeQueries(data []byte) (name string, queries []string, ok bool) {
	name, data, ok = cutString(data)
	if !ok || len(name) > maxName || len(data) < 4 {
		return "", nil, false
	}
	count := binary.BigEndian.Uint32(data)
	data = data[4:]
	if uint64(count)*4 > uint64(len(data)) {
		return "", nil, false
	}
	for range count {
		var query string
		if query, data, ok = cutString(data); !ok {
			return "", nil, false
		}
		queries = append(queries, query)
	}
	return name, queries, len(data) == 0
}
