package state

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"
)

// mirror holds all records in memory. One writer, the watch, replaces the
// present moment; readers take it and are never waited for.
type mirror struct {
	present atomic.Pointer[moment]

	mu      sync.Mutex    // guards db, changed and watches, and orders the writes of present
	db      *memdb.MemDB  // what the next moment is made from
	changed chan struct{} // closed and replaced when present is
	watches map[*Watch]struct{}
}

// moment is the mirror at one revision.
type moment struct {
	db  *memdb.MemDB // a snapshot, never written
	rev int64
}

func newMirror() *mirror {
	return &mirror{changed: make(chan struct{}), watches: map[*Watch]struct{}{}}
}

// reset starts the mirror from all records.
func (m *mirror) reset(pairs []pair, rev int64) error {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		return fmt.Errorf("state: the tables' schema: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := applyAll(db, pairs); err != nil {
		return err
	}
	m.db = db
	m.publish(rev, nil)
	return nil
}

// apply takes a batch of changes into the next moment.
func (m *mirror) apply(b batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b.rev <= m.present.Load().rev {
		return nil
	}
	touched, err := applyAll(m.db, b.changes)
	if err != nil {
		return err
	}
	m.publish(b.rev, touched)
	return nil
}

// publish makes db the present moment and wakes who waits; touched nil stands
// for all tables.
func (m *mirror) publish(rev int64, touched map[*tableInfo]bool) {
	m.present.Store(&moment{m.db.Snapshot(), rev})
	close(m.changed)
	m.changed = make(chan struct{})
	for w := range m.watches {
		w.poke(touched)
	}
}

// applyAll applies changes to db, all or none, and says whose tables they are.
// Tables that this program doesn't know are left alone: a later mallee's.
func applyAll(db *memdb.MemDB, changes []change) (touched map[*tableInfo]bool, err error) {
	tx := db.Txn(true)
	defer tx.Abort()
	touched = map[*tableInfo]bool{}
	for _, c := range changes {
		name, key, _ := splitPath(c.key)
		t := tables[name]
		if t == nil {
			continue
		}
		touched[t] = true
		if err := writeOne(tx, t, key, c); err != nil {
			return nil, err
		}
	}
	tx.Commit()
	return touched, nil
}

func writeOne(tx *memdb.Txn, t *tableInfo, key string, c change) error {
	if c.value != nil {
		rec, err := t.open(key, c.value, c.rev)
		if err != nil {
			return err
		}
		return tx.Insert(t.name, rec)
	}
	old, err := tx.First(t.name, idIndex, key)
	if err != nil || old == nil {
		return err
	}
	return tx.Delete(t.name, old)
}

// wait returns when the mirror is at rev or later.
func (m *mirror) wait(ctx context.Context, done <-chan struct{}, rev int64) error {
	for {
		changed := m.next()
		if m.present.Load().rev >= rev {
			return nil
		}
		select {
		case <-changed:
		case <-done:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// next is closed when the present moment is over.
func (m *mirror) next() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// find and scan read a memdb transaction. Their errors could only be of names
// that the schema doesn't have, which is a table declared after Open.

func find(tx *memdb.Txn, t *tableInfo, key string) *record {
	v, err := tx.First(t.name, idIndex, key)
	if err != nil {
		panic(fmt.Sprintf("state: table %s was declared after Open: %v", t.name, err))
	}
	rec, _ := v.(*record)
	return rec
}

func scan(tx *memdb.Txn, t *tableInfo, index string, args ...any) iter.Seq[*record] {
	return func(yield func(*record) bool) {
		rows, err := tx.Get(t.name, index, args...)
		if err != nil {
			panic(fmt.Sprintf("state: table %s or its index %s was declared after Open: %v", t.name, index, err))
		}
		for v := rows.Next(); v != nil; v = rows.Next() {
			if !yield(v.(*record)) {
				return
			}
		}
	}
}
