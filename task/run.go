package task

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"mallee/cloud"
)

const (
	// clearTime is how long the objects of one task may take to be deleted.
	clearTime = 2 * time.Minute

	// roomEvery is how often a task that works looks for room on the disk.
	roomEvery = time.Second

	noted  = "wrote.jsonl" // in a task's folder: the objects that it writes
	result = "result.json"
)

// run is one attempt at a task.
type run struct {
	*Worker
	job  *job
	task cloud.Task
	dir  string
}

// do the task: what clients upload is waited for first, which may take days, and
// then a slot.
func (r *run) do(ctx context.Context) (made cloud.TaskResult, err error) {
	if r.uploads() {
		if err := r.awaitUploads(ctx); err != nil {
			return made, err
		}
	}
	ctx, release, err := r.slot(ctx)
	if err != nil {
		return made, err
	}
	defer release()
	if made, err = r.kind(ctx); err != nil && errors.Is(context.Cause(ctx), errNoRoom) {
		err = errNoRoom // which is why the rest failed
	}
	return made, err
}

// kind of work that the task is.
func (r *run) kind(ctx context.Context) (cloud.TaskResult, error) {
	switch r.task.Kind {
	case cloud.ImportSnapshot, cloud.ImportImage, cloud.ImportVolume, cloud.ImportInstance:
		return r.takeIn(ctx)
	case cloud.ExportImage:
		return r.giveOut(ctx)
	case cloud.BundleInstance:
		return r.bundleRoot(ctx)
	case cloud.CopyImage:
		if r.task.Params[cloud.ParamRegion] != "" {
			return r.copyRegion(ctx)
		}
		return r.copyBundle(ctx)
	}
	return cloud.TaskResult{}, fmt.Errorf("a task of kind %q is not known to this node", r.task.Kind)
}

// slot waits until the task may take the machine's processors and disk. The context
// that it returns ends when the disk has no room any more.
func (r *run) slot(ctx context.Context) (_ context.Context, release func(), err error) {
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go r.watchRoom(ctx, cancel)
	return ctx, func() { cancel(nil); <-r.slots }, nil
}

// errNoRoom tells that a task would take what others need to go on.
var errNoRoom = errors.New("the cloud's disk has no room for it; try again later, or ask whoever runs the cloud")

// watchRoom ends a task before it has taken all room: instances and the cloud's own
// state are on the same disk.
func (r *run) watchRoom(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(roomEvery)
	defer tick.Stop()
	for {
		if err := r.room(); err != nil {
			cancel(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// room is errNoRoom where less than the reserve is free.
func (w *Worker) room() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(w.Dir, &fs); err != nil {
		return fmt.Errorf("look for room in the tasks' folder: %w", err)
	}
	if int64(fs.Bavail)*fs.Bsize < w.Reserve {
		return errNoRoom
	}
	return nil
}

// stage is a part of the whole: what is said of it, and from which to which
// percent it takes.
type stage struct {
	r        *run
	message  string
	from, to int
}

// stage begins a part of the work.
func (r *run) stage(message string, from, to int) stage {
	s := stage{r, message, from, to}
	s.progress(0, 1)
	return s
}

// progress of the part; told when it makes a percent of the whole.
func (s stage) progress(done, total int64) {
	percent := s.from
	if total > 0 {
		percent += int(min(done, total) * int64(s.to-s.from) / total)
	}
	w := s.r.Worker
	w.mu.Lock()
	defer w.mu.Unlock()
	if seen := &s.r.job.seen; percent != seen.Progress || s.message != seen.Message {
		seen.Progress, seen.Message = percent, s.message
		w.changed()
	}
}

// notedObject is one that a task writes.
type notedObject struct {
	Account     cloud.AccountID
	Bucket, Key string
}

// note an object before it is written, so that it can be removed again.
func (r *run) note(bucket, key string) error {
	f, err := os.OpenFile(filepath.Join(r.dir, noted), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	err = json.NewEncoder(f).Encode(notedObject{r.task.Account, bucket, key})
	return errors.Join(err, f.Sync(), f.Close())
}

// put an object that the task makes.
func (r *run) put(ctx context.Context, bucket, key, acl string, body io.Reader, size int64) error {
	if err := r.note(bucket, key); err != nil {
		return fmt.Errorf("note object %s/%s: %w", bucket, key, err)
	}
	return lost(r.Objects.PutFor(ctx, r.task.Account, bucket, key, acl, body, size))
}

// lost objects, buckets and rights are the user's to find again.
func lost(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return &SourceError{err}
	}
	return err
}

// tidy the folder of a task that is done: its result stays until the cloud has
// taken it in, and what else can't be removed goes with it then.
func (r *run) tidy() {
	entries, err := os.ReadDir(r.dir)
	for _, e := range entries {
		if e.Name() != result {
			err = errors.Join(err, os.RemoveAll(filepath.Join(r.dir, e.Name())))
		}
	}
	if err != nil {
		r.Log.Warn("the folder of a task that is done can't be tidied yet", "task", r.task.ID, "err", err)
	}
}

// removeNoted deletes the objects that an attempt in dir wrote, unless it came
// to its result.
func (w *Worker) removeNoted(ctx context.Context, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, result)); err == nil {
		return nil
	}
	f, err := os.Open(filepath.Join(dir, noted))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what a task wrote: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var o notedObject
		if json.Unmarshal(lines.Bytes(), &o) != nil {
			continue // a line that a crash cut off: its object was not begun
		}
		if err := w.Objects.DeleteFor(ctx, o.Account, o.Bucket, o.Key); err != nil {
			return fmt.Errorf("remove what a task wrote: %w", err)
		}
	}
	return lines.Err()
}
