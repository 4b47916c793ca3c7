package node

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mallee/block"
	blockfake "mallee/block/fake"
	"mallee/cloud"
	"mallee/hypervisor"
	hypervisorfake "mallee/hypervisor/fake"
	"mallee/link"
	"mallee/network"
	networkfake "mallee/network/fake"
)

// rig is a node on fakes, whose clock and faults a test turns.
type rig struct {
	*testing.T
	*Node
	dir   string
	now   time.Time
	boots hypervisorfake.Boots
	world *hypervisorfake.World
	disks *blockfake.Disks
	store *blockfake.Disks // of volumes
	bytes *vault
	net   *networkfake.Network

	mu   sync.Mutex       // guards what follows in Run mode
	fail map[string]error // by effect: start, observe, …
	did  []string         // the effects, in their order

	diesAt int // the program dies before that many effects from now; 0 and less: it doesn't

	generation int64
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t, dir: t.TempDir(), now: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), boots: hypervisorfake.Linux, fail: map[string]error{}}
	r.world = hypervisorfake.New(func(m hypervisor.Machine) (hypervisorfake.Guest, error) { return r.boots(m) })
	r.disks = blockfake.New(func(path string) ([]byte, error) { _, err := os.Stat(path); return nil, err })
	r.store = blockfake.New(blockfake.Anything)
	r.bytes = newVault()
	r.world.Connect(outside{r.store, r.bytes})
	r.open()
	return r
}

func (r *rig) options() Options {
	program := r.world.Open()
	return Options{
		ID: "node-1", Zone: "zone-1a", Dir: r.dir, Capacity: cloud.Size{VCPUs: 4, MemoryMiB: 4096, DiskGiB: 100},
		Cloud: nil, Hypervisor: faultyHypervisor{program, r}, Storage: faultyStorage{program.(hypervisor.Storage), r},
		Disks: faultyDisks{r.disks, "disk", r}, Volumes: faultyDisks{r.store, "volume", r}, Contents: faultyContents{r.bytes, r}, Keys: DerivedKeys{[]byte("secret")}, Network: faultyNetwork{r.net, r},
		Images: faultyImages{r}, CacheBytes: 1 << 40, Now: func() time.Time { return r.now },
	}
}

// open the node anew, as its next program does.
func (r *rig) open() {
	r.Helper()
	r.net = networkfake.New(networkfake.NewHost())
	var err error
	if r.Node, err = Open(r.Context(), r.options()); err != nil {
		r.Fatal(err)
	}
}

// death is what a program dies of, before the effect that it names.
type death string

func (d death) Error() string { return "the program dies before " + string(d) }

// assign exactly these.
func (r *rig) assign(list ...cloud.Instance) {
	r.Helper()
	r.tell(link.Assignment{Instances: list})
}

// tell the node all that it should have.
func (r *rig) tell(a link.Assignment) {
	r.Helper()
	r.generation++
	a.Node, a.Generation = r.ID, r.generation
	if err := r.Accept(a); err != nil {
		r.Fatal(err)
	}
}

// step a pass, and return what is then reported of the first machine.
func (r *rig) step() link.Machine {
	r.Step(r.Context())
	return r.first()
}

func (r *rig) first() link.Machine {
	report, _ := r.Report()
	if len(report.Machines) == 0 {
		return link.Machine{}
	}
	return report.Machines[0]
}

func (r *rig) wantPhase(want cloud.Phase) link.Machine {
	r.Helper()
	m := r.step()
	if m.Phase != want {
		r.Fatalf("phase %q (%s), want %q", m.Phase, m.Reason.Message, want)
	}
	return m
}

// wantNothing of any machine.
func (r *rig) wantNothing() {
	r.Helper()
	report, _ := r.Report()
	disks, _ := r.disks.List(r.Context())
	folders, _ := os.ReadDir(filepath.Join(r.dir, "machines"))
	halves, _ := filepath.Glob(filepath.Join(r.dir, "cache", "*"+halfMade))
	if left := r.world.Machines(); len(left)+len(report.Machines)+len(disks)+len(r.net.List())+len(folders)+len(halves) > 0 {
		r.Errorf("left: machines %v, reported %v, disks %v, ports %v, folders %v, half-made %v", left, report.Machines, disks, r.net.List(), folders, halves)
	}
}

