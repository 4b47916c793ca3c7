// Package hypervisortest is what every hypervisor.Hypervisor has to pass.
package hypervisortest

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"mallee/hypervisor"
)

// Hello is what each guest writes to its console, first of all, at each boot.
const Hello = "hello\n"

// Guest is what a machine for a test boots.
type Guest int

const (
	Halts     Guest = iota // goes on for ever, and ignores the power button and who asks for a disk
	PowersOff              // powers itself off at once
	Obeys                  // powers itself off when the button is pressed
)

// A World is where the machines under test are.
type World struct {
	// Open is the world as another program sees it.
	Open func(t *testing.T) hypervisor.Hypervisor
	// Machine describes a machine in a folder of its own, which is there.
	Machine func(t *testing.T, g Guest) hypervisor.Machine
	// Broken describes one that the hypervisor can't start.
	Broken func(t *testing.T) hypervisor.Machine

	Storage Storage
}

// patience is how long something may take that happens by itself.
const patience = 60 * time.Second

// Run tests the world that make returns, a fresh one each time.
func Run(t *testing.T, make func(t *testing.T) World) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"RunsFromStartToKill", startToKill},
		{"OutlivesTheProgram", outlives},
		{"AProgramThatClosesLeavesMachinesRunning", closeLeaves},
		{"StartTwiceIsRefused", startTwice},
		{"AFailingStartLeavesNothing", failingStart},
		{"ACancelledStartLeavesNothing", cancelledStart},
		{"BadMachinesAreRefused", badMachines},
		{"AGuestThatPowersOffIsExited", powersOff},
		{"AnExitedMachineIsResetByAnotherProgram", exitedReset},
		{"ResetBootsAnew", resetBoots},
		{"ThePowerButtonIsObeyed", powerButton},
		{"ThePowerButtonIsIgnored", powerButtonIgnored},
		{"KillEndsWhatAnotherProgramStarted", killOther},
		{"KillWhatIsAbsent", killAbsent},
		{"AbsentMachinesTakeNoOrders", absentOrders},
		{"TheConsoleOutlivesTheMachine", console},
		{"TheScreenIsAPicture", screenshot},
		{"AKilledMachineStartsAgain", startAgain},
		{"MachinesDoNotDisturbEachOther", two},
	} {
		t.Run(test.name, func(t *testing.T) {
			world := make(t)
			test.run(t, &bench{World: world, t: t, Hypervisor: open(t, world)})
		})
	}
	runStorage(t, make)
}

func open(t *testing.T, w World) hypervisor.Hypervisor {
	t.Helper()
	h := w.Open(t)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return h
}

// bench is one test's view: a program, and another whenever it asks.
type bench struct {
	World
	hypervisor.Hypervisor
	t *testing.T
}

// another is the same world as seen by the next program.
func (b *bench) another() *bench {
	b.t.Helper()
	return &bench{World: b.World, t: b.t, Hypervisor: open(b.t, b.World)}
}

// machine describes a machine, and kills it when the test is over.
func (b *bench) machine(g Guest) hypervisor.Machine {
	b.t.Helper()
	m := b.Machine(b.t, g)
	b.killLater(m.Dir)
	return m
}

func (b *bench) killLater(dir string) {
	b.t.Cleanup(func() {
		h := b.World.Open(b.t)
		defer h.Close()
		if err := h.Kill(context.Background(), dir); err != nil {
			b.t.Errorf("killing the test's machine: %v", err)
		}
	})
}

// started starts a machine and waits until its guest has said hello.
func (b *bench) started(g Guest) hypervisor.Machine {
	b.t.Helper()
	m := b.machine(g)
	b.must("Start", b.Start(b.t.Context(), m))
	b.hellos(m.Dir, 1)
	return m
}

