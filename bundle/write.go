package bundle

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
)

// maxPrefix leaves room for .part.NNNNN in a file name of 255 bytes.
const maxPrefix = 240

// partLimit is how many parts a manifest of MaxManifestSize can list, with room for all else: some 30,000 under a usual prefix.
func partLimit(prefix string) int {
	const rest, markup = 64 << 10, 140
	return (MaxManifestSize - rest) / (markup + len(prefix))
}

// The program that Write says made the bundle.
var bundler = Bundler{Name: "mallee", Version: "1.0", Release: "0"}

// Options say how an image is bundled. Prefix, Account, Kind, Architecture and CloudCert must be given.
type Options struct {
	Prefix              string // name of the image: parts are Prefix.part.NN
	Account             string // 12 digits; registration is refused to any other account
	Kind                Kind
	Architecture        string // i386, x86_64, …
	KernelID, RamdiskID string // of a machine image; a kernel's or ramdisk's own is written "true" by itself
	BlockDeviceMappings []Mapping
	ProductCodes        []string
	PartSize            int64 // bytes; 0 means DefaultPartSize

	EncKey, EncIV []byte    // 16 bytes each; nil means random. Given, the parts come out the same every time
	Rand          io.Reader // source of key and IV; nil means crypto/rand

	CloudCert *x509.Certificate // who may decrypt: the cloud,
	UserCert  *x509.Certificate // and the user who bundles; nil leaves him out
	UserKey   *rsa.PrivateKey   // signs the manifest; nil writes UNSIGNED

	Progress func(done, total int64) // told how many of the image's bytes were read; may be nil
}

// Sink opens the next part for writing. Parts come one at a time and in order: each is closed before the next is opened.
type Sink func(ctx context.Context, name string) (PartWriter, error)

// PartWriter takes one part. Close says that the part is whole, and reports whether it is stored; CloseWithError, that
// bundling failed and the part is to be dropped. An *io.PipeWriter is one.
type PartWriter interface {
	io.WriteCloser
	CloseWithError(err error) error
}

// Write bundles the size bytes that src holds: it passes parts to sink as they come, and returns the manifest with its XML, to
// be stored last, as Prefix + ManifestSuffix. It uses up to ten cores and 4 MiB
// of memory for each, whatever the image's size.
//
// After an error the parts that were written are the caller's to remove. Write looks at ctx between reads: a src that
// may block for long should itself end with the context.
func Write(ctx context.Context, src io.Reader, size int64, options Options, sink Sink) (*Manifest, []byte, error) {
	m, xml, err := write(ctx, src, size, options, sink)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle image %s: %w", options.Prefix, err)
	}
	return m, xml, nil
}

func write(ctx context.Context, src io.Reader, size int64, o Options, sink Sink) (*Manifest, []byte, error) {
	if err := o.complete(size); err != nil {
		return nil, nil, err
	}
	m := o.manifest(size)
	if err := o.wrapKeys(m); err != nil {
		return nil, nil, err
	}
	archive, err := tarStream(src, size, &o)
	if err != nil {
		return nil, nil, err
	}
	split, err := newSplitter(ctx, &o, sink)
	if err != nil {
		return nil, nil, err
	}
	workers := min(runtime.GOMAXPROCS(0), maxWorkers)
	sum := sha1.New()
	err = newDeflater(archive, sum, workers).run(ctx, workers, split.write)
	if err == nil {
		err = split.finish()
	}
	if err != nil {
		split.abort(err)
		return nil, nil, err
	}
	m.Digest, m.Parts, m.BundledSize = [sha1.Size]byte(sum.Sum(nil)), split.parts, split.total
	return m.seal(o.UserKey)
}

// seal signs the manifest and reads it back, so that no bundle leaves here that wouldn't be read.
func (m *Manifest) seal(key *rsa.PrivateKey) (*Manifest, []byte, error) {
	xml, err := m.marshal(signer(key))
	if err != nil {
		return nil, nil, fmt.Errorf("sign manifest: %w", err)
	}
	read, err := ParseManifest(xml)
	return read, xml, err
}

// tarStream is the image as the one member of a tar.
func tarStream(src io.Reader, size int64, o *Options) (io.Reader, error) {
	header, err := tarHeader(o.Prefix, size)
	if err != nil {
		return nil, fmt.Errorf("tar header: %w", err)
	}
	trailer := tarTrailer(int64(len(header)), size)
	image := &exactReader{src: src, size: size, progress: o.Progress}
	return io.MultiReader(bytes.NewReader(header), image, io.LimitReader(zeroReader{}, trailer)), nil
}

// exactReader reads size bytes, and fails where the source holds fewer or more.
type exactReader struct {
	src        io.Reader
	done, size int64
	progress   func(done, total int64)
}

