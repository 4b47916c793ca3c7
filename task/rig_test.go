package task

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mallee/blob/mem"
	"mallee/cloud"
	"mallee/image"
	"mallee/link"
	"mallee/snapshot"
)

// objects is an object store in memory.
type objects struct {
	mu   sync.Mutex // guards all
	all  map[string][]byte
	fail string // the key of which a Put fails
	deny string // a bucket that no account may use any more
}

func (o *objects) permit(bucket string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if bucket == o.deny {
		return fmt.Errorf("use %s: %w", bucket, fs.ErrPermission)
	}
	return nil
}

func (o *objects) OpenFor(ctx context.Context, _ cloud.AccountID, bucket, key string) (io.ReadCloser, int64, error) {
	if err := o.permit(bucket); err != nil {
		return nil, 0, err
	}
	return o.Open(ctx, bucket, key)
}

func (o *objects) PutFor(_ context.Context, _ cloud.AccountID, bucket, key, _ string, body io.Reader, size int64) error {
	if err := o.permit(bucket); err != nil {
		return err
	}
	return o.put(bucket, key, body, size)
}

func (o *objects) Open(_ context.Context, bucket, key string) (io.ReadCloser, int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	data, ok := o.all[bucket+"/"+key]
	if !ok {
		return nil, 0, fmt.Errorf("open %s/%s: %w", bucket, key, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
}

func (o *objects) put(bucket, key string, body io.Reader, size int64) error {
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if int64(len(data)) != size {
		return fmt.Errorf("%d bytes, not %d", len(data), size)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if key == o.fail {
		return errors.New("the disk is on fire")
	}
	o.all[bucket+"/"+key] = data
	return nil
}

func (o *objects) DeleteFor(_ context.Context, _ cloud.AccountID, bucket, key string) error {
	if o.permit(bucket) != nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, bucket+"/"+key)
	return nil
}

func (o *objects) keys(prefix string) (keys []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key := range o.all {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys
}

// rig is a worker on an object store and a snapshot store in memory.
type rig struct {
	*testing.T
	*Worker
	objects *objects
	news    chan struct{}
	cancel  context.CancelFunc
	done    chan struct{}
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t, objects: &objects{all: map[string][]byte{}}, news: make(chan struct{}, 1)}
	contents, err := snapshot.Open(mem.New(), t.TempDir(), snapshot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { contents.Close() })
	r.open(Options{
		Dir: filepath.Join(t.TempDir(), "tasks"), Objects: r.objects, Contents: contents, Reach: image.Anywhere, MaxSize: 1 << 30, AtOnce: 2,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	t.Cleanup(r.stop)
	return r
}

// open a worker, as a program does that starts.
func (r *rig) open(o Options) {
	r.Helper()
	w, err := Open(o, func() {
		select {
		case r.news <- struct{}{}:
		default:
		}
	})
	if err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.Worker, r.cancel, r.done = w, cancel, make(chan struct{})
	go func() {
		defer close(r.done)
		w.Run(ctx)
	}()
}

func (r *rig) stop() {
	r.cancel()
	<-r.done
}

// until the only task is reported as wanted.
func (r *rig) until(wanted func(link.Task) bool) link.Task {
	r.Helper()
	deadline := time.After(time.Minute)
	for {
		if all := r.Report(); len(all) == 1 && wanted(all[0]) {
			return all[0]
		}
		select {
		case <-r.news:
		case <-deadline:
			r.Fatalf("reported: %+v", r.Report())
		}
	}
}

func ended(t link.Task) bool { return t.Phase != cloud.TaskActive }

// do a task to its end.
func (r *rig) do(t cloud.Task) link.Task {
	r.Helper()
	r.Accept([]cloud.Task{t})
	return r.until(ended)
}

// nothingLeft of tasks that nobody names any more.
func (r *rig) nothingLeft() {
	r.Helper()
	r.Accept(nil)
	r.running.Wait()
	left, err := os.ReadDir(r.Dir)
	if err != nil {
		r.Fatal(err)
	}
	journals, err := r.Contents.Journals()
	if err != nil {
		r.Fatal(err)
	}
	if len(left)+len(journals)+len(r.Report()) > 0 {
		r.Fatalf("left: %v, journals %q, %+v", left, journals, r.Report())
	}
}

// bytesOf a content.
func (r *rig) bytesOf(c cloud.Content) []byte {
	r.Helper()
	from, err := r.Contents.Read(r.Context(), c)
	if err != nil {
		r.Fatal(err)
	}
	data := make([]byte, c.Size)
	if err := from.ReadAt(r.Context(), data, 0); err != nil {
		r.Fatal(err)
	}
	return data
}

// disk is bootable by its first sector, and has something at its end.
func disk(size int) []byte {
	data := make([]byte, size)
	copy(data, "\xfaboot")
	data[446], data[446+4], data[446+8], data[446+12] = 0x80, 0x83, 1, 64
	data[510], data[511] = 0x55, 0xaa
	copy(data[size-100:], "the end")
	return data
}

// converted is the disk in another format, by QEMU's own tool.
func converted(t *testing.T, raw []byte, format string) []byte {
	t.Helper()
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Fatal("qemu-img is needed: apt-get install qemu-utils")
	}
	dir := t.TempDir()
	from, to := filepath.Join(dir, "raw"), filepath.Join(dir, "out")
	if err := os.WriteFile(from, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), tool, "convert", "-f", "raw", "-O", format, from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
