package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"mallee/block"
	"mallee/cloud"
	"mallee/hypervisor"
	"mallee/network"
	"mallee/state"
)

// errFault is an effect that failed by the seed's will.
var errFault = errors.New("a simulated fault")

// death is what the node's process dies of: it unwinds to whoever runs it.
type death struct{ at string }

// Error makes it known through those who wrap a panic to hand it on.
func (d death) Error() string { return "the process dies " + d.at }

// faults decide, at each effect, whether it fails or its process dies there.
type faults struct {
	rand *rand.Rand
	on   bool
}

// draw a fault: dies in one of a hundred effects, fails in two.
func (f *faults) draw(effect string) (dies bool, err error) {
	if !f.on {
		return false, nil
	}
	switch f.rand.IntN(100) {
	case 0:
		return true, fmt.Errorf("%s: the process dies: %w", effect, errFault)
	case 1, 2:
		return false, fmt.Errorf("%s: %w", effect, errFault)
	}
	return false, nil
}

// around is asked before an effect of the node's and after it.
func (f *faults) around(effect string) error {
	dies, err := f.draw(effect)
	if dies {
		panic(death{effect})
	}
	return err
}

// interrupt is asked before a commit of the cloud's and after it. EC2 answers
// for its handlers' panics, so a process that dies here fails all that it still
// tries, and is replaced when it is done.
func (w *World) interrupt(m state.Moment) error {
	if w.cloudDies {
		return errFault
	}
	moment := "before a commit"
	if m == state.AfterCommit {
		moment = "after a commit"
	}
	dies, err := w.faults.draw(moment)
	if err != nil {
		w.say("cloud: %v", err)
	}
	w.cloudDies = dies
	return err
}

// effect makes do with a fault before or after it, perhaps: an error after it
// means that it was made, and nobody was told.
func effect[T any](f *faults, name string, do func() (T, error)) (T, error) {
	var none T
	if err := f.around("before " + name); err != nil {
		return none, err
	}
	v, err := do()
	if err != nil {
		return none, err
	}
	if err := f.around("after " + name); err != nil {
		return none, err
	}
	return v, nil
}

func done(f *faults, name string, do func() error) error {
	_, err := effect(f, name, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

type faultyHypervisor struct {
	hypervisor.Hypervisor
	*faults
}

func (h faultyHypervisor) Start(ctx context.Context, m hypervisor.Machine) error {
	return done(h.faults, "start", func() error { return h.Hypervisor.Start(ctx, m) })
}

func (h faultyHypervisor) Observe(ctx context.Context, dir string) (hypervisor.Status, error) {
	return effect(h.faults, "observe", func() (hypervisor.Status, error) { return h.Hypervisor.Observe(ctx, dir) })
}

func (h faultyHypervisor) PowerDown(ctx context.Context, dir string) error {
	return done(h.faults, "power down", func() error { return h.Hypervisor.PowerDown(ctx, dir) })
}

func (h faultyHypervisor) Reset(ctx context.Context, dir string) error {
	return done(h.faults, "reset", func() error { return h.Hypervisor.Reset(ctx, dir) })
}

func (h faultyHypervisor) Kill(ctx context.Context, dir string) error {
	return done(h.faults, "kill", func() error { return h.Hypervisor.Kill(ctx, dir) })
}

type faultyStorage struct {
	hypervisor.Storage
	*faults
}

func (s faultyStorage) Plug(ctx context.Context, dir string, d hypervisor.Disk) error {
	return done(s.faults, "plug", func() error { return s.Storage.Plug(ctx, dir, d) })
}

func (s faultyStorage) Unplug(ctx context.Context, dir, serial string, force bool) error {
	return done(s.faults, "unplug", func() error { return s.Storage.Unplug(ctx, dir, serial, force) })
}

func (s faultyStorage) Adjust(ctx context.Context, dir, serial string, size int64, l hypervisor.Limits) error {
	return done(s.faults, "adjust", func() error { return s.Storage.Adjust(ctx, dir, serial, size, l) })
}

func (s faultyStorage) Copy(ctx context.Context, dir string, copies []hypervisor.Copy) ([]bool, error) {
	return effect(s.faults, "copy", func() ([]bool, error) { return s.Storage.Copy(ctx, dir, copies) })
}

func (s faultyStorage) Fill(ctx context.Context, dir, serial string, rate int64) error {
	return done(s.faults, "fill", func() error { return s.Storage.Fill(ctx, dir, serial, rate) })
}

func (s faultyStorage) Jobs(ctx context.Context, dir string) ([]hypervisor.Job, error) {
	return effect(s.faults, "list jobs", func() ([]hypervisor.Job, error) { return s.Storage.Jobs(ctx, dir) })
}

func (s faultyStorage) Dismiss(ctx context.Context, dir, id string) error {
	return done(s.faults, "dismiss", func() error { return s.Storage.Dismiss(ctx, dir, id) })
}

type faultyDisks struct {
	block.Disks
	*faults
}

func (d faultyDisks) Ensure(ctx context.Context, wish block.Disk) (block.Attachment, error) {
	return effect(d.faults, "make disk", func() (block.Attachment, error) { return d.Disks.Ensure(ctx, wish) })
}

func (d faultyDisks) Remove(ctx context.Context, name string) error {
	return done(d.faults, "remove disk", func() error { return d.Disks.Remove(ctx, name) })
}

type faultyNetwork struct {
	network.Network
	*faults
}

func (n faultyNetwork) Ensure(ctx context.Context, p network.Port) (network.Attachment, error) {
	return effect(n.faults, "make port", func() (network.Attachment, error) { return n.Network.Ensure(ctx, p) })
}

func (n faultyNetwork) Remove(ctx context.Context, id string) error {
	return done(n.faults, "remove port", func() error { return n.Network.Remove(ctx, id) })
}

// images are all zeroes, and come or don't.
type images struct{ *faults }

func (i images) Unpack(_ context.Context, ref cloud.ImageRef, dst io.Writer, _ func(done, total int64)) error {
	return done(i.faults, "unpack", func() error {
		s, ok := dst.(interface{ Skip(n int64) })
		if !ok {
			return errors.New("sim: the node's cache takes no holes")
		}
		s.Skip(ref.Size)
		return nil
	})
}
