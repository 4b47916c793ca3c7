package controller

import (
	"context"
	"fmt"

	"mallee/cloud"
	"mallee/state"
)

// settleInstances turns what was observed into a wish where the user is not
// the one to say it: a guest that powered itself off, a launch that failed.
func (c *Controller) settleInstances(ctx context.Context) error {
	view := c.Store.View()
	for _, phase := range []cloud.Phase{cloud.PhaseExited, cloud.PhaseFailed} {
		for o := range state.ObservationsByPhase.By(view, phase) {
			if err := c.settle(ctx, o.Instance); err != nil {
				return fmt.Errorf("settle instance %s: %w", o.Instance, err)
			}
		}
	}
	return nil
}

// endOverdue ends the launches that took longer than they may, those of which
// no node ever said a word included.
func (c *Controller) endOverdue(ctx context.Context) error {
	view := c.Store.View()
	for i := range state.Instances.All(view) {
		if i.Wish != cloud.WishRunning || !c.overdue(i, seen(view, i.ID)) {
			continue
		}
		if err := c.settle(ctx, i.ID); err != nil {
			return fmt.Errorf("end the overdue instance %s: %w", i.ID, err)
		}
	}
	return nil
}

// seen is what was last observed of the instance, zero where nothing was.
func seen(r state.Reader, id cloud.InstanceID) cloud.Observation {
	if o, _, ok := state.Observations.Get(r, id); ok {
		return *o
	}
	return cloud.Observation{}
}

// settle one instance, as it is found in the transaction.
func (c *Controller) settle(ctx context.Context, id cloud.InstanceID) error {
	var settled cloud.Instance
	err := c.Store.Update(ctx, func(tx *state.Tx) error {
		settled = cloud.Instance{}
		i, _, ok := state.Instances.Get(tx, id)
		if !ok || i.Wish != cloud.WishRunning {
			return nil
		}
		if wish, why := c.due(i, seen(tx, id), withoutVolume(tx, i)); wish != i.Wish {
			settled = state.Want(tx, *i, wish, why, c.Now())
		}
		return nil
	})
	if err == nil && settled.ID != "" {
		c.Log.Info("instance ends", "instance", id, "wish", settled.Wish, "reason", settled.Reason.Message)
	}
	return err
}

// due is what an instance that is wished to run should come to, as observed;
// lacks says which volume it can't have.
func (c *Controller) due(i *cloud.Instance, o cloud.Observation, lacks cloud.Reason) (cloud.Wish, cloud.Reason) {
	switch {
	case o.Phase == cloud.PhaseExited:
		wish := cloud.WishTerminated
		if i.Shutdown == cloud.ShutdownStop {
			wish = cloud.WishStopped
		}
		return wish, cloud.Reason{
			Code:    cloud.ReasonGuestPoweredOff,
			Message: cloud.ReasonGuestPoweredOff + ": Instance initiated shutdown",
		}
	case o.Phase == cloud.PhaseFailed:
		return afterFailure(i), o.Reason
	case i.State(o) == cloud.Pending && lacks.Code != "":
		return afterFailure(i), lacks
	case c.overdue(i, o):
		why := o.Reason.Message
		if why == "" {
			why = "its node did not say why"
		}
		return afterFailure(i), cloud.Reason{
			Code:    cloud.ReasonInternalError,
			Message: fmt.Sprintf("%s: not running after %s: %s", cloud.ReasonInternalError, c.Deadlines.Pending, why),
		}
	}
	return i.Wish, cloud.Reason{}
}

// afterFailure is what an instance comes to that can't start. One that ran before
// and was stopped is stopped again: its volumes hold what its user wants to keep.
func afterFailure(i *cloud.Instance) cloud.Wish {
	if i.EBS && i.Wishes > 1 {
		return cloud.WishStopped
	}
	return cloud.WishTerminated
}

// overdue says whether a launch took longer than it may.
func (c *Controller) overdue(i *cloud.Instance, o cloud.Observation) bool {
	return i.State(o) == cloud.Pending && c.Now().Sub(i.WishedAt) > c.Deadlines.Pending
}
