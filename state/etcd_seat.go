package state

import (
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// seats is where leaders' keys are in etcd, outside of what is mirrored.
const seats = "/l/"

// leaseSeconds is how long a leader that died keeps others out of its seat.
const leaseSeconds = 10

// etcdSeat is a leadership held by an etcd lease.
type etcdSeat struct {
	session  *concurrency.Session
	election *concurrency.Election
	key      fence // as it was won; the election forgets it when it resigns
}

func (e *etcd) campaign(ctx context.Context, name, who string) (seat, error) {
	session, err := concurrency.NewSession(e.client, concurrency.WithTTL(leaseSeconds), concurrency.WithContext(e.ctx))
	if err != nil {
		return nil, err
	}
	election := concurrency.NewElection(session, seats+name)
	if err := election.Campaign(ctx, who); err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return &etcdSeat{session, election, fence{election.Key(), election.Rev()}}, nil
}

func (s *etcdSeat) fence() *fence         { return &s.key }
func (s *etcdSeat) lost() <-chan struct{} { return s.session.Done() }

func (s *etcdSeat) resign(ctx context.Context) error {
	return errors.Join(s.election.Resign(ctx), s.session.Close())
}

// vacateSeats frees the seats of a process that is gone for sure: that of the
// embedded etcd's last run, whose leases would else be waited for.
func vacateSeats(ctx context.Context, client *clientv3.Client) error {
	_, err := client.Delete(ctx, seats, clientv3.WithPrefix())
	return err
}
