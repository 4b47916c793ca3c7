package main

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// As good as bare QEMU is 0.95 of its speed, and so bare QEMU at most this much
// faster.
const asGoodAsBare = 1 / 0.95

// storage has the rooms measure disks and snapshots where they are made, each turn
// a ratio of two things done one after the other.
func storage(ctx context.Context, o options, r *report) error {
	if o.turns == 0 {
		return nil
	}
	m, times := metrics{}, fmt.Sprintf("%dx", o.turns)
	say("disks of a guest against a raw file, %d turns", o.turns)
	if err := m.run(ctx, o.module, "./hypervisor/qemu", "^BenchmarkGuestIO$", "-benchtime", times); err != nil {
		return err
	}
	say("a snapshot of %d MiB changed in 100 GiB against reading and hashing them, %d turns", o.changed, o.turns)
	if err := m.run(ctx, o.module, "./snapshot", "^BenchmarkSnapshot$", "-benchtime", times, "-changed-mib", fmt.Sprint(o.changed)); err != nil {
		return err
	}
	turns := m.turns()
	if len(turns) == 0 {
		return fmt.Errorf("the benchmarks of disks and snapshots say nothing")
	}
	for _, name := range slices.Sorted(maps.Keys(turns)) {
		ratios := turns[name]
		r.add(name, "×", summarize(ratios, itself, medianOf(itself)), goalOf(name))
	}
	return nil
}

// goalOf a ratio by its name; a volume that still streams has none.
func goalOf(name string) float64 {
	switch {
	case strings.Contains(name, "bare/streaming"):
		return 0
	case strings.Contains(name, "bare/"):
		return asGoodAsBare
	}
	return 1.3
}

func itself(v float64) float64 { return v }

var turnForm = regexp.MustCompile(`^(.*)#\d+$`)

// turns are the metrics that were measured several times, by name.
func (m metrics) turns() map[string][]float64 {
	all := map[string][]float64{}
	for name, v := range m {
		if part := turnForm.FindStringSubmatch(name); part != nil {
			all[strings.TrimPrefix(part[1], "Benchmark")] = append(all[strings.TrimPrefix(part[1], "Benchmark")], v)
		}
	}
	return all
}
