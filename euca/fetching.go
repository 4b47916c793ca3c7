package euca

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"mallee/bundle"
)

// storedBundle is an uploaded bundle, by where it is.
type storedBundle struct {
	client         *Client
	bucket, folder string // folder is "" or ends with a slash
	name           string // the manifest's; "" where it is a local file
	local          string // that file
}

// storedBundle that the options name.
func (s *session) storedBundle() (*storedBundle, error) {
	if err := s.oneOf("manifest", "prefix", "local-manifest"); err != nil {
		return nil, err
	}
	client, err := s.cloud()
	if err != nil {
		return nil, err
	}
	p := &storedBundle{client: client, name: s.text("manifest"), local: s.text("local-manifest")}
	p.bucket, p.folder = bucketAndFolder(s.text("bucket"))
	if prefix := s.text("prefix"); prefix != "" {
		p.name = prefix + bundle.ManifestSuffix
	}
	return p, nil
}

// key of a file of the bundle.
func (p *storedBundle) key(name string) string { return p.folder + name }

// manifest of the bundle, and its text.
func (p *storedBundle) manifest(ctx context.Context) (*bundle.Manifest, []byte, error) {
	if p.local != "" {
		return bundle.ReadManifestFile(p.local)
	}
	body, _, err := p.client.GetObject(ctx, p.bucket, p.key(p.name))
	if err != nil {
		return nil, nil, p.hint(err)
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, bundle.MaxManifestSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("download %s/%s: %w", p.bucket, p.key(p.name), err)
	}
	m, err := bundle.ParseManifest(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s/%s: %w", p.bucket, p.key(p.name), err)
	}
	return m, text, nil
}

// hint at the option that is meant, where a file has the name that no object has.
func (p *storedBundle) hint(err error) error {
	if _, statErr := os.Stat(p.name); statErr == nil && absent(err) {
		return fmt.Errorf("%s is a file of this machine, and not in %s: name it by --local-manifest: %w", p.name, p.bucket, err)
	}
	return err
}

// open is a bundle.Opener.
func (p *storedBundle) open(ctx context.Context, part bundle.Part) (io.ReadCloser, error) {
	body, _, err := p.client.GetObject(ctx, p.bucket, p.key(part.Name))
	return body, err
}

// parts of a bundle, verified, each to where dst says; it closes that.
func (p *storedBundle) parts(ctx context.Context, m *bundle.Manifest, show *progress, dst func(bundle.Part) (io.WriteCloser, error)) error {
	defer show.end()
	left := m.BundledSize
	for _, part := range m.Parts {
		show.show("downloading "+m.Name, m.BundledSize-left, m.BundledSize)
		w, err := dst(part)
		if err != nil {
			return err
		}
		n, err := p.part(ctx, part, w, left)
		if err = errors.Join(err, w.Close()); err != nil {
			return err
		}
		left -= n
	}
	if left != 0 {
		return fmt.Errorf("%w: %d bytes are missing", bundle.ErrBundledSize, left)
	}
	show.show("downloading "+m.Name, m.BundledSize, m.BundledSize)
	return nil
}

// part of at most left bytes; n is how many it has.
func (p *storedBundle) part(ctx context.Context, part bundle.Part, w io.Writer, left int64) (n int64, err error) {
	wrong := func(err error) error { return &bundle.PartError{Index: part.Index, Name: part.Name, Err: err} }
	body, err := p.open(ctx, part)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	sum := sha1.New()
	n, err = io.Copy(io.MultiWriter(w, sum), io.LimitReader(body, left+1))
	switch {
	case err != nil:
		return n, wrong(err)
	case n > left:
		return n, wrong(fmt.Errorf("%w: all parts together have %d bytes", bundle.ErrLongPart, n))
	case [sha1.Size]byte(sum.Sum(nil)) != part.Digest:
		return n, wrong(bundle.ErrPartDigest)
	}
	return n, nil
}

