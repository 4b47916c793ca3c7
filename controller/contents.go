package controller

import (
	"context"
	"fmt"
	"iter"
	"time"

	"mallee/cloud"
	"mallee/state"
)

// Contents is where the bytes of snapshots are kept. What is just being written
// is none of the live ones, and must outlive a sweep all the same.
type Contents interface {
	// Sweep gives back what none of the live contents needs.
	Sweep(ctx context.Context, live iter.Seq[cloud.Content]) error
}

// keepAll is where nothing is swept.
type keepAll struct{}

func (keepAll) Sweep(context.Context, iter.Seq[cloud.Content]) error { return nil }

// sweepEvery is how often contents are swept though nothing is known to have
// become free: what was given up half-written is.
const sweepEvery = time.Hour

// swept is what the last sweep left. Only the loop that sweeps uses it.
type swept struct {
	at   time.Time
	live map[string]bool // manifests
}

// sweep gives back what no snapshot, volume or task holds any more, when something
// was let go since the last time, and every hour. A content that comes to be held
// while the sweep runs was made, or held, before: it is among the live ones or
// just written.
func (c *Controller) sweep(ctx context.Context) error {
	view := c.Store.View()
	live := map[string]bool{}
	for content := range state.LiveContents(view) {
		live[content.Manifest] = true
	}
	freed := false
	for manifest := range c.swept.live {
		freed = freed || !live[manifest]
	}
	if !freed && c.Now().Sub(c.swept.at) < sweepEvery {
		for manifest := range live {
			c.swept.live[manifest] = true
		}
		return nil
	}
	if err := c.Contents.Sweep(ctx, state.LiveContents(view)); err != nil {
		return fmt.Errorf("sweep the contents of snapshots: %w", err)
	}
	c.swept = swept{c.Now(), live}
	return nil
}
