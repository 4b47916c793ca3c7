// Package task does the long work on bytes that users ask for: it takes disk
// files into the cloud, gives images out as disk files or bundles, and copies
// bundles.
//
// # The way of a task
//
//	assigned ─▶ waits for a slot ─▶ active ─┬─▶ done    result.json, reported
//	                                        ├─▶ failed  reported, with words for the user
//	cancelled ──────── given up ────────────┘
//	not assigned any more ─▶ given up, folder removed
//
// A task works in a folder of its own, DIR/ID, and writes nothing anywhere else
// but objects in the user's bucket, whose keys it notes in the folder first, and
// blocks in the snapshot store, which nobody finds before the cloud has put the
// result into its state. So whatever becomes of it, nothing half-made stays.
//
// # Who writes what
//
// A task's folder is its goroutine's. result.json is written last, and is all
// that counts after a restart: without it the task begins anew.
//
// # What can go wrong
//
// Sources that aren't there, aren't what they say, are hostile or larger than
// allowed; a full disk; an object store that fails. Each ends the task with a
// reason. That the program ends is no reason: the next one begins anew.
package task

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"mallee/cloud"
	"mallee/durable"
	"mallee/image"
	"mallee/link"
	"mallee/snapshot"
)

// Objects is the object store. What an account may do is asked when it is done:
// since the task was made it may have lost a right, or a bucket to somebody else.
type Objects interface {
	// Open reads with the cloud's own rights: bundles, which an account may use and
	// not have.
	Open(ctx context.Context, bucket, key string) (io.ReadCloser, int64, error)
	// OpenFor and PutFor have an account's rights; without them they wrap
	// fs.ErrPermission.
	OpenFor(ctx context.Context, account cloud.AccountID, bucket, key string) (io.ReadCloser, int64, error)
	PutFor(ctx context.Context, account cloud.AccountID, bucket, key, acl string, body io.Reader, size int64) error
	// DeleteFor leaves what the account may not write any more; that and that it
	// isn't there are no errors.
	DeleteFor(ctx context.Context, account cloud.AccountID, bucket, key string) error
}

// Bundles unpacks registered images.
type Bundles interface {
	Unpack(ctx context.Context, image cloud.ImageRef, dst io.Writer, progress func(done, total int64)) error
}

// Roots stores the root disk of an instance as it is at one instant, its guest
// shut down for it and started again.
type Roots interface {
	// It is stored under a journal of that name, which is the caller's to remove.
	StoreRoot(ctx context.Context, name string, id cloud.InstanceID) (cloud.Content, error)
}

// Options of a worker. All are required.
type Options struct {
	Dir      string // absolute; made if it isn't there
	Objects  Objects
	Contents *snapshot.Store
	Bundles  Bundles
	Roots    Roots
	Peers    Peers

	CloudCert *x509.Certificate // that bundles are encrypted for
	CloudKey  *rsa.PrivateKey   // signs what the cloud bundles itself
	Reach     image.Reach       // what downloads may connect to
	MaxSize   int64             // of a disk, in bytes
	Reserve   int64             // bytes of the folder's file system that tasks leave to others
	AtOnce    int               // how many tasks are done at once
	Log       *slog.Logger
}

// Worker does the tasks of one node.
type Worker struct {
	Options
	slots   chan struct{}
	running sync.WaitGroup

	// mu guards what follows.
	mu       sync.Mutex
	ctx      context.Context // of Run; nil before it
	ended    bool            // Run spawns nothing more
	jobs     map[cloud.TaskID]*job
	clearing map[cloud.TaskID]bool // what is left of them is being removed
	changed  func()
}

// job is the worker's memory of one task.
type job struct {
	task   cloud.Task
	seen   link.Task
	cancel context.CancelCauseFunc // nil until it runs
	over   bool                    // its goroutine has ended, or never began
	gone   bool                    // it is not named any more, and goes when it is over
}

// errCancelled is why a user's cancelling ended a job.
var errCancelled = errors.New("cancelled by the user")

// Open finds what an earlier program left, and does nothing before Run. changed
// is called when there is news to report; it must not block, or ask back.
func Open(o Options, changed func()) (*Worker, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the tasks' folder: %w", err)
	}
	return &Worker{
		Options: o, slots: make(chan struct{}, max(o.AtOnce, 1)),
		jobs: map[cloud.TaskID]*job{}, clearing: map[cloud.TaskID]bool{}, changed: changed,
	}, nil
}

// Run does what was and will be accepted, until ctx ends.
func (w *Worker) Run(ctx context.Context) {
	w.mu.Lock()
	w.ctx = ctx
	for _, j := range w.jobs {
		w.begin(j)
	}
	w.mu.Unlock()
	<-ctx.Done()
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.running.Wait()
}

// spawn a goroutine that Run waits for, if there is a Run that does. mu is held.
func (w *Worker) spawn(f func()) bool {
	if w.ctx == nil || w.ended {
		return false
	}
	w.running.Go(f)
	return true
}

// Accept what should be done, in full: what is not named any more is given up,
// and forgotten when nothing of it is left.
func (w *Worker) Accept(tasks []cloud.Task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	named := map[cloud.TaskID]bool{}
	for _, t := range tasks {
		named[t.ID] = true
		j := w.jobs[t.ID]
		if j == nil {
			j = &job{task: t, seen: link.Task{Task: t.ID, Phase: cloud.TaskActive}, over: true}
			w.jobs[t.ID] = j
			w.begin(j)
		}
		if !t.CancelledAt.IsZero() && j.cancel != nil {
			j.cancel(errCancelled)
		}
	}
	for id, j := range w.jobs {
		if !named[id] {
			w.forget(id, j)
		}
	}
	w.sweep()
}

