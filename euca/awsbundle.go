package euca

import (
	"cmp"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"mallee/bundle"
)

// importBundle brings an S3-backed image: its bundle is unpacked with the key of
// who made it, for Amazon's is known to nobody else, and installed as a file.
func importBundle(cmd *cobra.Command, from *place, about *element, w *wanted, keyFile string) error {
	folder, err := FolderOf(cmd)
	if err != nil {
		return err
	}
	keyFile = cmp.Or(keyFile, os.Getenv("EC2_PRIVATE_KEY"))
	if keyFile == "" {
		return fmt.Errorf("%s is S3-backed, and its bundle is encrypted: name the private key of whoever bundled it by --privatekey", about.get("imageId"))
	}
	key, err := readPrivateKey(keyFile)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder.Path("migrations"), 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(folder.Path("migrations"), "bundle-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "image.raw")
	show := newProgress(cmd.ErrOrStderr())
	if err := from.unbundle(cmd.Context(), about.get("imageLocation"), key, file, show); err != nil {
		return fmt.Errorf("bring the bundle %s: %w", about.get("imageLocation"), err)
	}
	show.end()
	w.source, w.name = file, cmp.Or(w.name, about.get("name"))
	w.description, w.arch = about.get("description"), about.get("architecture")
	return w.install(cmd)
}

// unbundle what lies there at a location, bucket/key of its manifest.
func (p *place) unbundle(ctx context.Context, location string, key *rsa.PrivateKey, file string, show *progress) (err error) {
	bucket, at, _ := strings.Cut(strings.TrimPrefix(location, "/"), "/")
	open := func(ctx context.Context, key string) (io.ReadCloser, error) {
		body, _, err := p.ec2.GetObject(ctx, bucket, key)
		return body, err
	}
	body, err := open(ctx, at)
	if err != nil {
		return err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, bundle.MaxManifestSize+1))
	if err != nil {
		return err
	}
	m, err := bundle.ParseManifest(text)
	if err != nil {
		return err
	}
	secret, iv, err := m.UserKeys(key)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	part := func(ctx context.Context, part bundle.Part) (io.ReadCloser, error) {
		return open(ctx, path.Join(path.Dir(at), part.Name))
	}
	return bundle.Unpack(ctx, m, secret, iv, part, out, func(done, total int64) { show.show("download and unpack", done, total) })
}
