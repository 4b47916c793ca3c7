package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/singleflight"

	"mallee/block"
	"mallee/durable"
)

// cache keeps the immutable files that disks stand on: an image is unpacked
// once per node, whatever the number of its instances. An entry is named by
// the digest of what it holds, is whole or not there, and goes when room is
// needed, the least recently used first, unless a machine's memo names it.
//
//	DIR/KEY        an entry, mode 0400; its modification time is its last use
//	DIR/KEY.new    being written; swept when the cache is opened
type cache struct {
	dir   string
	limit int64 // bytes that entries may take together; what is in use may exceed it
	now   func() time.Time
	once  singleflight.Group
	mu    sync.Mutex // held while entries are evicted, and while one is chosen for use
}

const halfMade = ".new"

func openCache(dir string, limit int64, now func() time.Time) (*cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the image cache: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the image cache: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), halfMade) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("sweep the image cache: %w", err)
			}
		}
	}
	return &cache{dir: dir, limit: limit, now: now}, nil
}

// ensure has the entry, building it where it is missing, and returns its path.
// inUse names the entries that must stay; the caller has seen to it that key
// is among them before it calls. Calls at once for one key build it once; an
// error is everybody's who waits, and nothing is left of the attempt. Where the
// disk was full, all that is not in use has gone, for the next attempt.
func (c *cache) ensure(key string, inUse func() (map[string]bool, error), build func(*os.File) error) (string, error) {
	path := filepath.Join(c.dir, key)
	if c.use(path) {
		return path, nil
	}
	_, err, _ := c.once.Do(key, func() (any, error) {
		if c.use(path) {
			return nil, nil
		}
		limit, err := c.limit, noSpace(c.build(path, build))
		var full *block.NoSpaceError
		if errors.As(err, &full) {
			limit = 0
		}
		return nil, errors.Join(err, c.evict(limit, inUse))
	})
	return path, err
}

// use marks the entry as used now; false where there is none.
func (c *cache) use(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	return os.Chtimes(path, now, now) == nil
}

func (c *cache) build(path string, build func(*os.File) error) (err error) {
	temp := path + halfMade
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(temp)
		}
	}()
	if err := build(f); err != nil {
		return err
	}
	now := c.now()
	if err := errors.Join(f.Chmod(0o400), os.Chtimes(temp, now, now), f.Sync()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return durable.SyncDir(c.dir)
}

// evict the least recently used entries until the rest keeps to the limit.
func (c *cache) evict(limit int64, inUse func() (map[string]bool, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep, err := inUse()
	if err != nil {
		return fmt.Errorf("find the cached images in use: %w", err)
	}
	entries, total, err := c.entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if total <= limit {
			break
		}
		if keep[e.name] {
			continue
		}
		if err := os.Remove(filepath.Join(c.dir, e.name)); err != nil {
			return fmt.Errorf("evict a cached image: %w", err)
		}
		total -= e.bytes
	}
	return nil
}

// entry is one file of the cache.
type entry struct {
	name  string
	bytes int64 // what it takes on disk: files are sparse
	used  time.Time
}

// entries lists the whole ones, the least recently used first, and what they
// take together.
func (c *cache) entries() (list []entry, total int64, err error) {
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, 0, fmt.Errorf("list the image cache: %w", err)
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), halfMade) {
			continue
		}
		info, err := os.Stat(filepath.Join(c.dir, f.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("list the image cache: %w", err)
		}
		e := entry{f.Name(), info.Sys().(*syscall.Stat_t).Blocks * 512, info.ModTime()}
		list, total = append(list, e), total+e.bytes
	}
	slices.SortFunc(list, func(a, b entry) int { return a.used.Compare(b.used) })
	return list, total, nil
}
