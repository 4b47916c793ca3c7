package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"mallee/cloud"
	"mallee/durable"
)

const blocksAtOnce = 8 // of one write

// Writer takes the bytes of a content that comes to be. It is an nbd.Export.
//
// Whole blocks are stored as they are written, and lost only with the disk. What
// is written in part is kept in the journal and stored by Flush, by Commit, or
// when there is much of it; it survives the program, but the loss of power only
// after Flush.
type Writer struct {
	store   *Store
	name    string
	journal *journal
	parent  *Reader // nil if there is none, or it counts no more
	done    atomic.Int64

	gate   sync.RWMutex // held for reading by each operation; for writing by those that end the others, and guards closed, parent and journal.header
	closed bool

	blocks   [256]sync.Mutex // by index; held while a block's slot and frame change
	flushing sync.Mutex      // held while Flush waits for all frames

	mu    sync.Mutex // guards what follows
	queue []int64    // blocks in frames, the oldest first; some may be in none any more
	free  []uint32   // frames
	next  uint32     // the first frame that was never used
}

// Write opens the writer of a name ([a-z0-9-]+): the one whose journal is there,
// or a new one of a content of size bytes. Blocks that are never written are those of the
// parent, or zero where there is none; the parent must stay live until the writer is removed or
// committed. A journal of another size or parent is an error; where no parent is
// named that of the journal counts, since it was what the blocks there are changes of.
func (s *Store) Write(ctx context.Context, name string, size int64, parent *cloud.Content) (*Writer, error) {
	w := &Writer{store: s, name: name}
	if err := s.enter(w); err != nil {
		return nil, err
	}
	if err := w.open(ctx, size, parent); err != nil {
		s.leave(w)
		return nil, fmt.Errorf("opening the writer of the snapshot %s: %w", name, err)
	}
	return w, nil
}

func (s *Store) enter(w *Writer) error {
	if !validName.MatchString(w.name) {
		return fmt.Errorf("snapshot writer %q: want 1 to 200 of a-z, 0-9 and -", w.name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writers[w.name] != nil {
		return fmt.Errorf("the writer of the snapshot %s is open", w.name)
	}
	s.writers[w.name] = w
	return nil
}

func (s *Store) leave(w *Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.writers, w.name)
}

func (w *Writer) open(ctx context.Context, size int64, parent *cloud.Content) (err error) {
	wish, err := headerOf(size, parent)
	if err != nil {
		return err
	}
	w.journal, err = openJournal(journalPath(w.store.dir, w.name), os.O_RDWR)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		w.journal, err = makeJournal(w.store.dir, w.name, wish)
	}
	if err != nil {
		return err
	}
	if err = w.resume(ctx, wish); err != nil {
		err = errors.Join(err, w.journal.file.Close())
		if fresh {
			err = errors.Join(err, removeIfThere(journalPath(w.store.dir, w.name)))
		}
	}
	return err
}

func headerOf(size int64, parent *cloud.Content) (header, error) {
	h := header{Size: size}
	if size <= 0 || size > maxSize {
		return h, fmt.Errorf("%d bytes: want 1 to %d", size, int64(maxSize))
	}
	if parent == nil {
		return h, nil
	}
	if parent.Size > size {
		return h, fmt.Errorf("its parent has %d bytes, more than %d", parent.Size, size)
	}
	d, err := ParseDigest(parent.Manifest)
	if err == nil && d == (Digest{}) {
		err = fmt.Errorf("its parent %s is no content", d)
	}
	h.Parent, h.ParentSize = d, parent.Size
	return h, err
}

// resume goes on where the journal stands.
func (w *Writer) resume(ctx context.Context, wish header) error {
	h := &w.journal.header
	switch {
	case h.Size != wish.Size:
		return fmt.Errorf("its journal is of %d bytes, not %d", h.Size, wish.Size)
	case wish.Parent != (Digest{}) && h.Parent != wish.Parent:
		return fmt.Errorf("its journal has the parent %s, not %s", h.Parent, wish.Parent)
	case h.Committed != (Digest{}):
		return nil
	}
	if err := w.findParent(ctx); err != nil {
		return err
	}
	return w.journal.each(func(index int64, d Digest) error {
		w.done.Add(BlockSize)
		if number, ok := d.frame(); ok {
			w.queue = append(w.queue, index)
			w.next = max(w.next, number+1)
		}
		return nil
	})
}

