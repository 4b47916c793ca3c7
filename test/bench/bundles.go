package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/emi"
)

// largerType has room for the largest image that is launched, and is else as the other.
const largerType = types.InstanceTypeM1Medium

// The bundle's key and initialization vector, so that the shell can decrypt it too.
const (
	bundleKey = "000102030405060708090a0b0c0d0e0f"
	bundleIV  = "0f0e0d0c0b0a09080706050403020100"
)

// images measures the way of an image from its bundling to its first launch, each
// step against what the shell's own tools need for it, turn by turn; and that the
// launch of a cached image doesn't grow with it.
func images(ctx context.Context, s *subject, o options, r *report) (err error) {
	if o.image == 0 {
		return nil
	}
	dir, err := os.MkdirTemp("", "mallee-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := bundler{s, dir}
	say("bundling, uploading and launching an image of %d MiB, %d times", o.image, o.rounds)
	if err := b.steps(ctx, o, r); err != nil {
		return err
	}
	if err := b.memory(ctx, o, r); err != nil {
		return err
	}
	return b.cached(ctx, o, r)
}

// bundler works in a folder of its own.
type bundler struct {
	*subject
	dir string
}

func (b bundler) path(name string) string { return filepath.Join(b.dir, name) }

// round is what the steps took, in seconds, and what they had to do with, in bytes.
type round struct {
	bundle, pipeline, copied float64
	upload, register, launch float64
	unbundle, unpackByShell  float64
	bundledBytes, imageBytes float64
}

// steps of an image's way.
func (b bundler) steps(ctx context.Context, o options, r *report) error {
	if err := image(b.path("image"), o.image<<20, 1); err != nil {
		return err
	}
	rounds := make([]round, o.rounds)
	for n := range rounds {
		one, err := b.round(ctx, n)
		if err != nil {
			return err
		}
		rounds[n] = one
		say("  %d of %d: bundled in %.1f s (pipeline %.1f), uploaded in %.1f, launched in %.1f (unpacked by the shell in %.1f)",
			n+1, len(rounds), one.bundle, one.pipeline, one.upload, one.launch, one.unpackByShell)
	}
	mib := func(of func(round) float64) func(round) float64 {
		return func(x round) float64 { return x.imageBytes / (1 << 20) / of(x) }
	}
	add := func(name, unit string, of func(round) float64, goal float64) {
		r.add(name, unit, summarize(rounds, of, medianOf(of)), goal)
	}
	size := fmt.Sprintf("%d MiB: ", o.image)
	add(size+"euca-bundle-image", "MiB/s", mib(func(x round) float64 { return x.bundle }), 0)
	add(size+"tar | gzip -1 | openssl | sha1sum", "MiB/s", mib(func(x round) float64 { return x.pipeline }), 0)
	add(size+"plain copy", "MiB/s", mib(func(x round) float64 { return x.copied }), 0)
	add(size+"bundling's time / the pipeline's", "×", func(x round) float64 { return x.bundle / x.pipeline }, 1/0.9)
	add(size+"euca-upload-bundle", "MiB/s of bundle", func(x round) float64 { return x.bundledBytes / (1 << 20) / x.upload }, 0)
	add(size+"euca-register", "ms", func(x round) float64 { return 1000 * x.register }, 0)
	add(size+"euca-unbundle", "MiB/s", mib(func(x round) float64 { return x.unbundle }), 0)
	add(size+"first launch until QEMU begins / openssl | gzip | tar", "×", func(x round) float64 { return x.launch / x.unpackByShell }, 1.3)
	return nil
}

// round is one turn, under names of its own: nothing is in the cloud's cache.
func (b bundler) round(ctx context.Context, n int) (x round, err error) {
	prefix, out := fmt.Sprintf("round%d", n), b.path("bundle")
	x.imageBytes = fileSize(b.path("image"))
	manifest := filepath.Join(out, prefix+".manifest.xml")
	sides := []func() error{
		func() (err error) {
			x.bundle, err = b.euca(ctx, "euca-bundle-image", "-i", b.path("image"), "-r", "x86_64", "-p", prefix, "-d", out, "--enc-key", bundleKey, "--enc-iv", bundleIV)
			return err
		},
		func() (err error) {
			x.pipeline, err = b.shell(ctx, "tar -cf - image | gzip -1 | openssl enc -aes-128-cbc -K "+bundleKey+" -iv "+bundleIV+" | sha1sum")
			return err
		},
		func() (err error) { x.copied, err = b.shell(ctx, "cp --sparse=never image copy"); return err },
	}
	for k := range sides {
		if err := sides[(n+k)%len(sides)](); err != nil {
			return x, err
		}
	}
	for _, part := range glob(filepath.Join(out, prefix+".part.*")) {
		x.bundledBytes += fileSize(part)
	}
	bucket := "bench/" + prefix
	if x.upload, err = b.euca(ctx, "euca-upload-bundle", "-m", manifest, "-b", bucket); err != nil {
		return x, err
	}
	if x.register, err = b.euca(ctx, "euca-register", bucket+"/"+prefix+".manifest.xml", "-n", prefix, "--virtualization-type", "hvm"); err != nil {
		return x, err
	}
	unpack := []func() error{
		func() (err error) {
			x.unbundle, err = b.euca(ctx, "euca-unbundle", "-m", manifest, "-s", out, "-d", b.dir)
			return err
		},
		func() (err error) {
			x.unpackByShell, err = b.shell(ctx, "cat bundle/"+prefix+".part.* | openssl enc -d -aes-128-cbc -K "+bundleKey+" -iv "+bundleIV+" | gzip -dc | tar -xOf - > copy")
			return err
		},
		func() (err error) { x.launch, err = b.firstLaunch(ctx, prefix); return err },
	}
	for k := range unpack {
		if err := unpack[(n+k)%len(unpack)](); err != nil {
			return x, err
		}
	}
	return x, errors.Join(os.RemoveAll(out), os.RemoveAll(b.path("copy")), os.RemoveAll(b.path(prefix)))
}

// firstLaunch of the image of that name, until its QEMU begins.
func (b bundler) firstLaunch(ctx context.Context, name string) (float64, error) {
	id, err := b.find(ctx, name)
	if err != nil {
		return 0, err
	}
	i, t, err := b.launch(ctx, id, 1)
	if err != nil {
		return 0, err
	}
	return t.process.Seconds(), i.end(ctx)
}

// find an image by its name.
func (b bundler) find(ctx context.Context, name string) (string, error) {
	out, err := b.output(ctx, "euca-describe-images", "--filter", "name="+name)
	if fields := strings.Split(out, "\t"); err == nil && len(fields) > 1 {
		return fields[1], nil
	}
	return "", fmt.Errorf("there is no image %s: %s, %w", name, out, err)
}

// memory that bundling and unbundling take at their most, of the image and of one
// of an eighth of its size.
func (b bundler) memory(ctx context.Context, o options, r *report) error {
	if err := image(b.path("small"), o.image<<20/8, 2); err != nil {
		return err
	}
	peak := map[string]float64{}
	for _, name := range []string{"small", "image"} {
		out := b.path("out-" + name)
		bundling, err := b.peak(ctx, "euca-bundle-image", "-i", b.path(name), "-r", "x86_64", "-p", name, "-d", out)
		if err != nil {
			return err
		}
		unbundling, err := b.peak(ctx, "euca-unbundle", "-m", filepath.Join(out, name+".manifest.xml"), "-s", out, "-d", out)
		if err != nil {
			return err
		}
		peak["bundling "+name], peak["unbundling "+name] = bundling, unbundling
		if err := os.RemoveAll(out); err != nil {
			return err
		}
	}
	for _, doing := range []string{"bundling", "unbundling"} {
		r.add(fmt.Sprintf("memory of %s %d MiB", doing, o.image), "MiB", single(peak[doing+" image"]/(1<<20)), 0)
		r.add(fmt.Sprintf("memory of %s %d MiB / of %d MiB", doing, o.image, o.image/8), "×", single(peak[doing+" image"]/peak[doing+" small"]), 1.1)
	}
	return nil
}

// cached launches of a small image and of a large one, turn by turn.
func (b bundler) cached(ctx context.Context, o options, r *report) error {
	say("launching a cached image of %d MiB and one of %d MiB, %d times", o.small, o.large, o.quick)
	var ids [2]string
	for n, mib := range []int64{o.small, o.large} {
		name := fmt.Sprintf("cached-%d", n)
		if err := hello(b.path(name), mib<<20); err != nil {
			return err
		}
		if _, err := b.euca(ctx, "euca-install-image", "-i", b.path(name), "-r", "x86_64", "-b", "bench/"+name, "-n", name, "--virtualization-type", "hvm"); err != nil {
			return err
		}
		if err := os.Remove(b.path(name)); err != nil {
			return err
		}
		id, err := b.find(ctx, name)
		if err != nil {
			return err
		}
		ids[n] = id
		if _, err := b.timedAs(ctx, id, largerType); err != nil { // into the cache
			return err
		}
	}
	pairs := make([]pair, max(o.quick, 1))
	for n := range pairs {
		took := [2]*times{&pairs[n].bare, &pairs[n].ours}
		for k := range took {
			side := (n + k) % 2
			t, err := b.timedAs(ctx, ids[side], largerType)
			if err != nil {
				return err
			}
			*took[side] = t
		}
	}
	begins := func(p pair) float64 { return begun(p.ours) / begun(p.bare) }
	both := func(rows []pair) float64 {
		return quantile(column(rows, func(p pair) float64 { return begun(p.ours) }), 0.5) / quantile(column(rows, func(p pair) float64 { return begun(p.bare) }), 0.5)
	}
	r.add(fmt.Sprintf("launch of a cached image of %d MiB / of %d MiB", o.large, o.small), "×", summarize(pairs, begins, both), 1.1)
	return nil
}

// timedAs is a launch of one as another type, and its end.
func (s *subject) timedAs(ctx context.Context, image string, kind types.InstanceType) (times, error) {
	other := *s
	other.kind = kind
	return other.timed(ctx, image, 1)
}

// euca-command, and how long it took in seconds.
func (b bundler) euca(ctx context.Context, args ...string) (float64, error) {
	began := time.Now()
	_, err := b.output(ctx, args...)
	return time.Since(began).Seconds(), err
}

func (b bundler) output(ctx context.Context, args ...string) (string, error) {
	cmd, err := b.command(ctx, args...)
	if err != nil {
		return "", err
	}
	return run1(cmd)
}

// peak of a euca-command's memory, in bytes.
func (b bundler) peak(ctx context.Context, args ...string) (float64, error) {
	cmd, err := b.command(ctx, args...)
	if err != nil {
		return 0, err
	}
	if _, err := run1(cmd); err != nil {
		return 0, err
	}
	return float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) * 1024, nil
}

