// Package node is the node controller: it makes this machine match its
// assignment.
//
// The cloud says, in full, which instances this node should run, which volumes it
// keeps, and which snapshots it should take (package link). For each instance and
// each volume that is assigned, or of which anything is here, one worker walks the
// same short road again and again until there is nothing to do. Each step
// measures, and acts only on a difference, so that the next pass is the retry, and
// a pass after a crash is like any other:
//
//	instance assigned:      folder ▶ images ▶ disks, volumes ▶ port ▶ machine ▶ plug, unplug,
//	                        adjust and fill volumes ▶ snapshots ▶ reboot asked for?
//	groups:                 said to the network, which lets through what their rules allow
//	instance not assigned:  guest shut down, if volumes outlive it ▶ copies ended ▶ machine
//	                        killed ▶ port ▶ disks ▶ folder removed
//	volume assigned:        made, grown ▶ snapshots and filling, in a keeper ▶ given to its machine
//	volume to be deleted:   snapshots ▶ keeper ended ▶ removed
//	volume not assigned:    left alone
//
// A volume is in one hand at a time, its own worker's or that of one machine's
// (volume.go); a snapshot is taken by whoever has its volume in hand (snapshot.go).
//
// What is durable, and who writes it:
//
//	DIR/assignment.json            the assignment, by Accept, before it is acted on
//	DIR/machines/ID/machine.json   what a pass has to remember of one machine, by its worker
//	DIR/machines/ID/…              the hypervisor's and the network's files
//	DIR/keepers/ID/…               the hypervisor's, of the process that has a free volume open
//	DIR/snapshots/ID/snapshot.json how far a snapshot is, by the one to whom it belongs
//	DIR/cache/…                    images, unpacked once per node (cache.go)
//
// A folder is made first and removed last: while it is there, the node reports the
// instance, and the cloud gives nothing of it away.
//
// What can go wrong: a step fails. Before the guest was ever up, three
// failures, or one that trying again can't mend, are reported as failed, with
// words for the user; the cloud then takes the instance back. So it is with a volume
// that was never made, and with a snapshot whose instant is not past. Once the guest
// was up, or the volume is made, a disk holds what nobody else has: the node tries
// again for ever, ever more slowly. A snapshot whose copy breaks off has failed:
// its instant does not come back.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"mallee/block"
	"mallee/cloud"
	"mallee/hypervisor"
	"mallee/link"
	"mallee/network"
)

// Options of a node. All but Tasks, Log and Tick are required.
type Options struct {
	ID         cloud.NodeID
	Zone       string
	Dir        string     // the node's own folder, absolute
	Capacity   cloud.Size // what it offers to instances
	Cloud      link.Cloud
	Hypervisor hypervisor.Hypervisor
	Storage    hypervisor.Storage // of the same machines
	Disks      block.Disks        // of instances: they go with them
	Volumes    block.Disks        // named by their volumes
	Contents   Contents
	Keys       Keys
	Network    network.Network
	Images     Images
	Tasks      Tasks // none by default
	CacheBytes int64 // what the image cache may take
	Now        func() time.Time
	Log        *slog.Logger
	Tick       time.Duration // how often everything is looked at unasked; default 10 s
}

// Images brings an image's bytes to the node.
type Images interface {
	// Unpack writes the raw image to dst, verified to the last byte when it
	// returns nil. What it has written before an error is worth nothing.
	Unpack(ctx context.Context, image cloud.ImageRef, dst io.Writer, progress func(done, total int64)) error
}

// Tasks does the long work on bytes that the node is assigned. It calls the
// node's News when there is something to report.
type Tasks interface {
	// Accept what should be done, in full.
	Accept(tasks []cloud.Task)
	// Report how it stands.
	Report() []link.Task
}

// noTasks is for a node that does none.
type noTasks struct{}

func (noTasks) Accept([]cloud.Task) {}
func (noTasks) Report() []link.Task { return nil }

// Keys of encrypted volumes, which are not kept beside them.
type Keys interface {
	// VolumeKey is the key of a volume, block.KeySize bytes, always the same. No
	// two volumes have one key.
	VolumeKey(id cloud.VolumeID) ([]byte, error)
}

// Node runs the instances of one machine. One program at a time may hold its folder.
type Node struct {
	Options
	cache     *cache
	accepting sync.Mutex // held by Accept, which writes a file; taken before mu

	// mu guards what follows.
	mu         sync.Mutex
	assignment link.Assignment
	assigned   map[cloud.InstanceID]cloud.Instance // of assignment
	keeps      map[cloud.VolumeID]cloud.Volume     // of assignment
	takes      map[cloud.SnapshotID]cloud.Snapshot // of assignment
	machines   map[cloud.InstanceID]*machine       // assigned, or something is left of it
	volumes    map[cloud.VolumeID]*volume          // assigned, or there
	snapshots  map[cloud.SnapshotID]*snap          // assigned, or something is left of it
	fillers    int                                 // keepers that fill volumes now
	changed    chan struct{}                       // closed and replaced when the report changed
	sweeping   turn                                // of snapshots that are in nobody's hands
	grouping   turn                                // of what the network knows of security groups
	queue      []*turn                             // those that are due and have no worker
	queued     chan struct{}                       // holds one while queue may not be empty
}

