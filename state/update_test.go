package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

func ids(r Reader) []string {
	var out []string
	for w := range widgets.All(r) {
		out = append(out, w.ID)
	}
	return out
}

func idsBy[A ~string](r Reader, x Index[A, widget], arg A) []string {
	var out []string
	for w := range x.By(r, arg) {
		out = append(out, w.ID)
	}
	return out
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func TestWriterSeesItsOwnWrites(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		update(t, s, func(tx *Tx) {
			widgets.Put(tx, widget{ID: "a", Owner: "x", Tags: []string{"red", "big"}})
			widgets.Put(tx, widget{ID: "b", Owner: "x"})
		})
		update(t, s, func(tx *Tx) {
			widgets.Put(tx, widget{ID: "c", Owner: "x", Tags: []string{"red"}})
			widgets.Put(tx, widget{ID: "a", Owner: "y", Tags: []string{"red"}})
			widgets.Delete(tx, "b")
			same(t, "all in the tx", ids(tx), "a", "c")
			same(t, "x's in the tx", idsBy(tx, widgetsByOwner, "x"), "c")
			if _, _, ok := widgets.Get(tx, "b"); ok {
				t.Fatal("a deleted record is still there")
			}
			if got, rev, _ := widgets.Get(tx, "a"); got.Owner != "y" || rev != tx.Revision() {
				t.Fatalf("got %v of revision %d", got, rev)
			}
			same(t, "all outside", ids(s.View()), "a", "b")
		})
		same(t, "all after", ids(s.View()), "a", "c")
		same(t, "x's after", idsBy(s.View(), widgetsByOwner, "x"), "c")
		same(t, "red after", idsBy(s.View(), widgetsByTag, "red"), "a", "c")
		same(t, "big after", idsBy(s.View(), widgetsByTag, "big"))
	})
}

// An index must tell values apart of which one begins with the other, and
// take any bytes.
func TestIndexTakesAnyString(t *testing.T) {
	s := openMemory(t, NewMemory())
	owners := []string{"a", "a\x00", "a\x00b", "a\x01", "ab", "\x00", "\xff", "ä/b c"}
	update(t, s, func(tx *Tx) {
		for i, owner := range owners {
			widgets.Put(tx, widget{ID: fmt.Sprint("w", i), Owner: owner})
		}
		widgets.Put(tx, widget{ID: "none"})
	})
	for i, owner := range owners {
		if owner == "\xff" { // not a string that JSON can carry
			owner = "�"
		}
		same(t, fmt.Sprintf("%q", owner), idsBy(s.View(), widgetsByOwner, owner), fmt.Sprint("w", i))
	}
	same(t, "no owner", idsBy(s.View(), widgetsByOwner, ""))
}

func TestWritingWhileRanging(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		update(t, s, func(tx *Tx) {
			for i := range 100 {
				widgets.Put(tx, widget{ID: fmt.Sprintf("%03d", i), Size: i})
			}
		})
		update(t, s, func(tx *Tx) {
			for w := range widgets.All(tx) {
				widgets.Put(tx, widget{ID: w.ID + "-twin", Size: w.Size})
				widgets.Delete(tx, w.ID)
			}
		})
		if got := ids(s.View()); len(got) != 100 || got[99] != "099-twin" {
			t.Fatalf("got %v", got)
		}
	})
}

func TestNoChangeIsNoCommit(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a", Notes: map[string]string{"b": "1", "a": "2"}}) })
		before := s.View().Revision()
		update(t, s, func(tx *Tx) {
			widgets.Edit(tx, "a", func(w *widget) { w.Notes = map[string]string{"a": "2", "b": "1"} })
			widgets.Delete(tx, "none")
			widgets.Put(tx, widget{ID: "brief"})
			widgets.Delete(tx, "brief")
			_ = widgets.Edit(tx, "none", func(*widget) { t.Error("edited a record that isn't there") })
		})
		if got := s.View().Revision(); got != before {
			t.Fatalf("committed revision %d for nothing", got)
		}
	})
}

func TestFailedUpdateWritesNothing(t *testing.T) {
	errOwn := errors.New("own")
	for name, c := range map[string]struct {
		fn   func(tx *Tx) error
		want error
	}{
		"error":     {func(tx *Tx) error { widgets.Put(tx, widget{ID: "b"}); return errOwn }, errOwn},
		"empty key": {func(tx *Tx) error { widgets.Put(tx, widget{}); widgets.Put(tx, widget{ID: "b"}); return nil }, nil},
		"count < 0": {func(tx *Tx) error { widgets.Put(tx, widget{ID: "b"}); tx.Add("n", "n", -1); return nil }, nil},
		"taken": {func(tx *Tx) error {
			widgets.Put(tx, widget{ID: "b"})
			return errors.Join(tx.Claim("name", "n", "x"), tx.Claim("name", "n", "y"))
		}, ErrTaken},
	} {
		t.Run(name, func(t *testing.T) {
			s := openMemory(t, NewMemory())
			err := s.Update(within(t), c.fn)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			same(t, "all", ids(s.View()))
		})
	}
}

