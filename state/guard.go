package state

import "fmt"

// Guard is a record that stands for what must be unique (Owner) or counted
// (Count), so that two transactions that would each be right alone meet in it.
type Guard struct {
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	Owner string `json:"owner,omitempty"`
	Count int64  `json:"count,omitempty"`
}

// Guards holds all guards. Use Claim, Release, Add and their readers below; All
// is for checks of the whole state.
var Guards = NewTable("guard", func(g *Guard) string { return guardKey(g.Kind, g.Name) })

// guardKey joins kind and name; a kind is a word of the program's, without a
// slash, so no two pairs meet in one key.
func guardKey(kind, name string) string { return kind + "/" + name }

// TakenError says who holds a name that was claimed. It is ErrTaken.
type TakenError struct{ Kind, Name, Owner string }

func (e *TakenError) Error() string {
	return fmt.Sprintf("%s %q is %v by %s", e.Kind, e.Name, ErrTaken, e.Owner)
}

func (e *TakenError) Unwrap() error { return ErrTaken }

// Claim makes owner the one who has that name among its kind. Claiming again
// what one has is no change; what another has is a *TakenError.
func (tx *Tx) Claim(kind, name, owner string) error {
	if holder := Owner(tx, kind, name); holder != "" && holder != owner {
		return &TakenError{kind, name, holder}
	}
	Guards.Put(tx, Guard{Kind: kind, Name: name, Owner: owner})
	return nil
}

// Release gives a name up, whoever has it.
func (tx *Tx) Release(kind, name string) { Guards.Delete(tx, guardKey(kind, name)) }

// Add changes a count and returns what it comes to. A count below zero is an
// error of the program's that fails the Update.
func (tx *Tx) Add(kind, name string, delta int64) int64 {
	n := Count(tx, kind, name) + delta
	switch {
	case n < 0:
		tx.fail(fmt.Errorf("state: the count of %s %q would come to %d", kind, name, n))
	case n == 0:
		Guards.Delete(tx, guardKey(kind, name))
	default:
		Guards.Put(tx, Guard{Kind: kind, Name: name, Count: n})
	}
	return n
}

// Owner says who has a name; "" is nobody.
func Owner(r Reader, kind, name string) string {
	g, _, ok := Guards.Get(r, guardKey(kind, name))
	if !ok {
		return ""
	}
	return g.Owner
}

// Count is what a count stands at.
func Count(r Reader, kind, name string) int64 {
	g, _, ok := Guards.Get(r, guardKey(kind, name))
	if !ok {
		return 0
	}
	return g.Count
}
