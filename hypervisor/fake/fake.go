// Package fake is a world of machines in memory, for simulations: a World is
// what would be the host's processes, and outlives the programs that use it,
// each of which opens its own hypervisor.Hypervisor on it. It keeps the contract of
// package hypervisor and never fails by itself; faults are for a wrapper to
// add.
//
// Nothing happens by itself here: a guest does what the calls and hooks make it do,
// at once, so that a simulation with one seed goes one way. There are no
// goroutines and no timers.
package fake

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"mallee/hypervisor"
)

// Guest is what boots on a machine's disks.
type Guest struct {
	Prints    string // to the console, at each boot
	PowersOff bool   // when it has printed
	Ignores   bool   // the power button
	Keeps     bool   // the disks that it is asked to give back
}

// Boots tells what boots on a machine, and may depend on all that the machine is made
// of. An error is a hypervisor's that refuses to start it.
type Boots func(hypervisor.Machine) (Guest, error)

// Linux boots on every machine, and obeys the power button.
func Linux(m hypervisor.Machine) (Guest, error) {
	return Guest{Prints: m.ID + " login: \n"}, nil
}

// World holds the machines.
type World struct {
	boots Boots

	mu       sync.Mutex
	outside  Outside             // guarded by mu
	media    map[string]*medium  // by the disk's path; guarded by mu
	machines map[string]*machine // by folder, also those that ended, for their console; guarded by mu
	programs map[*program]bool   // the open ones; guarded by mu
}

type machine struct {
	status  hypervisor.Status
	wish    hypervisor.Machine
	guest   Guest
	console []byte
	jobs    []*job
	asked   []string // serials of the disks that the guest shall give back
	leaving []string // of those that it has given back while they are copied
}

// New is a world without machines.
func New(boots Boots) *World {
	return &World{
		boots:    boots,
		outside:  Nowhere{},
		media:    map[string]*medium{},
		machines: map[string]*machine{},
		programs: map[*program]bool{},
	}
}

// Open is the world as one program sees it.
func (w *World) Open() hypervisor.Hypervisor {
	p := &program{world: w, changes: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.programs[p] = true
	return p
}

// Machines are those that are not Absent, in the order of their folders, with
// the disks that they have now.
func (w *World) Machines() []hypervisor.Machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	var living []hypervisor.Machine
	for _, m := range w.machines {
		if m.status != hypervisor.Absent {
			living = append(living, m.wish)
		}
	}
	slices.SortFunc(living, func(a, b hypervisor.Machine) int { return cmp.Compare(a.Dir, b.Dir) })
	return living
}

// PowerOff has a running guest power itself off.
func (w *World) PowerOff(dir string) { w.happen(dir, hypervisor.Exited) }

// Crash ends the machine's process, as a signal from outside would.
func (w *World) Crash(dir string) { w.happen(dir, hypervisor.Absent) }

// Reboot ends all machines, as when the host loses power; folders stay.
func (w *World) Reboot() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.machines {
		w.end(m, false)
	}
	w.poke()
}

// Print has a running guest write to its console.
func (w *World) Print(dir, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.at(dir); m.status == hypervisor.Running {
		m.console = append(m.console, text...)
	}
}

// Forget drops what is kept of a machine that has ended, as removing its
// folder does.
func (w *World) Forget(dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	dir = filepath.Clean(dir)
	if m := w.machines[dir]; m != nil && m.status == hypervisor.Absent {
		delete(w.machines, dir)
	}
}

func (w *World) happen(dir string, to hypervisor.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.at(dir)
	if m.status == hypervisor.Running || m.status == hypervisor.Exited && to == hypervisor.Absent {
		m.status = to
		if to == hypervisor.Absent {
			w.end(m, false)
		}
		w.poke()
	}
}

// at finds the machine of a folder, or one that was never there. mu is held.
func (w *World) at(dir string) *machine {
	if m := w.machines[filepath.Clean(dir)]; m != nil {
		return m
	}
	return &machine{status: hypervisor.Absent}
}

