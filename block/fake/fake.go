// Package fake holds disks in memory, for simulations: a Disks is the node's
// disk itself, which outlives the programs that use it. It keeps the contract
// of package block, contents included, and never fails by itself; faults are
// for a wrapper to add.
package fake

import (
	"bytes"
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
	bases Bases // of sources too, named by SourceBase

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
	have := s.disks[d.Name]
	if have == nil {
		have = &disk{wish: d}
		s.disks[d.Name] = have
	}
	if err := have.meet(d); err != nil {
		return block.Attachment{}, fmt.Errorf("making the disk %s: %w", d.Name, err)
	}
	return block.Attachment{Format: "raw", Path: "/fake/" + d.Name, Source: have.wish.Source, Key: have.wish.Key}, nil
}

// meet makes the disk what d wishes for, if it can be.
func (have *disk) meet(d block.Disk) error {
	switch {
	case have.wish.Base != d.Base:
		return fmt.Errorf("it is there with the base %q, not %q", have.wish.Base, d.Base)
	case have.wish.Size > d.Size:
		return fmt.Errorf("it is there with %d bytes, more than %d", have.wish.Size, d.Size)
	case !bytes.Equal(have.wish.Key, d.Key):
		return fmt.Errorf("it is there with another key")
	}
	have.wish.Size = d.Size
	return nil
}

func (s *Disks) check(d block.Disk) error {
	switch {
	case !validName.MatchString(d.Name):
		return fmt.Errorf("want a name of a-z, 0-9 and -")
	case d.Size <= 0 || d.Size%sector != 0:
		return fmt.Errorf("%d bytes: want a multiple of %d", d.Size, sector)
	case len(d.Key) != 0 && len(d.Key) != block.KeySize:
		return fmt.Errorf("a key of %d bytes: want %d", len(d.Key), block.KeySize)
	case d.Source != block.Source{}:
		return d.CheckSource()
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
	for i := 0; i < len(data); i += sector {
		d.write((offset+int64(i))/sector, [sector]byte(data[i:i+sector]))
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
	if err := s.readBase(d, offset, data); err != nil {
		return fmt.Errorf("reading the disk %s: its base: %w", name, err)
	}
	for i := 0; i < len(data); i += sector {
		if written, ok := d.sectors[(offset+int64(i))/sector]; ok {
			copy(data[i:], written[:])
		}
	}
	return nil
}

// SourceBase is the name under which an NBD export is asked of Bases.
func SourceBase(s block.Source) string { return "nbd:" + s.Socket + ":" + s.Export }

func (s *Disks) readBase(d *disk, offset int64, data []byte) error {
	path := d.wish.Base
	if d.wish.Source != (block.Source{}) {
		path = SourceBase(d.wish.Source)
	}
	if path == "" {
		return nil
	}
	base, err := s.bases(path)
	if err != nil {
		return err
	}
	copy(data, base[min(offset, int64(len(base))):])
	return nil
}

// Fill is what a hypervisor does when it has copied all of the source into the
// disk, which then stands on its own.
func (s *Disks) Fill(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.find(name)
	if err != nil || d.wish.Source == (block.Source{}) {
		return err
	}
	base, err := s.bases(SourceBase(d.wish.Source))
	if err != nil {
		return fmt.Errorf("filling the disk %s: %w", name, err)
	}
	for i := 0; i < len(base); i += sector {
		var whole [sector]byte
		copy(whole[:], base[i:])
		if _, written := d.sectors[int64(i/sector)]; !written {
			d.write(int64(i/sector), whole)
		}
	}
	d.wish.Source = block.Source{}
	return nil
}

func (d *disk) write(number int64, bytes [sector]byte) {
	if d.sectors == nil {
		d.sectors = map[int64][sector]byte{}
	}
	d.sectors[number] = bytes
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
