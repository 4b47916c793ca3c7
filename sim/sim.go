// Package sim runs a whole cloud in one goroutine under one seed, with faults
// everywhere, and watches that what must never happen doesn't.
//
// # What is real
//
// EC2's actions, the state's transactions, the controller's loops and the node
// are the real ones. The store's engine, the hypervisor, the disks and the
// network are the fakes that pass the same conformance suites as the real
// ones; the clock is a variable; the conversation of package link is a bag of
// messages.
//
// # What goes wrong
//
//	a message           is lost, comes twice, or after later ones
//	an effect           fails, before or after it was made (faults.go)
//	a process           of the cloud or the node dies, before or after any effect or commit
//	a guest             powers itself off; its process dies; it keeps a disk that it should give back
//
// A world is a function of its seed: a failure is found again by its number.
//
// # What must hold
//
// After every step: no machine runs of which the cloud has given anything away;
// no two run with one address; every instance that a user was told of is there;
// what the node has given away is what its instances took; a volume is open once, in
// a machine that it is attached to or in none, and holds what a guest wrote to it
// last. And when the faults
// end: all that is wished runs, and of all that is not, nothing is left
// (invariants.go).
package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	blockfake "mallee/block/fake"
	"mallee/cloud"
	"mallee/controller"
	"mallee/ec2"
	"mallee/hypervisor"
	hypervisorfake "mallee/hypervisor/fake"
	"mallee/iam"
	"mallee/link"
	networkfake "mallee/network/fake"
	"mallee/node"
	"mallee/state"
)

const nodeID cloud.NodeID = "local"

// imageSize, in bytes, fills the disk of the type that is run: no world has to
// format an ephemeral disk.
const imageSize = 5 << 30

var birth = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// Options of a world.
type Options struct {
	Seed  uint64
	Steps int
	Dir   string // an empty folder for the node's files
	Keys  string // a folder for the cloud's keys, which worlds may share
	Break Broken // a rule of package link to leave out, to show that it is needed
	Log   *slog.Logger
}

// Broken names what a world leaves out on purpose.
type Broken string

const (
	Nothing        Broken = ""
	AbsenceCounts  Broken = "absence counts in a report of any generation"        // against rule 1
	OldAssignments Broken = "the node takes older assignments too"                // against rule 2
	NotDurable     Broken = "the node's assignment is lost when its process dies" // against rule 3
)

// World is one cloud, its users, its faults, and what it has promised so far.
type World struct {
	Options
	ctx    context.Context
	rand   *rand.Rand
	now    time.Time
	faults faults

	memory     *state.Memory
	cloudDies  bool // decided in a commit; comes true when the piece of work ends
	store      *state.Store
	controller *controller.Controller
	ec2        *ec2.EC2
	user       iam.Principal

	machines *hypervisorfake.World
	eyes     hypervisor.Hypervisor // the machines, seen without faults
	disks    *blockfake.Disks
	volumes  *blockfake.Disks
	vault    *vault
	host     *networkfake.Host
	network  *networkfake.Network
	node     *node.Node

	toCloud  []link.Report
	toNode   []link.Assignment
	promised map[cloud.InstanceID]bool // those that RunInstances told of
	writes   int                       // that guests made to volumes
	wrote    map[cloud.VolumeID]int    // the last of each
	steps    []string                  // what happened, for the failure's report
}

// New makes a world with an image and one node that has joined.
func New(o Options) (*World, error) {
	w := &World{
		Options: o, ctx: context.Background(), now: birth,
		rand:     rand.New(rand.NewPCG(o.Seed, 1)),
		memory:   state.NewMemory(),
		machines: hypervisorfake.New(boots), disks: blockfake.New(blockfake.Anything), host: networkfake.NewHost(),
		volumes: blockfake.New(blockfake.Anything), vault: newVault(),
		promised: map[cloud.InstanceID]bool{}, wrote: map[cloud.VolumeID]int{},
	}
	w.machines.Connect(outside{w.volumes, w.vault})
	w.eyes = w.machines.Open()
	w.faults.rand = w.rand
	w.memory.Interrupt = w.interrupt
	if err := w.openCloud(); err != nil {
		return nil, err
	}
	if err := w.store.Update(w.ctx, w.furnish); err != nil {
		return nil, err
	}
	if err := w.openNode(); err != nil {
		return nil, err
	}
	report, _ := w.node.Report()
	return w, w.controller.TakeIn(w.ctx, report)
}

func (w *World) furnish(tx *state.Tx) error {
	state.Images.Put(tx, cloud.Image{
		ID: "emi-00000001", Account: w.user.Account, Kind: cloud.MachineImage, Name: "sim", Location: "bucket/sim.manifest.xml",
		ManifestDigest: "sim", Size: imageSize, Architecture: "x86_64", Virtualization: cloud.HVM, RootDevice: "/dev/sda", CreatedAt: w.now,
	})
	furnishVolumes(tx, w.user.Account)
	return nil
}

