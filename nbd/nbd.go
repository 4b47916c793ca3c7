// Package nbd serves bytes to QEMU over a unix socket, by the Network Block
// Device protocol (newstyle fixed negotiation, simple and structured replies;
// NetworkBlockDevice/nbd, doc/proto.md). It stands between a guest and its data only
// where bytes come from or go to the object store: a volume that still reads
// from its snapshot, and a snapshot that is being stored.
//
// A connection goes through two phases:
//
//	negotiation   the client asks, one option after the other, for structured
//	              replies, for the map of what is allocated, and for an export
//	transmission  requests, served at once and answered as they are done
//
// What is offered: READ (in pieces, holes told as such, where structured replies
// were agreed), WRITE, FLUSH, FUA, TRIM, WRITE_ZEROES and BLOCK_STATUS with
// base:allocation. TLS is not: the socket is for its owner (mode 0600). Exports
// aren't listed: their names are known to those who need them.
//
// What can go wrong: an export fails, and the client sees EIO and may ask again;
// the server is closed or dies, and a client that was told to reconnect
// (reconnect-delay in QEMU) goes on when a server listens at the same path; a
// client breaks the protocol, and loses its connection. No client can make the
// server hold more than maxPayload bytes and maxRequests requests for it.
package nbd

import (
	"context"
	"fmt"
	"net/url"
	"strings"
)

// Export is what a client sees as one block device. Methods may be called at
// once. Offsets and lengths are within Size. An error is EIO to the client,
// but for those that wrap syscall.Errno.
type Export interface {
	Size() int64
	ReadAt(ctx context.Context, p []byte, offset int64) error
	// WriteAt and Zero are durable when Flush returns. On a read-only export
	// they aren't called. WriteAt must not keep p.
	WriteAt(ctx context.Context, p []byte, offset int64) error
	Zero(ctx context.Context, offset, length int64) error
	Flush(ctx context.Context) error
	ReadOnly() bool
	// Extent says, for a range that begins at offset, whether it reads as zeroes
	// without being stored, and for how many bytes at least that holds.
	Extent(ctx context.Context, offset int64) (length int64, hole bool)
}

// Exports finds an export by its name; fs.ErrNotExist where there is none. The
// release is called when the client has gone.
type Exports interface {
	Open(ctx context.Context, name string) (e Export, release func(), err error)
}

// URI names an export at a socket, as QEMU and libnbd take it.
func URI(socket, export string) string {
	escaped := strings.ReplaceAll(url.QueryEscape(socket), "+", "%20") // QEMU takes a plus for a plus
	u := url.URL{Scheme: "nbd+unix", Path: "/" + export, RawQuery: "socket=" + escaped}
	return u.String()
}

// ParseURI reads what URI writes.
func ParseURI(s string) (socket, export string, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", "", fmt.Errorf("the address of a block device: %w", err)
	}
	query, err := url.ParseQuery(u.RawQuery)
	export, slash := strings.CutPrefix(u.Path, "/")
	if err != nil || u.Scheme != "nbd+unix" || u.Host != "" || !slash || len(query) != 1 || len(query["socket"]) != 1 {
		return "", "", fmt.Errorf("the address of a block device %.200q: want nbd+unix:///EXPORT?socket=PATH", s)
	}
	return query["socket"][0], export, nil
}