// begin a job, if the worker runs. mu is held.
func (w *Worker) begin(j *job) {
	if w.ctx == nil {
		return // Run will
	}
	ctx, cancel := context.WithCancelCause(w.ctx)
	if !j.task.CancelledAt.IsZero() {
		cancel(errCancelled)
	}
	j.cancel = cancel
	j.over = !w.spawn(func() {
		defer cancel(nil)
		w.do(ctx, j)
	})
}

// forget a job that is no longer named. mu is held.
func (w *Worker) forget(id cloud.TaskID, j *job) {
	if j.over {
		delete(w.jobs, id)
		return
	}
	j.gone = true
	j.cancel(errCancelled) // do ends, and has it removed
}

// sweep removes the folders of tasks that nobody names or works in. mu is held.
func (w *Worker) sweep() {
	entries, err := os.ReadDir(w.Dir)
	if err != nil {
		w.Log.Warn("the tasks' folder can't be read", "err", err)
		return
	}
	for _, e := range entries {
		if id := cloud.TaskID(e.Name()); w.jobs[id] == nil && !w.clearing[id] {
			w.clearing[id] = w.spawn(func() {
				w.clear(id)
				w.mu.Lock()
				defer w.mu.Unlock()
				delete(w.clearing, id)
			})
		}
	}
}

// clear all that a task has left: the objects that it noted, then its folder.
func (w *Worker) clear(id cloud.TaskID) {
	dir := w.dir(id)
	ctx, cancel := context.WithTimeout(context.Background(), clearTime)
	defer cancel()
	if err := errors.Join(w.removeNoted(ctx, dir), w.removeJournals(id)); err != nil {
		w.Log.Warn("what a task wrote can't be removed yet", "task", id, "err", err)
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		w.Log.Warn("a task's folder can't be removed yet", "task", id, "err", err)
	}
}

// Report is how the tasks stand, by id.
func (w *Worker) Report() []link.Task {
	w.mu.Lock()
	defer w.mu.Unlock()
	tasks := make([]link.Task, 0, len(w.jobs))
	for _, id := range slices.Sorted(maps.Keys(w.jobs)) {
		if j := w.jobs[id]; !j.gone {
			tasks = append(tasks, j.seen)
		}
	}
	return tasks
}

// do one task, from its folder to its report.
func (w *Worker) do(ctx context.Context, j *job) {
	made, err := w.outcome(ctx, j)
	seen := link.Task{Task: j.task.ID, Phase: cloud.TaskDone, Progress: 100, Result: made}
	if err != nil {
		if w.ending() {
			return // the next program begins anew
		}
		w.clear(j.task.ID)
		seen = link.Task{Task: j.task.ID, Phase: cloud.TaskFailed, Reason: w.reasonOf(ctx, j.task.ID, err)}
		w.Log.Info("task failed", "task", j.task.ID, "err", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	j.seen, j.over = seen, true
	if j.gone {
		delete(w.jobs, j.task.ID)
		w.sweep()
	}
	w.changed()
}

func (w *Worker) ending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ctx.Err() != nil
}

// reasonOf a failure, for the user: canceling is told apart from failing, and where
// the cloud keeps its files is nobody's affair.
func (w *Worker) reasonOf(ctx context.Context, id cloud.TaskID, err error) cloud.Reason {
	said := strings.ReplaceAll(err.Error(), w.dir(id)+string(filepath.Separator), "")
	var mend *SourceError
	switch {
	case errors.Is(context.Cause(ctx), errCancelled):
		return cloud.Reason{Code: ReasonCancelled, Message: "Cancelled by the user"}
	case errors.Is(err, errNoRoom) || fullDisk(err):
		return cloud.Reason{Code: "ServerError", Message: "ServerError: " + errNoRoom.Error()}
	case errors.As(err, &mend):
		return cloud.Reason{Code: "ClientError", Message: "ClientError: " + said}
	}
	return cloud.Reason{Code: "ServerError", Message: "ServerError: " + said}
}

// ReasonCancelled is the code of the reason of a task that the user gave up.
const ReasonCancelled = "Cancelled"

// SourceError tells that what the user gave can't be used, which is for him to mend.
type SourceError struct{ Err error }

func (e *SourceError) Error() string { return e.Err.Error() }
func (e *SourceError) Unwrap() error { return e.Err }

// outcome of a task: what an earlier program made, or what is made now.
func (w *Worker) outcome(ctx context.Context, j *job) (r cloud.TaskResult, err error) {
	dir := w.dir(j.task.ID)
	path := filepath.Join(dir, result)
	if data, err := os.ReadFile(path); err == nil {
		return r, json.Unmarshal(data, &r)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	if err := w.fresh(ctx, j.task.ID); err != nil {
		return r, err
	}
	work := &run{Worker: w, job: j, task: j.task, dir: dir}
	if r, err = work.do(ctx); err != nil {
		return r, err
	}
	if err := ctx.Err(); err != nil {
		return r, err
	}
	data, err := json.Marshal(r)
	if err == nil {
		err = durable.WriteFile(path, data)
	}
	if err == nil {
		work.tidy()
	}
	return r, err
}

// fresh folder for a task that begins, or begins anew.
func (w *Worker) fresh(ctx context.Context, id cloud.TaskID) error {
	dir := w.dir(id)
	if err := errors.Join(w.removeNoted(ctx, dir), w.removeJournals(id)); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear the task's folder: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make the task's folder: %w", err)
	}
	return nil
}

func (w *Worker) dir(id cloud.TaskID) string { return filepath.Join(w.Dir, string(id)) }