// openCloud starts the cloud's process anew on what the store holds.
func (w *World) openCloud() error {
	var err error
	if w.store, err = state.OpenMemory(w.ctx, w.memory, w.Log); err != nil {
		return err
	}
	users, err := iam.Open(w.ctx, iam.Options{
		Store: w.store, Dir: w.Keys, Now: w.time, Log: w.Log, Rand: seeded{rand.New(rand.NewPCG(w.Seed, 2))},
	})
	if err != nil {
		return err
	}
	admin, err := users.SystemAdmin()
	if err != nil {
		return err
	}
	w.user, _, _ = users.Principal(admin.AccessKey)
	w.controller = controller.New(controller.Options{Store: w.store, Now: w.time, Log: w.Log})
	w.ec2, err = ec2.New(ec2.Options{
		Store: w.store, IAM: users,
		Pools:  state.Pools{Local: netip.MustParsePrefix("172.31.0.0/26"), Public: netip.MustParsePrefix("127.20.0.0/26")},
		Region: iam.Region, Now: w.time, Rand: seeded{w.rand}, Log: w.Log,
		TakeWithin: time.Nanosecond, // nobody else would do anything meanwhile
	})
	return err
}

// openNode starts the node's process anew on what its folder holds.
func (w *World) openNode() error {
	if w.network != nil {
		w.network.Close()
	}
	w.network = networkfake.New(w.host)
	program := w.machines.Open()
	var err error
	w.node, err = node.Open(w.ctx, node.Options{
		ID: nodeID, Zone: "sim-1a", Dir: w.Dir, Capacity: cloud.Size{VCPUs: 12, MemoryMiB: 12 * 512, DiskGiB: 12 * 5},
		Cloud:      nobody{},
		Hypervisor: faultyHypervisor{program, &w.faults}, Storage: faultyStorage{program.(hypervisor.Storage), &w.faults},
		Disks: faultyDisks{w.disks, &w.faults}, Volumes: faultyDisks{w.volumes, &w.faults}, Contents: contents{w.vault, &w.faults}, Keys: node.DerivedKeys{Secret: []byte("sim")},
		Network: faultyNetwork{w.network, &w.faults}, Images: images{&w.faults},
		CacheBytes: 1 << 40, Now: w.time, Log: w.Log,
	})
	return err
}

func (w *World) time() time.Time { return w.now }

// nobody is the cloud that a simulated node calls: messages are carried by hand.
type nobody struct{}

func (nobody) Sync(context.Context, link.Report) (link.Assignment, error) {
	panic("sim: a node must not call the cloud by itself")
}

// Run the world for its steps under faults, then without any until it is
// at rest; the error says what didn't hold, and how it came to it.
func (w *World) Run() error {
	w.faults.on = true
	for range w.Steps {
		w.step()
		if err := w.check(); err != nil {
			return w.failed(err)
		}
	}
	w.faults.on = false
	if err := w.converge(); err != nil {
		return w.failed(err)
	}
	return nil
}

func (w *World) failed(err error) error {
	tail := w.steps[max(0, len(w.steps)-60):]
	return fmt.Errorf("seed %d, step %d: %w; the last steps:\n    %s", w.Seed, len(w.steps), err, strings.Join(tail, "\n    "))
}

func (w *World) say(format string, args ...any) {
	w.steps = append(w.steps, fmt.Sprintf(format, args...))
}

// step does one thing, chosen by chance.
func (w *World) step() {
	choices := []struct {
		weight int
		do     func()
	}{
		{24, w.nodePass}, {12, w.nodeReports}, {16, w.deliverReport}, {16, w.deliverAssignment},
		{10, w.cloudPass}, {5, w.userRuns}, {5, w.userTerminates}, {1, w.userReboots}, {2, w.guestActs},
		{8, w.userStores}, {1, w.userStops}, {2, w.userStarts}, {2, w.guestWrites}, {1, w.guestsGiveBack},
		{4, w.timePasses}, {3, w.loseMessage}, {1, w.restartNode}, {1, w.restartCloud},
	}
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	n := w.rand.IntN(total)
	for _, c := range choices {
		if n < c.weight {
			c.do()
			return
		}
		n -= c.weight
	}
}

func (w *World) timePasses() {
	d := time.Duration(w.rand.IntN(int(3 * time.Minute)))
	w.say("%s pass", d)
	w.now = w.now.Add(d)
}

// leftIn lists what is in a folder of the node's.
func (w *World) leftIn(folder string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(w.Dir, folder))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}
