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

// turn is when something that the node keeps is looked at, and by whom: by one
// worker at a time.
type turn struct {
	pass    func(context.Context) // looks at it once
	retryAt time.Time             // when it is looked at again unasked; zero: at the next tick
	retry   *time.Timer           // of retryAt, in Run mode
	due     bool                  // something happened to it since a worker last took it
	busy    bool                  // a worker has it
	cancel  func()                // ends the last pass that was made; nil before the first
}

// work starts a worker for each thing that something happened to, and for all of
// them at every tick.
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
			for _, t := range n.claimed() {
				workers.Go(func() { n.serve(ctx, t) })
			}
		}
	}
}

// serve a thing until there is nothing more to do.
func (n *Node) serve(ctx context.Context, t *turn) {
	n.look(ctx, t)
	for n.again(ctx, t) {
		n.look(ctx, t)
	}
}

// look makes a pass that can be abandoned.
func (n *Node) look(ctx context.Context, t *turn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.mu.Lock()
	t.cancel = cancel
	n.mu.Unlock()
	t.pass(ctx)
}

// claimed are the things that are queued; each is a worker's from here on.
func (n *Node) claimed() []*turn {
	n.mu.Lock()
	defer n.mu.Unlock()
	taken := n.queue
	n.queue = nil
	for _, t := range taken {
		t.due, t.busy = false, true
	}
	return taken
}

// again says whether there is more to do for the worker; otherwise the thing is
// not its own any more, and is due again when it should be retried.
func (n *Node) again(ctx context.Context, t *turn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.due && ctx.Err() == nil {
		t.due = false
		return true
	}
	t.busy = false
	if t.retry != nil {
		t.retry.Stop()
	}
	if wait := t.retryAt.Sub(n.Now()); wait > 0 && ctx.Err() == nil {
		t.retry = time.AfterFunc(wait, func() { n.wake(t) })
	}
	return false
}

// Step makes one pass over every thing, one after the other: what Run does, for a
// simulation that decides when.
func (n *Node) Step(ctx context.Context) {
	n.mu.Lock()
	all := n.turns()
	n.queue = nil
	n.mu.Unlock()
	for _, t := range all {
		n.look(ctx, t)
	}
}

// turns of all things, what ports are governed by and machines first, each kind in the order of its names. mu is
// held.
func (n *Node) turns() (all []*turn) {
	all = append(all, &n.grouping)
	for _, id := range slices.Sorted(maps.Keys(n.machines)) {
		all = append(all, &n.machines[id].turn)
	}
	for _, id := range slices.Sorted(maps.Keys(n.volumes)) {
		all = append(all, &n.volumes[id].turn)
	}
	return append(all, &n.sweeping)
}

func (n *Node) wake(t *turn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wakeLocked(t)
}

func (n *Node) wakeAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.turns() {
		n.wakeLocked(t)
	}
}

// wakeMachine asks for a pass over a machine that is known. mu is held.
func (n *Node) wakeMachine(id cloud.InstanceID) {
	if m := n.machines[id]; m != nil {
		n.wakeLocked(&m.turn)
	}
}

// wakeLocked asks for a pass: by the worker that has the thing, or by the next.
// mu is held.
func (n *Node) wakeLocked(t *turn) {
	if t.due {
		return
	}
	t.due = true
	if t.busy {
		return
	}
	n.queue = append(n.queue, t)
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
