package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sys/unix"

	"mallee/cloud"
)

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	var rev int64
	for i := range 3 {
		s := openDir(t, dir)
		if got := len(ids(s.View())); got != i {
			t.Fatalf("opening %d: %d records", i, got)
		}
		update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: fmt.Sprint(i)}) })
		if s.View().Revision() <= rev {
			t.Fatalf("revision %d after %d", s.View().Revision(), rev)
		}
		rev = s.View().Revision()
		if err := mirrorsBackend(s); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
	}
}

// TestReserve: the state has room of its own on the disk, and can fill it.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	var info, after unix.Stat_t
	path := filepath.Join(etcdDir(dir), "member", "snap", "db")
	if err := unix.Stat(path, &info); err != nil {
		t.Fatal(err)
	}
	if reserved := info.Blocks * 512; reserved < reserveBytes {
		t.Skipf("%d bytes are reserved: this file system can't, or is full", reserved)
	}
	for i := range 320 {
		update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: fmt.Sprint(i), Owner: strings.Repeat("x", 64<<10)}) })
	}
	if err := unix.Stat(path, &after); err != nil {
		t.Fatal(err)
	}
	if after.Size <= info.Size || after.Blocks > info.Blocks+info.Blocks/10 {
		t.Errorf("with 20 MiB more the file of %d bytes has %d, and its %d blocks are %d", info.Size, after.Size, info.Blocks, after.Blocks)
	}
	closeStore(t, s)
}

func TestSecondOpenSaysWhoHoldsTheFolder(t *testing.T) {
	dir := t.TempDir()
	openDir(t, dir)
	_, err := Open(within(t), Options{Dir: dir, Logger: quiet()})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v", err)
	}
	if err := Restore(within(t), dir, strings.NewReader(""), quiet()); !errors.Is(err, ErrInUse) {
		t.Fatalf("restore over a running store: %v", err)
	}
}

func TestOpenFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"nothing named":  {},
		"not a folder":   {Dir: file},
		"under a file":   {Dir: filepath.Join(file, "sub")},
		"nobody answers": {Endpoints: []string{"127.0.0.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(within(t), 2*time.Second)
			defer cancel()
			o.Logger = quiet()
			s, err := Open(ctx, o)
			if err == nil {
				closeStore(t, s)
				t.Fatal("opened")
			}
			if !strings.HasPrefix(err.Error(), "state: ") {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestFolderIsPrivate(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a"}) })
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Nothing but this process can reach the embedded etcd.
func TestEmbeddedListensNowhere(t *testing.T) {
	s := openDir(t, t.TempDir())
	server := s.backend.(*etcd).server.etcd
	if len(server.Clients)+len(server.Peers) > 0 {
		t.Fatalf("it listens on %v and %v", server.Clients, server.Peers)
	}
}

func TestBackupAndRestore(t *testing.T) {
	s := openDir(t, t.TempDir())
	update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a", Owner: "x"}); widgets.Put(tx, widget{ID: "b"}) })
	update(t, s, func(tx *Tx) { widgets.Delete(tx, "b"); Nodes.Put(tx, cloud.Node{ID: "node"}) })
	var backup bytes.Buffer
	if err := s.Backup(within(t), &backup); err != nil {
		t.Fatal(err)
	}
	update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "after"}); Nodes.Put(tx, cloud.Node{ID: "node", Wishes: 5}) })
	rev := s.View().Revision()

	dir := filepath.Join(t.TempDir(), "restored")
	if err := Restore(within(t), dir, bytes.NewReader(backup.Bytes()), quiet()); err != nil {
		t.Fatal(err)
	}
	r := openDir(t, dir)
	same(t, "restored", ids(r.View()), "a")
	same(t, "by owner", idsBy(r.View(), widgetsByOwner, "x"), "a")
	update(t, r, func(tx *Tx) { widgets.Put(tx, widget{ID: "c"}) })
	if _, got, _ := widgets.Get(r.View(), "c"); got <= rev {
		t.Fatalf("a new record has revision %d; nodes may have seen %d", got, rev)
	}
	if _, got, ok := Nodes.Get(r.View(), "node"); !ok || got <= rev {
		t.Fatalf("the node's assignment has generation %d; the node may have %d", got, rev)
	}
	closeStore(t, r)
	same(t, "reopened", ids(openDir(t, dir).View()), "a", "c")

	if err := Restore(within(t), dir, bytes.NewReader(backup.Bytes()), quiet()); err == nil {
		t.Fatal("restored over a store")
	}
}

