package main

import (
	"context"
	"fmt"
	"time"
)

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
	pairs := make([]pair, batches)
	var each taken
	for i := range pairs {
		p := &pairs[i]
		if p.ours, err = s.batch(ctx, n, &each); err != nil {
			return err
		}
		if p.bare, err = recipe.timed(ctx, n); err != nil {
			return err
		}
		say("  %d of %d: %v, bare %v", i+1, batches, p.ours.byte.Round(time.Millisecond), p.bare.byte.Round(time.Millisecond))
	}
	r.add(fmt.Sprintf("%d in one call to the last first byte / bare", n), "×", summarize(pairs, pair.ratio, medianOf(pair.ratio)), 1.05)
	r.add("disk for each further instance", "KiB", single(each.disk/1024), 1024)
	r.add("memory of mallee for each instance", "KiB", single(each.memory/1024), 2048)
	r.keep("batch", pairs)
	return nil
}

// taken by each instance of the last batch, in bytes.
type taken struct{ disk, memory float64 }

// batch of n instances. What the program takes for them is measured between two
// fresh ones, with none and with n to look after: the same one's memory before
// and after says more of what it did meanwhile.
func (s *subject) batch(ctx context.Context, n int, each *taken) (t times, err error) {
	memory, err := s.freshMemory(ctx)
	if err != nil {
		return t, err
	}
	disk, err := s.disk()
	if err != nil {
		return t, err
	}
	i, t, err := s.launch(ctx, s.linux, n)
	if err != nil {
		return t, err
	}
	diskNow, err := s.disk()
	if err != nil {
		return t, err
	}
	memoryNow, err := s.freshMemory(ctx)
	if err != nil {
		return t, err
	}
	*each = taken{float64(diskNow-disk) / float64(n), float64(memoryNow-memory) / float64(n)}
	return t, i.end(ctx)
}
