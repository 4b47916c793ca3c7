// Package snapshot keeps the bytes of snapshots in a blob store.
//
// A content (cloud.Content) is a sequence of blocks of 512 KiB, of which those
// that hold only zeroes are left out. Each block is a blob under the digest of its
// bytes (SHA-256), so that what two contents share is stored once. A page, itself a blob
// under its digest, lists the blocks of 512 MiB, and a manifest the pages. What a manifest names never
// changes, and a manifest is whole: no chain has to be walked, and contents are
// deleted in any order.
//
//	manifests/ab/ab…   size; number and digest of each page that has blocks
//	pages/cd/cd…       number and digest of each block that isn't all zero
//	blocks/ef/ef…      524288 bytes
//
// Numbers are big-endian, 32 bits wide, and ascend; a content has exactly one
// manifest. The manifest of 16 TiB has 1.1 MiB and is all that a reader holds of
// it; two contents share the pages of what they have in common.
//
// A Reader gives the bytes of a content. Everything is compared with its digest as it
// is read: a blob that is missing or damaged is an error that names it, and is
// cloud.ErrDamaged, and never zeroes; one that can't be read now is another. A Writer takes the bytes of a content that comes to be, perhaps as
// changes of an older one (its parent):
//
//	Write ──▶ open ──Commit──▶ committed ──Remove──▶ gone
//	 ▲          │ └───────────Remove────────────────▶ gone
//	 └─ Close ──┴─ a crash of the program
//
// It keeps a journal, a file, of the blocks that it has stored, and goes on with
// it when it is opened again by its name. Its blocks are durable before the journal
// names them, and the journal is when Flush returns. A committed writer still
// has its journal: until Remove, which the caller calls when the content is recorded elsewhere, it keeps
// the content from the sweeper.
//
// Sweep deletes what no content that is live uses. Writers may go on beside it: what a journal
// names, or names as parent, is live, and so is what is put while a sweep runs. What a Reader
// reads must be live by its caller's word.
package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// BlockSize is the length of a block in bytes, that of the EBS direct API. The
// last block of a content is filled up with zeroes.
const BlockSize = 512 << 10

// Digest is the SHA-256 of a blob. The zero Digest stands for a block of zeroes,
// which isn't stored.
type Digest [sha256.Size]byte

// String is in lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads what String writes.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) {
		return d, fmt.Errorf("digest %.80q: want %d hex digits", s, 2*len(d))
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return d, fmt.Errorf("digest %.80q: %w", s, err)
	}
	return d, nil
}

// Block is one block of a content.
type Block struct {
	Index  int64 // its offset divided by BlockSize
	Digest Digest
}
