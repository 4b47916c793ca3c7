package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"golang.org/x/sys/unix"
)

// embedded is an etcd of one member that runs in this process and listens
// nowhere: its only client calls it directly.
type embedded struct {
	etcd    *embed.Etcd
	lock    *os.File
	closing atomic.Bool
}

const (
	memberName = "mallee"
	// memberPeer is an address that a member must have. Nothing listens there.
	memberPeer = "http://127.0.0.1:1"
	quotaBytes = 2 << 30
	// keepRevisions is how much history is kept for a watch that lags.
	keepRevisions = "1000"
)

// A log's file takes its full size on the disk from the start, and there are
// at least two: 64 MiB each, etcd's own choice, is much for a small cloud.
func init() { wal.SegmentSizeBytes = 16 << 20 }

// etcdDir is the embedded etcd's folder under Options.Dir.
func etcdDir(dir string) string { return filepath.Join(dir, "etcd") }

// startEtcd starts the embedded etcd on o.Dir and waits until it serves.
func startEtcd(ctx context.Context, o Options) (backend, error) {
	if o.Dir == "" {
		return nil, errors.New("state: neither a folder nor endpoints of etcd are named")
	}
	if err := os.MkdirAll(etcdDir(o.Dir), 0o700); err != nil {
		return nil, fmt.Errorf("state: make the folder: %w", err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	server, err := embed.StartEtcd(embedConfig(o))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("state: start etcd on %s: %w", etcdDir(o.Dir), err), lock.Close())
	}
	m := &embedded{etcd: server, lock: lock}
	if err := m.ready(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("state: start etcd on %s: %w", etcdDir(o.Dir), err), m.close())
	}
	if err := reserve(o.Dir); err != nil {
		return nil, errors.Join(err, m.close())
	}
	e := newEtcd(v3client.New(server.Server), m)
	if err := vacateSeats(ctx, e.client); err != nil {
		return nil, errors.Join(fmt.Errorf("state: free the leaders' seats: %w", err), e.close())
	}
	return e, nil
}

func embedConfig(o Options) *embed.Config {
	c := embed.NewConfig()
	c.Name = memberName
	c.Dir = etcdDir(o.Dir)
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapTo(o.Logger))

	c.ListenPeerUrls, c.ListenClientUrls, c.AdvertiseClientUrls = nil, nil, nil
	peer, _ := url.Parse(memberPeer)
	c.AdvertisePeerUrls = []url.URL{*peer}
	c.InitialCluster = memberName + "=" + memberPeer

	// What a start waits for is the election, which a lone member always wins.
	c.TickMs, c.ElectionMs = 10, 100

	c.AutoCompactionMode = embed.CompactorModeRevision
	c.AutoCompactionRetention = keepRevisions
	c.QuotaBackendBytes = quotaBytes
	// What else is kept is for members that lag, of which there are none.
	c.SnapshotCount, c.SnapshotCatchUpEntries = 2000, 100
	c.BootstrapDefragThresholdMegabytes = 256
	c.MaxTxnOps = maxTxnOps
	c.MaxRequestBytes = maxRequestBytes
	c.AuthToken = "" // nobody logs in
	// A slow disk is not worth a warning each time.
	c.WarningApplyDuration = time.Second
	return c
}

func (m *embedded) ready(ctx context.Context) error {
	select {
	case <-m.etcd.Server.ReadyNotify():
		return nil
	case <-m.etcd.Server.StopNotify():
		return errors.New("it stopped")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// onEnd has f called when etcd stops and nobody closed it.
func (m *embedded) onEnd(f func(error)) {
	go func() {
		<-m.etcd.Server.StopNotify()
		if !m.closing.Load() {
			f(fmt.Errorf("state: the embedded etcd stopped by itself: %w", ErrClosed))
		}
	}()
}

func (m *embedded) close() error {
	m.closing.Store(true)
	m.etcd.Close()
	return m.lock.Close()
}

// lockDir makes sure that one process at a time has the folder: etcd itself
// would wait for the other in silence.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "etcd.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state: lock the folder: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = writeHolder(f)
		if err == nil {
			return f, nil
		}
	} else if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w by %s: stop that one, or name another folder", ErrInUse, readHolder(f))
	}
	return nil, errors.Join(fmt.Errorf("state: %s: %w", dir, err), f.Close())
}

func writeHolder(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(f, "process %d\n", os.Getpid())
	return err
}

func readHolder(f *os.File) string {
	data, err := io.ReadAll(io.LimitReader(f, 100))
	if err != nil || len(data) == 0 {
		return "another process"
	}
	return strings.TrimSpace(string(data))
}
