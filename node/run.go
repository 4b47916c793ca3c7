package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"mallee/cloud"
	"mallee/link"
)

// Run keeps the conversation with the cloud and the machine as assigned, until
// ctx ends. Guests go on running after it.
func (n *Node) Run(ctx context.Context) {
	n.mu.Lock()
	n.woken = make(chan cloud.InstanceID, 1024)
	n.mu.Unlock()
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
		switch {
		case errors.Is(err, context.Canceled):
			continue // there is news to report, or Run ends
		case err == nil:
			err = n.Accept(a)
		}
		if err != nil {
			n.Log.Warn("no agreement with the cloud", "node", n.ID, "err", err)
			pause(ctx, time.Second)
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
		case id := <-n.woken:
			if n.take(id) {
				workers.Go(func() { n.serve(ctx, id) })
			}
		}
	}
}

// serve one machine until it has nothing more to do.
func (n *Node) serve(ctx context.Context, id cloud.InstanceID) {
	for {
		n.pass(ctx, id)
		if !n.release(ctx, id) {
			return
		}
	}
}

// take the machine for a worker; false where another has it, who then looks
// again.
func (n *Node) take(id cloud.InstanceID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.machines[id]
	if m == nil {
		return false
	}
	if m.busy {
		m.again = true
		return false
	}
	m.busy, m.again = true, false
	return true
}

// release the machine, unless there is more to do: then true, and it is kept.
func (n *Node) release(ctx context.Context, id cloud.InstanceID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.machines[id]
	if m == nil {
		return false
	}
	if m.again && ctx.Err() == nil {
		m.again = false
		return true
	}
	m.busy = false
	if wait := m.retryAt.Sub(n.Now()); wait > 0 && ctx.Err() == nil {
		time.AfterFunc(wait, func() { n.wake(id) })
	}
	return false
}

// Step makes one pass over every machine, one after the other: what Run does,
// for a simulation that decides when.
func (n *Node) Step(ctx context.Context) {
	n.mu.Lock()
	ids := sortedKeys(n.machines)
	n.mu.Unlock()
	for _, id := range ids {
		n.pass(ctx, id)
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

// wakeLocked asks for a pass over the machine. Where the queue is full the
// next tick asks again.
func (n *Node) wakeLocked(id cloud.InstanceID) {
	select {
	case n.woken <- id:
	default:
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
