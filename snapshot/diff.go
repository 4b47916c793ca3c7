package snapshot

import (
	"context"
	"iter"

	"mallee/cloud"
)

// Change is a block in which two contents differ. A zero digest is a block of
// zeroes, or one beyond the content's end.
type Change struct {
	Index         int64
	First, Second Digest
}

// Diff yields the blocks in which two contents differ, from an index on. Pages
// that they share aren't read. After an error nothing more is yielded.
func (s *Store) Diff(ctx context.Context, first, second cloud.Content, from int64) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		a, err := s.manifest(ctx, first)
		if err == nil {
			var b manifest
			if b, err = s.manifest(ctx, second); err == nil {
				err = s.diff(ctx, a.pages, b.pages, max(from, 0), yield)
			}
		}
		if err != nil {
			yield(Change{}, err)
		}
	}
}

// diff stops without an error where no more is wanted.
func (s *Store) diff(ctx context.Context, a, b entries, from int64, yield func(Change, error) bool) error {
	for number, pair := range merge(a, b, uint32(min(from/pageBlocks, maxSize/pageBytes))) {
		if pair[0] == pair[1] {
			continue
		}
		var lists [2]entries
		for i, page := range pair {
			if page == (Digest{}) {
				continue
			}
			var err error
			if lists[i], err = s.page(ctx, page); err != nil {
				return err
			}
		}
		for n, pair := range merge(lists[0], lists[1], 0) {
			index := int64(number)*pageBlocks + int64(n)
			if pair[0] != pair[1] && index >= from && !yield(Change{index, pair[0], pair[1]}, nil) {
				return nil
			}
		}
	}
	return nil
}

// merge walks two lists side by side, from a number on.
func merge(a, b entries, from uint32) iter.Seq2[uint32, [2]Digest] {
	return func(yield func(uint32, [2]Digest) bool) {
		i, j := a.search(from), b.search(from)
		for i < a.len() || j < b.len() {
			var n, m uint32
			var pair [2]Digest
			if i < a.len() {
				n, pair[0] = a.at(i)
			}
			if j < b.len() {
				m, pair[1] = b.at(j)
			}
			switch {
			case j == b.len() || i < a.len() && n < m:
				pair[1] = Digest{}
				i++
			case i == a.len() || m < n:
				n, pair[0] = m, Digest{}
				j++
			default:
				i, j = i+1, j+1
			}
			if !yield(n, pair) {
				return
			}
		}
	}
}
