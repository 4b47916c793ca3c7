package controller

import (
	"context"
	"fmt"

	"mallee/cloud"
	"mallee/state"
)

// expire forgets what was over long enough ago.
func (c *Controller) expire(ctx context.Context) error {
	if err := c.expireInstances(ctx); err != nil {
		return fmt.Errorf("forget terminated instances: %w", err)
	}
	if err := c.expireImages(ctx); err != nil {
		return fmt.Errorf("forget deregistered images: %w", err)
	}
	if err := c.expireTasks(ctx); err != nil {
		return fmt.Errorf("forget finished tasks: %w", err)
	}
	return nil
}

func (c *Controller) expireInstances(ctx context.Context) error {
	for o := range state.ObservationsByPhase.By(c.Store.View(), cloud.PhaseGone) {
		if c.Now().Sub(o.At) < c.Deadlines.Terminated {
			continue
		}
		err := c.Store.Update(ctx, func(tx *state.Tx) error {
			i, _, ok := state.Instances.Get(tx, o.Instance)
			// One that was stopped is gone long before its termination.
			if ok && i.Wish == cloud.WishTerminated && c.Now().Sub(i.WishedAt) >= c.Deadlines.Terminated {
				state.Forget(tx, i)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// expireImages forgets deregistered images that no instance was started from.
// An instance that is launched meanwhile looks its image up, and so meets the
// deletion.
func (c *Controller) expireImages(ctx context.Context) error {
	view := c.Store.View()
	for i := range state.Images.All(view) {
		if i.Deregistered.IsZero() || c.Now().Sub(i.Deregistered) < c.Deadlines.Image || used(view, i.ID) {
			continue
		}
		err := c.Store.Update(ctx, func(tx *state.Tx) error {
			state.Images.Delete(tx, i.ID)
			state.TagSets.Delete(tx, string(i.ID))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func used(r state.Reader, id cloud.ImageID) bool {
	for range state.InstancesByImage.By(r, id) {
		return true
	}
	return false
}
