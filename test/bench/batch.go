package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// taken by the instances of a batch, each.
type taken struct{ disk, memory float64 } // bytes

// batch times n instances of one call against n bare QEMUs, and measures what
// they take of disk and of mallee's memory.
func batch(ctx context.Context, s *subject, batches, n int, r *report) error {
	if batches == 0 {
		return nil
	}
	say("%d in one call, against %d bare QEMUs at once, %d times", n, n, batches)
	recipe, err := s.recipe(ctx, s.linux)
	if err != nil {
		return err
	}
	var pairs []pair
	var each []taken
	for i := range batches {
		var p pair
		var t taken
		if p.ours, t, err = s.batch(ctx, n); err != nil {
			return err
		}
		if p.bare, err = recipe.timed(ctx, n); err != nil {
			return err
		}
		say("  %d of %d: %v, bare %v", i+1, batches, p.ours.byte.Round(time.Millisecond), p.bare.byte.Round(time.Millisecond))
		pairs, each = append(pairs, p), append(each, t)
	}
	r.add(fmt.Sprintf("%d in one call to the last first byte / bare", n), "×", summarize(column(pairs, ratio), median), 1.05)
	r.add("disk for each further instance", "KiB", summarize(column(each, func(t taken) float64 { return t.disk / 1024 }), median), 1024)
	r.add("memory of mallee for each instance", "KiB", summarize(column(each, func(t taken) float64 { return t.memory / 1024 }), median), 2048)
	r.keep("batch", pairs)
	return nil
}

func (s *subject) batch(ctx context.Context, n int) (t times, each taken, err error) {
	disk, memory, err := s.footprint()
	if err != nil {
		return t, each, err
	}
	i, t, err := s.launch(ctx, s.linux, n)
	if err != nil {
		return t, each, err
	}
	diskNow, memoryNow, err := s.footprint()
	each = taken{float64(diskNow-disk) / float64(n), float64(memoryNow-memory) / float64(n)}
	return t, each, errors.Join(err, i.end(ctx))
}
