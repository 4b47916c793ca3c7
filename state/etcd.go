package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// etcd is the backend over a client of etcd, in this process or outside.
type etcd struct {
	client *clientv3.Client
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup // of the followers
	server *embedded      // nil for an outside etcd
}

// Limits of one transaction. An outside etcd needs the same, as its flags
// --max-txn-ops and --max-request-bytes. More bytes than that etcd advises against.
const (
	maxTxnOps       = 16384
	maxRequestBytes = 10 << 20
)

// dialTimeout is how long an outside etcd may take to answer when we open.
const dialTimeout = 10 * time.Second

func newEtcd(client *clientv3.Client, server *embedded) *etcd {
	ctx, cancel := context.WithCancel(context.Background())
	return &etcd{client: client, ctx: ctx, cancel: cancel, server: server}
}

// dialEtcd connects to an outside etcd and waits for its first answer.
func dialEtcd(ctx context.Context, o Options) (backend, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            o.Endpoints,
		TLS:                  o.TLS,
		Logger:               zapTo(o.Logger),
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		MaxCallSendMsgSize:   maxRequestBytes + 1<<20,
	})
	if err != nil {
		return nil, fmt.Errorf("state: etcd at %v: %w", o.Endpoints, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if _, err := client.Get(ctx, prefix, clientv3.WithCountOnly()); err != nil {
		return nil, errors.Join(fmt.Errorf("state: no answer from etcd at %v: %w", o.Endpoints, err), client.Close())
	}
	return newEtcd(client, nil), nil
}

// loadPage is how many records are read at once, to bound what etcd holds.
const loadPage = 5000

func (e *etcd) load(ctx context.Context) ([]pair, int64, error) {
	var pairs []pair
	from, end, rev := prefix, clientv3.GetPrefixRangeEnd(prefix), int64(0)
	for {
		r, err := e.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(loadPage), clientv3.WithRev(rev))
		if err != nil {
			return nil, 0, fmt.Errorf("read records from %q: %w", from, err)
		}
		if rev == 0 {
			rev = r.Header.Revision
		}
		for _, kv := range r.Kvs {
			pairs = append(pairs, pair{string(kv.Key), kv.Value, kv.ModRevision})
		}
		if !r.More {
			return pairs, rev, nil
		}
		from = pairs[len(pairs)-1].key + "\x00"
	}
}

func (e *etcd) commit(ctx context.Context, t txn) (result, error) {
	r, err := e.try(ctx, t)
	if err != nil && e.server != nil && timedOut(err) {
		r, err = e.settle(ctx, t, err)
	}
	if err != nil {
		return refused(err)
	}
	return r, nil
}

// settle finds out what became of a transaction that the embedded etcd gave
// up waiting for, as it does after 5 seconds on a host that is too busy. It
// may take effect at any time, so it is tried again until something of it is
// known: nobody else writes here, so only it can have overtaken itself.
func (e *etcd) settle(ctx context.Context, t txn, err error) (result, error) {
	for attempt := 0; timedOut(err); attempt++ {
		if pause(ctx, attempt) != nil {
			return result{}, err
		}
		var r result
		r, err = e.try(ctx, t)
		switch {
		case err != nil:
		case r.outcome == committed:
			return r, nil
		case r.outcome == overtaken:
			return result{committed, t.base + 1}, nil
		default:
			return result{}, errors.New("the leader's seat was lost before it was known")
		}
	}
	return result{}, err
}

func timedOut(err error) bool {
	return errors.Is(err, rpctypes.ErrTimeout) || errors.Is(err, rpctypes.ErrTimeoutDueToLeaderFail)
}

func (e *etcd) try(ctx context.Context, t txn) (result, error) {
	conds := make([]clientv3.Cmp, 0, len(t.compares)+1)
	for _, c := range t.compares {
		conds = append(conds, clientv3.Compare(clientv3.ModRevision(c.key), "=", c.rev))
	}
	var otherwise []clientv3.Op
	if f := t.fence; f != nil {
		conds = append(conds, clientv3.Compare(clientv3.CreateRevision(f.key), "=", f.rev))
		otherwise = []clientv3.Op{clientv3.OpGet(f.key)}
	}
	ops := make([]clientv3.Op, 0, len(t.writes))
	for _, w := range t.writes {
		if w.value == nil {
			ops = append(ops, clientv3.OpDelete(w.key))
		} else {
			ops = append(ops, clientv3.OpPut(w.key, string(w.value)))
		}
	}
	r, err := e.client.Txn(ctx).If(conds...).Then(ops...).Else(otherwise...).Commit()
	if err != nil {
		return result{}, err
	}
	return result{outcomeOf(r, t.fence), r.Header.Revision}, nil
}

