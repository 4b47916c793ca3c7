package state

import (
	"context"
	"fmt"
	"os"
)

// Leadership is a seat that one process has at a time. It is kept by a lease,
// which a process that hangs loses without knowing; so what a leader writes
// goes through its Update, which etcd refuses once the seat is another's.
type Leadership struct {
	store *Store
	seat  seat
}

// Lead waits until the caller has the seat of that name, or ctx ends.
func (s *Store) Lead(ctx context.Context, name string) (*Leadership, error) {
	won, err := s.backend.campaign(ctx, name, self())
	if err != nil {
		return nil, fmt.Errorf("state: become the leader of %s: %w", name, err)
	}
	return &Leadership{s, won}, nil
}

// self tells people who has a seat.
func self() string {
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	return fmt.Sprintf("%s process %d", host, os.Getpid())
}

// Update is Store.Update as the leader; ErrNotLeader where the seat was lost.
func (l *Leadership) Update(ctx context.Context, fn func(*Tx) error) error {
	return l.store.update(ctx, l.seat.fence(), fn)
}

// Lost is closed when the lease ended, by Resign too. Writes are safe without
// looking at it: it is for ending the loop.
func (l *Leadership) Lost() <-chan struct{} { return l.seat.lost() }

// Resign gives the seat to the next.
func (l *Leadership) Resign(ctx context.Context) error {
	if err := l.seat.resign(ctx); err != nil {
		return fmt.Errorf("state: resign: %w", err)
	}
	return nil
}
