package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"mallee/blob"
	"mallee/cloud"
)

// Folders of the blob store.
const (
	manifests = "manifests"
	pages     = "pages"
	blocks    = "blocks"
)

// Options of a store; zero values choose what is sensible.
type Options struct {
	// CacheBytes of blocks and pages that were read are kept in memory, for all
	// readers together; 64 MiB if zero.
	CacheBytes int64
}

// Store keeps contents in a blob store. One process at a time may write to it
// and sweep it.
type Store struct {
	blobs blob.Store
	dir   string // of journals
	cache *cache

	ctx    context.Context // of reading ahead
	cancel context.CancelFunc
	ahead  errgroup.Group

	putting singleflight.Group // by digest: who finds a blob there finds it durable

	mu      sync.Mutex         // guards what follows
	writers map[string]*Writer // that are open, by name
	held    map[Digest]int     // digests being put that no journal names yet, and by how many
	marks   *filter            // of the sweep that runs, if one does

	deleting [256]sync.RWMutex // by a digest's first byte; held by a sweep while it decides and deletes
}

// Open a store whose writers keep their journals in dir, made (mode 0700) if it
// isn't there.
func Open(blobs blob.Store, dir string, o Options) (*Store, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the store of snapshots: %w", err)
	}
	if err := clearJournals(dir); err != nil {
		return nil, fmt.Errorf("opening the store of snapshots: %w", err)
	}
	s := &Store{
		blobs: blobs, dir: dir, cache: newCache(o.CacheBytes),
		writers: map[string]*Writer{}, held: map[Digest]int{},
	}
	s.ahead.SetLimit(aheadAtOnce)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close ends what the store does by itself. Readers and writers must be closed
// or not be used any more.
func (s *Store) Close() error {
	s.cancel()
	return s.ahead.Wait()
}

func key(folder string, d Digest) string {
	name := d.String()
	return folder + "/" + name[:2] + "/" + name
}

// get reads a blob of at most limit bytes and compares it with its digest.
func (s *Store) get(ctx context.Context, folder string, d Digest, limit int) ([]byte, error) {
	name := key(folder, d)
	r, err := s.blobs.Get(ctx, name, 0, int64(limit)+1)
	if err != nil {
		return nil, told(fmt.Errorf("reading a snapshot: %w", err))
	}
	defer r.Close()
	size := limit
	if folder != blocks {
		size = bytes.MinRead
	}
	data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err := data.ReadFrom(r); err != nil {
		return nil, fmt.Errorf("reading a snapshot: %s: %w", name, err)
	}
	if data.Len() > limit || sha256.Sum256(data.Bytes()) != d {
		return nil, damagedError{fmt.Errorf("reading a snapshot: %s is damaged: its bytes are not those of its digest", name)}
	}
	return data.Bytes(), nil
}

// damagedError is cloud.ErrDamaged too: the bytes will not come back by themselves,
// other than those of a store that is away.
type damagedError struct{ error }

func (e damagedError) Unwrap() []error { return []error{e.error, cloud.ErrDamaged} }

// told apart: what the store of blobs has lost or finds damaged, and what it can't
// read now.
func told(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, blob.ErrDamaged) {
		return damagedError{err}
	}
	return err
}

// put stores a blob under its digest unless it is there. The digest must be held.
func (s *Store) put(ctx context.Context, folder string, d Digest, data []byte) error {
	name := key(folder, d)
	for {
		mine := false
		_, err, _ := s.putting.Do(name, func() (any, error) {
			mine = true
			return nil, s.putNew(ctx, name, d, data)
		})
		if err == nil || mine || ctx.Err() != nil {
			return err
		}
		// Somebody else's put of the same bytes failed, perhaps because he gave up.
	}
}

func (s *Store) putNew(ctx context.Context, name string, d Digest, data []byte) error {
	there, err := s.has(ctx, name, d)
	if err == nil && !there {
		err = s.blobs.Put(ctx, name, bytes.NewReader(data))
	}
	if err != nil {
		return fmt.Errorf("storing a snapshot: %w", err)
	}
	return nil
}

// has looks when no sweep is about to delete what is there.
func (s *Store) has(ctx context.Context, name string, d Digest) (bool, error) {
	lock := &s.deleting[d[0]]
	lock.RLock()
	defer lock.RUnlock()
	return s.blobs.Has(ctx, name)
}

// hold keeps digests from being swept, from before they are put until a journal
// names them.
func (s *Store) hold(digests ...Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range digests {
		s.held[d]++
		if s.marks != nil {
			s.marks.add(d)
		}
	}
}

func (s *Store) release(digests ...Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range digests {
		if s.held[d]--; s.held[d] == 0 {
			delete(s.held, d)
		}
	}
}

// manifest reads the manifest of a content.
func (s *Store) manifest(ctx context.Context, c cloud.Content) (manifest, error) {
	d, err := ParseDigest(c.Manifest)
	if err != nil {
		return manifest{}, fmt.Errorf("reading a snapshot's manifest: %w", err)
	}
	m, err := s.manifestOf(ctx, d)
	if err != nil {
		return manifest{}, err
	}
	if m.size != c.Size {
		return manifest{}, fmt.Errorf("the manifest %s is of %d bytes, not %d", c.Manifest, m.size, c.Size)
	}
	return m, nil
}

func (s *Store) manifestOf(ctx context.Context, d Digest) (manifest, error) {
	data, err := s.get(ctx, manifests, d, maxManifest)
	if err != nil {
		return manifest{}, err
	}
	m, err := decodeManifest(data)
	if err != nil {
		return manifest{}, fmt.Errorf("%s: %w", key(manifests, d), err)
	}
	return m, nil
}

// page reads a page, by way of the cache.
func (s *Store) page(ctx context.Context, d Digest) (entries, error) {
	return s.cache.get(ctx, d, func(ctx context.Context) ([]byte, error) { return s.readPage(ctx, d) })
}

func (s *Store) readPage(ctx context.Context, d Digest) (entries, error) {
	data, err := s.get(ctx, pages, d, maxPage)
	if err != nil {
		return nil, err
	}
	list, err := decodePage(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key(pages, d), err)
	}
	return list, nil
}

// block reads a block, by way of the cache. It must not be written to.
func (s *Store) block(ctx context.Context, d Digest) ([]byte, error) {
	return s.cache.get(ctx, d, func(ctx context.Context) ([]byte, error) {
		data, err := s.get(ctx, blocks, d, BlockSize)
		if err == nil && len(data) != BlockSize {
			err = damagedError{fmt.Errorf("reading a snapshot: %s has %d bytes, want %d", key(blocks, d), len(data), BlockSize)}
		}
		return data, err
	})
}

// errClosed is what a writer says that is no more.
var errClosed = errors.New("the snapshot's writer is closed")
