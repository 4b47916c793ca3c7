package sim

import (
	"context"
	"encoding/xml"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	blockfake "mallee/block/fake"
	"mallee/cloud"
	"mallee/controller"
	"mallee/ec2"
	"mallee/hypervisor"
	hypervisorfake "mallee/hypervisor/fake"
	"mallee/iam"
	networkfake "mallee/network/fake"
	"mallee/node"
	"mallee/state"
	"mallee/wire"
)

// A town is a whole cloud like a World, but one that runs as mallee does: loops
// and nodes woken by what is written, all at once, and no faults.
type town struct {
	*ec2.EC2
	b     *testing.B
	store *state.Store
	user  iam.Principal
}

const (
	townNodes     = 100
	townInstances = 10_000
)

// BenchmarkCloud is the API's throughput in a cloud of 100 nodes that run
// 10,000 instances, durable and in memory. RunInstances is timed to its reply;
// running/s is how many a second came to run, from the first call to the last
// instance.
func BenchmarkCloud(b *testing.B) {
	for name, open := range map[string]func(*testing.B) (*state.Store, error){
		"etcd": func(b *testing.B) (*state.Store, error) {
			return state.Open(b.Context(), state.Options{Dir: b.TempDir(), Logger: discard})
		},
		"memory": func(b *testing.B) (*state.Store, error) {
			return state.OpenMemory(b.Context(), state.NewMemory(), discard)
		},
	} {
		b.Run(name, func(b *testing.B) {
			t := newTown(b, open)
			for range townInstances / 1000 {
				t.launch(1000)
			}
			t.settle(townInstances)
			for _, n := range []int{1, 16} {
				b.Run(fmt.Sprintf("RunInstances/%d-a-call", n), t.benchmarkRun(n))
			}
			b.Run("DescribeInstances/pages-of-1000", t.benchmarkPages)
			b.Run("DescribeInstances/by-id", t.benchmarkByID)
		})
	}
}

var discard = slog.New(slog.DiscardHandler)

func newTown(b *testing.B, open func(*testing.B) (*state.Store, error)) *town {
	store, err := open(b)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	chance := &locked{Reader: seeded{rand.New(rand.NewPCG(1, 1))}}
	users, err := iam.Open(b.Context(), iam.Options{Store: store, Dir: keys(), Now: time.Now, Rand: chance, Log: discard})
	if err != nil {
		b.Fatal(err)
	}
	admin, err := users.SystemAdmin()
	if err != nil {
		b.Fatal(err)
	}
	t := &town{b: b, store: store}
	t.user, _, _ = users.Principal(admin.AccessKey)
	if t.EC2, err = ec2.New(ec2.Options{
		Store: store, IAM: users,
		Pools:  state.Pools{Local: netip.MustParsePrefix("172.16.0.0/15"), Public: netip.MustParsePrefix("127.20.0.0/15")},
		Region: iam.Region, Now: time.Now, Rand: chance, Log: discard,
	}); err != nil {
		b.Fatal(err)
	}
	t.populate()
	return t
}

// locked is chance for many.
type locked struct {
	mu     sync.Mutex // guards Reader
	Reader seeded
}

func (l *locked) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Reader.Read(p)
}

// populate the town with an image, loops and nodes, which end with the benchmark.
func (t *town) populate() {
	err := t.store.Update(t.b.Context(), func(tx *state.Tx) error {
		state.Images.Put(tx, cloud.Image{
			ID: "emi-00000001", Account: t.user.Account, Kind: cloud.MachineImage, Name: "town", Location: "bucket/town.manifest.xml",
			ManifestDigest: "town", Size: imageSize, Architecture: "x86_64", Virtualization: cloud.HVM, RootDevice: "/dev/sda", CreatedAt: birth,
		})
		return nil
	})
	if err != nil {
		t.b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.b.Context())
	var running sync.WaitGroup
	t.b.Cleanup(func() { cancel(); running.Wait() })
	loops := controller.New(controller.Options{Store: t.store, Now: time.Now, Log: discard})
	running.Go(func() { loops.Run(ctx) })
	dir := folder(t.b)
	t.b.Cleanup(func() { os.RemoveAll(dir) })
	host := networkfake.NewHost()
	for i := range townNodes {
		n := t.node(cloud.NodeID(fmt.Sprintf("node-%d", i)), dir, loops, host)
		report, _ := n.Report()
		if err := loops.TakeIn(ctx, report); err != nil {
			t.b.Fatal(err)
		}
		running.Go(func() { n.Run(ctx) })
	}
}

