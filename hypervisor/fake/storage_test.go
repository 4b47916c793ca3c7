package fake_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"mallee/block"
	"mallee/hypervisor"
	"mallee/hypervisor/fake"
	"mallee/hypervisor/hypervisortest"
)

// shelf has the bytes of disks, sources and sinks.
type shelf struct {
	mu    sync.Mutex
	disks map[string][]byte // by path
	sinks map[string]*sink  // by export
}

type sink struct {
	fails   bool
	data    []byte
	touched map[int64]bool
}

func (s *shelf) Write(d hypervisor.Disk, offset int64, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(s.disks[d.Attachment.Path][offset:], p)
	return nil
}

func (s *shelf) Store(d hypervisor.Disk, c hypervisor.Copy, blocks []int64, full bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	to, from := s.sinks[c.Export], s.disks[d.Attachment.Path]
	if to.fails {
		return errors.New("it fails")
	}
	for i := int64(0); full && i < int64(len(from))/hypervisor.Granularity; i++ {
		blocks = append(blocks, i)
	}
	for _, i := range blocks {
		to.touched[i] = true
		copy(to.data[i*hypervisor.Granularity:], from[i*hypervisor.Granularity:(i+1)*hypervisor.Granularity])
	}
	return nil
}

// Fill has nothing to copy: the bytes were there from the beginning.
func (s *shelf) Fill(hypervisor.Disk) error { return nil }

func (s *shelf) Grow(d hypervisor.Disk, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.disks[d.Attachment.Path]
	if int64(len(old)) < size {
		s.disks[d.Attachment.Path] = append(old, make([]byte, size-int64(len(old)))...)
	}
	return nil
}

func (s *shelf) storage(world *fake.World) hypervisortest.Storage {
	disk := func(serial string, content []byte) hypervisor.Disk {
		s.mu.Lock()
		defer s.mu.Unlock()
		path := fmt.Sprintf("/disks/%d", len(s.disks))
		s.disks[path] = append(make([]byte, 0, hypervisortest.DiskSize), content...)[:hypervisortest.DiskSize]
		return hypervisor.Disk{Serial: serial, Attachment: block.Attachment{Format: "qcow2", Path: path}}
	}
	return hypervisortest.Storage{
		Disk: func(_ *testing.T, serial string) hypervisor.Disk { return disk(serial, nil) },
		From: func(_ *testing.T, serial string, content []byte) (hypervisor.Disk, func()) {
			d := disk(serial, content)
			d.Attachment.Source = block.Source{Socket: "/socket", Export: "source", Size: int64(len(content))}
			return d, func() {}
		},
		Write: func(t *testing.T, _ hypervisor.Hypervisor, dir string, d hypervisor.Disk, offset int64, p []byte) {
			if err := world.Write(dir, d.Serial, offset, p); err != nil {
				t.Fatal(err)
			}
		},
		Read: func(_ *testing.T, d hypervisor.Disk) []byte {
			s.mu.Lock()
			defer s.mu.Unlock()
			return slices.Clone(s.disks[d.Attachment.Path])
		},
		Sink: func(_ *testing.T, b hypervisortest.Behaviour) hypervisortest.Sink {
			s.mu.Lock()
			defer s.mu.Unlock()
			to := &sink{fails: b == hypervisortest.Fails, data: make([]byte, hypervisortest.DiskSize), touched: map[int64]bool{}}
			export := fmt.Sprintf("sink-%d", len(s.sinks))
			s.sinks[export] = to
			return hypervisortest.Sink{
				Socket: "/socket", Export: export,
				HangUp:  func() {},
				Bytes:   func() []byte { return to.data },
				Touched: func() []int64 { return slices.Sorted(maps.Keys(to.touched)) },
			}
		},
		Crash: func(_ *testing.T, dir string) { world.Crash(dir) },
	}
}

func TestJobHooks(t *testing.T) {
	world := fake.New(func(hypervisor.Machine) (fake.Guest, error) { return fake.Guest{Keeps: true}, nil })
	h := world.Open()
	d := hypervisor.Disk{Serial: "vol-1", Attachment: block.Attachment{Format: "qcow2", Path: "/disk"}}
	if err := h.Start(t.Context(), hypervisor.Machine{Dir: "/m", VCPUs: 1, MemoryMiB: 1, Disks: []hypervisor.Disk{d}}); err != nil {
		t.Fatal(err)
	}
	begin := func(mark string) {
		t.Helper()
		if _, err := h.Copy(t.Context(), "/m", []hypervisor.Copy{{Serial: "vol-1", Mark: mark}}); err != nil {
			t.Fatal(err)
		}
	}
	look := func() hypervisor.Job {
		t.Helper()
		jobs, err := h.Jobs(t.Context(), "/m")
		if err != nil || len(jobs) != 1 {
			t.Fatalf("Jobs = %+v, %v, want one", jobs, err)
		}
		return jobs[0]
	}
	begin("a")
	world.Hold("/m", "a")
	for range 5 {
		if j := look(); j.Ended {
			t.Fatalf("a held job: %+v", j)
		}
	}
	world.Release("/m", "a")
	if j := look(); j.Ended || j.Done == 0 {
		t.Errorf("looked at once: %+v, want it halfway", j)
	}
	if j := look(); !j.Ended || j.Err != nil || j.Done != j.Total {
		t.Errorf("looked at twice: %+v, want it over", j)
	}
	if err := h.Dismiss(t.Context(), "/m", "a"); err != nil {
		t.Fatal(err)
	}
	begin("b")
	world.Fail("/m", "b", errors.New("broken"))
	if j := look(); !j.Ended || j.Err == nil {
		t.Errorf("a job that fails: %+v", j)
	}
	if err := h.Unplug(t.Context(), "/m", "vol-1", false); err != nil {
		t.Fatal(err)
	}
	if disks, err := h.Disks(t.Context(), "/m"); err != nil || len(disks) != 1 {
		t.Errorf("Disks = %q, %v, want that which the guest keeps", disks, err)
	}
	world.GiveBack("/m", "vol-1")
	if disks, err := h.Disks(t.Context(), "/m"); err != nil || len(disks) != 0 {
		t.Errorf("Disks = %q, %v, want none", disks, err)
	}
}
