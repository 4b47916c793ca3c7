package state

import (
	"crypto/sha256"
	"fmt"
	"iter"

	"github.com/hashicorp/go-memdb"
)

// View is the state at one revision. It never changes, need not be closed,
// and may be read by many at once; keeping one keeps its memory.
type View struct {
	db  *memdb.Txn
	rev int64
}

// View returns the state as the mirror has it now.
func (s *Store) View() *View {
	now := s.mirror.present.Load()
	return &View{now.db.Txn(false), now.rev}
}

// Revision is etcd's count of commits at the time of the View.
func (v *View) Revision() int64 { return v.rev }

func (v *View) find(t *tableInfo, key string) *record { return find(v.db, t, key) }

func (v *View) scan(t *tableInfo, index string, args ...any) iter.Seq[*record] {
	return scan(v.db, t, index, args...)
}

// Tx is a View that takes writes and sees its own. It belongs to one run of an
// Update's function, on one goroutine, and is of no use after.
type Tx struct {
	db    *memdb.Txn // on a private copy of the mirror
	rev   int64
	seen  map[place]*record // as they were before any write of this Tx; nil for an absent one
	wrote map[place][]byte  // nil for a deletion
	bytes int               // of what was written
	err   error             // the first failed write
	lent  []lent            // what ranges gave out; -race only
}

// place is where a record is.
type place struct {
	table *tableInfo
	key   string
}

func (g *group) begin() *Tx {
	return &Tx{db: g.base.Txn(true), rev: g.rev, seen: map[place]*record{}, wrote: map[place][]byte{}}
}

// Revision is that of the View the Tx started from.
func (tx *Tx) Revision() int64 { return tx.rev }

// find looks a record up and remembers that it was.
func (tx *Tx) find(t *tableInfo, key string) *record {
	rec := find(tx.db, t, key)
	if p := (place{t, key}); !tx.saw(p) {
		tx.seen[p] = rec
	}
	return rec
}

func (tx *Tx) saw(p place) bool {
	_, ok := tx.seen[p]
	return ok
}

func (tx *Tx) scan(t *tableInfo, index string, args ...any) iter.Seq[*record] {
	records := scan(tx.db, t, index, args...)
	if checkMutation {
		return tx.lend(t, records)
	}
	return records
}

func (tx *Tx) put(t *tableInfo, key string, value any) {
	if key == "" {
		tx.fail(fmt.Errorf("state: a record of table %s has an empty key", t.name))
		return
	}
	data, err := t.encode(value)
	if err != nil {
		tx.fail(err)
		return
	}
	rec := &record{key: key, value: value, sum: sha256.Sum256(data)}
	if old := tx.find(t, key); old != nil {
		rec.rev = old.rev
	}
	if err := tx.db.Insert(t.name, rec); err != nil {
		tx.fail(fmt.Errorf("state: put %s %q: %w", t.name, key, err))
		return
	}
	tx.wrote[place{t, key}] = data
	tx.bytes += len(data)
}

func (tx *Tx) remove(t *tableInfo, key string) {
	old := tx.find(t, key)
	if old == nil {
		return
	}
	if err := tx.db.Delete(t.name, old); err != nil {
		tx.fail(fmt.Errorf("state: delete %s %q: %w", t.name, key, err))
		return
	}
	tx.wrote[place{t, key}] = nil
}

// fail makes the Update fail when its function returns.
func (tx *Tx) fail(err error) {
	if tx.err == nil {
		tx.err = err
	}
}

// changed says whether the Tx would change anything.
func (tx *Tx) changed() bool {
	for p, data := range tx.wrote {
		if changes(tx.seen[p], data) {
			return true
		}
	}
	return false
}

// changes says whether writing data, or deleting where it is nil, leaves
// anything other than what was there.
func changes(old *record, data []byte) bool {
	switch {
	case data == nil:
		return old != nil
	case old == nil:
		return true
	}
	return old.sum != sha256.Sum256(data)
}