func (r *rig) effect(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.diesAt--; r.diesAt == 0 {
		panic(death(name))
	}
	r.did = append(r.did, name)
	return r.fail[name]
}

// instance number n, whose image fills its disk: no second one is made.
func instance(n int) cloud.Instance {
	local := netip.AddrFrom4([4]byte{172, 31, byte(n >> 8), byte(n)})
	return cloud.Instance{
		ID: cloud.InstanceID(fmt.Sprintf("i-%08x", n)), Account: "123456789012", Type: "m1.small", Virtualization: cloud.HVM,
		Image: cloud.ImageRef{ID: "emi-00000001", Location: "b/k", ManifestDigest: "abc+/=", Size: 1 << 30},
		Size:  cloud.Size{VCPUs: 1, MemoryMiB: 512, DiskGiB: 1}, Node: "node-1",
		MAC: fmt.Sprintf("d0:0d:ac:1f:%02x:%02x", byte(n>>8), byte(n)), Local: local,
		Wish: cloud.WishRunning, Wishes: 1,
	}
}

type faultyHypervisor struct {
	hypervisor.Hypervisor
	*rig
}

func (h faultyHypervisor) Start(ctx context.Context, m hypervisor.Machine) error {
	if err := h.effect("start"); err != nil {
		return err
	}
	return h.Hypervisor.Start(ctx, m)
}

func (h faultyHypervisor) Observe(ctx context.Context, dir string) (hypervisor.Status, error) {
	if err := h.effect("observe"); err != nil {
		return "", err
	}
	return h.Hypervisor.Observe(ctx, dir)
}

func (h faultyHypervisor) PowerDown(ctx context.Context, dir string) error {
	if err := h.effect("power down"); err != nil {
		return err
	}
	return h.Hypervisor.PowerDown(ctx, dir)
}

func (h faultyHypervisor) Reset(ctx context.Context, dir string) error {
	if err := h.effect("reset"); err != nil {
		return err
	}
	return h.Hypervisor.Reset(ctx, dir)
}

func (h faultyHypervisor) Kill(ctx context.Context, dir string) error {
	if err := h.effect("kill"); err != nil {
		return err
	}
	return h.Hypervisor.Kill(ctx, dir)
}

type faultyDisks struct {
	block.Disks
	what string
	*rig
}

func (d faultyDisks) Ensure(ctx context.Context, wish block.Disk) (block.Attachment, error) {
	if err := d.effect("make " + d.what); err != nil {
		return block.Attachment{}, err
	}
	return d.Disks.Ensure(ctx, wish)
}

func (d faultyDisks) Remove(ctx context.Context, name string) error {
	if err := d.effect("remove " + d.what); err != nil {
		return err
	}
	return d.Disks.Remove(ctx, name)
}

type faultyNetwork struct {
	network.Network
	*rig
}

func (n faultyNetwork) Ensure(ctx context.Context, p network.Port) (network.Attachment, error) {
	if err := n.effect("make port"); err != nil {
		return network.Attachment{}, err
	}
	return n.Network.Ensure(ctx, p)
}

func (n faultyNetwork) Remove(ctx context.Context, id string) error {
	if err := n.effect("remove port"); err != nil {
		return err
	}
	return n.Network.Remove(ctx, id)
}

// faultyImages are holes from end to end.
type faultyImages struct{ *rig }

func (i faultyImages) Unpack(_ context.Context, ref cloud.ImageRef, dst io.Writer, _ func(done, total int64)) error {
	dst.(*sparseWriter).Skip(ref.Size)
	return i.effect("unpack")
}

// setFail has an effect fail, or not any more.
func (r *rig) setFail(effect string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail[effect] = err
}

// count how often an effect was made.
func (r *rig) count(effect string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.did {
		if e == effect {
			n++
		}
	}
	return n
}

// order of the effects since the last call, those named left out.
func (r *rig) order(without ...string) string {
	list := slices.DeleteFunc(r.did, func(e string) bool { return slices.Contains(without, e) })
	r.did = nil
	return strings.Join(list, ", ")
}
