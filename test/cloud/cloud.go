// Package cloud runs the built program as its user does: by its command line,
// from outside, with nothing of its code. What it knows is what the README
// tells a user (the folder, its lock and its eucarc, the services' port) and, to
// find out whether something is left behind, what stands in the folder's
// node/machines and node/disks.
//
// A Cloud is one folder. The program that runs it comes and goes: Up and Stop,
// Kill, Down, Destroy.
package cloud

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Binary is the program under test: MALLEE, or bin/mallee of this repository.
func Binary() (string, error) {
	path := os.Getenv("MALLEE")
	if path == "" {
		path = filepath.Join("..", "bin", "mallee")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("the program under test: %w (make build, or set MALLEE)", err)
	}
	return path, nil
}

// Cloud is a cloud's folder and, while it is up, the process that runs it. Its
// methods are for one goroutine, but for Run and what reads.
type Cloud struct {
	Dir     string
	Binary  string
	Flags   []string            // of `mallee up`, besides --data and --listen
	Env     []string            // instead of this process's
	Wrap    []string            // a command that runs the program: setpriv, unshare
	As      *syscall.Credential // who runs the program; nil is this user
	SeenAt  string              // where the folder is for us, if not at Dir
	process *exec.Cmd
	ended   chan struct{} // closed when the process has ended
	log     journal
}

// New makes a cloud of an empty folder of its own.
func New() (*Cloud, error) {
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mallee-test-")
	return &Cloud{Dir: dir, Binary: binary, Env: Environ()}, err
}

// Environ is this process's environment without what would lead clients and
// programs elsewhere.
func Environ() []string {
	var kept []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "AWS_") && !strings.HasPrefix(v, "EC2_") && !strings.HasPrefix(v, "S3_") && !strings.HasPrefix(v, "MALLEE") {
			kept = append(kept, v)
		}
	}
	return kept
}

// upTime is how long the program may take to be ready.
const upTime = time.Minute

// Up starts the program and returns how long it took from its exec to its
// first healthy answer.
func (c *Cloud) Up(ctx context.Context) (took time.Duration, err error) {
	began := time.Now()
	if err := c.start(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, upTime)
	defer cancel()
	err = PollEvery(ctx, 5*time.Millisecond, "mallee to be up", func() error {
		select {
		case <-c.ended:
			return Never(fmt.Errorf("mallee up has ended: %s", c.log.tail(10)))
		default:
			return c.healthy(ctx)
		}
	})
	return time.Since(began), err
}

func (c *Cloud) start() error {
	cmd := c.command(context.Background(), append([]string{"up", "--listen", "127.0.0.1:0"}, c.Flags...)...)
	cmd.Stdout, cmd.Stderr = io.Discard, &c.log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start mallee: %w", err)
	}
	c.process, c.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		cmd.Wait() // how it ended, its log tells
		close(ended)
	}(c.ended)
	return nil
}

func (c *Cloud) command(ctx context.Context, args ...string) *exec.Cmd {
	line := append(append([]string{}, c.Wrap...), c.Binary)
	line = append(append(line, args...), "--data", c.Dir)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = c.Env
	if c.As != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.As}
		cmd.Dir = "/"
	}
	return cmd
}

func (c *Cloud) healthy(ctx context.Context) error {
	endpoint, err := c.Endpoint()
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/healthz says %s", resp.Status)
	}
	return nil
}

// Path of something in the folder, for us to look at.
func (c *Cloud) Path(parts ...string) string {
	dir := c.Dir
	if c.SeenAt != "" {
		dir = c.SeenAt
	}
	return filepath.Join(append([]string{dir}, parts...)...)
}

// Endpoint of the program that was started last, as the folder's lock tells.
func (c *Cloud) Endpoint() (string, error) {
	data, err := os.ReadFile(c.Path("lock"))
	if err != nil {
		return "", err
	}
	var holder struct {
		PID    int    `json:"pid"`
		Listen string `json:"listen"`
	}
	if err := json.Unmarshal(data, &holder); err != nil {
		return "", fmt.Errorf("%s: %q: %w", c.Path("lock"), data, err)
	}
	if holder.PID != c.PID() {
		return "", fmt.Errorf("%s names process %d, and %d is what was started", c.Path("lock"), holder.PID, c.PID())
	}
	return "http://" + holder.Listen, nil
}

// PID of the program; 0 where it was never started.
func (c *Cloud) PID() int {
	if c.process == nil {
		return 0
	}
	return c.process.Process.Pid
}

// Stop ends the program as a service manager does, and waits until it has ended.
func (c *Cloud) Stop(ctx context.Context) error { return c.end(ctx, syscall.SIGTERM) }

// Kill ends it as the kernel does that is out of memory.
func (c *Cloud) Kill(ctx context.Context) error { return c.end(ctx, syscall.SIGKILL) }

func (c *Cloud) end(ctx context.Context, by syscall.Signal) error {
	if c.process == nil {
		return nil
	}
	if err := c.process.Process.Signal(by); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return c.Ended(ctx)
}

// Ended waits until the program has ended.
func (c *Cloud) Ended(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upTime)
	defer cancel()
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("mallee has not ended: %w", ctx.Err())
	}
}

// Result of a subcommand.
type Result struct {
	Out, Err string
	Status   int
}

// Run a subcommand on the folder, with that on its standard input.
func (c *Cloud) Run(ctx context.Context, stdin string, args ...string) (Result, error) {
	cmd := c.command(ctx, args...)
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &said
	err := cmd.Run()
	var exited *exec.ExitError
	if errors.As(err, &exited) && exited.Exited() {
		err = nil
	}
	return Result{out.String(), said.String(), cmd.ProcessState.ExitCode()}, err
}

// Succeed runs a subcommand that must succeed.
func (c *Cloud) Succeed(ctx context.Context, args ...string) (Result, error) {
	r, err := c.Run(ctx, "", args...)
	if err == nil && r.Status != 0 {
		err = fmt.Errorf("mallee %s ended with %d: %s", strings.Join(args, " "), r.Status, r.Err)
	}
	return r, err
}

// Install an image of the catalogue and return the ids that were printed: the
// machine image last, before it its kernel and ramdisk where it has them.
func (c *Cloud) Install(ctx context.Context, name string) ([]string, error) {
	r, err := c.Succeed(ctx, "image", "install", name)
	if err != nil {
		return nil, err
	}
	var ids []string
	for line := range strings.Lines(r.Out) {
		word, id, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if word != "IMAGE" {
			return nil, fmt.Errorf("image install %s printed %q, want IMAGE and an id", name, line)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// Destroy ends everything and removes the folder, also of a cloud that is down.
func (c *Cloud) Destroy(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(c.Dir, "lock")); err == nil {
		if _, err := c.Succeed(ctx, "down", "--destroy", "--yes"); err != nil {
			return err
		}
		if c.process != nil {
			if err := c.Ended(ctx); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(c.Dir)
}

// Log is what the program said, in all its runs.
func (c *Cloud) Log() string { return c.log.String() }

// journal collects the log.
type journal struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// tail is its last lines.
func (j *journal) tail(n int) string {
	lines := strings.Split(strings.TrimSpace(j.String()), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "percent=") })
	return strings.Join(lines[max(len(lines)-n, 0):], "\n")
}

// LogTail is the log's last lines, without what only shows that work goes on.
func (c *Cloud) LogTail(n int) string { return c.log.tail(n) }