// machine is the node's memory of one instance; all of it can be measured or
// read again after a restart.
type machine struct {
	turn
	id       cloud.InstanceID
	phase    cloud.Phase
	reason   cloud.Reason
	wishes   int
	failures int
	password string    // that its guest has printed; empty: none that this program has seen
	root     *rootCopy // of its root disk that is wished for; nil: none

	rootDropped bool // root is not wished for any more

	// The worker's own, which mu does not guard.
	memo        *memo                         // nil until it was read
	heardTo     int64                         // how long the console was that was looked through for a password
	startedAt   time.Time                     // of a machine that has not proven yet that it lasts; zero: it has, or wasn't started
	powerDownBy time.Time                     // when a guest that was asked to shut down is no longer waited for; zero: it wasn't asked
	pressedAt   time.Time                     // when it was last asked to
	lookAt      time.Time                     // when what goes on in it is looked at again; zero: nothing does
	adjusted    map[cloud.VolumeID]adjustment // what its volumes are known to be set to
	rootSwept   bool                          // no copy of its root disk is left of an earlier program
	asked       map[cloud.VolumeID]time.Time  // when the guest was last asked to give a volume back
}

// Open finds what an earlier program left in o.Dir, and acts on nothing yet.
func Open(ctx context.Context, o Options) (*Node, error) {
	if o.Tick == 0 {
		o.Tick = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Tasks == nil {
		o.Tasks = noTasks{}
	}
	n := &Node{
		Options: o, machines: map[cloud.InstanceID]*machine{},
		volumes: map[cloud.VolumeID]*volume{}, snapshots: map[cloud.SnapshotID]*snap{},
		changed: make(chan struct{}), queued: make(chan struct{}, 1),
	}
	n.sweeping.pass, n.grouping.pass = n.sweep, n.regroup
	for _, folder := range []string{"machines", "keepers", "snapshots"} {
		if err := os.MkdirAll(filepath.Join(o.Dir, folder), 0o700); err != nil {
			return nil, fmt.Errorf("open the node's folder: %w", err)
		}
	}
	var err error
	if n.cache, err = openCache(filepath.Join(o.Dir, "cache"), o.CacheBytes, o.Now); err != nil {
		return nil, err
	}
	if err := readJSON(n.assignmentPath(), &n.assignment); err != nil {
		return nil, fmt.Errorf("read the node's last assignment: %w; move the file away, and the node does nothing until the cloud tells it anew", err)
	}
	n.index()
	n.Tasks.Accept(n.assignment.Tasks)
	if err := n.recognise(ctx); err != nil {
		return nil, err
	}
	n.keepReserve()
	return n, nil
}

// recognise what earlier programs left: machines, volumes and who has them, and
// snapshots that are being stored.
func (n *Node) recognise(ctx context.Context) error {
	left, err := n.leftovers(ctx)
	if err != nil {
		return err
	}
	for _, id := range left {
		n.know(id)
	}
	if err := n.recogniseVolumes(ctx); err != nil {
		return err
	}
	return n.recogniseSnapshots(ctx)
}

// Accept takes an assignment in: durable first, then known. An older one than
// the node has is ignored, another node's is an error.
func (n *Node) Accept(a link.Assignment) error {
	if a.Node != n.ID {
		return fmt.Errorf("assignment %d is for node %q, and this is %q", a.Generation, a.Node, n.ID)
	}
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("keep assignment %d: %w", a.Generation, err)
	}
	n.accepting.Lock()
	defer n.accepting.Unlock()
	if a.Generation <= n.generation() {
		return nil
	}
	if err := n.writeAssignment(data); err != nil {
		return fmt.Errorf("keep assignment %d: %w", a.Generation, err)
	}
	n.apply(a)
	n.Tasks.Accept(a.Tasks)
	return nil
}

// apply an assignment, and have all looked at that it changes.
func (n *Node) apply(a link.Assignment) {
	n.mu.Lock()
	defer n.mu.Unlock()
	instances, volumes, snapshots := n.assigned, n.keeps, n.takes
	if !reflect.DeepEqual(n.assignment.Groups, a.Groups) {
		n.wakeLocked(&n.grouping)
	}
	n.assignment = a
	n.index()
	for id := range instances {
		if _, still := n.assigned[id]; !still {
			n.abandon(id)
			n.wakeMachine(id)
		}
	}
	for id, i := range n.assigned {
		if was, had := instances[id]; !had || moved(was, i) {
			n.wakeMachine(id)
		}
	}
	n.wakeVolumes(volumes)
	n.wakeSnapshots(snapshots)
	n.touch()
}

