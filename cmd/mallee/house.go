package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"mallee/blob"
	"mallee/blob/dir"
	"mallee/blob/sealed"
	"mallee/block/file"
	"mallee/bundle"
	"mallee/cloud"
	"mallee/controller"
	"mallee/durable"
	"mallee/ebs"
	"mallee/ec2"
	"mallee/front"
	"mallee/hypervisor/qemu"
	"mallee/iam"
	"mallee/metadata"
	"mallee/network/user"
	"mallee/node"
	"mallee/snapshot"
	"mallee/state"
	"mallee/task"
	"mallee/walrus"
)

// On one machine there is one node and one zone, whatever the host is called
// today.
const (
	localNode cloud.NodeID = "local"
	localZone              = iam.Region + "a"
)

// cacheShare is the part of the disk that cached images may take: one in so many.
const cacheShare = 4

// tasksAtOnce is how many imports, exports and the like are done at once; each is
// some processors' and a disk's work.
const tasksAtOnce = 2

// tasksReserve is the part of the disk, one in so many, that tasks leave free for
// guests and the cloud's own state; mostReserve, in bytes, is as much as is needed of
// a large one.
const (
	tasksReserve = 50
	mostReserve  = 4 << 30
)

var subnet = netip.MustParsePrefix("172.31.0.0/16")

// house is every room of a running cloud.
type house struct {
	settings   settings
	log        *slog.Logger
	store      *state.Store
	iam        *iam.IAM
	walrus     *walrus.Walrus
	controller *controller.Controller
	hypervisor *qemu.Hypervisor
	network    *user.User
	contents   *snapshot.Store
	exports    *node.Exports
	tasks      *task.Worker
	ebs        *ebs.EBS
	node       *node.Node
	front      *front.Front
	work       sync.WaitGroup // of loops and node
}

