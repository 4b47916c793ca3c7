package rbd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"mallee/block"
)

// What rbd means when it ends with these numbers, which are the kernel's.
var (
	errNotFound error = syscall.ENOENT
	errExists   error = syscall.EEXIST
)

// rbd runs Ceph's command, and tells what it wrote.
func (s *Disks) rbd(ctx context.Context, args ...string) ([]byte, error) {
	return s.run(ctx, commandTime, nil, args...)
}

func (s *Disks) run(ctx context.Context, limit time.Duration, input *os.File, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the Ceph cluster has not answered within %v", limit))
	defer cancel()
	command := exec.CommandContext(ctx, "rbd", append([]string{"--conf", s.Conf, "--id", s.User}, args...)...)
	if input != nil {
		command.ExtraFiles = []*os.File{input}
	}
	var said bytes.Buffer
	command.Stderr = &said
	out, err := command.Output()
	if err == nil {
		return out, nil
	}
	words := strings.TrimSpace(said.String())
	words = words[max(len(words)-1000, 0):]
	switch exit := (*exec.ExitError)(nil); {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		err = syscall.Errno(exit.ExitCode())
	case errors.Is(err, exec.ErrNotFound):
		err = fmt.Errorf("%w (on Debian: apt-get install ceph-common)", err)
	}
	return nil, fmt.Errorf("rbd %s: %w: %s", args[0], err, words)
}

func (s *Disks) spec(name string) string { return s.Pool + "/" + s.Namespace + "/" + name }

func (s *Disks) image(name string) block.RBD {
	return block.RBD{Conf: s.Conf, User: s.User, Pool: s.Pool, Namespace: s.Namespace, Image: name}
}

// images are all there are, the half-made ones too.
func (s *Disks) images(ctx context.Context) (names []string, err error) {
	out, err := s.rbd(ctx, "ls", "--format", "json", "--pool", s.Pool, "--namespace", s.Namespace)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(out, &names); err != nil {
		return nil, fmt.Errorf("rbd's list of images: %w", err)
	}
	return names, nil
}

// importFile makes an image of a file's bytes, durably.
func (s *Disks) importFile(ctx context.Context, f *os.File, name string) error {
	_, err := s.run(ctx, commandTime, f, "import", "--no-progress", "--image-feature", "layering", "/dev/fd/3", s.spec(name))
	return err
}

func (s *Disks) move(ctx context.Context, from, to string) error {
	_, err := s.rbd(ctx, "mv", s.spec(from), s.spec(to))
	return err
}

func (s *Disks) remove(ctx context.Context, name string) error {
	_, err := s.run(ctx, removeTime, nil, "rm", "--no-progress", s.spec(name))
	return err
}

// tempName is another one each time: what an import that was cut off leaves is
// in nobody's way.
func tempName(name string) string { return tempPrefix + name + "." + rand.Text() }

// noSpace marks the errors that freed space would mend.
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &block.NoSpaceError{Err: err}
	}
	return err
}