// moved says whether the machine has to be looked at.
func moved(was, is cloud.Instance) bool {
	return was.Wishes != is.Wishes || was.Reboots != is.Reboots || was.Public != is.Public || !slices.Equal(was.Groups, is.Groups)
}

// News tells that a task has something to report.
func (n *Node) News() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.touch()
}

func (n *Node) generation() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.assignment.Generation
}

// abandon what is being made for a machine that is no longer assigned: an image
// may take minutes. mu is held.
func (n *Node) abandon(id cloud.InstanceID) {
	if m := n.machines[id]; m != nil && m.cancel != nil {
		m.cancel()
	}
}

// index the assignment, and know everything that it names.
func (n *Node) index() {
	n.assigned = make(map[cloud.InstanceID]cloud.Instance, len(n.assignment.Instances))
	for _, i := range n.assignment.Instances {
		n.assigned[i.ID] = i
		n.know(i.ID)
	}
	n.keeps = make(map[cloud.VolumeID]cloud.Volume, len(n.assignment.Volumes))
	for _, v := range n.assignment.Volumes {
		n.keeps[v.ID] = v
		n.knowVolume(v.ID)
	}
	n.takes = make(map[cloud.SnapshotID]cloud.Snapshot, len(n.assignment.Snapshots))
	for _, s := range n.assignment.Snapshots {
		n.takes[s.ID] = s
		n.knowSnapshot(s.ID)
	}
}

func (n *Node) know(id cloud.InstanceID) *machine {
	m := n.machines[id]
	if m == nil {
		m = &machine{id: id, phase: cloud.PhasePreparing, wishes: n.assigned[id].Wishes}
		m.pass = func(ctx context.Context) { n.pass(ctx, m) }
		n.machines[id] = m
	}
	return m
}

// touch tells the conversation with the cloud that there is news. mu is held.
func (n *Node) touch() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Report is all that the node has now, and a channel that closes when that has
// changed.
func (n *Node) Report() (link.Report, <-chan struct{}) {
	r, changed := n.report()
	// Its tasks come last, for they have locks of their own; news of them that are
	// missed here have closed the channel by then.
	r.Tasks = n.Tasks.Report()
	return r, changed
}

func (n *Node) report() (link.Report, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := link.Report{
		Node: n.ID, Zone: n.Zone, Capacity: n.Capacity, Generation: n.assignment.Generation,
		Machines: make([]link.Machine, 0, len(n.machines)),
	}
	for _, id := range slices.Sorted(maps.Keys(n.machines)) {
		m := n.machines[id]
		r.Machines = append(r.Machines, link.Machine{Instance: id, Wishes: m.wishes, Phase: m.phase, Reason: m.reason, Password: m.password})
	}
	for _, id := range slices.Sorted(maps.Keys(n.volumes)) {
		if v := n.volumes[id]; !v.gone {
			r.Volumes = append(r.Volumes, n.reportVolume(v))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(n.takes)) {
		r.Snapshots = append(r.Snapshots, n.reportSnapshot(n.snapshots[id]))
	}
	return r, n.changed
}

// Console opens what the instance has written to its serial console.
func (n *Node) Console(_ context.Context, id cloud.InstanceID) (io.ReadSeekCloser, error) {
	dir := n.machineDir(id)
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("console of %s: %w", id, err)
	}
	return n.Hypervisor.Console(dir)
}

// Screenshot is a picture of the instance's screen. See link.Node.
func (n *Node) Screenshot(ctx context.Context, id cloud.InstanceID, wake bool) ([]byte, error) {
	picture, err := n.Hypervisor.Screenshot(ctx, n.machineDir(id), wake)
	if errors.Is(err, hypervisor.ErrNoScreen) {
		err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	if err != nil {
		return nil, fmt.Errorf("screenshot of %s: %w", id, err)
	}
	return picture, nil
}

// Assigned returns the instance as the node was told of it; ok is false where
// the assignment does not name it.
func (n *Node) Assigned(id cloud.InstanceID) (i cloud.Instance, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i, ok = n.assigned[id]
	return i, ok
}

// Attached are the devices of the volumes that the instance should have, but for
// its root, sorted.
func (n *Node) Attached(id cloud.InstanceID) (devices []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	root := n.assigned[id].RootDevice
	for _, v := range n.keeps {
		if a := v.Attachment; a != nil && a.Instance == id && a.Device != root {
			devices = append(devices, a.Device)
		}
	}
	slices.Sort(devices)
	return devices
}

func (n *Node) assignmentPath() string { return filepath.Join(n.Dir, "assignment.json") }

func (n *Node) machineDir(id cloud.InstanceID) string {
	return filepath.Join(n.Dir, "machines", string(id))
}
