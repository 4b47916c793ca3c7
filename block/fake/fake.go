// Package fake holds disks in memory, for simulations: a Disks is the node's
// disk itself, which outlives the programs that use it. It keeps the contract
// of package block, contents included, and never fails by itself; faults are
// for a wrapper to add.
package fake

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"mallee/block"
)

const sector = 512 // bytes, the unit in which contents are kept

var validName = regexp.MustCompile(`^[a-z0-9-]{1,200}$`)

// Bases reads a base: what lies in it from its beginning. An error says that
// the base isn't there.
type Bases func(path string) ([]byte, error)

// Anything has every base, empty.
func Anything(string) ([]byte, error) { return nil, nil }

// Disks is a block.Disks in memory.
type Disks struct {
	bases Bases

	mu    sync.Mutex
	disks map[string]*disk // guarded by mu, contents too
}

type disk struct {
	wish    block.Disk
	sectors map[int64][sector]byte // what was written, by number; nil until then
}

var _ block.Disks = (*Disks)(nil)

// New is an empty store over the given bases.
func New(bases Bases) *Disks {
	return &Disks{bases: bases, disks: map[string]*disk{}}
}

// Ensure makes the disk d. See block.Disks.
func (s *Disks) Ensure(ctx context.Context, d block.Disk) (block.Attachment, error) {
	if err := ctx.Err(); err != nil {
		return block.Attachment{}, fmt.Errorf("making the disk %s: %w", d.Name, err)
	}
	if err := s.check(d); err != nil {
		return block.Attachment{}, fmt.Errorf("making the disk %q: %w", d.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch have := s.disks[d.Name]; {
	case have == nil:
		s.disks[d.Name] = &disk{wish: d}
	case have.wish != d:
		return block.Attachment{}, fmt.Errorf("making the disk %s: it is there as %+v, not %+v", d.Name, have.wish, d)
	}
	return block.Attachment{Format: "raw", Path: "/fake/" + d.Name}, nil
}

func (s *Disks) check(d block.Disk) error {
	switch {
	case !validName.MatchString(d.Name):
		return fmt.Errorf("want a name of a-z, 0-9 and -")
	case d.Size <= 0 || d.Size%sector != 0:
		return fmt.Errorf("%d bytes: want a multiple of %d", d.Size, sector)
	case d.Base == "":
		return nil
	case !filepath.IsAbs(d.Base):
		return fmt.Errorf("base %q: want an absolute path", d.Base)
	}
	base, err := s.bases(d.Base)
	if err != nil {
		return fmt.Errorf("its base: %w", err)
	}
	if int64(len(base)) > d.Size {
		return fmt.Errorf("its base %s has %d bytes, more than the disk's %d", d.Base, len(base), d.Size)
	}
	return nil
}

// Remove forgets the disk. See block.Disks.
func (s *Disks) Remove(_ context.Context, name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("removing the disk %q: want a name of a-z, 0-9 and -", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.disks, name)
	return nil
}

// List names the disks. See block.Disks.
func (s *Disks) List(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.disks))
	for name := range s.disks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Usage is the space of the sectors that were written. See block.Disks.
func (s *Disks) Usage(_ context.Context, name string) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.find(name)
	if err != nil {
		return 0, err
	}
	return int64(len(d.sectors)) * sector, nil
}

// Write is what a guest does to its disk: whole sectors from byte offset on.
func (s *Disks) Write(name string, offset int64, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.find(name)
	if err != nil {
		return err
	}
	if err := d.inside(offset, len(data)); err != nil {
		return err
	}
	if d.sectors == nil {
		d.sectors = map[int64][sector]byte{}
	}
	for i := 0; i < len(data); i += sector {
		d.sectors[(offset+int64(i))/sector] = [sector]byte(data[i : i+sector])
	}
	return nil
}

// Read is what a guest sees of its disk.
func (s *Disks) Read(name string, offset int64, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.find(name)
	if err != nil {
		return err
	}
	if err := d.inside(offset, len(data)); err != nil {
		return err
	}
	clear(data)
	if d.wish.Base != "" {
		base, err := s.bases(d.wish.Base)
		if err != nil {
			return fmt.Errorf("reading the disk %s: its base: %w", name, err)
		}
		copy(data, base[min(offset, int64(len(base))):])
	}
	for i := 0; i < len(data); i += sector {
		if written, ok := d.sectors[(offset+int64(i))/sector]; ok {
			copy(data[i:], written[:])
		}
	}
	return nil
}

// find looks a disk up; mu is held.
func (s *Disks) find(name string) (*disk, error) {
	if d := s.disks[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("the disk %q is not there", name)
}

func (d *disk) inside(offset int64, length int) error {
	if offset < 0 || offset%sector != 0 || length%sector != 0 || offset+int64(length) > d.wish.Size {
		return fmt.Errorf("the disk %s of %d bytes has no whole sectors from %d, %d bytes long", d.wish.Name, d.wish.Size, offset, length)
	}
	return nil
}
