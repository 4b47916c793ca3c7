package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
)

const (
	// filterOrder makes a filter of 64 MiB, in which the blocks of 16 TiB (2^25)
	// keep one in 400 of what is not used, until a later sweep.
	filterOrder = 29
	// maxVisited pages are remembered to be read once only, in some 50 MiB.
	maxVisited = 1 << 20
)

// Swept counts what a sweep deleted.
type Swept struct {
	Manifests, Pages, Blocks int
	Bytes                    int64
}

// Sweep deletes the blobs that no content uses. Live yields the manifests
// (cloud.Content.Manifest) of all contents that are recorded or read; it is read after the
// sweep began to protect what writers do, so that a content which is recorded before its writer
// is removed is never missed. Where a live manifest can't be read, or live fails, nothing is deleted.
// A crash leaves things to the next sweep. Memory is bounded whatever there is; a
// few blobs may be kept by chance until another sweep.
func (s *Store) Sweep(ctx context.Context, live iter.Seq2[string, error]) (Swept, error) {
	marks, err := s.beginSweep()
	if err != nil {
		return Swept{}, err
	}
	defer s.endSweep()
	m := s.newMarker(marks)
	if err := m.journals(ctx); err != nil {
		return Swept{}, fmt.Errorf("finding what snapshots use: %w", err)
	}
	for name, err := range live {
		if err == nil {
			err = m.named(ctx, name)
		}
		if err != nil {
			return Swept{}, fmt.Errorf("finding what snapshots use: %w", err)
		}
	}
	var swept Swept
	for _, f := range []struct {
		folder string
		count  *int
	}{{manifests, &swept.Manifests}, {pages, &swept.Pages}, {blocks, &swept.Blocks}} { // no manifest is there without all that it names
		if err := s.deleteUnmarked(ctx, marks, f.folder, f.count, &swept.Bytes); err != nil {
			return swept, err
		}
	}
	return swept, nil
}

// beginSweep protects what is being put from now on, and what already was and no
// journal names yet.
func (s *Store) beginSweep() (*filter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.marks != nil {
		return nil, errors.New("a sweep of snapshots runs already")
	}
	s.marks = newFilter(filterOrder)
	for d := range s.held {
		s.marks.add(d)
	}
	return s.marks, nil
}

func (s *Store) endSweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = nil
}

func (s *Store) sweepMarks() *filter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marks
}

func (s *Store) deleteUnmarked(ctx context.Context, marks *filter, folder string, count *int, bytes *int64) error {
	for info, err := range s.blobs.List(ctx, folder+"/") {
		if err != nil {
			return fmt.Errorf("sweeping snapshots: %w", err)
		}
		d, err := ParseDigest(path.Base(info.Key))
		if err != nil || key(folder, d) != info.Key {
			continue // not ours
		}
		gone, err := s.deleteUnless(ctx, marks, info.Key, d)
		if err != nil {
			return fmt.Errorf("sweeping snapshots: %w", err)
		}
		if gone {
			*count++
			*bytes += info.Size
		}
	}
	return nil
}

// deleteUnless deletes a blob that isn't marked, while nobody may find it there
// who has not marked it yet.
func (s *Store) deleteUnless(ctx context.Context, marks *filter, name string, d Digest) (gone bool, err error) {
	lock := &s.deleting[d[0]]
	lock.Lock()
	defer lock.Unlock()
	if marks.has(d) {
		return false, nil
	}
	return true, s.blobs.Delete(ctx, name)
}

// marker marks what contents and journals use.
type marker struct {
	store   *Store
	marks   *filter
	visited map[Digest]bool // manifests and pages
}

func (s *Store) newMarker(marks *filter) *marker {
	return &marker{store: s, marks: marks, visited: map[Digest]bool{}}
}

func (m *marker) named(ctx context.Context, name string) error {
	d, err := ParseDigest(name)
	if err != nil {
		return err
	}
	return m.content(ctx, d)
}

// visit tells whether something is seen for the first time.
func (m *marker) visit(d Digest) bool {
	m.marks.add(d)
	if m.visited[d] {
		return false
	}
	if len(m.visited) >= maxVisited {
		clear(m.visited)
	}
	m.visited[d] = true
	return true
}

// content marks a manifest and all under it.
func (m *marker) content(ctx context.Context, d Digest) error {
	if !m.visit(d) {
		return nil
	}
	manifest, err := m.store.manifestOf(ctx, d)
	if err != nil {
		return err
	}
	for i := range manifest.pages.len() {
		_, page := manifest.pages.at(i)
		if err := m.page(ctx, page); err != nil {
			return err
		}
	}
	return nil
}

// page is read past the cache, which readers need more.
func (m *marker) page(ctx context.Context, d Digest) error {
	if !m.visit(d) {
		return nil
	}
	list, err := m.store.readPage(ctx, d)
	if err != nil {
		return err
	}
	for i := range list.len() {
		_, block := list.at(i)
		m.marks.add(block)
	}
	return nil
}

// journals marks what writers use, those too that are not open.
func (m *marker) journals(ctx context.Context) error {
	names, err := m.store.Journals()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := m.journal(ctx, journalPath(m.store.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func (m *marker) journal(ctx context.Context, path string) error {
	j, err := openJournal(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile: its content was recorded before, or given up
	}
	if err != nil {
		return err
	}
	defer j.file.Close()
	if j.header.Committed != (Digest{}) {
		return m.content(ctx, j.header.Committed)
	}
	if j.header.Parent != (Digest{}) && j.header.Full == 0 {
		if err := m.content(ctx, j.header.Parent); err != nil {
			return err
		}
	}
	return j.each(func(_ int64, d Digest) error {
		if d.stored() {
			m.marks.add(d)
		}
		return ctx.Err()
	})
}