// node with room for all of the town.
func (t *town) node(id cloud.NodeID, dir string, loops *controller.Controller, host *networkfake.Host) *node.Node {
	program := hypervisorfake.New(hypervisorfake.Linux).Open()
	n, err := node.Open(t.b.Context(), node.Options{
		ID: id, Zone: "sim-1a", Dir: filepath.Join(dir, string(id)), Cloud: loops,
		Capacity:   cloud.Size{VCPUs: 1 << 20, MemoryMiB: 1 << 30, DiskGiB: 1 << 30},
		Hypervisor: program, Storage: program.(hypervisor.Storage), Disks: blockfake.New(blockfake.Anything),
		Volumes: blockfake.New(blockfake.Anything), Contents: contents{newVault(), &faults{}}, Keys: node.DerivedKeys{Secret: []byte("sim")},
		Network: networkfake.New(host), Images: images{&faults{}}, CacheBytes: 1 << 40, Now: time.Now, Log: discard,
	})
	if err != nil {
		t.b.Fatal(err)
	}
	return n
}

// do an action that must succeed, as a client would that is in the same process.
func (t *town) do(b *testing.B, form wire.Form) *httptest.ResponseRecorder {
	form["Version"] = wire.NewestVersion
	reply := httptest.NewRecorder()
	t.Handle(reply, httptest.NewRequest(http.MethodPost, "/", nil), form, t.user, "town")
	if reply.Code != http.StatusOK {
		b.Error(reply.Body)
	}
	return reply
}

func (t *town) launch(n int) { t.launchIn(t.b, n) }

func (t *town) launchIn(b *testing.B, n int) {
	count := strconv.Itoa(n)
	t.do(b, wire.Form{"Action": "RunInstances", "ImageId": "emi-00000001", "InstanceType": "m1.small", "MinCount": count, "MaxCount": count})
}

// settle returns when so many instances run.
func (t *town) settle(n int) {
	for {
		changed := t.store.Changed()
		if t.running() == n {
			return
		}
		select {
		case <-changed:
		case <-t.b.Context().Done():
			t.b.Fatal("the town did not settle")
		}
	}
}

func (t *town) running() (n int) {
	for o := range state.Observations.All(t.store.View()) {
		if o.Phase == cloud.PhaseUp {
			n++
		}
	}
	return n
}

func (t *town) benchmarkRun(n int) func(*testing.B) {
	return func(b *testing.B) {
		before := t.running()
		for b.Loop() {
			t.launchIn(b, n)
		}
		asked := b.Elapsed()
		b.StopTimer()
		rest := time.Now()
		t.settle(before + n*b.N)
		launched := float64(n * b.N)
		b.ReportMetric(launched/asked.Seconds(), "instances/s")
		b.ReportMetric(launched/(asked+time.Since(rest)).Seconds(), "running/s")
	}
}

// benchmarkPages describes all instances, page by page.
func (t *town) benchmarkPages(b *testing.B) {
	all := t.running()
	bytes := 0
	for b.Loop() {
		form := wire.Form{"Action": "DescribeInstances", "MaxResults": "1000"}
		for {
			reply := t.do(b, form).Body.Bytes()
			bytes += len(reply)
			token := nextToken(b, reply)
			if token == "" {
				break
			}
			form = wire.Form{"Action": "DescribeInstances", "MaxResults": "1000", "NextToken": token}
		}
	}
	b.ReportMetric(float64(all*b.N)/b.Elapsed().Seconds(), "instances/s")
	b.ReportMetric(float64(bytes)/float64(all*b.N), "bytes/instance")
}

func (t *town) benchmarkByID(b *testing.B) {
	var id cloud.InstanceID
	for i := range state.Instances.All(t.store.View()) {
		id = i.ID
		break
	}
	for b.Loop() {
		t.do(b, wire.Form{"Action": "DescribeInstances", "InstanceId.1": string(id)})
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// nextToken of a page, which is at its end or its beginning.
func nextToken(b *testing.B, page []byte) string {
	var r struct {
		NextToken string `xml:"nextToken"`
	}
	b.StopTimer()
	defer b.StartTimer()
	if err := xml.Unmarshal(page, &r); err != nil {
		b.Fatal(err)
	}
	return r.NextToken
}
