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
	// Sweep gives back what none of the live contents needs. It goes through them
	// after it began to protect what is being written, so that a content which
	// comes to be recorded meanwhile is one or the other.
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
// was let go since the last time, and every hour.
func (c *Controller) sweep(ctx context.Context) error {
	live := map[string]bool{}
	for content := range c.live {
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
	if err := c.Contents.Sweep(ctx, c.live); err != nil {
		return fmt.Errorf("sweep the contents of snapshots: %w", err)
	}
	c.swept = swept{c.Now(), live}
	return nil
}

// live contents as they are when they are asked for.
func (c *Controller) live(yield func(cloud.Content) bool) {
	state.LiveContents(c.Store.View())(yield)
}
