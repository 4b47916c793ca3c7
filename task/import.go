package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"mallee/cloud"
	"mallee/image"
)

// takeIn makes contents of the task's disk files, one after the other.
func (r *run) takeIn(ctx context.Context) (cloud.TaskResult, error) {
	var made cloud.TaskResult
	for n, f := range r.task.Sources {
		from, to := n*99/len(r.task.Sources), (n+1)*99/len(r.task.Sources)
		if f.Snapshot != "" {
			made.Contents, made.Sizes = append(made.Contents, cloud.Content{}), append(made.Sizes, f.Size)
			continue
		}
		if err := r.takeInOne(ctx, n, from, to, &made); err != nil {
			return cloud.TaskResult{}, fmt.Errorf("disk %d: %w", n+1, err)
		}
	}
	return made, nil
}

// takeInOne fetches, unpacks and stores one file, whose disks are several where it
// is an OVA.
func (r *run) takeInOne(ctx context.Context, n, from, to int, made *cloud.TaskResult) error {
	f := r.task.Sources[n]
	third := (to - from) / 3
	file := r.source(n)
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	size, err := r.fetch(ctx, f, file, r.stage("downloading", from, from+third))
	if err != nil {
		return err
	}
	disk, err := r.prepare(ctx, f, file, dir, r.stage("converting", from+third, from+2*third))
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil {
		return err
	}
	if gib := int64(f.VolumeGiB); gib > 0 && disk.Found.VirtualSize > gib<<30 {
		return &SourceError{fmt.Errorf("it has %d bytes, more than its volume of %d GiB", disk.Found.VirtualSize, gib)}
	}
	if err := r.recognise(n, disk, made); err != nil {
		return err
	}
	made.Sizes = append(made.Sizes, size)
	s := r.stage("storing", from+2*third, to)
	for _, raw := range append([]string{disk.Files.Disk}, disk.More...) {
		content, err := r.store(ctx, raw, len(made.Contents), s)
		if err != nil {
			return err
		}
		made.Contents = append(made.Contents, content)
	}
	return os.RemoveAll(dir)
}

// source is the file that the task's source n is fetched into.
func (r *run) source(n int) string { return filepath.Join(r.dir, strconv.Itoa(n), "source") }

// fetch a source into a file.
func (r *run) fetch(ctx context.Context, f cloud.DiskFile, file string, s stage) (int64, error) {
	if r.uploads() {
		return f.Size, nil // awaitUploads has it
	}
	if f.Bucket != "" {
		return r.copyObject(ctx, f, file, s)
	}
	return r.download(ctx, f.URL, file, r.limits().VirtualSize, s.progress)
}

// download from an address, which is the user's affair if it fails.
func (r *run) download(ctx context.Context, url, file string, limit int64, progress func(done, total int64)) (int64, error) {
	size, err := image.Fetch(ctx, url, file, image.FetchOptions{
		Limit: limit, Reach: r.Reach, Progress: func(_ string, done, total int64) { progress(done, total) },
	})
	if err != nil && ctx.Err() == nil && !fullDisk(err) {
		err = &SourceError{err}
	}
	return size, err
}

func (r *run) copyObject(ctx context.Context, f cloud.DiskFile, file string, s stage) (int64, error) {
	body, size, err := r.Objects.OpenFor(ctx, r.task.Account, f.Bucket, f.Key)
	if err != nil {
		return 0, lost(err)
	}
	defer body.Close()
	if size > r.limits().VirtualSize {
		return 0, &SourceError{fmt.Errorf("%s/%s has %d bytes, and at most %d are taken", f.Bucket, f.Key, size, r.limits().VirtualSize)}
	}
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(out, &counted{ctx: ctx, r: body, total: size, progress: s.progress})
	return size, errors.Join(err, out.Close())
}

// counted tells of what is read, and ends with its context.
type counted struct {
	ctx         context.Context
	r           io.Reader
	done, total int64
	progress    func(done, total int64)
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.done += int64(n)
	c.progress(c.done, c.total)
	return n, err
}

// formats are EC2's words for what a file is found to be.
var formats = map[string]string{"raw": "RAW", "qcow2": "QCOW2", "vmdk": "VMDK", "vhd": "VHD", "vhdx": "VHDX"}

// prepare the raw disks of a file. That it isn't what it was said to be is refused,
// since somebody is mistaken; compression and archives don't count.
func (r *run) prepare(ctx context.Context, f cloud.DiskFile, file, dir string, s stage) (image.Prepared, error) {
	found, err := image.Inspect(ctx, file, r.limits())
	if err != nil {
		return image.Prepared{}, blame(err)
	}
	is := formats[found.Format]
	if found.Archive == "ova" {
		is = "OVA"
	}
	if f.Format != "" && is != "" && f.Format != is && (f.Format != "RAW" || found.Compression == "") {
		return image.Prepared{}, &SourceError{fmt.Errorf("the format was said to be %s, and the file is %s (%s)", f.Format, is, found)}
	}
	prepared, err := image.Prepare(ctx, found, dir, r.limits(), func(_ string, done, total int64) { s.progress(done, total) })
	return prepared, blame(err)
}

// blame the source for what is its fault.
func blame(err error) error {
	var bad *image.BadImageError
	if errors.As(err, &bad) {
		return &SourceError{err}
	}
	return err
}

// maxDisks is how many disks an image may be imported from.
const maxDisks = 20

// recognise what a disk is, and refuse what can't become what is asked for.
func (r *run) recognise(n int, disk image.Prepared, made *cloud.TaskResult) error {
	found := disk.Found
	switch {
	case disk.Files.Disk == "":
		return &SourceError{fmt.Errorf("it is %s, and no disk: a root file system becomes an image by euca-install-image, with a kernel and a ramdisk", found)}
	case len(disk.More) >= maxDisks:
		return &SourceError{fmt.Errorf("it holds %d disks, and at most %d are imported", len(disk.More)+1, maxDisks)}
	case len(disk.More) > 0 && (r.task.Kind != cloud.ImportImage || len(r.task.Sources) > 1):
		return &SourceError{fmt.Errorf("it holds %d disks: import it by ImportImage, as the only DiskContainer", len(disk.More)+1)}
	}
	if n > 0 || r.task.Kind != cloud.ImportImage && r.task.Kind != cloud.ImportInstance {
		return nil
	}
	if err := found.Machine(); err != nil {
		return &SourceError{err}
	}
	if found.Virtualization == "" {
		return &SourceError{fmt.Errorf("it is %s, and boots in no known way", found)}
	}
	made.Architecture, made.Virtualization, made.BootMode = found.Architecture, found.Virtualization, string(found.BootMode)
	return nil
}

func (r *run) limits() image.Limits {
	l := image.DefaultLimits
	l.VirtualSize = r.MaxSize
	return l
}

func fullDisk(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
