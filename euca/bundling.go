package euca

import (
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"mallee/bundle"
)

// bundling is an image on its way into a bundle.
type bundling struct {
	bundle.Options
	src  io.ReadCloser
	size int64 // bytes
}

// bundled is what a command tells of a bundle that it made.
type bundled struct {
	Manifest    string   `json:"manifest"`
	Parts       []string `json:"parts"`
	Size        int64    `json:"size"`
	BundledSize int64    `json:"bundled_size"`
	Digest      string   `json:"digest"` // SHA-1 of the tar
}

// tell of a manifest's bundle; at makes a path or key of a name.
func tell(m *bundle.Manifest, manifest string, at func(string) string) bundled {
	b := bundled{Manifest: manifest, Size: m.Size, BundledSize: m.BundledSize, Digest: hex.EncodeToString(m.Digest[:])}
	for _, part := range m.Parts {
		b.Parts = append(b.Parts, at(part.Name))
	}
	return b
}

func bundleImage(s *session) error {
	job, err := s.bundling()
	if err != nil {
		return err
	}
	defer job.src.Close()
	return s.bundleInto(job)
}

// bundleInto -d's folder, or a new one.
func (s *session) bundleInto(job *bundling) error {
	m, path, err := s.writeBundle(job, s.text("destination"))
	if err != nil {
		return err
	}
	beside := func(name string) string { return filepath.Join(filepath.Dir(path), name) }
	return s.show(tell(m, path, beside), func() { s.line("Wrote manifest " + path) })
}

