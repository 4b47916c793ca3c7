package qemu

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// node is a block node, as far as it concerns us.
type node struct {
	Name   string `json:"node-name"`
	Driver string `json:"drv"`
	// What it stands on by its header, if that is a file.
	Backing   string `json:"backing_file"`
	Encrypted bool   `json:"encrypted"`
	Image     struct {
		Size     int64 `json:"virtual-size"`
		Specific struct {
			Data struct {
				Subclusters bool `json:"extended-l2"`
			} `json:"data"`
		} `json:"format-specific"`
	} `json:"image"`
	Marks []mark `json:"dirty-bitmaps"`
}

// mark is a dirty bitmap. QEMU's own have no name.
type mark struct {
	Name         string `json:"name"`
	Recording    bool   `json:"recording"`
	Busy         bool   `json:"busy"`
	Inconsistent bool   `json:"inconsistent"` // the QEMU that had it open has crashed
}

// whole tells that the mark has seen every write since it was made.
func (m mark) whole() bool { return m.Recording && !m.Inconsistent }

func (n node) mark(name string) (mark, bool) {
	i := slices.IndexFunc(n.Marks, func(m mark) bool { return m.Name == name })
	if i < 0 || name == "" {
		return mark{}, false
	}
	return n.Marks[i], true
}

// storage is what QEMU has of disks and jobs, at one look.
type storage struct {
	nodes   map[string]node
	devices map[string]bool // by id; none in a keeper
	jobs    []job
}

// storage looks.
func (m *machine) storage(ctx context.Context) (*storage, error) {
	s := &storage{nodes: map[string]node{}, devices: map[string]bool{}}
	var nodes []node
	// Not flat, QEMU (7.2) dies of it when a disk has been filled.
	if err := m.order(ctx, "query-named-block-nodes", arguments{"flat": true}, &nodes); err != nil {
		return nil, err
	}
	for _, n := range nodes {
		s.nodes[n.Name] = n
	}
	var err error
	if s.jobs, err = m.jobs(ctx); err != nil || m.keeper {
		return s, err
	}
	var devices []struct{ Name string }
	if err := m.order(ctx, "qom-list", arguments{"path": peripheral}, &devices); err != nil {
		return nil, err
	}
	for _, d := range devices {
		s.devices[d.Name] = true
	}
	return s, nil
}

const peripheral = "/machine/peripheral" // where QEMU has devices that have an id

// serials are those of the open disks, sorted.
func (s *storage) serials() []string {
	var all []string
	for name := range s.nodes {
		if serial, ok := strings.CutPrefix(name, dataPrefix); ok {
			all = append(all, serial)
		}
	}
	slices.Sort(all)
	return all
}

// sourced tells whether a disk still stands on its source, which is closed when
// the disk has been filled.
func (s *storage) sourced(serial string) bool {
	_, there := s.nodes[sourcePrefix+serial]
	return there
}

// copying tells whether a disk is being copied.
func (s *storage) copying(serial string) bool {
	return slices.ContainsFunc(s.jobs, func(j job) bool { return j.serial == serial && j.mark != "" && !j.ended() })
}

func (s *storage) job(id string) (job, bool) {
	i := slices.IndexFunc(s.jobs, func(j job) bool { return j.ID == id })
	if i < 0 {
		return job{}, false
	}
	return s.jobs[i], true
}

// order is a command that has to do with disks, and may have to wait for them.
func (m *machine) order(ctx context.Context, name string, a arguments, result any) error {
	return m.execute(ctx, command{Name: name, Arguments: a, Limit: storageTimeout}, result)
}

// orders are carried out one after the other, until one fails.
type step struct {
	name string
	a    arguments
}

func (m *machine) orders(ctx context.Context, steps ...step) error {
	for _, s := range steps {
		if err := m.order(ctx, s.name, s.a, nil); err != nil {
			return err
		}
	}
	return nil
}

// attempt carries out all of the steps, whichever fail: they undo what may not
// be there. It goes on when ctx is over.
func (m *machine) attempt(ctx context.Context, steps ...step) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, s := range steps {
		err := m.order(ctx, s.name, s.a, nil)
		if refused := (*commandError)(nil); err != nil && !errors.As(err, &refused) {
			return err // QEMU doesn't answer: nor will it the next
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// until looks until it is so, or the time for a storage command is over.
func until(ctx context.Context, so func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := so(ctx); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