func TestRestoreRefusesDamage(t *testing.T) {
	s := openDir(t, t.TempDir())
	update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a"}) })
	var b bytes.Buffer
	if err := s.Backup(within(t), &b); err != nil {
		t.Fatal(err)
	}
	good := b.Bytes()
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for name, data := range map[string][]byte{
		"empty":     nil,
		"cut short": good[:len(good)/2],
		"no digest": good[:len(good)-32],
		"flipped":   flipped,
		"garbage":   bytes.Repeat([]byte("mallee"), 1000),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := Restore(within(t), dir, bytes.NewReader(data), quiet()); err == nil {
				t.Fatal("restored")
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) != 1 || left[0].Name() != "etcd.lock" {
				t.Fatalf("left %v (%v)", left, err)
			}
		})
	}
}

// An outside etcd is the same to a Store as the embedded one.
func TestOutsideEtcd(t *testing.T) {
	c := embedConfig(Options{Dir: t.TempDir(), Logger: quiet()})
	listen := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{listen}, []url.URL{listen}
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	at := []string{server.Clients[0].Addr().String()}
	open := func() *Store {
		s, err := Open(within(t), Options{Endpoints: at, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeStore(t, s) })
		return s
	}
	a, b := open(), open()
	b.Watch()
	update(t, a, func(tx *Tx) { widgets.Put(tx, widget{ID: "a"}) })
	if err := b.mirror.wait(within(t), b.done, a.View().Revision()); err != nil {
		t.Fatal(err)
	}
	same(t, "seen by the other", ids(b.View()), "a")
	leader, err := a.Lead(within(t), "loops")
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, a) // ends the lease's renewal; its seat is given up
	if err := leader.Update(within(t), func(tx *Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
	var backup bytes.Buffer
	if err := b.Backup(within(t), &backup); err != nil || backup.Len() == 0 {
		t.Fatalf("backup of %d bytes: %v", backup.Len(), err)
	}
	if err := b.Reclaim(within(t)); err != nil {
		t.Fatal(err)
	}
}

func TestReclaim(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		for i := range 50 {
			update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a", Size: i}) })
		}
		for range 2 {
			if err := s.Reclaim(within(t)); err != nil {
				t.Fatal(err)
			}
		}
		update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "b"}) })
		same(t, "all", ids(s.View()), "a", "b")
	})
}

// etcd is silent on its ordinary days.
func TestQuietLog(t *testing.T) {
	var log bytes.Buffer
	s, err := Open(within(t), Options{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a"}) })
	closeStore(t, s)
	if log.Len() > 0 {
		t.Fatalf("logged:\n%s", log.String())
	}
	zapTo(slog.New(slog.NewTextHandler(&log, nil))).Sugar().Warnw("disk is slow", "took", "3s")
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "took=3s") {
		t.Fatalf("a warning became %q", log.String())
	}
}

func TestTenThousandRecords(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	for batch := range 10 {
		update(t, s, func(tx *Tx) {
			for i := range 1000 {
				widgets.Put(tx, widget{ID: fmt.Sprintf("%d-%03d", batch, i), Owner: fmt.Sprint(i % 100)})
			}
		})
	}
	closeStore(t, s)
	s = openDir(t, dir)
	if n, mine := len(ids(s.View())), len(idsBy(s.View(), widgetsByOwner, "42")); n != 10000 || mine != 100 {
		t.Fatalf("%d records, %d of one owner", n, mine)
	}
	if err := mirrorsBackend(s); err != nil {
		t.Fatal(err)
	}
}