// poke tells all programs. mu is held.
func (w *World) poke() {
	for p := range w.programs {
		select {
		case p.changes <- struct{}{}:
		default:
		}
	}
}

// boot runs the guest from its firmware. mu is held.
func (w *World) boot(m *machine) {
	m.status = hypervisor.Running
	if m.wish.VCPUs == 0 {
		return // nobody boots
	}
	m.console = append(m.console, m.guest.Prints...)
	if m.guest.PowersOff {
		m.status = hypervisor.Exited
		w.poke()
	}
}

// program is a hypervisor.Hypervisor.
type program struct {
	world   *World
	changes chan struct{}
}

var errAbsent = errors.New("there is no machine")

func (p *program) Start(ctx context.Context, wish hypervisor.Machine) error {
	w := p.world
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.at(wish.Dir)
	var guest Guest
	var err error
	if wish.VCPUs != 0 {
		guest, err = w.boots(wish)
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case !filepath.IsAbs(wish.Dir) || wish.VCPUs < 0 || wish.VCPUs > 0 && wish.MemoryMiB < 1:
		err = errors.New("want an absolute folder, and memory for the vCPUs")
	case m.status != hypervisor.Absent:
		err = errors.New("the machine is there already")
	}
	if err != nil {
		return fmt.Errorf("starting the machine %s in %s: %w", wish.ID, wish.Dir, err)
	}
	for _, d := range wish.Disks {
		if err := w.free(d); err != nil {
			return fmt.Errorf("starting the machine %s in %s: %w", wish.ID, wish.Dir, err)
		}
	}
	m.wish, m.guest = wish, guest
	w.machines[filepath.Clean(wish.Dir)] = m
	w.boot(m)
	return nil
}

func (p *program) Observe(ctx context.Context, dir string) (hypervisor.Status, error) {
	if ctx.Err() != nil {
		return "", fmt.Errorf("observing the machine in %s: %w", dir, context.Cause(ctx))
	}
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	return p.world.at(dir).status, nil
}

func (p *program) PowerDown(ctx context.Context, dir string) error {
	return p.living(ctx, "powering down", dir, func(m *machine) {
		if m.status == hypervisor.Running && !m.guest.Ignores && m.wish.VCPUs > 0 {
			m.status = hypervisor.Exited
			p.world.poke()
		}
	})
}

func (p *program) Reset(ctx context.Context, dir string) error {
	return p.living(ctx, "resetting", dir, p.world.boot)
}

// living does something with a machine that is not Absent.
func (p *program) living(ctx context.Context, doing, dir string, do func(*machine)) error {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	m := p.world.at(dir)
	err := ctx.Err()
	if err == nil && m.status == hypervisor.Absent {
		err = errAbsent
	}
	if err != nil {
		return fmt.Errorf("%s the machine in %s: %w", doing, dir, err)
	}
	do(m)
	return nil
}

func (p *program) Kill(ctx context.Context, dir string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("killing the machine in %s: %w", dir, context.Cause(ctx))
	}
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	p.world.end(p.world.at(dir), true)
	return nil
}

func (p *program) Console(dir string) (io.ReadSeekCloser, error) {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	return console{strings.NewReader(string(p.world.at(dir).console))}, nil
}

// Screenshot is of a screen as high as one character, and black.
func (p *program) Screenshot(ctx context.Context, dir string, _ bool) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("looking at the screen of the machine in %s: %w", dir, context.Cause(ctx))
	}
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	if m := p.world.at(dir); m.status == hypervisor.Absent || m.wish.VCPUs == 0 {
		return nil, fmt.Errorf("looking at the screen of the machine in %s: %w", dir, hypervisor.ErrNoScreen)
	}
	var picture bytes.Buffer
	err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 8, 16)))
	return picture.Bytes(), err
}

func (p *program) Changes() <-chan struct{} { return p.changes }

func (p *program) Close() error {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	delete(p.world.programs, p)
	return nil
}

type console struct{ io.ReadSeeker }

func (console) Close() error { return nil }
