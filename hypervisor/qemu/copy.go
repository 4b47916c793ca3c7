package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"mallee/hypervisor"
)

// Copy begins to store disks. See hypervisor.Storage.
func (h *Hypervisor) Copy(ctx context.Context, dir string, copies []hypervisor.Copy) ([]bool, error) {
	var full []bool
	err := checkCopies(copies)
	if err == nil {
		err = h.onDisks(ctx, dir, func(m *machine, s *storage) error {
			full, err = m.copy(ctx, s, copies)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("copying disks of the machine in %s: %w", dir, err)
	}
	return full, nil
}

func (m *machine) copy(ctx context.Context, s *storage, copies []hypervisor.Copy) ([]bool, error) {
	full := make([]bool, len(copies))
	serials := make([]string, len(copies))
	var instant []arguments // what happens at once
	for i, c := range copies {
		n, open := s.nodes[dataPrefix+c.Serial]
		if !open {
			return nil, fmt.Errorf("disk %s: %w", c.Serial, errNoDisk)
		}
		if err := s.mayCopy(c, n); err != nil {
			return nil, err
		}
		since, there := n.mark(c.Since)
		full[i] = !there || !since.whole()
		serials[i] = c.Serial
		instant = append(instant, beginMark(c, n), beginBackup(c, n, full[i], n.Backing == "" && !s.sourced(c.Serial)))
	}
	for _, c := range copies {
		if err := m.prepareCopy(ctx, s, c); err != nil {
			return nil, errors.Join(err, m.closeSinks(ctx, copies))
		}
	}
	err := m.endFillings(ctx, s, serials...)
	if err == nil {
		err = m.order(ctx, "transaction", arguments{"actions": instant}, nil)
	}
	if err != nil {
		return nil, errors.Join(err, m.closeSinks(ctx, copies))
	}
	m.forgetMarks(ctx, s, copies)
	return full, nil
}

// mayCopy refuses a copy that gets into another's way.
func (s *storage) mayCopy(c hypervisor.Copy, n node) error {
	for _, j := range s.jobs {
		if j.mark == c.Mark {
			return fmt.Errorf("there is a job %s already", c.Mark)
		}
	}
	for _, name := range []string{c.Mark, c.Since} {
		if mark, there := n.mark(name); there && mark.Busy {
			return fmt.Errorf("the mark %s of the disk %s is in use by another copy", name, c.Serial)
		}
	}
	return nil
}

// prepareCopy connects to the server, and makes room for the mark.
func (m *machine) prepareCopy(ctx context.Context, s *storage, c hypervisor.Copy) error {
	if _, stale := s.nodes[dataPrefix+c.Serial].mark(c.Mark); stale {
		if err := m.order(ctx, "block-dirty-bitmap-remove", arguments{"node": dataPrefix + c.Serial, "name": c.Mark}, nil); err != nil {
			return err
		}
	}
	sink := job{ID: copyID(c)}.sink()
	if _, stale := s.nodes[sink]; stale { // a program died before it began the job
		if err := m.order(ctx, "blockdev-del", arguments{"node-name": sink}, nil); err != nil {
			return err
		}
	}
	// What turns out to be zero is not sent as data.
	return m.order(ctx, "blockdev-add", export(sink, c.Socket, c.Export, arguments{"detect-zeroes": "unmap", "discard": "unmap"}), nil)
}

func (m *machine) closeSinks(ctx context.Context, copies []hypervisor.Copy) error {
	var steps []step
	for _, c := range copies {
		steps = append(steps, step{"blockdev-del", arguments{"node-name": job{ID: copyID(c)}.sink()}})
	}
	err := m.attempt(ctx, steps...)
	if refused := (*commandError)(nil); errors.As(err, &refused) {
		return nil // not all may have been opened
	}
	return err
}

// beginMark describes the new mark. In a raw file it lasts as long as the file is open.
func beginMark(c hypervisor.Copy, n node) arguments {
	return arguments{"type": "block-dirty-bitmap-add", "data": arguments{
		"node": n.Name, "name": c.Mark, "granularity": hypervisor.Granularity, "persistent": n.Driver == "qcow2",
	}}
}

// beginBackup describes the job. Since goes on recording, for the case that the
// job fails. A whole disk that stands on nothing is copied without what was
// never written; one that does, with its base, holes as zeroes.
func beginBackup(c hypervisor.Copy, n node, full, alone bool) arguments {
	data := arguments{
		"job-id":       copyID(c),
		"device":       n.Name,
		"target":       job{ID: copyID(c)}.sink(),
		"auto-dismiss": false,
	}
	switch {
	case !full:
		data["sync"], data["bitmap"], data["bitmap-mode"] = "bitmap", c.Since, "never"
	case alone:
		data["sync"] = "top"
	default:
		data["sync"] = "full"
	}
	return arguments{"type": "blockdev-backup", "data": data}
}

// forgetMarks removes those that neither these copies nor a job needs.
func (m *machine) forgetMarks(ctx context.Context, s *storage, copies []hypervisor.Copy) {
	for _, c := range copies {
		needed := []string{"", c.Mark, c.Since}
		for _, other := range copies {
			if other.Serial == c.Serial {
				needed = append(needed, other.Mark, other.Since)
			}
		}
		for _, j := range s.jobs {
			if j.serial == c.Serial {
				needed = append(needed, j.mark, j.since)
			}
		}
		for _, mark := range s.nodes[dataPrefix+c.Serial].Marks {
			if slices.Contains(needed, mark.Name) {
				continue
			}
			if err := m.order(ctx, "block-dirty-bitmap-remove", arguments{"node": dataPrefix + c.Serial, "name": mark.Name}, nil); err != nil {
				m.log.WarnContext(ctx, "a disk's old mark stays", "dir", m.dir, "serial", c.Serial, "mark", mark.Name, "err", err)
			}
		}
	}
}
