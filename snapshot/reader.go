package snapshot

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"syscall"

	"mallee/cloud"
)

const (
	aheadBlocks = 8  // are read before they are asked for, when those before were
	aheadAtOnce = 16 // of all readers
)

// Reader gives the bytes of a content. It is an nbd.Export that can't be written
// to, and holds nothing that had to be closed.
type Reader struct {
	store    *Store
	manifest manifest
	last     atomic.Int64 // the block that was read last
}

// Read opens a content. It holds some 2.3 KiB of memory for each 32 GiB; blocks
// are in the store's cache.
func (s *Store) Read(ctx context.Context, c cloud.Content) (*Reader, error) {
	m, err := s.manifest(ctx, c)
	if err != nil {
		return nil, err
	}
	r := &Reader{store: s, manifest: m}
	r.last.Store(-2)
	return r, nil
}

// Size in bytes.
func (r *Reader) Size() int64 { return r.manifest.size }

// ReadOnly is true.
func (r *Reader) ReadOnly() bool { return true }

// ReadAt fills p with the bytes from offset. Beyond the size they are zero.
func (r *Reader) ReadAt(ctx context.Context, p []byte, offset int64) error {
	return eachBlock(p, offset, func(index int64, part []byte, from int) error {
		return r.readBlock(ctx, part, index, from)
	})
}

// eachBlock divides a range into those of blocks.
func eachBlock(p []byte, offset int64, do func(index int64, part []byte, from int) error) error {
	if offset < 0 {
		return fmt.Errorf("at the offset %d: %w", offset, syscall.EINVAL)
	}
	for len(p) > 0 {
		from := int(offset % BlockSize)
		part := p[:min(len(p), BlockSize-from)]
		if err := do(offset/BlockSize, part, from); err != nil {
			return err
		}
		p = p[len(part):]
		offset += int64(len(part))
	}
	return nil
}

// readBlock fills p with what begins at a byte of a block.
func (r *Reader) readBlock(ctx context.Context, p []byte, index int64, from int) error {
	d, err := r.Digest(ctx, index)
	if err != nil {
		return err
	}
	if r.last.Swap(index) == index-1 {
		r.readAhead(index + 1)
	}
	if d == (Digest{}) {
		clear(p)
		return nil
	}
	data, err := r.store.block(ctx, d)
	if err != nil {
		return err
	}
	copy(p, data[from:])
	return nil
}

// readAhead has the store fetch the next blocks, as far as their page is known.
// What goes wrong is found by who asks for them.
func (r *Reader) readAhead(index int64) {
	page := r.manifest.pages.find(uint32(index / pageBlocks))
	if page == (Digest{}) || r.store.ctx.Err() != nil {
		return
	}
	list, err := r.store.page(r.store.ctx, page)
	if err != nil {
		return
	}
	for i := index; i < index+aheadBlocks && i/pageBlocks == index/pageBlocks; i++ {
		if d := list.find(uint32(i % pageBlocks)); d != (Digest{}) && !r.store.cache.has(d) {
			r.store.ahead.TryGo(func() error { r.store.block(r.store.ctx, d); return nil })
		}
	}
}

// Digest of a block, zero for one of zeroes.
func (r *Reader) Digest(ctx context.Context, index int64) (Digest, error) {
	d := r.manifest.pages.find(uint32(index / pageBlocks))
	if index < 0 || index/pageBlocks >= pagesOf(r.manifest.size) || d == (Digest{}) {
		return Digest{}, nil
	}
	list, err := r.store.page(ctx, d)
	if err != nil {
		return Digest{}, err
	}
	return list.find(uint32(index % pageBlocks)), nil
}

// Extent tells of the block at offset whether it is a hole, and of a hole how far
// its page knows that it goes on.
func (r *Reader) Extent(ctx context.Context, offset int64) (length int64, hole bool) {
	index := offset / BlockSize
	rest := BlockSize - offset%BlockSize
	number := uint32(index / pageBlocks)
	page := r.manifest.pages.find(number)
	if page == (Digest{}) {
		return (index/pageBlocks+1)*pageBytes - offset, true
	}
	list, err := r.store.page(ctx, page)
	if err != nil {
		return rest, false // reading it tells why
	}
	next := int64(pageBlocks)
	if i := list.search(uint32(index % pageBlocks)); i < list.len() {
		n, _ := list.at(i)
		next = int64(n)
	}
	if next == index%pageBlocks {
		return rest, false
	}
	return (index/pageBlocks*pageBlocks+next)*BlockSize - offset, true
}

// WriteAt, Zero and Flush are refused: a content never changes.
func (r *Reader) WriteAt(context.Context, []byte, int64) error { return syscall.EROFS }

// Zero is refused.
func (r *Reader) Zero(context.Context, int64, int64) error { return syscall.EROFS }

// Flush is nothing to do.
func (r *Reader) Flush(context.Context) error { return nil }

// Blocks yields the blocks that aren't all zero, from an index on. After an error
// nothing more is yielded.
func (r *Reader) Blocks(ctx context.Context, from int64) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		from = max(from, 0)
		all := r.manifest.pages
		for i := all.search(uint32(min(from/pageBlocks, maxSize/pageBytes))); i < all.len(); i++ {
			number, page := all.at(i)
			list, err := r.store.page(ctx, page)
			if err != nil {
				yield(Block{}, err)
				return
			}
			for j := range list.len() {
				n, d := list.at(j)
				index := int64(number)*pageBlocks + int64(n)
				if index >= from && !yield(Block{index, d}, nil) {
					return
				}
			}
		}
	}
}
