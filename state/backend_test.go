package state

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// onBackends holds both makes of a backend to the contract of the interface.
func onBackends(t *testing.T, test func(t *testing.T, b backend)) {
	t.Run("etcd", func(t *testing.T) {
		b, err := startEtcd(within(t), Options{Dir: t.TempDir(), Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		testBackend(t, b, test)
	})
	t.Run("memory", func(t *testing.T) { testBackend(t, NewMemory().connect(), test) })
}

// closedOnce is a backend that a test may close before its time.
type closedOnce struct {
	backend
	once func() error
}

func (c closedOnce) close() error { return c.once() }

func testBackend(t *testing.T, b backend, test func(t *testing.T, b backend)) {
	b = closedOnce{b, sync.OnceValue(b.close)}
	test(t, b)
	if err := b.close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func put(key, value string) write { return write{prefix + key, []byte(value)} }

func mustCommit(t *testing.T, b backend, tx txn) int64 {
	t.Helper()
	r, err := b.commit(within(t), tx)
	if err != nil || r.outcome != committed {
		t.Fatalf("commit: outcome %v, %v", r.outcome, err)
	}
	return r.rev
}

func mustRefuse(t *testing.T, b backend, tx txn, want outcome) {
	t.Helper()
	before := contents(t, b)
	r, err := b.commit(within(t), tx)
	if err != nil || r.outcome != want {
		t.Fatalf("commit: outcome %v, %v; want %v", r.outcome, err, want)
	}
	if after := contents(t, b); after != before {
		t.Fatalf("a refused commit wrote:\n%s\nbefore:\n%s", after, before)
	}
}

func contents(t *testing.T, b backend) string {
	t.Helper()
	pairs, _, err := b.load(within(t))
	if err != nil {
		t.Fatal(err)
	}
	var out string
	for _, p := range pairs {
		out += fmt.Sprintf("%s=%s@%d\n", p.key, p.value, p.rev)
	}
	return out
}

func TestBackendLoadIsOrderedAndOfOneRevision(t *testing.T) {
	onBackends(t, func(t *testing.T, b backend) {
		if got := contents(t, b); got != "" {
			t.Fatalf("a new store has %s", got)
		}
		first := mustCommit(t, b, txn{writes: []write{put("t/b", "1"), put("t/a", "2")}})
		second := mustCommit(t, b, txn{writes: []write{put("t/ab", "3")}})
		if second != first+1 {
			t.Fatalf("revisions %d and %d", first, second)
		}
		want := fmt.Sprintf("/c/t/a=2@%d\n/c/t/ab=3@%d\n/c/t/b=1@%d\n", first, second, first)
		if got := contents(t, b); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
		if _, rev, _ := b.load(within(t)); rev != second {
			t.Fatalf("load is of revision %d, not %d", rev, second)
		}
	})
}

func TestBackendCompares(t *testing.T) {
	onBackends(t, func(t *testing.T, b backend) {
		rev := mustCommit(t, b, txn{compares: []compare{{prefix + "t/a", 0}}, writes: []write{put("t/a", "1")}})
		key := prefix + "t/a"
		for _, c := range []compare{{key, 0}, {key, rev - 1}, {key, rev + 1}, {prefix + "t/none", rev}} {
			mustRefuse(t, b, txn{compares: []compare{{key, rev}, c}, writes: []write{put("t/a", "2"), put("t/b", "2")}}, overtaken)
		}
		mustCommit(t, b, txn{compares: []compare{{key, rev}, {prefix + "t/none", 0}}, writes: []write{{key: key}}})
		mustRefuse(t, b, txn{compares: []compare{{key, rev}}, writes: []write{put("t/a", "3")}}, overtaken)
		mustCommit(t, b, txn{compares: []compare{{key, 0}}, writes: []write{put("t/a", "3")}})
	})
}

// collector gathers what a follower is given.
type collector struct {
	batches chan batch
	lost    chan error
}

func collect(b backend, from int64) collector {
	c := collector{make(chan batch, 1000), make(chan error, 1)}
	b.follow(from, func(b batch) { c.batches <- b }, func(_ context.Context, err error) { c.lost <- err })
	return c
}

// until returns the changes up to a revision, one line each.
func (c collector) until(t *testing.T, rev int64) string {
	t.Helper()
	out, at := "", int64(0)
	for at < rev {
		select {
		case b := <-c.batches:
			if b.rev <= at {
				t.Fatalf("revision %d after %d", b.rev, at)
			}
			at = b.rev
			for _, ch := range b.changes {
				out += fmt.Sprintf("%s=%s@%d\n", ch.key, ch.value, ch.rev)
			}
		case err := <-c.lost:
			t.Fatalf("lost: %v", err)
		case <-time.After(20 * time.Second):
			t.Fatalf("no revision %d; got\n%s", rev, out)
		}
	}
	return out
}

func TestBackendFollow(t *testing.T) {
	onBackends(t, func(t *testing.T, b backend) {
		mustCommit(t, b, txn{writes: []write{put("t/old", "1")}})
		first := mustCommit(t, b, txn{writes: []write{put("t/a", "1"), put("t/b", "1")}})
		past := collect(b, first)
		last := mustCommit(t, b, txn{writes: []write{put("t/a", "2"), {key: prefix + "t/b"}, {key: prefix + "t/none"}}})
		want := fmt.Sprintf("/c/t/a=1@%d\n/c/t/b=1@%[1]d\n/c/t/a=2@%d\n/c/t/b=@%[2]d\n", first, last)
		if got := past.until(t, last); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestBackendFollowOfCompactedRevisionsIsLost(t *testing.T) {
	onBackends(t, func(t *testing.T, b backend) {
		first := mustCommit(t, b, txn{writes: []write{put("t/a", "1")}})
		last := mustCommit(t, b, txn{writes: []write{put("t/a", "2")}})
		if err := b.reclaim(within(t)); err != nil {
			t.Fatal(err)
		}
		c := collect(b, first)
		select {
		case <-c.lost:
		case got := <-c.batches:
			t.Fatalf("got %v of a compacted revision", got)
		case <-time.After(20 * time.Second):
			t.Fatal("neither lost nor followed")
		}
		next := collect(b, last+1)
		rev := mustCommit(t, b, txn{writes: []write{put("t/a", "3")}})
		next.until(t, rev)
	})
}

func TestBackendSeat(t *testing.T) {
	onBackends(t, func(t *testing.T, b backend) {
		first, err := b.campaign(within(t), "loop", "first")
		if err != nil {
			t.Fatal(err)
		}
		other, err := b.campaign(within(t), "other", "first")
		if err != nil {
			t.Fatal(err)
		}
		mustCommit(t, b, txn{fence: first.fence(), writes: []write{put("t/a", "1")}})

		impatient, cancel := context.WithTimeout(within(t), 50*time.Millisecond)
		defer cancel()
		if _, err := b.campaign(impatient, "loop", "second"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the seat is held, but campaign gave %v", err)
		}
		won := make(chan seat, 1)
		go func() {
			s, err := b.campaign(within(t), "loop", "second")
			if err != nil {
				t.Error(err)
			}
			won <- s
		}()
		if err := first.resign(within(t)); err != nil {
			t.Fatal(err)
		}
		second := <-won
		<-first.lost()
		mustRefuse(t, b, txn{fence: first.fence(), writes: []write{put("t/a", "2")}}, fencedOff)
		mustCommit(t, b, txn{fence: second.fence(), writes: []write{put("t/a", "3")}})
		mustRefuse(t, b, txn{fence: second.fence(), compares: []compare{{prefix + "t/a", 0}}, writes: []write{put("t/a", "4")}}, overtaken)
		for _, s := range []seat{second, other} {
			if err := s.resign(within(t)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestBackendAfterClose(t *testing.T) {
	onBackends(t, func(t *testing.T, b backend) {
		c := collect(b, 2)
		if err := b.close(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.commit(within(t), txn{writes: []write{put("t/a", "1")}}); err == nil {
			t.Fatal("a closed backend commits")
		}
		select {
		case err := <-c.lost:
			t.Fatalf("closing is not losing: %v", err)
		default:
		}
	})
}