func outcomeOf(r *clientv3.TxnResponse, f *fence) outcome {
	if r.Succeeded {
		return committed
	}
	if f == nil {
		return overtaken
	}
	kvs := r.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 || kvs[0].CreateRevision != f.rev {
		return fencedOff
	}
	return overtaken
}

// refused tells errors that etcd gives before it tries from those after which
// nobody knows.
func refused(err error) (result, error) {
	switch {
	case errors.Is(err, rpctypes.ErrTooManyRequests):
		return result{outcome: overloaded}, nil
	case errors.Is(err, rpctypes.ErrNoSpace):
		return result{}, fmt.Errorf("%w (quota %d GiB): start mallee up again, which reclaims room, and delete what is not needed: %w", ErrNoSpace, quotaBytes>>30, err)
	case errors.Is(err, rpctypes.ErrTooManyOps), errors.Is(err, rpctypes.ErrRequestTooLarge):
		return result{}, fmt.Errorf("%w (at most %d records and %d MiB; an outside etcd needs --max-txn-ops=%[2]d --max-request-bytes=%[4]d): ask for less at once: %[5]w",
			ErrTooBig, maxTxnOps, maxRequestBytes>>20, maxRequestBytes, err)
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrInvalidAuthToken):
		return result{}, err
	}
	return result{}, fmt.Errorf("%w: %w", ErrUncertain, err)
}

func (e *etcd) follow(from int64, deliver func(batch), lost func(context.Context, error)) {
	e.wg.Add(1)
	go func() {
		defer e.wg.Done()
		err := e.watch(from, deliver)
		if e.ctx.Err() == nil {
			lost(e.ctx, err)
		}
	}()
}

// watch delivers changes until the watch ends. etcd never splits what one
// revision changed over two answers.
func (e *etcd) watch(from int64, deliver func(batch)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(e.ctx))
	defer cancel()
	for r := range e.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from)) {
		if err := r.Err(); err != nil {
			return err
		}
		if len(r.Events) > 0 {
			deliver(batchOf(r.Events))
		}
	}
	return errors.New("the watch ended")
}

func batchOf(events []*clientv3.Event) batch {
	b := batch{rev: events[len(events)-1].Kv.ModRevision, changes: make([]change, len(events))}
	for i, ev := range events {
		b.changes[i] = change{key: string(ev.Kv.Key), rev: ev.Kv.ModRevision}
		if ev.Type == clientv3.EventTypePut {
			b.changes[i].value = ev.Kv.Value
		}
	}
	return b
}

func (e *etcd) backup(ctx context.Context, w io.Writer) error {
	r, err := e.client.SnapshotWithVersion(ctx)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r.Snapshot)
	return errors.Join(err, r.Snapshot.Close())
}

func (e *etcd) reclaim(ctx context.Context) error {
	r, err := e.client.Get(ctx, prefix, clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	if _, err := e.client.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compact: %w", err)
	}
	if err := e.defragment(ctx); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	if _, err := e.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return fmt.Errorf("disarm: %w", err)
	}
	return nil
}

func (e *etcd) defragment(ctx context.Context) error {
	if e.server != nil { // whose client in process panics at this call (etcd 3.7.3)
		return e.server.etcd.Server.Defragment()
	}
	for _, at := range e.client.Endpoints() {
		if _, err := e.client.Defragment(ctx, at); err != nil {
			return err
		}
	}
	return nil
}

func (e *etcd) onEnd(f func(error)) {
	if e.server != nil {
		e.server.onEnd(f)
	}
}

func (e *etcd) close() error {
	e.cancel()
	e.wg.Wait()
	err := e.client.Close()
	if errors.Is(err, context.Canceled) {
		err = nil // how a client says that it was closed
	}
	if e.server != nil {
		err = errors.Join(err, e.server.close())
	}
	return err
}
