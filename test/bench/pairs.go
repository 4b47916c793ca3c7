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
	r.add("RunInstances until its reply, p50", "ms", summarize(pairs, replied, medianOf(replied)), 0)
	for _, q := range []struct {
		name     string
		quantile float64
		goal     float64
	}{{"p50", 0.5, 20}, {"p99", 0.99, 100}} {
		r.add("overhead until QEMU begins, "+q.name, "ms", summarize(pairs, pair.begins, excess(begun, q.quantile)), q.goal)
		r.add("overhead until hello, "+q.name, "ms", summarize(pairs, pair.arrives, excess(there, q.quantile)), q.goal)
	}
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
	r.add("RunInstances to first byte / bare QEMU", "×", summarize(pairs, pair.ratio, medianOf(pair.ratio)), 1.02)
	r.keep("linux", pairs)
	return nil
}

func (p pair) ratio() float64 { return p.ours.byte.Seconds() / p.bare.byte.Seconds() }

// By how much the cloud's guest was later, in milliseconds: its QEMU's first
// sign of life, and its own.
func (p pair) begins() float64  { return begun(p.ours) - begun(p.bare) }
func (p pair) arrives() float64 { return there(p.ours) - there(p.bare) }

func replied(p pair) float64 { return milliseconds(p.ours.reply) }
func begun(t times) float64  { return milliseconds(t.process) }
func there(t times) float64  { return milliseconds(t.byte) }

// excess of the cloud's quantile over that of bare QEMUs. A quantile of the
// differences would count the host's bad moments twice.
func excess(of func(times) float64, q float64) func([]pair) float64 {
	return func(pairs []pair) float64 {
		ours := column(pairs, func(p pair) float64 { return of(p.ours) })
		bare := column(pairs, func(p pair) float64 { return of(p.bare) })
		return quantile(ours, q) - quantile(bare, q)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
