package state

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

// gated is a Memory whose first commit waits, so that a queue forms behind it.
type gated struct {
	*Memory
	entered, open chan struct{}
	commits       int // guarded by the Store's turn
	fail          func(nth int) error
}

func newGated() *gated {
	g := &gated{Memory: NewMemory(), entered: make(chan struct{}), open: make(chan struct{})}
	g.Interrupt = func(at Moment) error {
		if at != BeforeCommit {
			return nil
		}
		g.commits++
		if g.commits == 1 {
			close(g.entered)
			<-g.open
		}
		if g.fail != nil {
			return g.fail(g.commits)
		}
		return nil
	}
	return g
}

// behind runs fns in a queue behind a commit and returns their errors. Which
// runs first is not said.
func (g *gated) behind(t *testing.T, s *Store, fns ...func()) {
	t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "first"}) }) })
	<-g.entered
	for _, fn := range fns {
		wg.Go(fn)
	}
	for deadline := time.Now().Add(20 * time.Second); int(s.queue.Load()) < len(fns); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Error("no queue formed")
			break
		}
	}
	close(g.open)
}

func add1(tx *Tx) error { tx.Add("n", "n", 1); return nil }

func TestQueueCommitsTogether(t *testing.T) {
	m := newGated()
	s := openMemory(t, m.Memory)
	var fns []func()
	for range 10 {
		fns = append(fns, func() { update(t, s, func(tx *Tx) { tx.Add("n", "n", 1) }) })
	}
	m.behind(t, s, fns...)
	if got := Count(s.View(), "n", "n"); got != 10 || m.commits != 2 {
		t.Fatalf("counted %d in %d commits", got, m.commits)
	}
}

// One member's end, however it ends, is not the others'.
func TestMembersEndAlone(t *testing.T) {
	errOwn := errors.New("own")
	ends := map[string]func(t *testing.T, s *Store){
		"error": func(t *testing.T, s *Store) {
			err := s.Update(within(t), func(tx *Tx) error { tx.Add("n", "n", 100); return errOwn })
			if !errors.Is(err, errOwn) {
				t.Errorf("got %v", err)
			}
		},
		"failed write": func(t *testing.T, s *Store) {
			err := s.Update(within(t), func(tx *Tx) error { tx.Add("n", "n", 100); tx.Add("m", "m", -1); return nil })
			if err == nil {
				t.Error("no error")
			}
		},
		"no change": func(t *testing.T, s *Store) { update(t, s, func(*Tx) {}) },
		"panic": func(t *testing.T, s *Store) {
			defer func() {
				if recover() != errOwn {
					t.Error("no panic")
				}
			}()
			update(t, s, func(tx *Tx) { tx.Add("n", "n", 100); panic(errOwn) })
		},
		"goexit": func(t *testing.T, s *Store) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				update(t, s, func(tx *Tx) { tx.Add("n", "n", 100); runtime.Goexit() })
			}()
			<-done
		},
		"context": func(t *testing.T, s *Store) {
			ctx, cancel := context.WithCancel(within(t))
			err := s.Update(ctx, func(tx *Tx) error { tx.Add("n", "n", 100); cancel(); return nil })
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		},
		"too full": func(t *testing.T, s *Store) {
			update(t, s, func(tx *Tx) {
				for i := range groupRecords {
					widgets.Put(tx, widget{ID: fmt.Sprint(i)})
				}
			})
		},
		"too heavy": func(t *testing.T, s *Store) {
			update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a", Owner: string(make([]byte, groupBytes))}) })
		},
		"leader": func(t *testing.T, s *Store) {
			l, err := s.Lead(within(t), "loops")
			if err != nil {
				t.Error(err)
				return
			}
			if err := l.Update(within(t), func(tx *Tx) error { tx.Add("leader", "n", 1); return nil }); err != nil {
				t.Error(err)
			}
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			m := newGated()
			s := openMemory(t, m.Memory)
			fns := []func(){func() { end(t, s) }}
			for range 5 {
				fns = append(fns, func() { update(t, s, func(tx *Tx) { tx.Add("n", "n", 1) }) })
			}
			m.behind(t, s, fns...)
			if got := Count(s.View(), "n", "n"); got != 5 {
				t.Fatalf("counted %d", got)
			}
			if err := mirrorsBackend(s); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A member that failed because of what an earlier one wrote fails only if
// that was written.
func TestFailureHangsOnWhatItSaw(t *testing.T) {
	errDisk := errors.New("disk")
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint("lost ", lost), func(t *testing.T) {
			m := newGated()
			if lost {
				m.fail = func(nth int) error {
					if nth == 2 {
						return errDisk
					}
					return nil
				}
			}
			s := openMemory(t, m.Memory)
			errs := make(chan error, 2)
			claim := func(owner string) func() {
				return func() {
					errs <- s.Update(within(t), func(tx *Tx) error { return tx.Claim("name", "n", owner) })
				}
			}
			m.behind(t, s, claim("x"), claim("y"))
			won, taken, disk := 0, 0, 0
			for range 2 {
				switch err := <-errs; {
				case err == nil:
					won++
				case errors.Is(err, ErrTaken):
					taken++
				case errors.Is(err, errDisk):
					disk++
				}
			}
			if !lost && (won != 1 || taken != 1) || lost && disk != 2 {
				t.Fatalf("%d won, %d were told it is taken, %d of the disk", won, taken, disk)
			}
			if got := Owner(s.View(), "name", "n"); (got == "") != lost {
				t.Fatalf("%q has it", got)
			}
		})
	}
}

// A group that another process overtook runs again, every member of it.
func TestOvertakenGroupRunsAgain(t *testing.T) {
	m := newGated()
	s, other := openMemory(t, m.Memory), openMemory(t, m.Memory)
	once := sync.OnceFunc(func() {
		// Not under the gate: nobody counts this one's commit.
		data, err := Guards.info.encode(&Guard{Kind: "n", Name: "n", Count: 1000})
		if err != nil {
			t.Error(err)
		}
		if _, err := other.backend.(*memoryLink).write(txn{writes: []write{{Guards.info.path("n/n"), data}}}); err != nil {
			t.Error(err)
		}
	})
	var fns []func()
	for range 5 {
		fns = append(fns, func() { update(t, s, func(tx *Tx) { tx.Add("n", "n", 1); once() }) })
	}
	m.behind(t, s, fns...)
	if got := Count(s.View(), "n", "n"); got != 1005 {
		t.Fatalf("counted %d", got)
	}
}

// A backend that panics, as a simulated crash does, leaves nobody waiting.
func TestPanicOfTheBackend(t *testing.T) {
	m := NewMemory()
	m.Interrupt = func(Moment) error { panic("crash") }
	s := openMemory(t, m)
	for range 2 {
		func() {
			defer func() {
				if recover() != "crash" {
					t.Fatal("no panic")
				}
			}()
			err := s.Update(within(t), add1)
			t.Fatalf("returned %v", err)
		}()
	}
	m.Interrupt = nil
	m.Crash()
	update(t, openMemory(t, m), func(tx *Tx) { tx.Add("n", "n", 1) })
}