// findParent opens the parent and keeps it from a sweep that runs already; one
// that begins later finds it in the journal.
func (w *Writer) findParent(ctx context.Context) error {
	h := w.journal.header
	if h.Parent == (Digest{}) || h.Full != 0 {
		return nil
	}
	parent, err := w.store.Read(ctx, cloud.Content{Manifest: h.Parent.String(), Size: h.ParentSize})
	if err != nil {
		return fmt.Errorf("its parent: %w", err)
	}
	w.parent = parent
	if marks := w.store.sweepMarks(); marks != nil {
		return w.store.newMarker(marks).content(ctx, h.Parent)
	}
	return nil
}

// Size in bytes.
func (w *Writer) Size() int64 { return w.journal.header.Size }

// ReadOnly is false.
func (w *Writer) ReadOnly() bool { return false }

// Done is how many bytes of the content were written so far, in whole blocks and
// by earlier programs too.
func (w *Writer) Done() int64 { return w.done.Load() }

// enter begins an operation that changes nothing (of the content) or something;
// leave ends it.
func (w *Writer) enter(change bool) error {
	w.gate.RLock()
	switch {
	case w.closed:
		w.gate.RUnlock()
		return fmt.Errorf("snapshot %s: %w", w.name, errClosed)
	case change && w.journal.header.Committed != (Digest{}):
		w.gate.RUnlock()
		return fmt.Errorf("the snapshot %s is committed: %w", w.name, syscall.EPERM)
	}
	return nil
}

func (w *Writer) leave() { w.gate.RUnlock() }