func downloadBundle(s *session) error {
	p, err := s.storedBundle()
	if err != nil {
		return err
	}
	m, text, err := p.manifest(s.ctx)
	if err != nil {
		return err
	}
	dir := s.text("directory")
	if dir == "-" {
		return p.parts(s.ctx, m, s.progress(), func(bundle.Part) (io.WriteCloser, error) { return unclosed{s.out}, nil })
	}
	if dir == "" {
		dir = "."
	}
	if err := p.into(s, dir, m, text); err != nil {
		return err
	}
	beside := func(name string) string { return filepath.Join(dir, name) }
	if p.name == "" {
		return s.show(tell(m, "", beside), nil)
	}
	path := beside(filepath.Base(p.name))
	return s.show(tell(m, path, beside), func() { s.line("Wrote manifest " + path) })
}

// unclosed is a writer that others go on with.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// into a folder, under the files' names once all are whole, and the manifest last.
func (p *storedBundle) into(s *session, dir string, m *bundle.Manifest, text []byte) error {
	var files []*newFile
	defer func() {
		for _, f := range files {
			f.discard()
		}
	}()
	create := func(name string) (io.WriteCloser, error) {
		f, err := createFile(filepath.Join(dir, name))
		if err == nil {
			files = append(files, f)
		}
		return unclosed{f}, err
	}
	if err := p.parts(s.ctx, m, s.progress(), func(part bundle.Part) (io.WriteCloser, error) { return create(part.Name) }); err != nil {
		return err
	}
	if p.name != "" {
		w, err := create(filepath.Base(p.name))
		if err == nil {
			_, err = w.Write(text)
		}
		if err != nil {
			return err
		}
	}
	for len(files) > 0 {
		if err := files[0].commit(); err != nil {
			return err
		}
		files = files[1:]
	}
	return nil
}

// deleteBundle deletes the parts first: without the manifest nobody would know them.
func deleteBundle(s *session) error {
	deleted := []string{}
	remove := func(p *storedBundle) error {
		m, _, err := p.manifest(s.ctx)
		if err != nil {
			return err
		}
		var keys []string
		for _, part := range m.Parts {
			keys = append(keys, p.key(part.Name))
		}
		if p.name != "" {
			keys = append(keys, p.key(p.name))
		}
		for _, key := range keys {
			if err := p.client.DeleteObject(s.ctx, p.bucket, key); err != nil {
				return err
			}
			deleted = append(deleted, p.bucket+"/"+key)
		}
		return nil
	}
	places, err := s.storedBundles()
	if err != nil {
		return err
	}
	for _, p := range places {
		if err := remove(p); err != nil {
			return err
		}
	}
	if s.given("clear") {
		bucket, _ := bucketAndFolder(s.text("bucket"))
		if err := s.client.DeleteBucket(s.ctx, bucket); err != nil {
			return err
		}
	}
	return s.show(map[string][]string{"deleted": deleted}, nil)
}

// storedBundles are one, or all in the bucket or below the prefix.
func (s *session) storedBundles() ([]*storedBundle, error) {
	if !s.given("delete-all-bundles") {
		p, err := s.storedBundle()
		return []*storedBundle{p}, err
	}
	for _, other := range []string{"manifest", "prefix", "local-manifest"} {
		if err := s.together("delete-all-bundles", other); err != nil {
			return nil, err
		}
	}
	client, err := s.cloud()
	if err != nil {
		return nil, err
	}
	bucket, folder := bucketAndFolder(s.text("bucket"))
	var all []*storedBundle
	for o, err := range client.Objects(s.ctx, bucket, folder) {
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(o.Key, bundle.ManifestSuffix) {
			at := strings.LastIndex(o.Key, "/") + 1
			all = append(all, &storedBundle{client: client, bucket: bucket, folder: o.Key[:at], name: o.Key[at:]})
		}
	}
	return all, nil
}
