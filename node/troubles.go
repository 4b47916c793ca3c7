package node

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"mallee/cloud"
	"mallee/snapshot"
)

// manifestBlock stands for a content's manifest among its blocks.
const manifestBlock = -1

// troubles are the bytes that couldn't be read when a hypervisor last asked for
// them. Who asked is a guest, which is paused and asks again, or a filling; so what
// can be read again is asked for again, and then is none any more.
type troubles struct {
	log *slog.Logger

	mu   sync.Mutex // guards what follows
	of   map[cloud.Content]map[int64]error
	news func() // called when a content's trouble is another; nil until somebody wants it
}

// note how it went with a block of a content.
func (t *troubles) note(c cloud.Content, block int64, err error) {
	t.mu.Lock()
	if err == nil && t.of[c] == nil {
		t.mu.Unlock()
		return
	}
	before := t.worst(c)
	if err == nil {
		delete(t.of[c], block)
	} else if t.of[c] == nil {
		t.of[c] = map[int64]error{block: err}
	} else {
		t.of[c][block] = err
	}
	now, news := t.worst(c), t.news
	if now == nil {
		delete(t.of, c)
	}
	t.mu.Unlock()
	if troubleOf(before) == troubleOf(now) {
		return
	}
	t.tell(c, before, now)
	if news != nil {
		news()
	}
}

// tell the log, once for each kind.
func (t *troubles) tell(c cloud.Content, before, now error) {
	was, is := troubleOf(before), troubleOf(now)
	switch {
	case is == cloud.Trouble{}:
		t.log.Info("a snapshot can be read again", "manifest", c.Manifest)
	case was != cloud.Trouble{} && was.Damaged == is.Damaged:
	case is.Damaged:
		t.log.Error("a snapshot is damaged: guests that read there are stopped, and volumes made from it can't be filled, until these bytes are put back", "manifest", c.Manifest, "err", now)
	default:
		t.log.Warn("a snapshot can't be read now: guests that read there wait, and go on when it can", "manifest", c.Manifest, "err", now)
	}
}

// worst trouble of a content: what won't mend by itself first, then by its place. mu
// is held.
func (t *troubles) worst(c cloud.Content) error {
	blocks := t.of[c]
	places := slices.Collect(maps.Keys(blocks))
	if len(places) == 0 {
		return nil
	}
	damaged := func(block int64) int {
		if errors.Is(blocks[block], cloud.ErrDamaged) {
			return 0
		}
		return 1
	}
	return blocks[slices.MinFunc(places, func(a, b int64) int {
		return cmp.Or(cmp.Compare(damaged(a), damaged(b)), cmp.Compare(a, b))
	})]
}

func (t *troubles) find(c cloud.Content) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.worst(c)
}

// troubleOf an error, in words for a volume's owner.
func troubleOf(err error) cloud.Trouble {
	if err == nil {
		return cloud.Trouble{}
	}
	return cloud.Trouble{Damaged: errors.Is(err, cloud.ErrDamaged), Message: err.Error()}
}

// watched is a Reader whose failures are noted.
type watched struct {
	*snapshot.Reader
	content  cloud.Content
	troubles *troubles
}

// ReadAt is nbd.Export's. What is read at once lies mostly in one block.
func (w *watched) ReadAt(ctx context.Context, p []byte, offset int64) error {
	err := w.Reader.ReadAt(ctx, p, offset)
	if ctx.Err() == nil {
		w.troubles.note(w.content, offset/snapshot.BlockSize, err)
	}
	return err
}
