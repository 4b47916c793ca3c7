package sim

import (
	"flag"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
)

var seeds = flag.Uint64("seeds", 200, "how many worlds are simulated")

// steps of one world; long enough for some dozen launches and their ends.
const steps = 400

// keys are the cloud's of every world: they take longer to make than a world.
var keys = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "mallee-sim-keys-")
	if err != nil {
		panic(err)
	}
	return dir
})

func TestMain(m *testing.M) {
	status := m.Run()
	os.RemoveAll(keys())
	os.Exit(status)
}

// folder of a world's node: in memory where the host has that, for a world
// forces some hundred files to the disk.
func folder(tb testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "mallee-sim-")
	if err != nil {
		return tb.TempDir()
	}
	return dir
}

// live lives a world of that seed, and returns it and how it ended.
func live(tb testing.TB, seed uint64, leaveOut Broken) (*World, error) {
	dir := folder(tb)
	defer os.RemoveAll(dir)
	w, err := New(Options{
		Seed: seed, Steps: steps, Dir: dir, Keys: keys(), Break: leaveOut, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return w, w.Run()
}

func TestSeeds(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = min(n, 20)
	}
	for seed := range n {
		if _, err := live(t, seed, Nothing); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRulesAreNeeded leaves each rule of package link out, and expects that a
// world breaks: a simulation that can't find that would prove nothing.
func TestRulesAreNeeded(t *testing.T) {
	const enough = 1000
	for _, rule := range []Broken{AbsenceCounts, OldAssignments, NotDurable} {
		t.Run(string(rule), func(t *testing.T) {
			for seed := range uint64(enough) {
				if _, err := live(t, seed, rule); err != nil {
					t.Logf("without the rule: %v", err)
					return
				}
			}
			t.Errorf("%d worlds without this rule all held", enough)
		})
	}
}

// TestSameSeedSameWorld holds two runs of a seed against each other.
func TestSameSeedSameWorld(t *testing.T) {
	live(t, 0, Nothing) // the first world makes the keys
	a, err := live(t, 7, Nothing)
	if err != nil {
		t.Fatal(err)
	}
	b, err := live(t, 7, Nothing)
	if err != nil {
		t.Fatal(err)
	}
	for i := range min(len(a.steps), len(b.steps)) {
		if a.steps[i] != b.steps[i] {
			t.Fatalf("step %d: %q and %q", i, a.steps[i], b.steps[i])
		}
	}
	if !slices.Equal(a.steps, b.steps) {
		t.Fatalf("%d steps and %d", len(a.steps), len(b.steps))
	}
}