func (b bundler) command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	env, err := b.Environ()
	cmd := exec.CommandContext(ctx, b.Binary, args...)
	cmd.Env = append(env, "TMPDIR="+b.dir)
	return cmd, err
}

// shell runs a pipeline in the folder, for as long in seconds.
func (b bundler) shell(ctx context.Context, line string) (float64, error) {
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -o pipefail; "+line)
	cmd.Dir = b.dir
	began := time.Now()
	_, err := run1(cmd)
	return time.Since(began).Seconds(), err
}

func run1(cmd *exec.Cmd) (string, error) {
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[1:], " "), err, &said)
	}
	return out.String(), nil
}

// image of size bytes that says hello: behind that a quarter of noise, a quarter
// of text, and zeros.
func image(path string, size int64, seed byte) error {
	if err := hello(path, size); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	random := rand.NewChaCha8([32]byte{seed})
	words := bytes.Fields([]byte("many stems grow from one root and each of them is a tree of its own in the same red earth"))
	chance, block := rand.New(random), make([]byte, 1<<20)
	for at := int64(1 << 20); at+2<<20 <= size; at += 4 << 20 {
		if _, err := random.Read(block); err != nil {
			return err
		}
		if _, err := f.WriteAt(block, at); err != nil {
			return errors.Join(err, f.Close())
		}
		text := block[:0]
		for len(text) < 1<<20-20 {
			text = append(append(text, words[chance.IntN(len(words))]...), ' ')
		}
		if _, err := f.WriteAt(text, at+1<<20); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

// hello is a disk of size bytes whose guest only says so.
func hello(path string, size int64) error {
	if err := os.WriteFile(path, emi.Hello("hello", 1<<20), 0o600); err != nil {
		return err
	}
	return os.Truncate(path, size)
}

func fileSize(path string) float64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return float64(info.Size())
}

func glob(pattern string) []string {
	found, _ := filepath.Glob(pattern) // the pattern is ours
	return found
}
