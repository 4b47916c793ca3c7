// Package state keeps the one durable truth of a cloud: typed records in etcd,
// read from an indexed mirror in memory and written by transactions.
//
// # Terms
//
//	record    a value of one Table under a key; JSON in etcd at /c/<table>/<key>
//	revision  etcd's count of commits; a record carries that of its last change
//	mirror    all records in memory, fed by one watch, kept as immutable trees
//	View      the mirror at one revision; reading it never touches etcd
//	Tx        a View that takes writes; what Update hands to its function
//	guard     a record that stands for what must be unique or counted
//	seat      the leadership of a loop, held by a lease, that fences its writes
//
// # How a write goes
//
//	Update(fn) ─▶ fn runs on the mirror ─▶ one etcd transaction: are all records
//	     ▲                                 that fn looked up as it saw them?
//	     │                                    │ yes            │ no
//	     │                                    ▼                ▼
//	 returns ◀─ the mirror has it ◀─ watch ◀─ commit      the mirror follows, fn runs again
//
// So fn must be repeatable: it decides and writes through its Tx, and does
// nothing else. A fn that changes nothing commits nothing. Updates that come
// while a commit is under way are committed together by the next (see group).
//
// # What is compared, and what is not
//
// Every record that fn looked up by key (Get) or wrote is compared, absent
// ones included. What it read by All or By is not: a record that appears in a
// range meanwhile (a phantom) goes unseen. What must hold over a range, such
// as a unique name, a quota or a node's room, therefore has a guard: Claim,
// Release and Add, or a record that every writer of the range also writes.
//
// # Who owns memory
//
// Records are shared by all readers and never change: copy before changing,
// maps and slices too, and Put the copy (Table.Edit does it). A program built
// with -race checks at the end of each Update that fn kept to this.
//
// # What can go wrong
//
//   - Two processes, one folder: the second Open fails at once with ErrInUse.
//   - etcd refuses or is full: ErrNoSpace, ErrTooBig; nothing was written.
//   - The answer to a commit is lost: ErrUncertain; it may have been written.
//   - The watch is lost or outrun by compaction: the mirror is read anew.
//   - A record can't be read (it is of a newer mallee): the Store ends, Done
//     is closed and Err says why; better no cloud than one that guesses.
//   - A leader lost its seat: ErrNotLeader; nothing was written.
//
// On one machine etcd runs inside the process, without a listener, on
// Dir/etcd; Options.Endpoints names an outside one instead. A Memory stands in
// for it where tests and simulations need many quick clouds.
package state

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
)

var (
	// ErrInUse says that another process holds the folder.
	ErrInUse = errors.New("the folder is in use")
	// ErrClosed says that the Store was closed, or its Memory crashed.
	ErrClosed = errors.New("the state is closed")
	// ErrConflict says that an Update was overtaken again and again.
	ErrConflict = errors.New("overtaken by other writers too often")
	// ErrUncertain says that a commit's answer was lost: it may be written or not.
	ErrUncertain = errors.New("it is not known whether the change was written")
	// ErrNoSpace says that the store is at its quota.
	ErrNoSpace = errors.New("the state's store is full")
	// ErrTooBig says that one Update wrote more than etcd takes at once.
	ErrTooBig = errors.New("the change is too big for one transaction")
	// ErrNotLeader says that the seat was lost before the commit.
	ErrNotLeader = errors.New("no longer the leader")
	// ErrTaken says that a name is claimed by another; see TakenError.
	ErrTaken = errors.New("already taken")
)

// Options say where the state lives.
type Options struct {
	Dir       string       // folder of the embedded etcd; made (0700) where missing
	Endpoints []string     // an outside etcd instead, as host:port or URLs
	TLS       *tls.Config  // for Endpoints; nil speaks plain text
	Logger    *slog.Logger // gets etcd's warnings and ours
}

// Store is the state of one cloud. Its methods may be called concurrently.
type Store struct {
	backend backend
	mirror  *mirror
	log     *slog.Logger

	queue atomic.Int32 // Updates that are about to take turn
	turn  sync.Mutex   // guards open, and is held while a function runs or a commit does
	open  *group       // what the next commit will be; nil for nothing yet

	mu    sync.Mutex // guards err
	err   error
	done  chan struct{} // closed when err was set
	close func() error  // of the backend, once
}

// Open opens the state that Options name and returns when its mirror is
// complete. The folder is held until Close; ErrInUse names who holds it.
func Open(ctx context.Context, o Options) (*Store, error) {
	var b backend
	var err error
	if len(o.Endpoints) > 0 {
		b, err = dialEtcd(ctx, o)
	} else {
		b, err = startEtcd(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	return openOn(ctx, b, o.Logger)
}

// OpenMemory opens the state that a Memory holds. It starts no goroutine, and
// Update on it completes in the caller's.
func OpenMemory(ctx context.Context, m *Memory, log *slog.Logger) (*Store, error) {
	return openOn(ctx, m.connect(), log)
}

func openOn(ctx context.Context, b backend, log *slog.Logger) (*Store, error) {
	s := &Store{backend: b, mirror: newMirror(), log: log, done: make(chan struct{}), close: sync.OnceValue(b.close)}
	if err := s.read(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("state: read the records: %w", err), b.close())
	}
	b.onEnd(s.end)
	return s, nil
}

// read fills the mirror from the backend and follows it from there.
func (s *Store) read(ctx context.Context) error {
	pairs, rev, err := s.backend.load(ctx)
	if err != nil {
		return err
	}
	if err := s.mirror.reset(pairs, rev); err != nil {
		return err
	}
	s.backend.follow(rev+1, s.apply, s.lost)
	return nil
}

func (s *Store) apply(b batch) {
	if s.Err() != nil {
		return
	}
	if err := s.mirror.apply(b); err != nil {
		s.end(err)
	}
}

// lost is called when the watch ended before the Store did, from whatever
// followed it: the mirror starts again from what is there now.
func (s *Store) lost(ctx context.Context, cause error) {
	s.log.Warn("state: lost the watch, reading all records anew", "cause", cause)
	for attempt := 0; ; attempt++ {
		err := s.read(ctx)
		switch {
		case err == nil || ctx.Err() != nil || errors.Is(err, ErrClosed):
			return
		case errors.Is(err, errRecord):
			s.end(err)
			return
		}
		s.log.Warn("state: can't read the records, trying again", "err", err)
		if pause(ctx, attempt) != nil {
			return
		}
	}
}

// end closes the Store's working life with a reason.
func (s *Store) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = cause
	close(s.done)
}

// Done is closed when the Store can't go on, or was closed; Err says why.
func (s *Store) Done() <-chan struct{} { return s.done }

// Err is nil while the Store works, and ErrClosed after Close.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends the Store and gives the folder back. Updates that run meanwhile
// end with an error; Views stay readable.
func (s *Store) Close() error {
	s.end(fmt.Errorf("state: %w", ErrClosed))
	return s.close()
}

// Backup writes a copy of the whole store to w, as of one moment, with a
// digest that Restore checks.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	if err := s.backend.backup(ctx, w); err != nil {
		return fmt.Errorf("state: back up: %w", err)
	}
	return nil
}

// Reclaim forgets the history of all records and gives its room back to the
// disk. It is the way out of ErrNoSpace; others wait while it runs.
func (s *Store) Reclaim(ctx context.Context) error {
	if err := s.backend.reclaim(ctx); err != nil {
		return fmt.Errorf("state: reclaim room: %w", err)
	}
	return nil
}
