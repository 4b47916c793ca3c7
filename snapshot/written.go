package snapshot

import (
	"context"
	"fmt"
	"iter"
)

// Written yields the blocks that were written whole so far, in order, with the
// digests of their bytes, also of those that are zero. After an error nothing
// more is yielded.
func (w *Writer) Written(ctx context.Context) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		for index := range (w.Size() + BlockSize - 1) / BlockSize {
			slot, err := w.journal.slot(index)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(Block{}, fmt.Errorf("reading the journal of the snapshot %s: %w", w.name, err))
				return
			}
			if _, part := slot.frame(); slot == untouched || part {
				continue
			}
			if !yield(Block{index, slot}, nil) {
				return
			}
		}
	}
}
