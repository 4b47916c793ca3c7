package main

import (
	"context"
	"time"
)

// pair is one turn: the cloud's, and QEMU's by hand.
type pair struct{ ours, bare times }

// turn by turn, n pairs; who begins changes, so that neither has the warmer
// host.
func turns(ctx context.Context, s *subject, image string, n int) ([]pair, error) {
	r, err := s.recipe(ctx, image)
	if err != nil {
		return nil, err
	}
	pairs := make([]pair, n)
	for i := range pairs {
		p := &pairs[i]
		sides := []func() error{
			func() (err error) { p.ours, err = s.timed(ctx, image, 1); return err },
			func() (err error) { p.bare, err = r.timed(ctx, 1); return err },
		}
		for k := range sides {
			if err := sides[(i+k)%2](); err != nil {
				return nil, err
			}
		}
		if (i+1)%10 == 0 || n <= 10 {
			say("  %d of %d: %v, bare %v", i+1, n, p.ours.byte.Round(time.Millisecond), p.bare.byte.Round(time.Millisecond))
		}
	}
	return pairs, nil
}

// overhead of a launch in milliseconds, by a guest that is there as soon as
// its firmware is.
func overhead(ctx context.Context, s *subject, n int, r *report) error {
	if n == 0 {
		return nil
	}
	say("%d launches of a guest that only says hello, each against a bare QEMU", n)
	pairs, err := turns(ctx, s, s.hello, n)
	if err != nil {
		return err
	}
	reply := column(pairs, func(p pair) float64 { return milliseconds(p.ours.reply) })
	begun := column(pairs, func(p pair) float64 { return milliseconds(p.ours.process - p.bare.process) })
	there := column(pairs, func(p pair) float64 { return milliseconds(p.ours.byte - p.bare.byte) })
	r.add("RunInstances until its reply, p50", "ms", summarize(reply, median), 0)
	r.add("overhead until QEMU begins, p50", "ms", summarize(begun, median), 20)
	r.add("overhead until QEMU begins, p99", "ms", summarize(begun, p99), 100)
	r.add("overhead until hello, p50", "ms", summarize(there, median), 20)
	r.add("overhead until hello, p99", "ms", summarize(there, p99), 100)
	r.keep("hello", pairs)
	return nil
}

// firstByte of a Linux, against the bare command line's.
func firstByte(ctx context.Context, s *subject, n int, r *report) error {
	if n == 0 {
		return nil
	}
	say("%d launches of a Linux until its first byte, each against a bare QEMU", n)
	pairs, err := turns(ctx, s, s.linux, n)
	if err != nil {
		return err
	}
	r.add("RunInstances to first byte / bare QEMU", "×", summarize(column(pairs, ratio), median), 1.02)
	r.keep("linux", pairs)
	return nil
}

func ratio(p pair) float64 { return p.ours.byte.Seconds() / p.bare.byte.Seconds() }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
