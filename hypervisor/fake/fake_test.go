package fake_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"mallee/block"
	"mallee/hypervisor"
	"mallee/hypervisor/fake"
	"mallee/hypervisor/hypervisortest"
)

// guests boots what a machine's product names.
func guests(m hypervisor.Machine) (fake.Guest, error) {
	switch m.Product {
	case "broken":
		return fake.Guest{}, errors.New("no bootable device")
	case fmt.Sprint(hypervisortest.PowersOff):
		return fake.Guest{Prints: hypervisortest.Hello, PowersOff: true}, nil
	case fmt.Sprint(hypervisortest.Obeys):
		return fake.Guest{Prints: hypervisortest.Hello}, nil
	}
	return fake.Guest{Prints: hypervisortest.Hello, Ignores: true, Keeps: true}, nil
}

func TestConformance(t *testing.T) {
	hypervisortest.Run(t, func(*testing.T) hypervisortest.World {
		world := fake.New(guests)
		disks := &shelf{disks: map[string][]byte{}, sinks: map[string]*sink{}}
		world.Connect(disks)
		made := 0
		machine := func(product string) hypervisor.Machine {
			made++
			return hypervisor.Machine{
				ID:  fmt.Sprintf("i-%08x", made),
				Dir: fmt.Sprintf("/machines/%d", made), VCPUs: 1, MemoryMiB: 64, Product: product,
				Disks: []hypervisor.Disk{{Serial: "root", Attachment: block.Attachment{Format: "raw", Path: fmt.Sprintf("/root/%d", made)}}},
			}
		}
		return hypervisortest.World{
			Open:    func(*testing.T) hypervisor.Hypervisor { return world.Open() },
			Machine: func(_ *testing.T, g hypervisortest.Guest) hypervisor.Machine { return machine(fmt.Sprint(g)) },
			Broken:  func(*testing.T) hypervisor.Machine { return machine("broken") },
			Storage: disks.storage(world),
		}
	})
}

func TestHooks(t *testing.T) {
	world := fake.New(fake.Linux)
	h := world.Open()
	status := func(dir string) hypervisor.Status {
		t.Helper()
		s, err := h.Observe(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	poked := func() bool {
		select {
		case <-h.Changes():
			return true
		default:
			return false
		}
	}
	for _, dir := range []string{"/b", "/a"} {
		if err := h.Start(t.Context(), hypervisor.Machine{Dir: dir, VCPUs: 1, MemoryMiB: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if m := world.Machines(); len(m) != 2 || m[0].Dir != "/a" {
		t.Errorf("Machines = %+v, want /a and /b", m)
	}
	if poked() {
		t.Errorf("poked by Start")
	}
	world.PowerOff("/a")
	if s := status("/a"); s != hypervisor.Exited || !poked() {
		t.Errorf("after PowerOff: %s, want exited and a poke", s)
	}
	world.Crash("/a")
	world.PowerOff("/a")
	if s := status("/a"); s != hypervisor.Absent || !poked() {
		t.Errorf("after Crash: %s, want absent and a poke", s)
	}
	world.Print("/b", "oops\n")
	world.Reboot()
	if s := status("/b"); s != hypervisor.Absent || len(world.Machines()) != 0 {
		t.Errorf("after Reboot: %s and %v, want none", s, world.Machines())
	}
	r, err := h.Console("/b")
	if err != nil {
		t.Fatal(err)
	}
	var first, second string
	if _, err := fmt.Fscan(r, &first, &second); err == nil && second != "oops" {
		t.Errorf("console: %q %q", first, second)
	}
	world.Forget("/b")
	if r, err := h.Console("/b"); err != nil {
		t.Fatal(err)
	} else if n, _ := r.Seek(0, 2); n != 0 {
		t.Errorf("the console of a forgotten machine has %d bytes", n)
	}
}

// TestLight holds the figure that a simulation counts on.
func TestLight(t *testing.T) {
	const machines, limit = 10_000, 2 << 10 // bytes a machine
	world := fake.New(fake.Linux)
	h := world.Open()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range machines {
		m := hypervisor.Machine{Dir: filepath.Join("/machines", fmt.Sprint(i)), VCPUs: 1, MemoryMiB: 64}
		if err := h.Start(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := int64(after.HeapAlloc-before.HeapAlloc) / machines; each > limit {
		t.Errorf("%d bytes a machine, want at most %d", each, limit)
	}
	runtime.KeepAlive(world)
}
