package node

import (
	"context"
	"errors"
	"fmt"

	"mallee/block"
	blockfake "mallee/block/fake"
	"mallee/cloud"
	"mallee/hypervisor"
)

// vault is a Contents in memory, which outlives the programs that use it.
type vault struct {
	sinks   map[cloud.SnapshotID]*sink // by snapshot, until they are discarded
	trouble error                      // with every content
}

func newVault() *vault { return &vault{sinks: map[cloud.SnapshotID]*sink{}} }

type sink struct {
	id        cloud.SnapshotID
	size      int64
	parent    *cloud.Content
	open      int
	committed bool
	whole     bool
	stored    string // what a hypervisor wrote to it
}

func (v *vault) Source(c cloud.Content) block.Source {
	return block.Source{Socket: "/vault", Export: c.Manifest, Size: c.Size}
}

func (v *vault) Trouble(cloud.Content) error { return v.trouble }

func (v *vault) Sink(_ context.Context, id cloud.SnapshotID, size int64, parent *cloud.Content) (Sink, error) {
	s := v.sinks[id]
	if s == nil {
		s = &sink{id: id, size: size, parent: parent}
		v.sinks[id] = s
	}
	if s.size != size {
		return nil, fmt.Errorf("the sink of %s is there with %d bytes, not %d", id, s.size, size)
	}
	s.open++
	return s, nil
}

func (v *vault) Discard(_ context.Context, id cloud.SnapshotID) error {
	delete(v.sinks, id)
	return nil
}

// close what a program had open that is no more.
func (v *vault) close() {
	for _, s := range v.sinks {
		s.open = 0
	}
}

func (s *sink) Address() (socket, export string) { return "/vault", string(s.id) }

func (s *sink) Commit(_ context.Context, whole bool) (cloud.Content, error) {
	s.committed, s.whole = true, whole
	return cloud.Content{Manifest: "of-" + string(s.id), Size: s.size}, nil
}

func (s *sink) Close() error { s.open--; return nil }

// outside connects the world's disks with the stores behind them.
type outside struct {
	disks *blockfake.Disks
	vault *vault
}

func (o outside) name(d hypervisor.Disk) string { return d.Attachment.Path[len("/fake/"):] }

func (o outside) Write(d hypervisor.Disk, offset int64, p []byte) error {
	return o.disks.Write(o.name(d), offset, p)
}

func (o outside) Store(d hypervisor.Disk, c hypervisor.Copy, blocks []int64, full bool) error {
	s := o.vault.sinks[cloud.SnapshotID(c.Export)]
	if s == nil || s.open == 0 {
		return errors.New("nobody takes the bytes")
	}
	s.stored = fmt.Sprintf("%s %v full %t", o.name(d), blocks, full)
	return nil
}

func (o outside) Fill(d hypervisor.Disk) error { return o.disks.Fill(o.name(d)) }

func (o outside) Grow(d hypervisor.Disk, size int64) error {
	_, err := o.disks.Ensure(context.Background(), block.Disk{Name: o.name(d), Size: size})
	return err
}

type faultyStorage struct {
	hypervisor.Storage
	*rig
}

func (s faultyStorage) Plug(ctx context.Context, dir string, d hypervisor.Disk) error {
	if err := s.effect("plug"); err != nil {
		return err
	}
	return s.Storage.Plug(ctx, dir, d)
}

func (s faultyStorage) Unplug(ctx context.Context, dir, serial string, force bool) error {
	if err := s.effect("unplug"); err != nil {
		return err
	}
	return s.Storage.Unplug(ctx, dir, serial, force)
}

func (s faultyStorage) Adjust(ctx context.Context, dir, serial string, size int64, l hypervisor.Limits) error {
	if err := s.effect("adjust"); err != nil {
		return err
	}
	return s.Storage.Adjust(ctx, dir, serial, size, l)
}

func (s faultyStorage) Copy(ctx context.Context, dir string, copies []hypervisor.Copy) ([]bool, error) {
	if err := s.effect("copy"); err != nil {
		return nil, err
	}
	full, err := s.Storage.Copy(ctx, dir, copies)
	if err == nil {
		err = s.effect("copied")
	}
	return full, err
}

func (s faultyStorage) Fill(ctx context.Context, dir, serial string, rate int64) error {
	if err := s.effect("fill"); err != nil {
		return err
	}
	return s.Storage.Fill(ctx, dir, serial, rate)
}

func (s faultyStorage) Dismiss(ctx context.Context, dir, id string) error {
	if err := s.effect("dismiss"); err != nil {
		return err
	}
	return s.Storage.Dismiss(ctx, dir, id)
}

type faultyContents struct {
	Contents
	*rig
}

func (c faultyContents) Sink(ctx context.Context, id cloud.SnapshotID, size int64, parent *cloud.Content) (Sink, error) {
	if err := c.effect("open sink"); err != nil {
		return nil, err
	}
	s, err := c.Contents.Sink(ctx, id, size, parent)
	return faultySink{s, c.rig}, err
}

type faultySink struct {
	Sink
	*rig
}

func (s faultySink) Commit(ctx context.Context, whole bool) (cloud.Content, error) {
	if err := s.effect("commit"); err != nil {
		return cloud.Content{}, err
	}
	return s.Sink.Commit(ctx, whole)
}
