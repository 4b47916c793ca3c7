package snapshot

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// maxFrames is how many blocks are kept written in part; then the oldest is stored.
const maxFrames = 64

// settleOldest stores what has been in a frame longest, while there is too much.
func (w *Writer) settleOldest(ctx context.Context) error {
	for {
		w.mu.Lock()
		if len(w.queue) <= maxFrames {
			w.mu.Unlock()
			return nil
		}
		oldest := w.queue[0]
		w.queue = w.queue[1:]
		w.mu.Unlock()
		if err := w.settle(ctx, oldest); err != nil {
			return err
		}
	}
}

// writePart changes a part of a block, in a frame; its lock is held.
func (w *Writer) writePart(ctx context.Context, index int64, p []byte, from int) error {
	slot, err := w.journal.slot(index)
	if err != nil {
		return fmt.Errorf("reading its journal: %w", err)
	}
	if number, ok := slot.frame(); ok {
		_, err := w.journal.file.WriteAt(p, w.journal.frameAt(number)+int64(from))
		return err
	}
	block := make([]byte, BlockSize)
	if err := w.load(ctx, index, slot, block, 0); err != nil {
		return err
	}
	copy(block[from:], p)
	number := w.takeFrame()
	if _, err := w.journal.file.WriteAt(block, w.journal.frameAt(number)); err != nil {
		w.giveFrame(number)
		return fmt.Errorf("writing its journal: %w", err)
	}
	if err := w.setSlot(index, frameSlot(number)); err != nil {
		w.giveFrame(number)
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(w.queue, index)
	return nil
}

func (w *Writer) takeFrame() uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last := len(w.free) - 1; last >= 0 {
		number := w.free[last]
		w.free = w.free[:last]
		return number
	}
	w.next++
	return w.next - 1
}

func (w *Writer) giveFrame(number uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.free = append(w.free, number)
}

// settle stores a block that is in a frame. Where that fails it is in the queue
// again.
func (w *Writer) settle(ctx context.Context, index int64) (err error) {
	lock := &w.blocks[index%int64(len(w.blocks))]
	lock.Lock()
	defer lock.Unlock()
	defer func() {
		if err != nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.queue = append(w.queue, index)
		}
	}()
	slot, err := w.journal.slot(index)
	if err != nil {
		return fmt.Errorf("reading its journal: %w", err)
	}
	if _, ok := slot.frame(); !ok {
		return nil
	}
	block := make([]byte, BlockSize)
	if err := w.load(ctx, index, slot, block, 0); err != nil {
		return err
	}
	return w.storeBlock(ctx, index, block)
}

// settleAll stores all blocks that are in frames.
func (w *Writer) settleAll(ctx context.Context) error {
	w.flushing.Lock()
	defer w.flushing.Unlock()
	w.mu.Lock()
	all := w.queue
	w.queue = nil
	w.mu.Unlock()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(blocksAtOnce)
	for _, index := range all {
		group.Go(func() error { return w.settle(ctx, index) })
	}
	return group.Wait()
}
