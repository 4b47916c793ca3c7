package euca

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"mallee/bundle"
)

// unbundled is what a command tells of an image that it took out of a bundle.
type unbundled struct {
	Image string `json:"image"`
	Size  int64  `json:"size"` // bytes
}

// target of an image: a file, or standard output.
type target struct {
	io.Writer
	file *newFile // nil for standard output
}

// target that a destination names; name is the image's in a folder.
func (s *session) target(destination, name string) (*target, error) {
	if destination == "-" {
		return &target{Writer: s.out}, nil
	}
	destination = cmp.Or(destination, ".")
	if info, err := os.Stat(destination); err == nil && info.IsDir() {
		destination = filepath.Join(destination, name)
	}
	f, err := createFile(destination)
	if err != nil {
		return nil, err
	}
	return &target{f, f}, nil
}

// end of the writing, which succeeded where err is nil.
func (s *session) end(t *target, size int64, err error) error {
	if err != nil || t.file == nil {
		t.file.discard()
		return err
	}
	if err := t.file.commit(); err != nil {
		return err
	}
	return s.show(unbundled{t.file.final, size}, func() { s.line("Wrote " + t.file.final) })
}

// keys of a bundle, by the private key of its maker or of the cloud.
func (s *session) keys(m *bundle.Manifest) (key, iv []byte, err error) {
	path := cmp.Or(s.text("privatekey"), s.access.PrivateKey)
	if path == "" {
		return nil, nil, errors.New("no private key is known: give it by -k/--privatekey, or source a cloud's eucarc")
	}
	private, err := readPrivateKey(path)
	if err != nil {
		return nil, nil, err
	}
	if key, iv, err = m.UserKeys(private); err == nil {
		return key, iv, nil
	}
	if key, iv, err = m.Keys(private); err != nil {
		return nil, nil, fmt.Errorf("private key %s: %w", path, err)
	}
	return key, iv, nil
}

// unpack a bundle's parts into the image.
func (s *session) unpack(m *bundle.Manifest, open bundle.Opener, destination string) error {
	key, iv, err := s.keys(m)
	if err != nil {
		return err
	}
	t, err := s.target(destination, m.Name)
	if err != nil {
		return err
	}
	show := s.progress()
	err = bundle.Unpack(s.ctx, m, key, iv, open, t, func(done, total int64) { show.show("unbundling "+m.Name, done, total) })
	show.end()
	return s.end(t, m.Size, err)
}

func unbundle(s *session) error {
	path := s.text("manifest")
	m, _, err := bundle.ReadManifestFile(path)
	if err != nil {
		return err
	}
	dir := cmp.Or(s.text("source"), ".")
	if _, err := os.Lstat(filepath.Join(dir, m.Parts[0].Name)); err != nil && !s.given("source") {
		dir = filepath.Dir(path)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the bundle's folder: %w", err)
	}
	defer root.Close()
	return s.unpack(m, func(_ context.Context, part bundle.Part) (io.ReadCloser, error) { return bundle.OpenPart(root, part) }, s.text("destination"))
}

func downloadAndUnbundle(s *session) error {
	p, err := s.storedBundle()
	if err != nil {
		return err
	}
	m, _, err := p.manifest(s.ctx)
	if err != nil {
		return err
	}
	return s.unpack(m, p.open, s.text("destination"))
}

func unbundleStream(s *session) (err error) {
	j := bundle.Joined{Parts: s.in}
	if j.Key, err = s.secret("enc-key"); err != nil {
		return err
	}
	if j.IV, err = s.secret("enc-iv"); err != nil {
		return err
	}
	if j.Size, err = s.bytes("image-size"); err != nil {
		return err
	}
	if j.Digest, err = digestOption(s.text("sha1-digest")); err != nil {
		return err
	}
	if name := s.text("i"); name != "" && name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("argument -i: %w", err)
		}
		defer f.Close()
		j.Parts = f
	}
	t, err := s.target(cmp.Or(s.text("o"), "-"), "image")
	if err != nil {
		return err
	}
	show := s.progress()
	j.Progress = func(done, total int64) { show.show("unbundling", done, total) }
	j.Parts = bufio.NewReaderSize(j.Parts, 1<<16)
	size, err := j.Unpack(s.ctx, t)
	show.end()
	return s.end(t, size, err)
}

func digestOption(text string) (*[sha1.Size]byte, error) {
	if text == "" {
		return nil, nil
	}
	raw, err := hex.DecodeString(strings.TrimPrefix(strings.ToLower(text), "0x"))
	if err != nil || len(raw) != sha1.Size {
		return nil, fmt.Errorf("argument --sha1-digest: %q is not %d hexadecimal digits", text, 2*sha1.Size)
	}
	return (*[sha1.Size]byte)(raw), nil
}
