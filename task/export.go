package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mallee/cloud"
	"mallee/image"
)

// exportACL is for the owner of the bucket alone.
const exportACL = "private"

// giveOut writes the task's image to a disk file in a bucket.
func (r *run) giveOut(ctx context.Context) (cloud.TaskResult, error) {
	disk, err := r.raw(ctx, r.stage("reading the image", 0, 33))
	if err != nil {
		return cloud.TaskResult{}, err
	}
	to := r.task.Target
	format := strings.ToLower(to.Format)
	file := filepath.Join(r.dir, "export."+format)
	if err := r.convert(ctx, disk, file, format, r.stage("converting", 33, 66)); err != nil {
		return cloud.TaskResult{}, fmt.Errorf("convert the image to %s: %w", to.Format, err)
	}
	key := to.Key + string(r.task.ID) + "." + format
	return cloud.TaskResult{Manifest: key}, r.putFile(ctx, file, key, r.stage("uploading", 66, 99))
}

// raw writes the bytes of the task's image to a file of the task's folder: out of
// a bundle, or of the content of a snapshot.
func (r *run) raw(ctx context.Context, s stage) (file string, err error) {
	file = filepath.Join(r.dir, "image.raw")
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	switch {
	case r.task.Ref != nil:
		return file, r.unpack(ctx, f, s)
	case len(r.task.Contents) > 0:
		return file, r.load(ctx, r.task.Contents[0], f, s)
	}
	return "", fmt.Errorf("the task names no bytes of image %s", r.task.Image)
}

// unpack a registered bundle.
func (r *run) unpack(ctx context.Context, f *os.File, s stage) error {
	err := r.Bundles.Unpack(ctx, *r.task.Ref, f, s.progress)
	if errors.Is(err, cloud.ErrDamaged) {
		return &SourceError{err}
	}
	return err
}

func (r *run) convert(ctx context.Context, disk, file, format string, s stage) (err error) {
	src, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	machine := image.Machine{Name: string(r.task.Image)}
	return image.Export(ctx, dst, src, format, machine, r.limits(), func(_ string, done, total int64) { s.progress(done, total) })
}

// putFile uploads a file of the task's.
func (r *run) putFile(ctx context.Context, file, key string, s stage) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	body := &counted{ctx: ctx, r: f, total: info.Size(), progress: s.progress}
	return r.put(ctx, r.task.Target.Bucket, key, exportACL, body, info.Size())
}