// An Update runs again when another comes between, whether its function
// found the record, found none, or wrote it without looking.
func TestOvertakenUpdateRunsAgain(t *testing.T) {
	looks := map[string]func(tx *Tx){
		"found":    func(tx *Tx) { widgets.Get(tx, "there") },
		"absent":   func(tx *Tx) { widgets.Get(tx, "new") },
		"written":  func(tx *Tx) { widgets.Put(tx, widget{ID: "there", Size: 7}) },
		"made":     func(tx *Tx) { widgets.Put(tx, widget{ID: "new", Size: 7}) },
		"deleted":  func(tx *Tx) { widgets.Delete(tx, "there") },
		"in range": func(tx *Tx) { ids(tx); widgets.Delete(tx, "there") },
		"edited":   func(tx *Tx) { widgets.Edit(tx, "there", func(w *widget) { w.Size++ }) },
	}
	onBoth(t, func(t *testing.T, s *Store) {
		for name, look := range looks {
			t.Run(name, func(t *testing.T) {
				update(t, s, func(tx *Tx) {
					widgets.Put(tx, widget{ID: "there"})
					widgets.Delete(tx, "new")
					widgets.Delete(tx, "out")
				})
				runs := 0
				update(t, s, func(tx *Tx) {
					runs++
					look(tx)
					widgets.Put(tx, widget{ID: "out", Size: runs})
					if runs == 1 {
						overtake(t, s)
					}
				})
				out, _, _ := widgets.Get(s.View(), "out")
				if runs != 2 || out.Size != 2 {
					t.Fatalf("ran %d times and wrote %v", runs, out)
				}
			})
		}
	})
}

// overtake changes what TestOvertakenUpdateRunsAgain looks at as another
// process would: past the Store, whose own Updates wait for each other.
func overtake(t *testing.T, s *Store) {
	t.Helper()
	var writes []write
	for _, id := range []string{"new", "there"} {
		data, err := widgets.info.encode(&widget{ID: id, Size: 100})
		if err != nil {
			t.Fatal(err)
		}
		writes = append(writes, write{widgets.info.path(id), data})
	}
	mustCommit(t, s.backend, txn{writes: writes})
}

// What is read by range is not compared: the contract says so, and this shows
// why a guard is needed.
func TestRangesAreNotCompared(t *testing.T) {
	s := openMemory(t, NewMemory())
	runs := 0
	update(t, s, func(tx *Tx) {
		runs++
		n := len(ids(tx))
		tx.Add("seen", "widgets", int64(n)+1)
		if runs == 1 {
			overtake(t, s)
		}
	})
	if runs != 1 {
		t.Fatalf("ran %d times", runs)
	}
}

func TestCountsAreExactUnderConcurrency(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		const writers, each = 16, 20
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					err := s.Update(within(t), func(tx *Tx) error {
						tx.Add("quota", "all", 1)
						tx.Add("quota", fmt.Sprint(w), 1)
						widgets.Put(tx, widget{ID: fmt.Sprintf("%d-%d", w, i)})
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		v := s.View()
		if got := Count(v, "quota", "all"); got != writers*each || int(got) != len(ids(v)) {
			t.Fatalf("counted %d of %d, there are %d", got, writers*each, len(ids(v)))
		}
		for w := range writers {
			if got := Count(v, "quota", fmt.Sprint(w)); got != each {
				t.Fatalf("writer %d counted %d", w, got)
			}
		}
	})
}

func TestOneClaimWins(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		for round := range 10 {
			name := fmt.Sprint("name", round)
			winners := make(chan string, 16)
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					owner := fmt.Sprint("owner", i)
					err := s.Update(within(t), func(tx *Tx) error { return tx.Claim("name", name, owner) })
					var taken *TakenError
					switch {
					case err == nil:
						winners <- owner
					case !errors.As(err, &taken) || taken.Owner == owner || taken.Owner == "":
						t.Errorf("claim by %s: %v", owner, err)
					}
				})
			}
			wg.Wait()
			if len(winners) != 1 {
				t.Fatalf("%d winners", len(winners))
			}
			if got, want := Owner(s.View(), "name", name), <-winners; got != want {
				t.Fatalf("%s won and %s has it", want, got)
			}
		}
	})
}

