package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/go-memdb"
)

// group is the Updates of this process that are committed together. While one
// commit is under way the next Updates queue; then each runs on what those
// before it wrote, and the last of the queue commits for all:
//
//	Update 1   run ─ commit ──────────▶ return
//	Update 2         (queue)           run ─ (wait) ───────────▶ return
//	Update 3         (queue)                run ─ commit ──────▶ return
//
// So writers of one process never overtake each other, however many meet in
// one record (a node's room, an account's quota), and share the disk's syncs.
// Only other processes can overtake a group; then each of it runs again.
type group struct {
	base    *memdb.MemDB // the mirror at rev with what members wrote; nobody else's
	rev     int64
	seen    map[place]*record // as in the mirror; nil for an absent one
	wrote   map[place][]byte  // nil for a deletion
	bytes   int               // of what was written
	fence   *fence            // of all members
	members int               // that wrote

	done    chan struct{} // closed when the two below are set
	outcome outcome
	err     error
}

// Bounds of a group of several; one Update alone may go to etcd's own.
const (
	groupRecords = 2048 // written or looked up
	groupBytes   = 1 << 20
)

// commitTimeout bounds what a commit may take. It is much longer than etcd's
// own patience.
const commitTimeout = 30 * time.Second

func (m *mirror) group(f *fence) *group {
	now := m.present.Load()
	return &group{
		base: now.db.Snapshot(), rev: now.rev, fence: f,
		seen: map[place]*record{}, wrote: map[place][]byte{}, done: make(chan struct{}),
	}
}

// fits says whether what a Tx did may join what is there.
func (g *group) fits(tx *Tx) bool {
	return g.members == 0 || len(g.seen)+len(tx.seen) <= groupRecords && g.bytes+tx.bytes <= groupBytes
}

// add takes in what a Tx wrote, for the next member to see.
func (g *group) add(tx *Tx) {
	for p, rec := range tx.seen {
		if _, ok := g.seen[p]; !ok { // else an earlier member's rec is the mirror's
			g.seen[p] = rec
		}
	}
	maps.Copy(g.wrote, tx.wrote)
	g.bytes += tx.bytes
	g.members++
	tx.db.Commit()
}

// plan is what to ask of etcd; no writes where nothing would change.
func (g *group) plan() txn {
	t := txn{base: g.rev, fence: g.fence}
	for p, data := range g.wrote {
		if changes(g.seen[p], data) {
			t.writes = append(t.writes, write{p.table.path(p.key), data})
		}
	}
	for p, rec := range g.seen {
		c := compare{key: p.table.path(p.key)}
		if rec != nil {
			c.rev = rec.rev
		}
		t.compares = append(t.compares, c)
	}
	slices.SortFunc(t.writes, func(a, b write) int { return cmp.Compare(a.key, b.key) })
	slices.SortFunc(t.compares, func(a, b compare) int { return cmp.Compare(a.key, b.key) })
	return t
}

// join runs fn as a member of the open group. What it returns stands once the
// group is committed; a nil group says that it stands at once.
func (s *Store) join(ctx context.Context, f *fence, fn func(*Tx) error) (*group, error) {
	s.queue.Add(1)
	s.turn.Lock()
	defer s.turn.Unlock()
	s.queue.Add(-1)
	defer s.leave()
	for {
		if err := s.Err(); err != nil {
			return nil, err
		}
		if s.open != nil && s.open.fence != f {
			s.commit()
		}
		if s.open == nil {
			s.open = s.mirror.group(f)
		}
		g := s.open
		err := g.run(ctx, fn)
		if errors.Is(err, errNoRoom) {
			s.commit()
			continue
		}
		if g.members == 0 {
			return nil, err
		}
		return g, err
	}
}

// errNoRoom asks to run again in a group that is not so full.
var errNoRoom = errors.New("no room in the group")

// run runs fn and takes in what it wrote. A fn that fails, or changes nothing,
// leaves no trace.
func (g *group) run(ctx context.Context, fn func(*Tx) error) error {
	tx := g.begin()
	defer tx.db.Abort() // in vain after add
	err := fn(tx)
	tx.check()
	switch {
	case err != nil:
		return err
	case tx.err != nil:
		return tx.err
	case ctx.Err() != nil:
		return fmt.Errorf("state: update: %w", context.Cause(ctx))
	case !tx.changed():
		return nil
	case !g.fits(tx):
		return errNoRoom
	}
	g.add(tx)
	return nil
}

// leave commits the open group unless somebody is about to join it.
func (s *Store) leave() {
	if s.open != nil && s.queue.Load() == 0 {
		s.commit()
	}
}

// commit sends the open group to etcd and tells its members; turn is held.
func (s *Store) commit() {
	g := s.open
	s.open = nil
	g.err = fmt.Errorf("state: %w", ErrUncertain) // if the backend panics
	defer close(g.done)
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	g.outcome, g.err = s.send(ctx, g)
}

func (s *Store) send(ctx context.Context, g *group) (outcome, error) {
	t := g.plan()
	if len(t.writes) == 0 {
		return committed, nil
	}
	r, err := s.backend.commit(ctx, t)
	if err != nil {
		return r.outcome, fmt.Errorf("state: commit %d writes: %w", len(t.writes), err)
	}
	switch r.outcome {
	case committed:
		if err := s.mirror.wait(ctx, s.done, r.rev); err != nil {
			return committed, fmt.Errorf("state: committed revision %d, but the mirror has not reached it: %w: %w", r.rev, ErrUncertain, err)
		}
	case overtaken:
		// What overtook us is a later change of a record, so the mirror moves.
		if err := s.mirror.wait(ctx, s.done, g.rev+1); err != nil {
			return overtaken, fmt.Errorf("state: overtaken at revision %d, but the mirror has not moved: %w", g.rev, err)
		}
	}
	return r.outcome, nil
}
