package state

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

func woken(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("not woken")
	}
}

func asleep(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
		t.Fatal("woken for nothing")
	default:
	}
}

func TestWatchWakes(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		all, ofWidgets, ofGuards := s.Watch(), s.Watch(widgets), s.Watch(Guards)
		changed := s.Changed()
		asleep(t, changed)
		for i := range 3 { // none reads C: nothing may block
			update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a", Size: i + 1}) })
		}
		woken(t, changed)
		woken(t, all.C)
		woken(t, ofWidgets.C)
		asleep(t, all.C)
		asleep(t, ofWidgets.C)
		asleep(t, ofGuards.C)
		all.Stop()
		update(t, s, func(tx *Tx) { tx.Add("n", "n", 1) })
		asleep(t, all.C)
		asleep(t, ofWidgets.C)
		woken(t, ofGuards.C)
	})
}

// A loop that takes Changed before its View misses nothing.
func TestChangedMissesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		const last = 200
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for i := range last {
				update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a", Size: i + 1}) })
			}
		})
		for {
			changed := s.Changed()
			if w, _, ok := widgets.Get(s.View(), "a"); ok && w.Size == last {
				return
			}
			woken(t, changed)
		}
	})
}

// cuttable is a backend whose watch a test can cut.
type cuttable struct {
	backend
	mu     sync.Mutex // guards broken and lost
	broken bool
	lost   func(context.Context, error)
}

func (c *cuttable) follow(from int64, deliver func(batch), lost func(context.Context, error)) {
	c.mu.Lock()
	c.broken, c.lost = false, lost
	c.mu.Unlock()
	ended := false
	c.backend.follow(from, func(b batch) {
		c.mu.Lock()
		ended = ended || c.broken
		mute := ended
		c.mu.Unlock()
		if !mute {
			deliver(b)
		}
	}, lost)
}

// cut lets changes go by unseen; tell says so to the follower.
func (c *cuttable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = true
}

func (c *cuttable) tell(ctx context.Context) {
	c.mu.Lock()
	lost := c.lost
	c.mu.Unlock()
	lost(ctx, errors.New("cut by the test"))
}

func TestMirrorRecoversFromALostWatch(t *testing.T) {
	onBackends(t, func(t *testing.T, b backend) {
		c := &cuttable{backend: b}
		s, err := openOn(within(t), c, quiet())
		if err != nil {
			t.Fatal(err)
		}
		update(t, s, func(tx *Tx) {
			for _, id := range []string{"stays", "changes", "goes"} {
				widgets.Put(tx, widget{ID: id, Owner: "x"})
			}
		})
		guards := s.Watch(Guards)
		c.cut()
		changed, err := widgets.info.encode(&widget{ID: "changes", Owner: "y"})
		if err != nil {
			t.Fatal(err)
		}
		mustCommit(t, b, txn{writes: []write{
			{widgets.info.path("changes"), changed},
			{widgets.info.path("goes"), nil},
		}})
		if err := b.reclaim(within(t)); err != nil { // the change can't be watched any more
			t.Fatal(err)
		}
		same(t, "before it is told", ids(s.View()), "changes", "goes", "stays")
		c.tell(within(t))
		woken(t, guards.C) // nobody knows what changed, so all are woken
		same(t, "after", ids(s.View()), "changes", "stays")
		same(t, "y's", idsBy(s.View(), widgetsByOwner, "y"), "changes")
		update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "new"}) })
		same(t, "it goes on", ids(s.View()), "changes", "new", "stays")
	})
}

func TestMemoryDisconnectAndCrash(t *testing.T) {
	m := NewMemory()
	a, b := openMemory(t, m), openMemory(t, m)
	update(t, a, func(tx *Tx) { widgets.Put(tx, widget{ID: "1"}) })
	same(t, "the other's", ids(b.View()), "1")
	m.disconnect(errors.New("gone"))
	update(t, b, func(tx *Tx) { widgets.Put(tx, widget{ID: "2"}) })
	same(t, "a after the disconnection", ids(a.View()), "1", "2")

	m.Crash()
	err := a.Update(within(t), func(tx *Tx) error { widgets.Put(tx, widget{ID: "3"}); return nil })
	if !errors.Is(err, ErrClosed) || errors.Is(err, ErrUncertain) {
		t.Fatalf("an update after the crash: %v", err)
	}
	c := openMemory(t, m)
	same(t, "after the crash", ids(c.View()), "1", "2")
	update(t, c, func(tx *Tx) { widgets.Put(tx, widget{ID: "4"}) })
	same(t, "a store from before the crash", ids(a.View()), "1", "2")
}

// A store that can't read a record says so and ends, rather than going on
// without it.
func TestUnreadableRecordEndsTheStore(t *testing.T) {
	m := NewMemory()
	s := openMemory(t, m)
	newer := fmt.Appendf(nil, `{"v":%d,"d":{"id":"a"}}`, widgets.info.version()+1)
	mustCommit(t, m.connect(), txn{writes: []write{{widgets.info.path("a"), newer}}})
	<-s.Done()
	if err := s.Update(within(t), func(*Tx) error { return nil }); !errors.Is(err, errRecord) {
		t.Fatalf("got %v", err)
	}
	if _, err := OpenMemory(within(t), m, quiet()); !errors.Is(err, errRecord) {
		t.Fatalf("opened with %v", err)
	}
}

// A later mallee's tables are left alone.
func TestUnknownTableIsIgnored(t *testing.T) {
	m := NewMemory()
	s := openMemory(t, m)
	mustCommit(t, m.connect(), txn{writes: []write{put("of-a-later-mallee/a", "?"), put("odd", "?")}})
	update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a"}) })
	same(t, "all", ids(s.View()), "a")
}