// build the house from its cellar up. What was opened is closed again where a
// later room fails.
func build(ctx context.Context, s settings, endpoint string, log *slog.Logger) (_ *house, err error) {
	h := &house{settings: s, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if h.store, err = state.Open(ctx, state.Options{Dir: s.folder.Path("state"), Logger: log}); err != nil {
		return nil, err
	}
	h.iam, err = iam.Open(ctx, iam.Options{Store: h.store, Dir: s.folder.Path("keys"), Now: time.Now, Rand: rand.Reader, Log: log, Issuers: issuers()})
	if err != nil {
		return nil, err
	}
	blobs, err := h.openBlobs()
	if err != nil {
		return nil, err
	}
	if h.contents, err = snapshot.Open(blobs, s.folder.Path("node", "journals"), snapshot.Options{}); err != nil {
		return nil, err
	}
	h.controller = controller.New(controller.Options{Store: h.store, Contents: sweeper{h.contents, log}, Now: time.Now, Log: log})
	// The door comes before what is behind it: Walrus hands back to it what
	// turns out not to be S3's.
	h.front = &front.Front{IAM: h.iam, Now: time.Now, Log: log, Ready: h.store.Err}
	h.walrus, err = walrus.Open(walrus.Options{
		Dir: s.folder.Path("walrus"), Identity: keyring{h.iam}, Bound: keyring{h.iam}.bound, May: keyring{h.iam}.may, Region: iam.Region, Elsewhere: h.front, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	h.front.S3 = h.walrus.Handler()
	if err := h.openNode(ctx, endpoint); err != nil {
		return nil, err
	}
	if err := h.openEBS(); err != nil {
		return nil, err
	}
	return h, h.openEC2(endpoint)
}

// openBlobs opens where the bytes of snapshots lie, sealed: those of encrypted
// volumes must not lie there in the clear, and blocks don't tell whose they are.
func (h *house) openBlobs() (blob.Store, error) {
	key, err := h.secret("snapshots")
	if err != nil {
		return nil, err
	}
	files, err := dir.Open(h.settings.folder.Path("snapshots"))
	if err != nil {
		return nil, err
	}
	return sealed.New(files, key, rand.Reader)
}

// openNode opens this machine's node and its seams.
func (h *house) openNode(ctx context.Context, endpoint string) error {
	accel, err := h.accel(ctx)
	if err != nil {
		return err
	}
	if h.hypervisor, err = qemu.Open(qemu.Options{Accel: accel, Logger: h.log}); err != nil {
		return err
	}
	disks, err := file.Open(h.settings.folder.Path("node", "disks"))
	if err != nil {
		return err
	}
	volumes, err := h.openVolumes(ctx)
	if err != nil {
		return err
	}
	volumeKeys, err := h.secret("volumes")
	if err != nil {
		return err
	}
	secret, err := h.secret("metadata")
	if err != nil {
		return err
	}
	h.network, err = user.New(user.Options{
		Prefix: subnet, Log: h.log,
		Metadata: metadata.Handler(metadata.Options{Lookup: guests{&h.node}.lookup, Now: time.Now, Secret: secret, Signer: metadata.Signer{Key: h.iam.CloudKey(), Certificate: h.iam.CloudCertificate()}, Log: h.log}),
	})
	if err != nil {
		return err
	}
	capacity, err := h.settings.offered()
	if err != nil {
		return err
	}
	if err := h.openTasks(endpoint, capacity); err != nil {
		return err
	}
	h.exports = node.NewExports(h.contents, h.settings.folder.Path("node", "nbd"), h.log)
	h.node, err = node.Open(ctx, node.Options{
		ID: localNode, Zone: localZone, Dir: h.settings.folder.Path("node"), Capacity: capacity,
		Cloud: h.controller, Hypervisor: h.hypervisor, Storage: h.hypervisor,
		Disks: disks, Volumes: volumes, Contents: h.exports, Keys: node.DerivedKeys{Secret: volumeKeys}, Network: h.network,
		Images: h.images(), Tasks: h.tasks,
		CacheBytes: int64(capacity.DiskGiB) << 30 / cacheShare, Now: time.Now, Log: h.log,
	})
	if err != nil {
		return err
	}
	h.exports.Watch(h.node.News)
	if err := h.exports.Serve(); err != nil {
		return err
	}
	// The node is known before the first request: a cloud that answers has room.
	report, _ := h.node.Report()
	return h.controller.TakeIn(ctx, report)
}

// images of the object store.
func (h *house) images() *bundle.Source {
	return &bundle.Source{Objects: h.walrus, Key: h.iam.CloudKey()}
}

// openTasks opens what does the node's long work.
func (h *house) openTasks(endpoint string, capacity cloud.Size) (err error) {
	h.tasks, err = task.Open(task.Options{
		Dir: h.settings.folder.Path("node", "tasks"), Objects: taskObjects{h.walrus, h.store}, Contents: h.contents, Bundles: h.images(), Roots: roots{&h.node}, Peers: peers{h.settings.folder.Peers()},
		CloudCert: h.iam.CloudCertificate(), CloudKey: h.iam.CloudKey(),
		Reach: reach(endpoint), MaxSize: ec2.DefaultMaxImageSize, AtOnce: tasksAtOnce,
		Reserve: min(int64(capacity.DiskGiB)<<30/tasksReserve, mostReserve), Log: h.log,
	}, func() { h.node.News() })
	return err
}

// openEBS opens the EBS direct API.
func (h *house) openEBS() error {
	secret, err := h.secret("ebs")
	if err != nil {
		return err
	}
	h.ebs = ebs.New(ebs.Options{
		Store: h.store, IAM: h.iam, Contents: h.contents, Secret: secret, Region: iam.Region, Now: time.Now, Rand: rand.Reader, Log: h.log,
	})
	h.front.EBS = h.ebs
	return nil
}

// openEC2 opens the API, and says how to use it.
func (h *house) openEC2(endpoint string) error {
	admin, err := h.iam.SystemAdmin()
	if err != nil {
		return err
	}
	h.front.EC2, err = ec2.New(ec2.Options{
		Store: h.store, IAM: h.iam, Objects: objects{h.walrus}, Console: h.node, Peers: peers{h.settings.folder.Peers()},
		Pools:  state.Pools{Local: subnet, Public: h.settings.publicPool(admin.Account)},
		Region: iam.Region, Endpoint: endpoint, Now: time.Now, Rand: rand.Reader, Log: h.log,
	})
	if err != nil {
		return err
	}
	return admin.WriteEucarc(h.settings.folder.Path("eucarc"), endpoint, endpoint+"/services/objectstorage")
}

// accel is how guests run: as told, or as a guest has proven, which holds until
// the host starts again.
func (h *house) accel(ctx context.Context) (qemu.Accel, error) {
	if h.settings.accel != "auto" {
		return qemu.Accel(h.settings.accel), nil
	}
	path := h.settings.folder.Path("accel.json")
	var kept qemu.Proof
	if data, err := os.ReadFile(path); err == nil {
		json.Unmarshal(data, &kept) // what can't be read proves nothing
	}
	proof := qemu.Probe(ctx, "", kept)
	if proof.Accel != qemu.KVM {
		h.log.Warn("guests run by emulation (TCG)", "why", proof.Why)
	}
	data, err := json.Marshal(proof)
	if err == nil {
		err = durable.WriteFile(path, data)
	}
	if err != nil {
		h.log.Warn("what was found out about KVM can't be kept for the next start", "err", err)
	}
	return proof.Accel, nil
}

// secret of that name, made at the first start.
func (h *house) secret(name string) ([]byte, error) {
	path := h.settings.folder.Path("keys", name+".key")
	secret, err := os.ReadFile(path)
	if err == nil && len(secret) == 32 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	secret = make([]byte, 32)
	rand.Read(secret) // never fails
	if err := durable.WriteFile(path, secret); err != nil {
		return nil, fmt.Errorf("make the secret %s: %w", name, err)
	}
	return secret, nil
}

// run the loops and the node until ctx ends.
func (h *house) run(ctx context.Context) {
	h.work.Go(func() { h.controller.Run(ctx) })
	h.work.Go(func() { h.node.Run(ctx) })
	h.work.Go(func() { h.tasks.Run(ctx) })
	h.work.Go(func() { h.ebs.Run(ctx) })
	h.work.Go(func() {
		// The store's history is of no use to a new program, and its room is
		// the way out of a full one.
		if err := h.store.Reclaim(ctx); err != nil && ctx.Err() == nil {
			h.log.Warn("the state keeps its room", "err", err)
		}
	})
}

// close every room that was opened, the last one first. Guests go on.
func (h *house) close() error {
	h.work.Wait()
	var errs []error
	if h.network != nil {
		errs = append(errs, h.network.Close())
	}
	if h.exports != nil {
		errs = append(errs, h.exports.Close())
	}
	if h.contents != nil {
		errs = append(errs, h.contents.Close())
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