func (r *exactReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.done == r.size {
		return 0, r.end()
	}
	n, err := r.src.Read(p[:min(int64(len(p)), r.size-r.done)])
	r.done += int64(n)
	if n > 0 && r.progress != nil {
		r.progress(r.done, r.size)
	}
	if errors.Is(err, io.EOF) && r.done < r.size {
		return n, fmt.Errorf("the image ends after %d bytes, not %d", r.done, r.size)
	}
	if errors.Is(err, io.EOF) {
		err = nil // end says so
	}
	return n, err
}

func (r *exactReader) end() error {
	n, err := fill(r.src, make([]byte, 1))
	if n > 0 {
		return fmt.Errorf("the image goes on after %d bytes", r.size)
	}
	return err
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// complete checks the options and fills in what may be left out.
func (o *Options) complete(size int64) error {
	o.PartSize = cmp.Or(o.PartSize, DefaultPartSize)
	switch {
	case size < 1 || size > maxImageSize:
		return fmt.Errorf("image size %d is not from 1 to %d", size, int64(maxImageSize))
	case o.PartSize < 1:
		return fmt.Errorf("part size %d is not positive", o.PartSize)
	case len(o.Prefix) > maxPrefix:
		return fmt.Errorf("prefix of %d bytes is longer than %d", len(o.Prefix), maxPrefix)
	case o.Architecture == "":
		return errors.New("no architecture")
	case o.CloudCert == nil:
		return errNoCloudCert
	}
	if err := errors.Join(checkName(o.Prefix), checkAccount(o.Account), checkKind(string(o.Kind)), o.checkKind(), o.checkTokens()); err != nil {
		return err
	}
	return errors.Join(o.secret("key", &o.EncKey), o.secret("IV", &o.EncIV))
}

// checkKind refuses options that only a machine image can have.
func (o *Options) checkKind() error {
	own, other := o.KernelID, o.RamdiskID
	switch o.Kind {
	case Ramdisk:
		own, other = other, own
	case Machine:
		if isTrue(own) || isTrue(other) {
			return errors.New(`kernel or ramdisk id "true" makes the image a kernel or ramdisk, not a machine`)
		}
		return nil
	}
	if other != "" || own != "" && !isTrue(own) {
		return fmt.Errorf("a %s image has no kernel and no ramdisk", o.Kind)
	}
	if len(o.BlockDeviceMappings)+len(o.ProductCodes) > 0 {
		return fmt.Errorf("a %s image has no block device mappings and no product codes", o.Kind)
	}
	return nil
}

func (o *Options) checkTokens() error {
	errs := []error{
		checkToken("architecture", o.Architecture),
		checkToken("kernel id", o.KernelID),
		checkToken("ramdisk id", o.RamdiskID),
	}
	for _, mapping := range o.BlockDeviceMappings {
		errs = append(errs, checkToken("virtual device", mapping.Virtual), checkToken("device", mapping.Device))
	}
	for _, code := range o.ProductCodes {
		errs = append(errs, checkToken("product code", code))
	}
	return errors.Join(errs...)
}

// secret checks a key that was given, or makes one.
func (o *Options) secret(what string, secret *[]byte) error {
	if *secret != nil {
		return checkSecret(what, *secret)
	}
	random := o.Rand
	if random == nil {
		random = rand.Reader
	}
	*secret = make([]byte, keySize)
	if _, err := io.ReadFull(random, *secret); err != nil {
		return fmt.Errorf("make %s: %w", what, err)
	}
	return nil
}

func (o *Options) manifest(size int64) *Manifest {
	m := &Manifest{
		Bundler: bundler, Architecture: o.Architecture, KernelID: o.KernelID, RamdiskID: o.RamdiskID,
		BlockDeviceMappings: slices.Clone(o.BlockDeviceMappings), ProductCodes: slices.Clone(o.ProductCodes),
		Name: o.Prefix, Account: o.Account, Type: o.Kind, Size: size,
	}
	slices.SortStableFunc(m.BlockDeviceMappings, func(a, b Mapping) int { return strings.Compare(a.Virtual, b.Virtual) })
	switch o.Kind {
	case Kernel:
		m.KernelID = "true"
	case Ramdisk:
		m.RamdiskID = "true"
	}
	return m
}

func (o *Options) wrapKeys(m *Manifest) (err error) {
	if m.ForCloud, err = o.wrapFor(o.CloudCert); err != nil {
		return fmt.Errorf("encrypt key for the cloud: %w", err)
	}
	if o.UserCert == nil {
		return nil
	}
	if m.ForUser, err = o.wrapFor(o.UserCert); err != nil {
		return fmt.Errorf("encrypt key for the user: %w", err)
	}
	return nil
}

// wrapFor takes the padding's randomness from the system, never from Rand: Go no longer lets it be chosen.
func (o *Options) wrapFor(cert *x509.Certificate) (Wrapped, error) {
	to, err := RSAKey(cert)
	if err != nil {
		return Wrapped{}, err
	}
	return wrap(rand.Reader, to, o.EncKey, o.EncIV)
}
