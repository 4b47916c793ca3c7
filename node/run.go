package node

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"mallee/cloud"
	"mallee/link"
)

// Run keeps the conversation with the cloud and the machine as assigned, until
// ctx ends. Guests go on running after it.
func (n *Node) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { n.converse(ctx) })
	all.Go(func() { n.work(ctx) })
	all.Wait()
}

// converse sends a report whenever there is news, and accepts what comes back.
func (n *Node) converse(ctx context.Context) {
	for ctx.Err() == nil {
		report, changed := n.Report()
		a, err := n.sync(ctx, report, changed)
		if err == nil {
			err = n.Accept(a)
		}
		select {
		case <-changed: // an error is no wonder, and there is news to report
		case <-ctx.Done():
		default:
			if err != nil {
				n.Log.Warn("no agreement with the cloud", "node", n.ID, "err", err)
				pause(ctx, time.Second)
			}
		}
	}
}

// sync calls the cloud, and gives up as soon as the report is out of date.
func (n *Node) sync(ctx context.Context, r link.Report, changed <-chan struct{}) (link.Assignment, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-changed:
			cancel()
		case <-stop:
		}
	}()
	return n.Cloud.Sync(ctx, r)
}

// work starts a worker for each machine that something happened to, and for
// all of them at every tick.
func (n *Node) work(ctx context.Context) {
	tick := time.NewTicker(n.Tick)
	defer tick.Stop()
	var workers sync.WaitGroup
	defer workers.Wait()
	n.wakeAll()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n.wakeAll()
		case <-n.Hypervisor.Changes():
			n.wakeAll()
		case <-n.queued:
			for _, m := range n.take() {
				workers.Go(func() { n.serve(ctx, m) })
			}
		}
	}
}

// serve one machine until it has nothing more to do.
func (n *Node) serve(ctx context.Context, m *machine) {
	n.pass(ctx, m)
	for n.again(ctx, m) {
		n.pass(ctx, m)
	}
}

// take the machines that are queued; each is a worker's from here on.
func (n *Node) take() []*machine {
	n.mu.Lock()
	defer n.mu.Unlock()
	taken := n.queue
	n.queue = nil
	for _, m := range taken {
		m.due, m.busy = false, true
	}
	return taken
}

// again says whether there is more to do for the worker; otherwise the machine
// is not its own any more, and is due again when it should be retried.
func (n *Node) again(ctx context.Context, m *machine) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m.due && ctx.Err() == nil {
		m.due = false
		return true
	}
	m.busy = false
	if m.retry != nil {
		m.retry.Stop()
	}
	if wait := m.retryAt.Sub(n.Now()); wait > 0 && ctx.Err() == nil {
		m.retry = time.AfterFunc(wait, func() { n.wake(m.id) })
	}
	return false
}

// Step makes one pass over every machine, one after the other: what Run does,
// for a simulation that decides when.
func (n *Node) Step(ctx context.Context) {
	n.mu.Lock()
	var all []*machine
	for _, id := range slices.Sorted(maps.Keys(n.machines)) {
		all = append(all, n.machines[id])
	}
	n.queue = nil
	n.mu.Unlock()
	for _, m := range all {
		n.pass(ctx, m)
	}
}

func (n *Node) wake(id cloud.InstanceID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wakeLocked(id)
}

func (n *Node) wakeAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := range n.machines {
		n.wakeLocked(id)
	}
}

// wakeLocked asks for a pass over the machine: by the worker that has it, or by
// the next. mu is held.
func (n *Node) wakeLocked(id cloud.InstanceID) {
	m := n.machines[id]
	if m == nil || m.due {
		return
	}
	m.due = true
	if m.busy {
		return
	}
	n.queue = append(n.queue, m)
	select {
	case n.queued <- struct{}{}:
	default: // it holds one already
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