// writeBundle into a folder; "" is a new one. What it made is removed where it fails.
func (s *session) writeBundle(job *bundling, dir string) (m *bundle.Manifest, path string, err error) {
	made := false
	switch _, statErr := os.Stat(dir); {
	case dir == "":
		dir, err = os.MkdirTemp(temporaryFolder(), "bundle-")
		made = true
	case errors.Is(statErr, fs.ErrNotExist):
		made = true
	}
	if err != nil {
		return nil, "", fmt.Errorf("make a folder for the bundle: %w", err)
	}
	m, path, err = bundle.WriteDir(s.ctx, dir, job.src, job.size, job.watched(s.progress(), "bundling"))
	if err != nil && made {
		err = errors.Join(err, ignoreAbsent(os.Remove(dir)))
	}
	return m, path, err
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// temporaryFolder has room for images.
func temporaryFolder() string {
	return cmp.Or(os.Getenv("TMPDIR"), os.Getenv("TEMP"), os.Getenv("TMP"), "/var/tmp")
}

// watched are the options with progress shown.
func (b *bundling) watched(show *progress, doing string) bundle.Options {
	o := b.Options
	o.Progress = func(done, total int64) {
		show.show(doing+" "+o.Prefix, done, total)
		if done == total {
			show.end()
		}
	}
	return o
}

// bundling reads the options, and opens the image.
func (s *session) bundling() (*bundling, error) {
	job := &bundling{}
	if err := s.describe(job); err != nil {
		return nil, err
	}
	if err := s.openImage(job); err != nil {
		return nil, err
	}
	if job.size > ec2Limit {
		s.note("the image has %d bytes; Amazon's EC2 takes at most %d", job.size, int64(ec2Limit))
	}
	return job, nil
}

// ec2Limit is the largest image in bytes that EC2 takes as a bundle.
const ec2Limit = 10 << 30

// note something on standard error that is no failure.
func (s *session) note(format string, args ...any) {
	fmt.Fprintf(s.said, "note: "+format+"\n", args...)
}

// describe the bundle by all options but the image's own.
func (s *session) describe(job *bundling) (err error) {
	o := &job.Options
	o.Account = strings.ReplaceAll(cmp.Or(s.text("user"), s.access.Account), "-", "")
	if o.Account == "" {
		return errors.New("the account's number is not known: give it by -u/--user, or source a cloud's eucarc")
	}
	o.Architecture, o.KernelID, o.RamdiskID = s.text("arch"), s.text("kernel"), s.text("ramdisk")
	o.ProductCodes = listed(s.text("productcodes"))
	if o.Kind, err = s.imageKind(); err != nil {
		return err
	}
	if o.BlockDeviceMappings, err = manifestMappings(s.text("block-device-mappings")); err != nil {
		return err
	}
	if o.PartSize, err = s.bytes("part-size"); err != nil {
		return err
	}
	if o.EncKey, err = s.secret("enc-key"); err != nil {
		return err
	}
	if o.EncIV, err = s.secret("enc-iv"); err != nil {
		return err
	}
	return s.signers(o)
}

// imageKind by --image-type, or by "true" for a kernel or ramdisk.
func (s *session) imageKind() (bundle.Kind, error) {
	kind := bundle.Kind(cmp.Or(s.text("image-type"), string(bundle.Machine)))
	for _, is := range []bundle.Kind{bundle.Kernel, bundle.Ramdisk} {
		option := string(is)
		if s.text(option) != "true" {
			continue
		}
		if kind != is && kind != bundle.Machine || s.text("kernel") == s.text("ramdisk") {
			return "", fmt.Errorf("argument --%s: true makes the image a %s, and another argument makes it something else", option, is)
		}
		return is, nil
	}
	return kind, nil
}

// manifestMappings reads VIRTUAL=DEVICE,….
func manifestMappings(text string) (all []bundle.Mapping, err error) {
	for _, pair := range listed(text) {
		virtual, device, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || virtual == "" || device == "" {
			return nil, fmt.Errorf("argument -B/--block-device-mappings: %q is not VIRTUAL=DEVICE", pair)
		}
		all = append(all, bundle.Mapping{Virtual: virtual, Device: device})
	}
	return all, nil
}

// bytes of an option such as 10m; 0 where it wasn't given.
func (s *session) bytes(name string) (int64, error) {
	text := strings.ToLower(s.text(name))
	if text == "" {
		return 0, nil
	}
	digits := strings.TrimRight(text, "kmgtib")
	unit := strings.TrimSuffix(strings.TrimSuffix(text[len(digits):], "b"), "i")
	shift, known := map[string]uint{"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[unit]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || n < 1 || n > 1<<50>>shift {
		return 0, fmt.Errorf("argument --%s: %q is not a size such as 10485760 or 10m", name, s.text(name))
	}
	return n << shift, nil
}

// secret is an option of at most 32 hexadecimal digits, which leading zeros may
// be left out of; nil where it wasn't given.
func (s *session) secret(name string) ([]byte, error) {
	text := strings.TrimPrefix(strings.ToLower(s.text(name)), "0x")
	if !s.given(name) {
		return nil, nil
	}
	padded := strings.Repeat("0", max(0, 32-len(text))) + text
	raw, err := hex.DecodeString(padded)
	if err != nil || len(raw) != 16 {
		return nil, fmt.Errorf("argument --%s: not 32 hexadecimal digits", name) // and not shown: it is a secret
	}
	return raw, nil
}

// signers are read from the files that options or the configuration name.
func (s *session) signers(o *bundle.Options) (err error) {
	cloud := cmp.Or(s.text("ec2cert"), s.access.CloudCert)
	if cloud == "" {
		return errors.New("the cloud's certificate is not known: give it by --ec2cert, or source a cloud's eucarc")
	}
	if o.CloudCert, err = readCertificate(cloud); err != nil {
		return fmt.Errorf("the cloud's certificate: %w", err)
	}
	if o.UserCert, err = optional(readCertificate, cmp.Or(s.text("cert"), s.access.Certificate)); err != nil {
		return fmt.Errorf("your certificate: %w", err)
	}
	if o.UserKey, err = optional(readPrivateKey, cmp.Or(s.text("privatekey"), s.access.PrivateKey)); err != nil {
		return fmt.Errorf("your key: %w", err)
	}
	return nil
}

// optional is what a file holds, or nil where none is named.
func optional[T x509.Certificate | rsa.PrivateKey](read func(string) (*T, error), path string) (*T, error) {
	if path == "" {
		return nil, nil
	}
	return read(path)
}

// openImage that -i names.
func (s *session) openImage(job *bundling) (err error) {
	name := s.text("image")
	if job.size, err = s.bytes("image-size"); err != nil {
		return err
	}
	job.Prefix = s.text("prefix")
	if name == "-" {
		if job.Prefix == "" || job.size == 0 {
			return errors.New("arguments -p/--prefix and --image-size are required to bundle standard input")
		}
		job.src = io.NopCloser(s.in)
		return nil
	}
	job.Prefix = cmp.Or(job.Prefix, filepath.Base(name))
	f, size, err := openDisk(name)
	if err != nil {
		return fmt.Errorf("argument -i/--image: %w", err)
	}
	if job.size == 0 {
		job.size = size
	}
	job.src = f
	return nil
}

// openDisk opens a file or block device, and tells its size in bytes.
func openDisk(name string) (*os.File, int64, error) {
	info, err := os.Stat(name) // before it is opened, which may hang on a FIFO
	if err != nil {
		return nil, 0, err
	}
	device := info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0
	if !info.Mode().IsRegular() && !device {
		return nil, 0, fmt.Errorf("%s is neither a file nor a block device", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}
