package state

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// maxAttempts bounds how often an Update runs again. From the second attempt
// on only other processes can overtake it, so that many is a storm.
const maxAttempts = 32

// Update runs fn on the present state and commits what it wrote in one
// transaction, which holds only if nothing that fn looked up has changed since
// (see the package's story for what is compared); otherwise fn runs again.
// It returns when the mirror has the commit, so that the next View shows it.
//
// fn must be repeatable, must not call Update, and should be quick: others
// that were overtaken wait for it. An error of fn is returned as it is, and
// nothing is written. Where the error is ErrUncertain the change may have been
// written; with any other it was not.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	return s.update(ctx, nil, fn)
}

func (s *Store) update(ctx context.Context, f *fence, fn func(*Tx) error) error {
	for attempt := range maxAttempts {
		done, err := s.attempt(ctx, attempt > 0, f, fn)
		if done || err != nil {
			return err
		}
		if attempt == 0 {
			continue
		}
		if err := pause(ctx, attempt); err != nil {
			return fmt.Errorf("state: update, after %d attempts: %w", attempt+1, err)
		}
	}
	return fmt.Errorf("state: update, after %d attempts: %w", maxAttempts, ErrConflict)
}

// attempt runs fn once and commits; false without an error asks for another.
func (s *Store) attempt(ctx context.Context, alone bool, f *fence, fn func(*Tx) error) (done bool, err error) {
	if alone {
		s.turn.Lock()
		defer s.turn.Unlock()
	} else {
		s.turn.RLock()
		defer s.turn.RUnlock()
	}
	if err := s.Err(); err != nil {
		return false, err
	}
	tx := s.mirror.begin()
	err = fn(tx)
	if broken := tx.check(); broken != nil {
		panic(broken)
	}
	if err == nil {
		err = tx.err
	}
	if err != nil {
		return false, err
	}
	t := tx.plan()
	if len(t.writes) == 0 {
		return true, nil
	}
	t.fence = f
	return s.commit(ctx, tx, t)
}

func (s *Store) commit(ctx context.Context, tx *Tx, t txn) (done bool, err error) {
	r, err := s.backend.commit(ctx, t)
	if err != nil {
		return false, fmt.Errorf("state: commit %d writes: %w", len(t.writes), err)
	}
	switch r.outcome {
	case overtaken:
		// What overtook us is a later change of a record, so the mirror moves.
		err := s.mirror.wait(ctx, s.done, tx.rev+1)
		return false, err
	case fencedOff:
		return false, fmt.Errorf("state: commit %d writes: %w", len(t.writes), ErrNotLeader)
	case overloaded:
		return false, nil
	}
	if err := s.mirror.wait(ctx, s.done, r.rev); err != nil {
		return false, fmt.Errorf("state: committed at revision %d, which the mirror has not reached: %w: %w", r.rev, ErrUncertain, err)
	}
	return true, nil
}

// pause waits before a further attempt, longer each time, never the same.
func pause(ctx context.Context, attempt int) error {
	longest := min(time.Millisecond<<min(attempt, 10), 500*time.Millisecond)
	t := time.NewTimer(longest/2 + rand.N(longest/2))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
