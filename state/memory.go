package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// Memory is a stand-in for etcd that keeps its content in memory, for tests
// and simulations. Stores open on it (OpenMemory) and it outlives them, as a
// disk does. It starts no goroutine, and every Store open on it has a commit
// before the Update that made it returns.
type Memory struct {
	// Interrupt, where set, is called around each commit, and may fail it or
	// panic, as a crash would. It must be set before the first Update.
	Interrupt func(Moment) error

	mu       sync.Mutex // guards all below, and the links' fields
	rev      int64
	records  map[string]pair
	history  []batch // of the revisions after compacted
	floor    int64   // the last compacted revision
	seats    map[string]*memorySeat
	links    []*memoryLink // in the order of connection
	vacated  chan struct{} // closed and replaced when a seat falls free
	keepRevs int
}

// Moment is a point around a commit to a Memory.
type Moment int

const (
	// BeforeCommit: an error here means that nothing was written.
	BeforeCommit Moment = iota
	// AfterCommit: an error here loses the answer; Update returns ErrUncertain.
	AfterCommit
)

// NewMemory returns an empty one.
func NewMemory() *Memory {
	return &Memory{
		rev:      1, // as etcd starts
		records:  map[string]pair{},
		seats:    map[string]*memorySeat{},
		vacated:  make(chan struct{}),
		keepRevs: 1000,
	}
}

// Crash cuts off all Stores that are open, as if their processes had died: their
// Updates fail from here on, their seats are free. The content stays.
func (m *Memory) Crash() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.links {
		l.cut()
	}
	m.links = nil
}

// Depose ends all leases, as if their holders had hung for too long.
func (m *Memory) Depose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.seats {
		s.vacate()
	}
}

func (m *Memory) connect() *memoryLink {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &memoryLink{m: m}
	m.links = append(m.links, l)
	return l
}

// memoryLink is one Store's connection to a Memory. Its fields are guarded by
// the Memory's mu.
type memoryLink struct {
	m       *Memory
	dead    bool
	deliver func(batch) // nil while nobody follows
	lost    func(context.Context, error)
}

func (l *memoryLink) load(context.Context) ([]pair, int64, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.dead {
		return nil, 0, ErrClosed
	}
	pairs := make([]pair, 0, len(l.m.records))
	for _, p := range l.m.records {
		pairs = append(pairs, p)
	}
	slices.SortFunc(pairs, func(a, b pair) int { return cmp.Compare(a.key, b.key) })
	return pairs, l.m.rev, nil
}

func (l *memoryLink) commit(ctx context.Context, t txn) (result, error) {
	if err := ctx.Err(); err != nil {
		return result{}, err
	}
	if err := l.m.interrupt(BeforeCommit); err != nil {
		return result{}, err
	}
	r, err := l.write(t)
	if err != nil {
		return r, err
	}
	if err := l.m.interrupt(AfterCommit); err != nil {
		return result{}, fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	return r, nil
}

func (m *Memory) interrupt(at Moment) error {
	if m.Interrupt == nil {
		return nil
	}
	return m.Interrupt(at)
}

func (l *memoryLink) write(t txn) (result, error) {
	m := l.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.dead {
		return result{}, ErrClosed
	}
	if r, ok := m.check(t); !ok {
		return r, nil
	}
	m.rev++
	b := batch{rev: m.rev}
	for _, w := range t.writes {
		if p, changed := m.apply(w); changed {
			b.changes = append(b.changes, p)
		}
	}
	m.history = append(m.history, b)
	if len(m.history) > 2*m.keepRevs {
		m.compact(m.rev - int64(m.keepRevs))
	}
	for _, each := range m.links {
		if each.deliver != nil {
			each.deliver(b)
		}
	}
	return result{committed, m.rev}, nil
}

func (m *Memory) check(t txn) (result, bool) {
	if t.fence != nil {
		if s := m.seats[t.fence.key]; s == nil || s.key != *t.fence {
			return result{outcome: fencedOff}, false
		}
	}
	for _, c := range t.compares {
		if m.records[c.key].rev != c.rev {
			return result{outcome: overtaken}, false
		}
	}
	return result{}, true
}

func (m *Memory) apply(w write) (change, bool) {
	p := pair{key: w.key, value: slices.Clone(w.value), rev: m.rev}
	if w.value != nil {
		m.records[w.key] = p
		return p, true
	}
	_, there := m.records[w.key]
	delete(m.records, w.key)
	return p, there
}

// compact forgets history up to rev.
func (m *Memory) compact(rev int64) {
	m.floor = rev
	m.history = slices.Clone(slices.DeleteFunc(m.history, func(b batch) bool { return b.rev <= rev }))
}

var errCompacted = errors.New("the revisions to follow are compacted")

func (l *memoryLink) follow(from int64, deliver func(batch), lost func(context.Context, error)) {
	if !l.listen(from, deliver, lost) {
		lost(context.Background(), errCompacted)
	}
}

func (l *memoryLink) listen(from int64, deliver func(batch), lost func(context.Context, error)) bool {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if from <= l.m.floor {
		return false
	}
	for _, b := range l.m.history {
		if b.rev >= from {
			deliver(b)
		}
	}
	if !l.dead {
		l.deliver, l.lost = deliver, lost
	}
	return true
}

// disconnect ends all watches, as a network does.
func (m *Memory) disconnect(cause error) {
	m.mu.Lock()
	var lost []func(context.Context, error)
	for _, l := range m.links {
		if l.lost != nil {
			lost = append(lost, l.lost)
		}
		l.deliver, l.lost = nil, nil
	}
	m.mu.Unlock()
	for _, f := range lost {
		f(context.Background(), cause)
	}
}

// onEnd: a Memory never dies by itself.
func (l *memoryLink) onEnd(func(error)) {}

func (l *memoryLink) backup(context.Context, io.Writer) error {
	return errors.New("a state in memory has no backup")
}

func (l *memoryLink) reclaim(context.Context) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.compact(l.m.rev)
	return nil
}

func (l *memoryLink) close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.cut()
	l.m.links = slices.DeleteFunc(l.m.links, func(each *memoryLink) bool { return each == l })
	return nil
}

// cut ends a link; the Memory's mu is held.
func (l *memoryLink) cut() {
	l.dead, l.deliver, l.lost = true, nil, nil
	for _, s := range l.m.seats {
		if s.link == l {
			s.vacate()
		}
	}
}
