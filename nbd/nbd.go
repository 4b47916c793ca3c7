// Package nbd serves bytes to QEMU over a unix socket, by the Network Block
// Device protocol (newstyle fixed negotiation, simple and structured replies;
// NetworkBlockDevice/nbd, doc/proto.md). It stands between a guest and its data only
// where bytes come from or go to the object store: a volume that still reads
// from its snapshot, and a snapshot that is being stored.
package nbd

import "context"

// Export is what a client sees as one block device. Methods may be called at
// once. Offsets and lengths are within Size. An error is EIO to the client,
// but for those that wrap syscall.Errno.
type Export interface {
	Size() int64
	ReadAt(ctx context.Context, p []byte, offset int64) error
	// WriteAt and Zero are durable when Flush returns. On a read-only export
	// they aren't called.
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
