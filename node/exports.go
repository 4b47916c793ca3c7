package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"mallee/block"
	"mallee/cloud"
	"mallee/nbd"
	"mallee/snapshot"
)

// Exports is the node's Contents: a store of snapshots, and an NBD server through
// which hypervisors read and write it. A content is exported as its manifest and
// size, a snapshot that is being stored as its id.
type Exports struct {
	store    *snapshot.Store
	socket   string
	log      *slog.Logger
	server   *nbd.Server // nil until Serve
	troubles troubles

	mu      sync.Mutex               // guards what follows
	writers map[string]*exportedSink // that are open, by name
}

// NewExports of a store, to be served at a socket.
func NewExports(store *snapshot.Store, socket string, log *slog.Logger) *Exports {
	return &Exports{
		store: store, socket: socket, log: log, writers: map[string]*exportedSink{},
		troubles: troubles{log: log, of: map[cloud.Content]map[int64]error{}},
	}
}

// Watch calls when the trouble of a content is another.
func (e *Exports) Watch(news func()) {
	e.troubles.mu.Lock()
	defer e.troubles.mu.Unlock()
	e.troubles.news = news
}

// Trouble with a content. See Contents.
func (e *Exports) Trouble(c cloud.Content) error { return e.troubles.find(c) }

// Serve hypervisors. It comes after the node is open, which by then has opened the
// sinks of all that is being copied: before that a hypervisor finds nobody, and
// waits; of an export that isn't there it would be told so.
func (e *Exports) Serve() (err error) {
	e.server, err = nbd.Serve(e.socket, served{e}, e.log)
	return err
}

// Close ends the service. Sinks keep what was written to them.
func (e *Exports) Close() error {
	var errs []error
	if e.server != nil {
		errs = append(errs, e.server.Close())
	}
	e.mu.Lock()
	open := e.writers
	e.writers = map[string]*exportedSink{}
	e.mu.Unlock()
	for _, w := range open {
		errs = append(errs, w.writer.Close())
	}
	return errors.Join(errs...)
}

// Source of a content.
func (e *Exports) Source(c cloud.Content) block.Source {
	return block.Source{Socket: e.socket, Export: fmt.Sprintf("%s-%d", c.Manifest, c.Size), Size: c.Size}
}

// Sink of a snapshot. See Contents.
func (e *Exports) Sink(ctx context.Context, id cloud.SnapshotID, size int64, parent *cloud.Content) (Sink, error) {
	w, err := e.store.Write(ctx, string(id), size, parent)
	if err != nil {
		return nil, err
	}
	s := &exportedSink{exports: e, name: string(id), writer: w}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.writers[s.name] = s
	return s, nil
}

// Discard what was written for a snapshot. See Contents.
func (e *Exports) Discard(_ context.Context, id cloud.SnapshotID) error {
	return e.store.RemoveJournal(string(id))
}

// exportedSink is a Sink.
type exportedSink struct {
	exports *Exports
	name    string
	writer  *snapshot.Writer
}

func (s *exportedSink) Address() (socket, export string) { return s.exports.socket, s.name }

func (s *exportedSink) Commit(ctx context.Context, whole bool) (cloud.Content, error) {
	if whole {
		if err := s.writer.Full(ctx); err != nil {
			return cloud.Content{}, err
		}
	}
	return s.writer.Commit(ctx)
}

func (s *exportedSink) Close() error {
	s.exports.mu.Lock()
	delete(s.exports.writers, s.name)
	s.exports.mu.Unlock()
	return s.writer.Close()
}

// served is what the NBD server sees.
type served struct{ *Exports }

func (e served) Open(ctx context.Context, name string) (nbd.Export, func(), error) {
	e.mu.Lock()
	w := e.writers[name]
	e.mu.Unlock()
	if w != nil {
		return w.writer, func() {}, nil
	}
	manifest, rest, _ := strings.Cut(name, "-")
	_, notDigest := snapshot.ParseDigest(manifest)
	size, notSize := strconv.ParseInt(rest, 10, 64)
	if notDigest != nil || notSize != nil {
		return nil, nil, fmt.Errorf("export %q: %w", name, fs.ErrNotExist)
	}
	content := cloud.Content{Manifest: manifest, Size: size}
	r, err := e.store.Read(ctx, content)
	if ctx.Err() == nil {
		e.troubles.note(content, manifestBlock, err)
	}
	if err != nil {
		return nil, nil, err
	}
	return &watched{r, content, &e.troubles}, func() {}, nil
}
