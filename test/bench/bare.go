package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// recipe is the command line of an instance's QEMU, and its disks.
type recipe struct {
	args  []string
	disks []disk
}

// disk of an instance: what an overlay of the same shape is made by.
type disk struct {
	path    string
	base    string
	size    int64
	options string // of qemu-img create
}

// readRecipe from the process that runs the machine of that folder.
func readRecipe(dir string) (*recipe, error) {
	pid, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil {
		return nil, err
	}
	line, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(pid)), "cmdline"))
	if err != nil {
		return nil, err
	}
	r := &recipe{args: strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")}
	for n, arg := range r.args {
		if strings.TrimLeft(arg, "-") != "blockdev" || n+1 == len(r.args) {
			continue
		}
		d, err := readDisk(r.args[n+1])
		if err != nil {
			return nil, err
		}
		r.disks = append(r.disks, d)
	}
	return r, nil
}

// blockNode is a node of QEMU's block layer, with those below it: what limits
// the disk's speed, its format, its file.
type blockNode struct {
	Filename string     `json:"filename"`
	File     *blockNode `json:"file"`
}

// filename of the lowest node.
func (n *blockNode) filename() string {
	if n.File != nil {
		return n.File.filename()
	}
	return n.Filename
}

// readDisk of a blockdev's JSON, as qemu-img sees it.
func readDisk(blockdev string) (d disk, err error) {
	var node blockNode
	if err := json.Unmarshal([]byte(blockdev), &node); err != nil {
		return d, fmt.Errorf("blockdev %s: %w", blockdev, err)
	}
	file := node.filename()
	text, err := exec.Command("qemu-img", "info", "-U", "--output=json", file).Output()
	if err != nil {
		return d, fmt.Errorf("qemu-img info %s: %w", file, err)
	}
	var info struct {
		Size     int64  `json:"virtual-size"`
		Cluster  int    `json:"cluster-size"`
		Base     string `json:"backing-filename"`
		Specific struct {
			Data struct {
				ExtendedL2 bool `json:"extended-l2"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(text, &info); err != nil {
		return d, fmt.Errorf("qemu-img info %s: %w", file, err)
	}
	options := fmt.Sprintf("cluster_size=%d,extended_l2=%t", info.Cluster, info.Specific.Data.ExtendedL2)
	return disk{file, info.Base, info.Size, options}, nil
}

// bare QEMUs, in folders of their own under one.
type bare struct {
	dir       string
	dirs      []string
	commands  []*exec.Cmd
	neighbour []net.Conn // the other ends of their network's cables
}

// prepare n of them, up to their start: all that mallee's own work is for.
func (r *recipe) prepare(n int) (*bare, error) {
	dir, err := os.MkdirTemp("", "mallee-bench-")
	if err != nil {
		return nil, err
	}
	b := &bare{dir: dir}
	for i := range n {
		if err := b.add(r, filepath.Join(dir, fmt.Sprint(i))); err != nil {
			return nil, errors.Join(err, b.end())
		}
	}
	return b, nil
}

func (b *bare) add(r *recipe, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	cable, err := net.ListenPacket("unixgram", filepath.Join(dir, "switch.sock"))
	if err != nil {
		return err
	}
	b.neighbour = append(b.neighbour, cable.(net.Conn))
	swap := []string{"socket,id=qmp,fd=3,", "socket,id=qmp,path=qmp.sock,"}
	for n, d := range r.disks {
		mine := filepath.Join(dir, fmt.Sprintf("disk%d.qcow2", n))
		if err := d.copyTo(mine); err != nil {
			return err
		}
		swap = append(swap, d.path, mine)
	}
	replace := strings.NewReplacer(swap...)
	var args []string
	for _, a := range r.args[1:] {
		args = append(args, replace.Replace(a))
	}
	cmd := exec.Command(r.args[0], args...)
	cmd.Dir = dir
	cmd.Stderr = new(bytes.Buffer)
	// As what outlives its shell does, and an instance's QEMU: the kernel shares
	// the processors out by sessions, and one that is new gets less.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	b.dirs, b.commands = append(b.dirs, dir), append(b.commands, cmd)
	return nil
}

// copyTo makes a fresh disk of the same shape.
func (d disk) copyTo(path string) error {
	out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw",
		"-b", d.base, "-o", d.options, path, fmt.Sprint(d.size)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("qemu-img create: %w: %s", err, out)
	}
	return nil
}

// start them, one right after the other.
func (b *bare) start(ctx context.Context) (t times, err error) {
	began := time.Now()
	for _, cmd := range b.commands {
		if err := cmd.Start(); err != nil {
			return t, err
		}
	}
	if err := t.await(ctx, began, b.dirs); err != nil {
		return t, fmt.Errorf("%w: QEMU says %q", err, b.commands[0].Stderr)
	}
	return t, nil
}

// end them, and remove what they had.
func (b *bare) end() error {
	for _, cmd := range b.commands {
		if cmd.Process != nil {
			cmd.Process.Kill()
			cmd.Wait() // that it was killed is no error
		}
	}
	for _, n := range b.neighbour {
		n.Close()
	}
	return os.RemoveAll(b.dir)
}

// timed is a start of n and their end.
func (r *recipe) timed(ctx context.Context, n int) (times, error) {
	b, err := r.prepare(n)
	if err != nil {
		return times{}, err
	}
	t, err := b.start(ctx)
	return t, errors.Join(err, b.end())
}
