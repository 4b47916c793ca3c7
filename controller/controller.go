// Package controller holds the loops that make the cloud match what was
// wished. A loop takes no input: each pass reads what is there and makes the
// next step, and the next pass is the retry. A commit wakes it, and so does a
// timer.
//
//	nodes      a node's report ▶ observations; what a node has given back ▶ released;
//	           a snapshot that it has stored ▶ completed
//	instances  what a guest or a failure asks for ▶ the instance's wish
//	volumes    a volume that can't be made ▶ the wish of the instance that needs it
//	deadlines  what took longer than it may ▶ the instance's wish
//	expire     what was over an hour ago ▶ forgotten
//	sweep      what no snapshot, volume or task holds any more ▶ swept from the store of contents
//
// Who writes what: observations are written here alone. The wish of an
// instance is the API's, and of the loop instances where it acts for the user.
// What an instance takes from the cloud is given back in one place, release in
// nodes, in the same transaction that concludes that the node has nothing left
// of it (package link says when that may be concluded).
//
// What can go wrong: a pass fails as a whole, is logged, and is made again.
// Passes run in more than one process change nothing twice, for every step is
// measured in the transaction that makes it.
package controller

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"sync"
	"time"

	"mallee/state"
)

// Options of the loops. All are required but Contents, without which nothing is
// swept, Rand, and Deadlines and its fields.
type Options struct {
	Store     *state.Store
	Contents  Contents
	Now       func() time.Time
	Rand      io.Reader // of ids; unpredictable, crypto/rand by default
	Log       *slog.Logger
	Deadlines Deadlines
}

// Deadlines say how long a thing may take before it shows; zero values are
// replaced by Eucalyptus's defaults.
type Deadlines struct {
	Pending    time.Duration // an instance from its launch to running: 60 min
	Terminated time.Duration // how long a terminated instance is shown: 60 min
	Image      time.Duration // how long a deregistered image is remembered at least: 10 min
}

// Controller is all the loops of one process.
type Controller struct {
	Options
	swept swept
}

// New controller; Run starts its loops.
func New(o Options) *Controller {
	set := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	set(&o.Deadlines.Pending, time.Hour)
	set(&o.Deadlines.Terminated, time.Hour)
	set(&o.Deadlines.Image, 10*time.Minute)
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Contents == nil {
		o.Contents = keepAll{}
	}
	return &Controller{Options: o, swept: swept{live: map[string]bool{}}}
}

// loop is one pass and what wakes it.
type loop struct {
	name  string
	every time.Duration
	of    []state.AnyTable // tables whose commits wake it; none for the timer alone
	pass  func(context.Context) error
}

func (c *Controller) loops() []loop {
	return []loop{
		{"instances", 10 * time.Second, []state.AnyTable{state.Observations}, c.settleInstances},
		{"volumes", 10 * time.Second, []state.AnyTable{state.VolumeObservations}, c.settleVolumes},
		{"deadlines", 10 * time.Second, nil, c.endOverdue},
		{"expire", time.Minute, nil, c.expire},
		{"sweep", time.Minute, nil, c.sweep},
	}
}

// Run the loops until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, l := range c.loops() {
		all.Go(func() { c.run(ctx, l) })
	}
	all.Wait()
}

// Step makes one pass of every loop: what Run does, for a simulation that
// decides when.
func (c *Controller) Step(ctx context.Context) error {
	for _, l := range c.loops() {
		if err := l.pass(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) run(ctx context.Context, l loop) {
	var woken <-chan struct{}
	if len(l.of) > 0 {
		watch := c.Store.Watch(l.of...)
		defer watch.Stop()
		woken = watch.C
	}
	tick := time.NewTicker(l.every)
	defer tick.Stop()
	for {
		if err := l.pass(ctx); err != nil && ctx.Err() == nil {
			c.Log.Error("a loop's pass failed", "loop", l.name, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-woken:
		}
	}
}
