package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A sandbox runs a program of the host on files that nobody vouches for. Between this process
// and the program stands a jailer: this same binary, started again, which shuts itself in (jail.go)
// and then becomes the program. What that gives, from outside to inside:
//
//   - a process group of its own that dies with ours, an empty environment, no input
//   - limits on address space, file size and processor time, and no core dump
//   - its own user, mount, network and IPC namespaces: no capability, no network, and a root that has
//     nothing but the host's programs and libraries, read-only, and the files of the job
//   - Landlock: the same again, for hosts whose administrator has forbidden user namespaces
//
// The last two are had where the host allows them; Confinement says which.
type sandbox struct {
	tool   string   // absolute path
	args   []string // inName and outName stand for the files
	in     string   // the file to read; or ""
	out    string   // the file to write, which is there already; or ""
	limits Limits
	stdin  io.Reader
	stdout io.Writer
	plain  bool // without namespaces: for a test of what remains
}

// Names of the job's files among the arguments.
const (
	inName  = "@in@"
	outName = "@out@"
)

// jailerName is the name by which this binary knows that it is to be a jailer.
const jailerName = "mallee-image-jailer"

// maxMessage is how much is kept of what a program writes to standard error.
const maxMessage = 4 << 10

// A sentence is what the jailer has to carry out. Files are told by device and inode too, so that
// it opens what was checked.
type sentence struct {
	Tool    string   `json:"tool"`
	Args    []string `json:"args"`
	In, Out *exhibit `json:",omitempty"`
	Memory  int64    `json:"memory"` // bytes of address space
	File    int64    `json:"file"`   // bytes of the largest file
	CPU     int64    `json:"cpu"`    // seconds
	Private bool     `json:"private"`
}

// An exhibit is a file of the job.
type exhibit struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

func exhibitOf(path string) (*exhibit, error) {
	if path == "" {
		return nil, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fmt.Errorf("looking at %s: %w", path, err)
	}
	return &exhibit{Path: path, Device: uint64(st.Dev), Inode: st.Ino}, nil
}

// run the program to its end. A program that is ended by ctx is ended with its children.
func (s sandbox) run(ctx context.Context) error {
	in, err := exhibitOf(s.in)
	if err != nil {
		return err
	}
	out, err := exhibitOf(s.out)
	if err != nil {
		return err
	}
	order := sentence{Tool: s.tool, Args: s.args, In: in, Out: out, Private: !s.plain && namespaces(ctx),
		Memory: s.limits.Memory, File: s.limits.fileSize(), CPU: int64(s.limits.CPU / time.Second)}
	return s.start(ctx, order)
}

// namespacesWork is set once they did: what a host allows doesn't change under us, but an attempt may fail.
var namespacesWork atomic.Bool

// namespaces tells whether this host lets this process make namespaces, and mount something in them: a jailer tries it,
// and becomes nothing. Some hosts forbid the one, some the other.
func namespaces(ctx context.Context) bool {
	if !namespacesWork.Load() && (sandbox{}).start(ctx, sentence{Private: true}) == nil {
		namespacesWork.Store(true)
	}
	return namespacesWork.Load()
}

// Confinement says how far the programs that read untrusted images are shut in on this host.
func Confinement(ctx context.Context) string {
	var have []string
	if namespaces(ctx) {
		have = append(have, "namespaces")
	}
	if v := landlockVersion(); v > 0 {
		have = append(have, fmt.Sprintf("Landlock %d", v))
	}
	return strings.Join(append(have, "resource limits"), ", ")
}

func (s sandbox) start(ctx context.Context, order sentence) error {
	spec, err := json.Marshal(order)
	if err != nil {
		return err
	}
	msg := &headBuffer{}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{jailerName, string(spec)}
	cmd.Env = []string{"LC_ALL=C", "MALLOC_ARENA_MAX=2"} // an arena for each thread would be address space for nothing
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.stdin, s.stdout, msg
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	if order.Private {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	// The kernel sends Pdeathsig when the thread ends that made the process, so it mustn't.
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- cmd.Run()
	}()
	return s.verdict(ctx, <-done, msg.String())
}

// verdict puts the end of the program into words.
func (s sandbox) verdict(ctx context.Context, err error, msg string) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s was stopped: %w", base(s.tool), context.Cause(ctx))
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("starting %s: %w", base(s.tool), err)
	}
	status, _ := exit.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled() && status.Signal() == unix.SIGXCPU:
		return refuse("%s used up the %s of processor time that it may take", base(s.tool), s.limits.CPU)
	case status.Signaled() && status.Signal() == unix.SIGXFSZ:
		return refuse("%s wanted to write a file of more than %d bytes", base(s.tool), s.limits.fileSize())
	case status.Signaled() && status.Signal() != unix.SIGKILL && status.Signal() != unix.SIGTERM:
		return refuse("%s fell over it (%s) with %d bytes of memory: %s", base(s.tool), status.Signal(), s.limits.Memory, strings.TrimSpace(s.hide(msg)))
	}
	return &toolError{tool: base(s.tool), err: err, message: strings.TrimSpace(s.hide(msg))}
}

var jsonName = regexp.MustCompile(`'json:\{.*\}'`)

// hide replaces the sandbox's names for files, which tell a user nothing.
func (s sandbox) hide(msg string) string {
	return strings.NewReplacer(viewIn, "the image", viewOut, "the result").Replace(jsonName.ReplaceAllString(msg, "the image"))
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// toolError is a program that said no.
type toolError struct {
	tool, message string
	err           error
}

func (e *toolError) Error() string {
	if e.message == "" {
		return fmt.Sprintf("%s: %v", e.tool, e.err)
	}
	return fmt.Sprintf("%s: %s", e.tool, e.message)
}

// exit is the program's exit status: 126 where it didn't even start.
func (e *toolError) exit() int {
	var exit *exec.ExitError
	if errors.As(e.err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

func (e *toolError) Unwrap() error { return e.err }

// headBuffer keeps the beginning of what is written to it, and takes the rest without a word.
type headBuffer struct{ bytes.Buffer }

func (b *headBuffer) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, maxMessage-b.Len()))])
	return len(p), nil
}
