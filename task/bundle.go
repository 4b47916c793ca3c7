package task

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"mallee/bundle"
	"mallee/cloud"
	"mallee/snapshot"
)

// bundleACL lets the cloud read a bundle, and nobody else.
const bundleACL = "aws-exec-read"

// bundleRoot makes a bundle of an instance's root disk: its parts, and then its
// manifest, which nobody can register before it is there.
func (r *run) bundleRoot(ctx context.Context) (cloud.TaskResult, error) {
	r.stage("shutting the guest down, and storing its disk", 0, 40)
	content, err := r.Roots.StoreRoot(ctx, rootName(r.task.ID), r.task.Instance)
	if err != nil {
		return cloud.TaskResult{}, fmt.Errorf("store the root disk of %s: %w", r.task.Instance, err)
	}
	disk, err := r.Contents.Read(ctx, content)
	if err != nil {
		return cloud.TaskResult{}, err
	}
	p, to := r.task.Params, r.task.Target
	offset, size := int64(0), min(r.task.Ref.Size, content.Size)
	if p[cloud.ParamKernel] != "" {
		offset = cloud.DiskHeader * cloud.SectorSize // the root partition, that a paravirtual image is
	}
	s := r.stage("bundling", 40, 99)
	_, manifest, err := bundle.Write(ctx, io.LimitReader(&contentReader{ctx, disk, offset}, size), size, bundle.Options{
		Prefix: path.Base(to.Key), Account: string(r.task.Account), Kind: bundle.Machine, Architecture: p["architecture"],
		KernelID: p["kernel"], RamdiskID: p["ramdisk"], Rand: rand.Reader,
		CloudCert: r.CloudCert, UserKey: r.CloudKey, Progress: s.progress,
	}, r.part)
	if err != nil {
		return cloud.TaskResult{}, err
	}
	key := to.Key + bundle.ManifestSuffix
	err = r.put(ctx, to.Bucket, key, bundleACL, bytes.NewReader(manifest), int64(len(manifest)))
	return cloud.TaskResult{Manifest: key, Sizes: []int64{size}}, err
}

// rootName is the journal's of a root disk that the task bundles.
func rootName(id cloud.TaskID) string { return string(id) + "-root" }

// contentReader reads a content from an offset on.
type contentReader struct {
	ctx    context.Context
	from   *snapshot.Reader
	offset int64
}

func (c *contentReader) Read(p []byte) (int, error) {
	p = p[:min(int64(len(p)), max(c.from.Size()-c.offset, 0))]
	if len(p) == 0 {
		return 0, io.EOF
	}
	if err := c.from.ReadAt(c.ctx, p, c.offset); err != nil {
		return 0, err
	}
	c.offset += int64(len(p))
	return len(p), nil
}

// part opens the next part of a bundle. It is held in memory until it is whole.
func (r *run) part(ctx context.Context, name string) (bundle.PartWriter, error) {
	key := path.Join(path.Dir(r.task.Target.Key), name)
	return &partWriter{put: func(b []byte) error {
		return r.put(ctx, r.task.Target.Bucket, key, bundleACL, bytes.NewReader(b), int64(len(b)))
	}}, nil
}

type partWriter struct {
	bytes.Buffer
	put func([]byte) error
}

func (p *partWriter) Close() error               { return p.put(p.Bytes()) }
func (p *partWriter) CloseWithError(error) error { return nil }

// copyBundle copies a registered image's bundle, part by part as its manifest
// lists them, and the manifest last. What isn't as it was registered is refused.
func (r *run) copyBundle(ctx context.Context) (cloud.TaskResult, error) {
	s := r.stage("copying the bundle", 0, 99)
	from, key, _ := strings.Cut(r.task.Ref.Location, "/")
	text, err := r.read(ctx, from, key, bundle.MaxManifestSize)
	if err != nil {
		return cloud.TaskResult{}, &SourceError{fmt.Errorf("read the manifest %s: %w", r.task.Ref.Location, err)}
	}
	if bundle.Pin(text) != r.task.Ref.ManifestDigest {
		return cloud.TaskResult{}, &SourceError{fmt.Errorf("%s: %w", r.task.Ref.Location, bundle.ErrManifestChanged)}
	}
	m, err := bundle.ParseManifest(text)
	if err != nil {
		return cloud.TaskResult{}, &SourceError{err}
	}
	to := r.task.Target
	var done int64
	for _, part := range m.Parts {
		if err := r.copyPart(ctx, from, path.Dir(key), path.Dir(to.Key), part); err != nil {
			return cloud.TaskResult{}, fmt.Errorf("copy part %s: %w", part.Name, err)
		}
		done++
		s.progress(done, int64(len(m.Parts)))
	}
	err = r.put(ctx, to.Bucket, to.Key, bundleACL, bytes.NewReader(text), int64(len(text)))
	return cloud.TaskResult{Manifest: to.Key}, err
}

func (r *run) copyPart(ctx context.Context, bucket, from, to string, part bundle.Part) error {
	body, size, err := r.Objects.Open(ctx, bucket, path.Join(from, part.Name))
	if err != nil {
		return &SourceError{err}
	}
	defer body.Close()
	sum := sha1.New()
	if err := r.put(ctx, r.task.Target.Bucket, path.Join(to, part.Name), bundleACL, io.TeeReader(body, sum), size); err != nil {
		return err
	}
	if [sha1.Size]byte(sum.Sum(nil)) != part.Digest {
		return &SourceError{errors.New("it is not what the manifest says: its digest differs")}
	}
	return nil
}

// read a small object whole.
func (r *run) read(ctx context.Context, bucket, key string, limit int64) ([]byte, error) {
	body, size, err := r.Objects.Open(ctx, bucket, key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if size > limit {
		return nil, fmt.Errorf("it has %d bytes, more than %d", size, limit)
	}
	return io.ReadAll(io.LimitReader(body, limit))
}
