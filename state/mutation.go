package state

import (
	"errors"
	"fmt"
	"iter"
)

// errMutated is a programmer's error that only a -race build looks for.
var errMutated = errors.New("the function changed a record that it shares with all readers; copy before changing")

// lent is a record of the mirror that a Tx gave out.
type lent struct {
	table *tableInfo
	rec   *record
}

// maxLent bounds what checking costs a function that reads long ranges.
const maxLent = 64

func (tx *Tx) lend(t *tableInfo, records iter.Seq[*record]) iter.Seq[*record] {
	return func(yield func(*record) bool) {
		for rec := range records {
			if len(tx.lent) < maxLent {
				tx.lent = append(tx.lent, lent{t, rec})
			}
			if !yield(rec) {
				return
			}
		}
	}
}

// check panics where fn changed a record of the mirror in place.
func (tx *Tx) check() {
	if !checkMutation {
		return
	}
	for p, rec := range tx.seen {
		if rec != nil {
			tx.lent = append(tx.lent, lent{p.table, rec})
		}
	}
	for _, l := range tx.lent {
		if l.rec.shared() && l.table.mutated(l.rec) {
			panic(fmt.Errorf("state: %s %q: %w", l.table.name, l.rec.key, errMutated))
		}
	}
}
