package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
)

// revisionsAhead is by how much Restore moves the revision forward. Nodes hold
// revisions as generations and refuse older ones, and what was committed
// between the backup and the loss was given some: all new ones must be above.
// A store would need a thousand commits a second for twelve days to get there.
const revisionsAhead = 1_000_000_000

// Restore makes the embedded store of dir from what Backup wrote, after
// checking its digest. It refuses where a store is already there.
func Restore(ctx context.Context, dir string, r io.Reader, log *slog.Logger) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state: restore: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	file, err := spool(ctx, dir, r)
	if err != nil {
		return fmt.Errorf("state: restore: %w", err)
	}
	if err := restoreFile(ctx, dir, file, log); err != nil {
		return errors.Join(fmt.Errorf("state: restore to %s: %w", etcdDir(dir), err), os.Remove(file))
	}
	return os.Remove(file)
}

// spool keeps the backup beside the store, which etcd reads more than once.
func spool(ctx context.Context, dir string, r io.Reader) (string, error) {
	f, err := os.CreateTemp(dir, "restore-*") // 0600
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, readerOf(ctx, r))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("read the backup: %w", err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// restoreFile makes the store in a folder of its own and moves it into place,
// so that a restore that was cut short leaves no store.
func restoreFile(ctx context.Context, dir, file string, log *slog.Logger) error {
	if entries, err := os.ReadDir(etcdDir(dir)); len(entries) > 0 {
		return errors.Join(errors.New("there is a store already: move it away first"), err)
	}
	part := filepath.Join(dir, "etcd.restoring")
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	err := makeStore(part, file, log)
	if err == nil {
		err = renewAssignments(ctx, part, log)
	}
	if err == nil {
		err = os.RemoveAll(etcdDir(dir)) // empty, if there
	}
	if err == nil {
		err = os.Rename(etcdDir(part), etcdDir(dir))
	}
	return errors.Join(err, os.RemoveAll(part))
}

func makeStore(dir, file string, log *slog.Logger) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return snapshot.NewV3(zapTo(log)).Restore(snapshot.RestoreConfig{
		SnapshotPath:        file,
		Name:                memberName,
		OutputDataDir:       etcdDir(dir),
		PeerURLs:            []string{memberPeer},
		InitialCluster:      memberName + "=" + memberPeer,
		InitialClusterToken: memberName,
		RevisionBump:        revisionsAhead,
		MarkCompacted:       true,
	})
}

// renewAssignments writes all nodes' records: they were restored with their
// old revisions, and the nodes would ignore assignments of that generation.
func renewAssignments(ctx context.Context, dir string, log *slog.Logger) error {
	s, err := Open(ctx, Options{Dir: dir, Logger: log})
	if err != nil {
		return err
	}
	err = s.Update(ctx, func(tx *Tx) error {
		for n := range Nodes.All(tx) {
			poke(tx, n.ID)
		}
		return nil
	})
	return errors.Join(err, s.Close())
}

// readerOf is r until ctx ends.
func readerOf(ctx context.Context, r io.Reader) io.Reader { return ctxReader{ctx, r} }

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
