package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"mallee/cloud"
)

const pagesAtOnce = 8 // that are put together

// Commit ends the writing and makes the content, durably. Committing again gives
// the same content, to a later program too. What fails can be tried again.
func (w *Writer) Commit(ctx context.Context) (cloud.Content, error) {
	w.gate.Lock()
	defer w.gate.Unlock()
	if w.closed {
		return cloud.Content{}, fmt.Errorf("snapshot %s: %w", w.name, errClosed)
	}
	if w.journal.header.Committed == (Digest{}) {
		if err := w.commit(ctx); err != nil {
			return cloud.Content{}, fmt.Errorf("committing the snapshot %s: %w", w.name, err)
		}
	}
	return cloud.Content{Manifest: w.journal.header.Committed.String(), Size: w.Size()}, nil
}

func (w *Writer) commit(ctx context.Context) error {
	if err := w.settleAll(ctx); err != nil {
		return err
	}
	c := &commitment{w: w, pages: make([]Digest, pagesOf(w.Size()))}
	defer func() { w.store.release(c.held...) }()
	if err := c.putPages(ctx); err != nil {
		return err
	}
	m := manifest{size: w.Size()}
	for number, d := range c.pages {
		if d != (Digest{}) {
			m.pages = m.pages.append(uint32(number), d)
		}
	}
	data := m.encode()
	d := Digest(sha256.Sum256(data))
	c.hold(d)
	if err := w.store.put(ctx, manifests, d, data); err != nil {
		return err
	}
	w.journal.header.Committed = d
	if err := w.journal.writeHeader(); err != nil {
		w.journal.header.Committed = Digest{}
		return err
	}
	return nil
}

// commitment is a commit in progress.
type commitment struct {
	w     *Writer
	pages []Digest // by number, zero for a page without blocks
	held  []Digest
}

func (c *commitment) hold(d Digest) {
	c.w.store.hold(d)
	c.held = append(c.held, d)
}

// putPages stores the pages that have changes, and takes over the parent's others.
func (c *commitment) putPages(ctx context.Context) error {
	if c.w.parent != nil {
		old := c.w.parent.manifest.pages
		for i := range old.len() {
			number, d := old.at(i)
			c.pages[number] = d
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(pagesAtOnce)
	err := c.w.journal.pages(func(number int64, slots []byte) error {
		list, err := c.merge(ctx, c.pages[number], slots)
		if err != nil || len(list) == 0 {
			c.pages[number] = Digest{}
			return err
		}
		data := encodePage(list)
		d := Digest(sha256.Sum256(data))
		c.pages[number] = d
		c.hold(d)
		group.Go(func() error { return c.w.store.put(ctx, pages, d, data) })
		return ctx.Err()
	})
	return errors.Join(err, group.Wait())
}

// merge is a page of the parent with what the slots say.
func (c *commitment) merge(ctx context.Context, old Digest, slots []byte) (entries, error) {
	var parent, list entries
	if old != (Digest{}) {
		var err error
		if parent, err = c.w.store.page(ctx, old); err != nil {
			return nil, err
		}
	}
	for i := range uint32(pageBlocks) {
		d := untouched
		if at := int64(i) * slotSize; at < int64(len(slots)) {
			d = Digest(slots[at : at+slotSize])
		}
		if d == untouched {
			d = parent.find(i)
		}
		if d.stored() {
			list = list.append(i, d)
		}
	}
	return list, nil
}