// WriteAt writes p at offset.
func (w *Writer) WriteAt(ctx context.Context, p []byte, offset int64) error {
	if err := w.enter(true); err != nil {
		return err
	}
	defer w.leave()
	if offset < 0 || offset > w.Size() || int64(len(p)) > w.Size()-offset {
		return fmt.Errorf("writing %d bytes at %d of %d: %w", len(p), offset, w.Size(), syscall.EINVAL)
	}
	if offset%BlockSize+int64(len(p)) <= BlockSize {
		return w.fail(w.writeBlock(ctx, offset/BlockSize, p, int(offset%BlockSize)))
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(blocksAtOnce)
	err := eachBlock(p, offset, func(index int64, part []byte, from int) error {
		group.Go(func() error { return w.writeBlock(ctx, index, part, from) })
		return nil
	})
	return w.fail(errors.Join(err, group.Wait()))
}

func (w *Writer) fail(err error) error {
	if err != nil {
		return fmt.Errorf("writing the snapshot %s: %w", w.name, err)
	}
	return nil
}

// writeBlock writes p at a byte of a block.
func (w *Writer) writeBlock(ctx context.Context, index int64, p []byte, from int) error {
	if err := w.writeLocked(ctx, index, p, from); err != nil {
		return err
	}
	return w.settleOldest(ctx)
}

func (w *Writer) writeLocked(ctx context.Context, index int64, p []byte, from int) error {
	lock := &w.blocks[index%int64(len(w.blocks))]
	lock.Lock()
	defer lock.Unlock()
	end := int(min(BlockSize, w.Size()-index*BlockSize))
	switch {
	case from == 0 && len(p) == BlockSize:
		return w.storeBlock(ctx, index, p)
	case from == 0 && len(p) == end:
		whole := make([]byte, BlockSize)
		copy(whole, p)
		return w.storeBlock(ctx, index, whole)
	}
	return w.writePart(ctx, index, p, from)
}

// storeBlock makes a whole block durable; its lock is held.
func (w *Writer) storeBlock(ctx context.Context, index int64, block []byte) error {
	if bytes.Equal(block, zeroes[:]) {
		return w.setSlot(index, zeroBlock)
	}
	d := Digest(sha256.Sum256(block))
	w.store.hold(d)
	defer w.store.release(d)
	if err := w.store.put(ctx, blocks, d, block); err != nil {
		return err
	}
	return w.setSlot(index, d)
}

// setSlot gives back the frame that the block was in; its lock is held.
func (w *Writer) setSlot(index int64, d Digest) error {
	old, err := w.journal.slot(index)
	if err == nil {
		err = w.journal.setSlot(index, d)
	}
	if err != nil {
		return fmt.Errorf("writing its journal: %w", err)
	}
	if old == untouched {
		w.done.Add(BlockSize)
	}
	if number, ok := old.frame(); ok {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.free = append(w.free, number)
	}
	return nil
}

// load fills p with what the block of a slot has from a byte on.
func (w *Writer) load(ctx context.Context, index int64, slot Digest, p []byte, from int) error {
	number, frame := slot.frame()
	switch {
	case frame:
		if _, err := w.journal.file.ReadAt(p, w.journal.frameAt(number)+int64(from)); err != nil {
			return fmt.Errorf("reading its journal: %w", err)
		}
		return nil
	case slot == untouched && w.parent != nil:
		return w.parent.readBlock(ctx, p, index, from)
	case slot == untouched || slot == zeroBlock:
		clear(p)
		return nil
	}
	data, err := w.store.block(ctx, slot)
	if err == nil {
		copy(p, data[from:])
	}
	return err
}

// ReadAt fills p with the bytes from offset, as they are by now.
func (w *Writer) ReadAt(ctx context.Context, p []byte, offset int64) error {
	if err := w.enter(false); err != nil {
		return err
	}
	defer w.leave()
	if offset < 0 || offset > w.Size() || int64(len(p)) > w.Size()-offset {
		return fmt.Errorf("reading %d bytes at %d of %d: %w", len(p), offset, w.Size(), syscall.EINVAL)
	}
	return eachBlock(p, offset, func(index int64, part []byte, from int) error {
		lock := &w.blocks[index%int64(len(w.blocks))]
		lock.Lock()
		defer lock.Unlock()
		slot, err := w.journal.slot(index)
		if err != nil {
			return fmt.Errorf("reading the journal of the snapshot %s: %w", w.name, err)
		}
		return w.load(ctx, index, slot, part, from)
	})
}

// Zero makes a range read as zeroes.
func (w *Writer) Zero(ctx context.Context, offset, length int64) error {
	if err := w.enter(true); err != nil {
		return err
	}
	defer w.leave()
	if offset < 0 || length < 0 || offset > w.Size() || length > w.Size()-offset {
		return fmt.Errorf("zeroing %d bytes at %d of %d: %w", length, offset, w.Size(), syscall.EINVAL)
	}
	for length > 0 && ctx.Err() == nil {
		from := offset % BlockSize
		n := min(length, BlockSize-from)
		if err := w.writeBlock(ctx, offset/BlockSize, zeroes[:n], int(from)); err != nil {
			return w.fail(err)
		}
		offset, length = offset+n, length-n
	}
	return ctx.Err()
}

// Flush makes durable what was written.
func (w *Writer) Flush(ctx context.Context) error {
	if err := w.enter(false); err != nil {
		return err
	}
	defer w.leave()
	err := w.settleAll(ctx)
	if err == nil {
		err = w.journal.sync()
	}
	return w.fail(err)
}

// Extent tells of the block at offset whether it is a hole.
func (w *Writer) Extent(ctx context.Context, offset int64) (length int64, hole bool) {
	rest := BlockSize - offset%BlockSize
	if w.enter(false) != nil {
		return rest, false
	}
	defer w.leave()
	slot, err := w.journal.slot(offset / BlockSize)
	switch {
	case err != nil:
		return rest, false
	case slot == untouched && w.parent != nil:
		length, hole := w.parent.Extent(ctx, offset)
		return min(length, rest), hole
	}
	return rest, slot == untouched || slot == zeroBlock
}

// Full says that everything is written anew: from now on blocks that were never
// written are zero, and the parent counts no more. It is durable. Blocks of
// which a part was written before keep the parent's rest until that is written too.
func (w *Writer) Full(context.Context) error {
	w.gate.Lock()
	defer w.gate.Unlock()
	switch {
	case w.closed:
		return fmt.Errorf("snapshot %s: %w", w.name, errClosed)
	case w.journal.header.Full != 0 || w.journal.header.Committed != (Digest{}):
		return nil
	}
	w.journal.header.Full = 1
	if err := w.journal.writeHeader(); err != nil {
		w.journal.header.Full = 0
		return w.fail(err)
	}
	w.parent = nil
	return nil
}

// Close ends the writer in this program, and leaves its journal.
func (w *Writer) Close() error {
	w.gate.Lock()
	defer w.gate.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	err := w.journal.file.Close()
	w.store.leave(w)
	return w.fail(err)
}

// Remove ends the writer and its journal, durably: after Commit when the content
// is recorded as live, or else to give the content up. Blocks that nothing uses go with the
// next Sweep.
func (w *Writer) Remove() error {
	if err := w.Close(); err != nil {
		return err
	}
	return w.store.RemoveJournal(w.name)
}

// RemoveJournal removes the journal of a writer that isn't open. That there is
// none is no error.
func (s *Store) RemoveJournal(name string) error {
	w := &Writer{store: s, name: name}
	if err := s.enter(w); err != nil {
		return err
	}
	defer s.leave(w)
	err := removeIfThere(journalPath(s.dir, name))
	if err == nil {
		err = durable.SyncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("removing the journal of the snapshot %s: %w", name, err)
	}
	return nil
}
