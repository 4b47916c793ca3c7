package state

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// maxAttempts bounds how often an Update runs again. Only other processes can
// overtake it, so that many is a storm.
const maxAttempts = 32

// Update runs fn on the present state and commits what it wrote in one
// transaction, which holds only if nothing that fn looked up has changed since
// (see the package's story for what is compared); otherwise fn runs again.
// It returns when the mirror has the commit, so that the next View shows it.
//
// Functions of one Store run one at a time. So fn should be quick, must not
// call Update or wait for one, and must be repeatable. An error of fn is
// returned as it is, and nothing of that fn is written. Where the error is
// ErrUncertain the change may have been written; with any other it was not.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	return s.update(ctx, nil, fn)
}

func (s *Store) update(ctx context.Context, f *fence, fn func(*Tx) error) error {
	for attempt := range maxAttempts {
		g, err := s.join(ctx, f, fn)
		if g == nil {
			return err
		}
		again, err := g.verdict(ctx, err)
		if !again {
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return fmt.Errorf("state: update, after %d attempts: %w", attempt+1, err)
		}
	}
	return fmt.Errorf("state: update, after %d attempts: %w", maxAttempts, ErrConflict)
}

// verdict waits until the group is committed, and says what that means for a
// member whose function returned err.
func (g *group) verdict(ctx context.Context, err error) (again bool, _ error) {
	select {
	case <-g.done:
	case <-ctx.Done():
		return false, fmt.Errorf("state: update: %w: %w", ErrUncertain, context.Cause(ctx))
	}
	switch {
	case g.err != nil:
		return false, g.err
	case g.outcome == committed:
		return false, err
	case g.outcome == fencedOff:
		return false, fmt.Errorf("state: update: %w", ErrNotLeader)
	}
	return true, nil
}

// pause waits before a further attempt, longer each time, never the same; the
// first comes at once.
func pause(ctx context.Context, attempt int) error {
	if attempt == 0 {
		return nil
	}
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
