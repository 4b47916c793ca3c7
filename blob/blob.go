// Package blob is the seam to where immutable bytes are kept by key: snapshots'
// blocks, named by their digest, are the first to live there.
//
// A blob is written once, whole, and never changes. So a reader needs no lock, a
// writer may repeat itself after a crash, and any number of caches may hold a
// copy. What is wished of a store beyond that (retries, limits, counting) wraps
// the same interface.
//
// Every implementation passes blobtest.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
)

// Store keeps blobs. Its methods may be called from many goroutines; each
// honours its context, and keys are those that CheckKey accepts.
type Store interface {
	// Put stores the bytes of r under key and returns when they are durable.
	// Readers see all of the blob or none of it. Where the key holds the same
	// bytes already nothing happens; where it holds others they stay and the
	// error is ErrConflict. On any error nothing of r is visible or left over.
	Put(ctx context.Context, key string, r io.Reader) error

	// Get opens length bytes of a blob from offset, all that follow if length
	// is negative. What lies beyond the end is left out. The caller closes the
	// reader, which stays valid when the blob is deleted. The error is
	// fs.ErrNotExist if there is no such blob; never where the store itself is away,
	// as a disk that is not mounted.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)

	// Has reports whether a blob is there. One that is there is durable, unless it
	// is being put at the same time or its Put failed.
	Has(ctx context.Context, key string) (bool, error)

	// Delete removes a blob, durably. That it isn't there is no error.
	Delete(ctx context.Context, key string) error

	// List yields the blobs whose key begins with prefix, in ascending order
	// of their keys' bytes. Blobs put or deleted meanwhile may be missed. After
	// an error, which comes with an empty Info, nothing more is yielded.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
}

// Info describes a blob.
type Info struct {
	Key  string
	Size int64 // bytes
}

// ErrConflict is what Put finds where the key holds other bytes.
var ErrConflict = errors.New("the key holds another blob")

// ErrDamaged is what Get finds where a store can tell that what lies there was
// never put: trying again does not mend it.
var ErrDamaged = errors.New("it is damaged")

// What every store behind this seam can take, in bytes.
const (
	longestKey  = 512
	longestPart = 250
)

// CheckKey returns an error if key can't name a blob: a key is one or more
// parts divided by slashes, of letters, digits, '-', '_' and '.', none of which
// begins with a dot or has more than 250 bytes, and of at most 512 bytes in all.
func CheckKey(key string) error {
	if len(key) > longestKey {
		return fmt.Errorf("blob key of %d bytes: more than %d: %w", len(key), longestKey, fs.ErrInvalid)
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part[0] == '.' || len(part) > longestPart || strings.ContainsFunc(part, strange) {
			return fmt.Errorf("blob key %q: not parts of letters, digits, '-', '_' and '.' divided by slashes: %w", key, fs.ErrInvalid)
		}
	}
	return nil
}

func strange(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.", r))
}
