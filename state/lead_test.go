package state

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestLeadershipFencesWrites(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		first, err := s.Lead(within(t), "loops")
		if err != nil {
			t.Fatal(err)
		}
		write := func(l *Leadership, id string) error {
			return l.Update(within(t), func(tx *Tx) error { widgets.Put(tx, widget{ID: id}); return nil })
		}
		if err := write(first, "1"); err != nil {
			t.Fatal(err)
		}
		impatient, cancel := context.WithTimeout(within(t), 50*time.Millisecond)
		defer cancel()
		if _, err := s.Lead(impatient, "loops"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("two leaders: %v", err)
		}
		if err := first.Resign(within(t)); err != nil {
			t.Fatal(err)
		}
		woken(t, first.Lost())
		second, err := s.Lead(within(t), "loops")
		if err != nil {
			t.Fatal(err)
		}
		if err := write(first, "late"); !errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUncertain) {
			t.Fatalf("a former leader wrote: %v", err)
		}
		if err := write(second, "2"); err != nil {
			t.Fatal(err)
		}
		same(t, "all", ids(s.View()), "1", "2")
	})
}

func TestDeposedLeader(t *testing.T) {
	m := NewMemory()
	s := openMemory(t, m)
	l, err := s.Lead(within(t), "loops")
	if err != nil {
		t.Fatal(err)
	}
	m.Depose()
	woken(t, l.Lost())
	err = l.Update(within(t), func(tx *Tx) error { widgets.Put(tx, widget{ID: "a"}); return nil })
	if !errors.Is(err, ErrNotLeader) {
		t.Fatalf("got %v", err)
	}
	if err := l.Resign(within(t)); err != nil {
		t.Fatal(err)
	}
}

// Who starts again on a folder need not wait for its last run's lease, even if
// that run was killed.
func TestReopenedStoreLeadsAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	if _, err := s.Lead(within(t), "loops"); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s) // without resigning
	start := time.Now()
	if _, err := openDir(t, dir).Lead(within(t), "loops"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > leaseSeconds*time.Second/2 {
		t.Fatalf("took %v", took)
	}

	m := NewMemory()
	if _, err := openMemory(t, m).Lead(within(t), "loops"); err != nil {
		t.Fatal(err)
	}
	m.Crash()
	if _, err := openMemory(t, m).Lead(within(t), "loops"); err != nil {
		t.Fatal(err)
	}
}