func TestGuards(t *testing.T) {
	s := openMemory(t, NewMemory())
	update(t, s, func(tx *Tx) {
		if err := errors.Join(tx.Claim("name", "n", "x"), tx.Claim("name", "n", "x"), tx.Claim("other", "n", "y")); err != nil {
			t.Fatal(err)
		}
		if n := tx.Add("n", "n", 2); n != 2 {
			t.Fatalf("2 is %d", n)
		}
		if n := tx.Add("n", "n", 3); n != 5 {
			t.Fatalf("2+3 is %d", n)
		}
	})
	update(t, s, func(tx *Tx) {
		tx.Release("name", "n")
		tx.Release("name", "n")
		if n := tx.Add("n", "n", -5); n != 0 {
			t.Fatalf("5-5 is %d", n)
		}
		if err := tx.Claim("name", "n", "z"); err != nil {
			t.Fatal(err)
		}
	})
	v := s.View()
	if Owner(v, "name", "n") != "z" || Owner(v, "other", "n") != "y" || Count(v, "n", "n") != 0 {
		t.Fatal("the guards don't say what was done")
	}
	for g := range Guards.All(v) {
		if g.Kind == "n" {
			t.Fatalf("a count of nothing leaves %v", g)
		}
	}
}

func TestTooBig(t *testing.T) {
	s := openDir(t, t.TempDir())
	err := s.Update(within(t), func(tx *Tx) error {
		for i := range maxTxnOps + 1 {
			widgets.Put(tx, widget{ID: fmt.Sprint(i)})
		}
		return nil
	})
	if !errors.Is(err, ErrTooBig) || errors.Is(err, ErrUncertain) {
		t.Fatalf("too many records: %v", err)
	}
	blob := string(make([]byte, maxRequestBytes/6+1)) // \u0000 is six bytes of JSON
	err = s.Update(within(t), func(tx *Tx) error { widgets.Put(tx, widget{ID: "a", Owner: blob}); return nil })
	if !errors.Is(err, ErrTooBig) || errors.Is(err, ErrUncertain) {
		t.Fatalf("too many bytes: %v", err)
	}
	same(t, "all", ids(s.View()))
}

// A launch of hundreds of instances with all that hangs on them is one transaction.
func TestBigUpdateFits(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	note := string(make([]byte, 200))
	update(t, s, func(tx *Tx) {
		for i := range 5000 {
			widgets.Put(tx, widget{ID: fmt.Sprintf("%05d", i), Owner: note})
		}
	})
	closeStore(t, s)
	if got := len(ids(openDir(t, dir).View())); got != 5000 {
		t.Fatalf("%d of 5000 are there after reopening", got)
	}
}

func TestInterruptedCommit(t *testing.T) {
	errLost := errors.New("lost")
	for name, c := range map[string]struct {
		at      Moment
		written bool
	}{"before": {BeforeCommit, false}, "after": {AfterCommit, true}} {
		t.Run(name, func(t *testing.T) {
			m := NewMemory()
			m.Interrupt = func(at Moment) error {
				if at == c.at {
					return errLost
				}
				return nil
			}
			s := openMemory(t, m)
			err := s.Update(within(t), func(tx *Tx) error { widgets.Put(tx, widget{ID: "a"}); return nil })
			if !errors.Is(err, errLost) || errors.Is(err, ErrUncertain) != c.written {
				t.Fatalf("got %v", err)
			}
			if _, _, ok := widgets.Get(s.View(), "a"); ok != c.written {
				t.Fatalf("written: %v, want %v", ok, c.written)
			}
		})
	}
}

func TestUpdateEndsWithItsContext(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx, cancel := context.WithCancel(within(t))
		err := s.Update(ctx, func(tx *Tx) error { widgets.Put(tx, widget{ID: "a"}); cancel(); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestClosedStore(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a"}) })
		if s.Err() != nil {
			t.Fatal(s.Err())
		}
		closeStore(t, s)
		closeStore(t, s)
		<-s.Done()
		err := s.Update(within(t), func(tx *Tx) error { return nil })
		if !errors.Is(err, ErrClosed) || !errors.Is(s.Err(), ErrClosed) {
			t.Fatalf("got %v and %v", err, s.Err())
		}
		same(t, "a view of a closed store", ids(s.View()), "a")
	})
}

// Only a -race build looks for it, as encoding every record read is dear.
func TestMutationIsCaught(t *testing.T) {
	if !checkMutation {
		t.Skip("only in a -race build")
	}
	for name, change := range map[string]func(tx *Tx){
		"by Get": func(tx *Tx) { w, _, _ := widgets.Get(tx, "a"); w.Tags[0] = "b" },
		"by All": func(tx *Tx) {
			for w := range widgets.All(tx) {
				w.Size = 9
			}
		},
		"by a shallow copy": func(tx *Tx) {
			w, _, _ := widgets.Get(tx, "a")
			next := *w
			next.Notes["n"] = "changed"
			widgets.Put(tx, next)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openMemory(t, NewMemory())
			update(t, s, func(tx *Tx) {
				widgets.Put(tx, widget{ID: "a", Tags: []string{"a"}, Notes: map[string]string{"n": "1"}})
			})
			defer func() {
				if err, _ := recover().(error); !errors.Is(err, errMutated) {
					t.Fatalf("recovered %v", err)
				}
			}()
			update(t, s, change)
		})
	}
}
