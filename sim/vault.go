package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"mallee/block"
	blockfake "mallee/block/fake"
	"mallee/cloud"
	"mallee/hypervisor"
	"mallee/node"
)

// vault is where the bytes of snapshots are kept: it outlives the processes that
// use it. Of bytes it knows only which snapshot a hypervisor has stored.
type vault struct {
	sinks map[cloud.SnapshotID]*sink // until they are discarded
}

// sink takes one snapshot.
type sink struct {
	id     cloud.SnapshotID
	size   int64
	stored bool // all of it came
	*faults
}

func newVault() *vault { return &vault{map[cloud.SnapshotID]*sink{}} }

// manifest of a snapshot's content.
func manifest(id cloud.SnapshotID) string { return "of-" + string(id) }

// contents is the vault as a node's process uses it, with faults.
type contents struct {
	*vault
	*faults
}

func (c contents) Source(of cloud.Content) block.Source {
	return block.Source{Socket: "/vault", Export: of.Manifest, Size: of.Size}
}

// Trouble there is none: what fails here are effects.
func (c contents) Trouble(cloud.Content) error { return nil }

func (c contents) Sink(_ context.Context, id cloud.SnapshotID, size int64, _ *cloud.Content) (node.Sink, error) {
	return effect(c.faults, "open a sink", func() (node.Sink, error) {
		if c.sinks[id] == nil {
			c.sinks[id] = &sink{id: id, size: size, faults: c.faults}
		}
		return c.sinks[id], nil
	})
}

func (c contents) Discard(_ context.Context, id cloud.SnapshotID) error {
	return done(c.faults, "discard a sink", func() error { delete(c.sinks, id); return nil })
}

func (s *sink) Address() (socket, export string) { return "/vault", string(s.id) }

func (s *sink) Commit(context.Context, bool) (cloud.Content, error) {
	return effect(s.faults, "commit", func() (cloud.Content, error) {
		if !s.stored {
			return cloud.Content{}, fmt.Errorf("sim: %s is committed, and nothing of it was stored", s.id)
		}
		return cloud.Content{Manifest: manifest(s.id), Size: s.size}, nil
	})
}

func (s *sink) Close() error { return nil }

// left names the snapshots of which anything is left.
func (v *vault) left() []cloud.SnapshotID { return slices.Sorted(maps.Keys(v.sinks)) }

// outside is what lies behind the disks of the simulated machines.
type outside struct {
	volumes *blockfake.Disks
	*vault
}

// volume of a disk, by the path that the store of fakes gives it.
func volume(d hypervisor.Disk) string { return d.Attachment.Path[len("/fake/"):] }

func (o outside) Write(d hypervisor.Disk, offset int64, p []byte) error {
	return o.volumes.Write(volume(d), offset, p)
}

func (o outside) Store(_ hypervisor.Disk, c hypervisor.Copy, _ []int64, _ bool) error {
	s := o.sinks[cloud.SnapshotID(c.Export)]
	if s == nil {
		return errors.New("sim: nobody takes the bytes of " + c.Export)
	}
	s.stored = true
	return nil
}

func (o outside) Fill(d hypervisor.Disk) error { return o.volumes.Fill(volume(d)) }

func (o outside) Grow(d hypervisor.Disk, size int64) error {
	_, err := o.volumes.Ensure(context.Background(), block.Disk{Name: volume(d), Size: size})
	return err
}
