package snapshot

import (
	"container/list"
	"context"
	"sync"
)

// cache keeps what was read last, by digest, within a number of bytes. What many
// ask for at once is loaded once. Failures aren't kept: the next one tries again.
type cache struct {
	limit int64 // bytes

	mu      sync.Mutex // guards what follows
	used    int64
	recent  *list.List // of *cached, the one used last in front
	entries map[Digest]*list.Element
	loading map[Digest]*load
}

type cached struct {
	digest Digest
	data   []byte
}

// load is one in progress; done is closed when data and err are set.
type load struct {
	done chan struct{}
	data []byte
	err  error
}

func newCache(limit int64) *cache {
	return &cache{limit: limit, recent: list.New(), entries: map[Digest]*list.Element{}, loading: map[Digest]*load{}}
}

// get finds or loads the bytes of a digest. Somebody who gives up does not end
// the loading, for which others may wait.
func (c *cache) get(ctx context.Context, d Digest, fetch func(context.Context) ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	if e, ok := c.entries[d]; ok {
		c.recent.MoveToFront(e)
		c.mu.Unlock()
		return e.Value.(*cached).data, nil
	}
	l, ok := c.loading[d]
	if !ok {
		l = &load{done: make(chan struct{})}
		c.loading[d] = l
		go c.load(context.WithoutCancel(ctx), d, l, fetch)
	}
	c.mu.Unlock()
	select {
	case <-l.done:
		return l.data, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *cache) load(ctx context.Context, d Digest, l *load, fetch func(context.Context) ([]byte, error)) {
	l.data, l.err = fetch(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.loading, d)
	close(l.done)
	if l.err == nil {
		c.keep(d, l.data)
	}
}

// keep makes room for data; mu is held.
func (c *cache) keep(d Digest, data []byte) {
	c.entries[d] = c.recent.PushFront(&cached{d, data})
	c.used += int64(cap(data))
	for c.used > c.limit && c.recent.Len() > 0 {
		oldest := c.recent.Remove(c.recent.Back()).(*cached)
		delete(c.entries, oldest.digest)
		c.used -= int64(cap(oldest.data))
	}
}

// has tells whether the bytes are there or on their way.
func (c *cache) has(d Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, kept := c.entries[d]
	_, coming := c.loading[d]
	return kept || coming
}
