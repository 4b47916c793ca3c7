// Package snapshot keeps the bytes of snapshots in a blob store.
//
// A content (cloud.Content) is a sequence of blocks of 512 KiB, of which those
// that hold only zeroes are left out. Each block is a blob under the digest of its
// bytes, so that what two contents share is stored once; a manifest, itself a blob
// under its digest, lists the blocks by index. What a manifest names never
// changes, and a manifest is whole: no chain has to be walked, and contents are
// deleted in any order.
package snapshot

// BlockSize is the length of a block in bytes, that of the EBS direct API.
const BlockSize = 512 << 10
