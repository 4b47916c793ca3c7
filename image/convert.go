package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strconv"
)

// Convert makes the raw disk inside a disk image: src in the named format (qcow2, vmdk, vhd, vhdx, raw) into
// dst, an empty file, which becomes sparse and as large as the disk. The headers are examined first, and QEMU is told the
// format, never asked. A *BadImageError says that the image is at fault. After any error dst's content is
// worthless; removing it is its owner's.
func Convert(ctx context.Context, dst, src *os.File, format string, limits Limits, progress Progress) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	return convert(ctx, dst, src, window{file: src.Name(), size: info.Size(), whole: true}, format, limits, progress)
}

// convert a window of an open file.
func convert(ctx context.Context, dst, src *os.File, w window, format string, limits Limits, progress Progress) error {
	if err := limits.check(); err != nil {
		return err
	}
	if err := requireEmpty(dst); err != nil {
		return err
	}
	d, err := examine(w.reader(src), w.size, format, limits)
	if err != nil {
		return err
	}
	if err := dst.Truncate(d.virtual); err != nil {
		return fmt.Errorf("making a disk of %d bytes: %w", d.virtual, err)
	}
	if format == "raw" {
		return copyRaw(ctx, dst, src, w, progress)
	}
	from, err := d.source(w, nil)
	if err != nil {
		return err
	}
	// With -n QEMU takes the file as it is, all zeros, and needn't write those.
	return qemuImg(ctx, "unpacking the "+format+" image", limits, w.file, dst.Name(), progress,
		"convert", "-p", "-n", "--target-is-zero", "-O", "raw", from, outName)
}

// An extent is a part of a disk, in bytes.
type extent struct{ off, length int64 }

// source names a window, or an extent of the disk in it, in QEMU's JSON, with each layer pinned:
// file, perhaps a part of it, format, perhaps a part of the disk.
func (d driver) source(w window, e *extent) (string, error) {
	node := map[string]any{"driver": "file", "filename": inName, "locking": "off"}
	if !w.whole {
		node = map[string]any{"driver": "raw", "offset": w.off, "size": w.size, "file": node}
	}
	node = map[string]any{"driver": d.name, "file": node, "read-only": true}
	maps.Copy(node, d.options)
	if e != nil {
		node = map[string]any{"driver": "raw", "offset": e.off, "size": e.length, "file": node, "read-only": true}
	}
	b, err := json.Marshal(node)
	return "json:" + string(b), err
}

// copyRaw copies what isn't zeros. Holes aren't even read.
func copyRaw(ctx context.Context, dst, src *os.File, w window, progress Progress) error {
	const step = "copying the image"
	buf := make([]byte, copyBuffer)
	for at := int64(0); at < w.size; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", step, context.Cause(ctx))
		}
		at = min(nextData(src, w.off+at)-w.off, w.size)
		n := min(w.size-at, copyBuffer)
		if _, err := src.ReadAt(buf[:n], w.off+at); err != nil && n > 0 {
			return fmt.Errorf("%s: reading %d bytes at %d: %w", step, n, w.off+at, err)
		}
		if err := writeBlocks(dst, at, buf[:n]); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		at += n
		progress(step, at, w.size)
	}
	return nil
}

var percent = regexp.MustCompile(`\((\d+)\.(\d+)/100%\)`)

// percents reads qemu-img's -p: "    (12.50/100%)" and a carriage return, again and again.
type percents struct {
	step string
	show Progress
	rest []byte
	last int64
}

func (p *percents) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		m := percent.FindSubmatchIndex(p.rest)
		if m == nil {
			break
		}
		whole, _ := strconv.ParseInt(string(p.rest[m[2]:m[3]]), 10, 32)
		hundredths, _ := strconv.ParseInt(string(p.rest[m[4]:m[5]]), 10, 32)
		if done := whole*100 + hundredths; done > p.last && done <= 10000 {
			p.last = done
			p.show(p.step, done, 10000)
		}
		p.rest = p.rest[m[1]:]
	}
	p.rest = p.rest[max(0, len(p.rest)-64):]
	return len(b), nil
}

// qemuImg runs the tool in a sandbox. What it complains of is the image's fault, as all that it gets else is
// ours.
func qemuImg(ctx context.Context, step string, limits Limits, in, out string, progress Progress, args ...string) error {
	tool, err := hostTool("qemu-img", "qemu-utils")
	if err != nil {
		return err
	}
	progress(step, 0, 10000)
	err = sandbox{tool: tool, args: args, in: in, out: out, limits: limits, stdout: &percents{step: step, show: progress}}.run(ctx)
	var said *toolError
	if errors.As(err, &said) && said.exit() == 1 {
		return refuse("%s: %s", step, said.message)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	progress(step, 10000, 10000)
	return nil
}