func (b *bench) must(what string, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

func (b *bench) status(dir string) hypervisor.Status {
	b.t.Helper()
	status, err := b.Observe(b.t.Context(), dir)
	b.must("Observe", err)
	return status
}

func (b *bench) want(dir string, want hypervisor.Status) {
	b.t.Helper()
	if got := b.status(dir); got != want {
		b.t.Fatalf("Observe = %s, want %s", got, want)
	}
}

// becomes waits for a status.
func (b *bench) becomes(dir string, want hypervisor.Status) {
	b.t.Helper()
	b.eventually("the machine is "+string(want), func() bool { return b.status(dir) == want })
}

// hellos waits until the guest has booted n times.
func (b *bench) hellos(dir string, n int) {
	b.t.Helper()
	b.eventually("the guest says hello", func() bool { return strings.Count(b.read(dir), Hello) >= n })
}

func (b *bench) read(dir string) string {
	b.t.Helper()
	r, err := b.Console(dir)
	b.must("Console", err)
	defer r.Close()
	text, err := io.ReadAll(r)
	b.must("reading the console", err)
	return string(text)
}

// eventually looks now, and after every tick.
func (b *bench) eventually(what string, true func() bool) {
	b.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !true() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func startToKill(t *testing.T, b *bench) {
	m := b.machine(Halts)
	b.want(m.Dir, hypervisor.Absent)
	b.must("Start", b.Start(t.Context(), m))
	b.want(m.Dir, hypervisor.Running)
	b.hellos(m.Dir, 1)
	b.want(m.Dir, hypervisor.Running)
	b.must("Kill", b.Kill(t.Context(), m.Dir))
	b.want(m.Dir, hypervisor.Absent)
}

func outlives(t *testing.T, b *bench) {
	m := b.started(Halts)
	other := b.another()
	other.want(m.Dir, hypervisor.Running) // while the first holds on to it
	b.must("Close", b.Close())
	other.want(m.Dir, hypervisor.Running)
	third := b.another()
	third.want(m.Dir, hypervisor.Running)
	third.must("Kill", third.Kill(t.Context(), m.Dir))
	third.want(m.Dir, hypervisor.Absent)
	other.want(m.Dir, hypervisor.Absent)
}

func closeLeaves(t *testing.T, b *bench) {
	m := b.started(Halts)
	b.must("Close", b.Close())
	next := b.another()
	next.must("Reset", next.Reset(t.Context(), m.Dir))
	next.hellos(m.Dir, 2)
	next.want(m.Dir, hypervisor.Running)
}

func startTwice(t *testing.T, b *bench) {
	m := b.started(Halts)
	if err := b.Start(t.Context(), m); err == nil {
		t.Errorf("the second Start succeeds")
	}
	if err := b.another().Start(t.Context(), m); err == nil {
		t.Errorf("the second Start by another program succeeds")
	}
	b.want(m.Dir, hypervisor.Running)
	b.must("Reset", b.Reset(t.Context(), m.Dir))
	b.hellos(m.Dir, 2)

	exited := b.machine(PowersOff)
	b.must("Start", b.Start(t.Context(), exited))
	b.becomes(exited.Dir, hypervisor.Exited)
	if err := b.Start(t.Context(), exited); err == nil {
		t.Errorf("Start of a machine that is Exited succeeds")
	}
	b.want(exited.Dir, hypervisor.Exited)
}

func failingStart(t *testing.T, b *bench) {
	m := b.Broken(t)
	b.killLater(m.Dir)
	for range 2 {
		err := b.Start(t.Context(), m)
		if err == nil {
			t.Fatalf("Start of a broken machine succeeds")
		}
		if !strings.Contains(err.Error(), m.ID) {
			t.Errorf("Start: %q does not name the machine %s", err, m.ID)
		}
		b.want(m.Dir, hypervisor.Absent)
		b.another().want(m.Dir, hypervisor.Absent)
	}
	mended := b.machine(Halts)
	mended.Dir = m.Dir
	b.must("Start of the mended machine", b.Start(t.Context(), mended))
	b.want(m.Dir, hypervisor.Running)
}

func cancelledStart(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := b.machine(Halts)
	if err := b.Start(ctx, m); err == nil {
		t.Errorf("Start with a cancelled context succeeds")
	}
	b.want(m.Dir, hypervisor.Absent)
	b.another().want(m.Dir, hypervisor.Absent)
}

func badMachines(t *testing.T, b *bench) {
	for name, spoil := range map[string]func(*hypervisor.Machine){
		"relative folder": func(m *hypervisor.Machine) { m.Dir = "machine" },
		"minus one vCPU":  func(m *hypervisor.Machine) { m.VCPUs = -1 },
		"no memory":       func(m *hypervisor.Machine) { m.MemoryMiB = 0 },
	} {
		m := b.machine(Halts)
		dir := m.Dir
		spoil(&m)
		if err := b.Start(t.Context(), m); err == nil {
			t.Errorf("%s: Start succeeds", name)
		}
		b.want(dir, hypervisor.Absent)
	}
}

func powersOff(t *testing.T, b *bench) {
	m := b.machine(PowersOff)
	b.must("Start", b.Start(t.Context(), m))
	select {
	case <-b.Changes():
	case <-time.After(patience):
		t.Fatalf("no poke within %v of a guest that powers off", patience)
	}
	b.becomes(m.Dir, hypervisor.Exited)
	b.must("Close", b.Close())
	next := b.another()
	next.want(m.Dir, hypervisor.Exited)
	next.must("Kill", next.Kill(t.Context(), m.Dir))
	next.want(m.Dir, hypervisor.Absent)
}

func exitedReset(t *testing.T, b *bench) {
	m := b.machine(PowersOff)
	b.must("Start", b.Start(t.Context(), m))
	b.must("Close", b.Close()) // it powers off while nobody looks
	next := b.another()
	next.becomes(m.Dir, hypervisor.Exited)
	next.must("Reset", next.Reset(t.Context(), m.Dir))
	next.hellos(m.Dir, 2)
	next.becomes(m.Dir, hypervisor.Exited)
}

func resetBoots(t *testing.T, b *bench) {
	m := b.started(Halts)
	for n := range 3 {
		b.must("Reset", b.Reset(t.Context(), m.Dir))
		b.want(m.Dir, hypervisor.Running)
		b.hellos(m.Dir, n+2)
	}
}

func powerButton(t *testing.T, b *bench) {
	m := b.started(Obeys)
	b.eventually("the guest obeys", func() bool {
		b.must("PowerDown", b.PowerDown(t.Context(), m.Dir)) // again, for it may have been too early
		return b.status(m.Dir) == hypervisor.Exited
	})
	b.must("PowerDown of what is Exited", b.PowerDown(t.Context(), m.Dir))
	b.want(m.Dir, hypervisor.Exited)
	b.must("Reset", b.Reset(t.Context(), m.Dir))
	b.want(m.Dir, hypervisor.Running)
	b.hellos(m.Dir, 2)
}

func powerButtonIgnored(t *testing.T, b *bench) {
	m := b.started(Halts)
	b.must("PowerDown", b.PowerDown(t.Context(), m.Dir))
	b.want(m.Dir, hypervisor.Running)
	b.must("Reset", b.Reset(t.Context(), m.Dir))
	b.hellos(m.Dir, 2)
	b.want(m.Dir, hypervisor.Running)
}

func killOther(t *testing.T, b *bench) {
	m := b.started(Halts)
	other := b.another()
	other.must("Kill", other.Kill(t.Context(), m.Dir))
	other.want(m.Dir, hypervisor.Absent)
	b.want(m.Dir, hypervisor.Absent)
}

func killAbsent(t *testing.T, b *bench) {
	m := b.machine(Halts)
	for range 2 {
		b.must("Kill", b.Kill(t.Context(), m.Dir))
	}
	b.must("Kill of a folder that is not there", b.Kill(t.Context(), m.Dir+"/gone"))
	b.want(m.Dir+"/gone", hypervisor.Absent)
}

func absentOrders(t *testing.T, b *bench) {
	m := b.machine(Halts)
	if err := b.PowerDown(t.Context(), m.Dir); err == nil {
		t.Errorf("PowerDown of what is absent succeeds")
	}
	if err := b.Reset(t.Context(), m.Dir); err == nil {
		t.Errorf("Reset of what is absent succeeds")
	}
	b.want(m.Dir, hypervisor.Absent)
}

func console(t *testing.T, b *bench) {
	m := b.machine(Halts)
	if got := b.read(m.Dir); got != "" {
		t.Errorf("the console of a machine that never ran says %q", got)
	}
	b.must("Start", b.Start(t.Context(), m))
	b.hellos(m.Dir, 1)
	b.must("Reset", b.Reset(t.Context(), m.Dir))
	b.hellos(m.Dir, 2)
	b.must("Kill", b.Kill(t.Context(), m.Dir))
	if n := strings.Count(b.another().read(m.Dir), Hello); n != 2 {
		t.Errorf("the console of the dead machine has %d hellos, want 2", n)
	}
	b.must("Start", b.Start(t.Context(), m))
	b.hellos(m.Dir, 3)

	r, err := b.Console(m.Dir)
	b.must("Console", err)
	defer r.Close()
	end, err := r.Seek(0, io.SeekEnd)
	b.must("Seek", err)
	if end < int64(3*len(Hello)) {
		t.Errorf("the console has %d bytes, want three hellos at least", end)
	}
}

func startAgain(t *testing.T, b *bench) {
	m := b.started(Halts)
	for n := range 2 {
		b.must("Kill", b.Kill(t.Context(), m.Dir))
		b = b.another()
		b.must("Start", b.Start(t.Context(), m))
		b.want(m.Dir, hypervisor.Running)
		b.hellos(m.Dir, n+2)
	}
}

func two(t *testing.T, b *bench) {
	one, two := b.started(Halts), b.started(Obeys)
	b.must("Kill", b.Kill(t.Context(), one.Dir))
	b.want(one.Dir, hypervisor.Absent)
	b.want(two.Dir, hypervisor.Running)
	if n := strings.Count(b.read(two.Dir), Hello); n != 1 {
		t.Errorf("the other machine said hello %d times, want once", n)
	}
}
