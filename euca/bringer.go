package euca

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"mallee/cloud"
	"mallee/image"
)

// downloadLimit bounds a downloaded image, in bytes.
const downloadLimit = 64 << 30

// versionDigits of a digest name an image's bytes.
const versionDigits = 12

// bringer brings an image's files onto this machine: built, downloaded or found, and made raw.
type bringer struct {
	*wanted
	dir    string       // the cloud's folder of built and downloaded images
	client *http.Client // for publishers' checksums
	fetch  image.FetchOptions
	show   *progress
}

// bring the image. What was only made on the way is removed by done.
func (b *bringer) bring(ctx context.Context, l image.Listed) (p parcel, done func(), err error) {
	switch {
	case l.Recipe != "":
		p, err = b.build(ctx, l)
		return p, func() {}, err
	case l.Download != nil:
		digest, err := l.Download.Expected(ctx, b.client)
		if err != nil {
			return p, nil, fmt.Errorf("install %s: %w", l.Name, err)
		}
		file, err := b.download(ctx, l.Download.URL, digest, l.Name)
		if err != nil {
			return p, nil, fmt.Errorf("install %s: %w", l.Name, err)
		}
		return b.open(ctx, file, l.Name, l)
	case isURL(b.source):
		return b.web(ctx)
	}
	return b.open(ctx, b.source, nameOf(b.source), l)
}

// build an image of the catalogue.
func (b *bringer) build(ctx context.Context, l image.Listed) (p parcel, err error) {
	recipe, err := image.FindRecipe(l.Recipe)
	if err != nil {
		return p, fmt.Errorf("install %s of catalogue %s: %w", l.Name, l.Catalog, err)
	}
	built, err := image.Build(ctx, recipe, b.dir, b.show.show)
	if err != nil {
		return p, fmt.Errorf("build %s: %w", l.Name, err)
	}
	p = parcel{name: l.Name, version: built.Version[:min(len(built.Version), versionDigits)], description: l.Description,
		arch: l.Architecture, virtualization: l.Virtualization, boot: l.Boot, files: built, upload: built.Disk, format: "RAW"}
	return p, b.override(&p, nil)
}

// web fetches what is at an address that the user named.
func (b *bringer) web(ctx context.Context) (p parcel, done func(), err error) {
	u, err := url.Parse(b.source)
	if err != nil {
		return p, nil, err
	}
	if u.Scheme != "https" && b.digest == "" {
		return p, nil, fmt.Errorf("%s: anybody on the way can change what comes by http; say what it has to be by --digest, or use https", b.source)
	}
	name := nameOf(u.Path)
	file, err := b.download(ctx, b.source, b.digest, name)
	if err != nil {
		return p, nil, err
	}
	return b.open(ctx, file, name, image.Listed{})
}

// download a file, or find it downloaded. It stays in the cache, by its address and digest.
func (b *bringer) download(ctx context.Context, address, digest, name string) (string, error) {
	id := sha256.Sum256([]byte(address + " " + digest))
	dir := filepath.Join(b.dir, "downloads", hex.EncodeToString(id[:8]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making a folder for the download: %w", err)
	}
	file := filepath.Join(dir, name)
	if _, err := os.Stat(file); err == nil && digest != "" {
		return file, nil // it has its name since it had the digest
	}
	opts := b.fetch
	opts.Limit, opts.Digest, opts.Progress, opts.Proxy = downloadLimit, digest, b.show.show, true
	opts.Reach = image.Anywhere // who runs this command may reach what it reaches
	if _, err := image.Fetch(ctx, address, file, opts); err != nil {
		return "", err
	}
	return file, nil
}

// open a file: find out what it is, and make it raw.
func (b *bringer) open(ctx context.Context, file, name string, l image.Listed) (p parcel, done func(), err error) {
	b.show.show("inspecting "+filepath.Base(file), 0, 0)
	found, err := image.Inspect(ctx, file, image.DefaultLimits)
	if err != nil {
		return p, nil, err
	}
	if l.Download != nil && found.Format != l.Download.Format {
		return p, nil, fmt.Errorf("install %s: %s is %s, and its catalogue says %s", name, file, found.Format, l.Download.Format)
	}
	digest, err := b.sum(ctx, file)
	if err != nil {
		return p, nil, err
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return p, nil, err
	}
	dir, err := os.MkdirTemp(b.dir, ".prepare-")
	if err != nil {
		return p, nil, fmt.Errorf("making a folder for the image: %w", err)
	}
	remove := func() { os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			remove()
		}
	}()
	ready, err := image.Prepare(ctx, found, dir, image.DefaultLimits, b.show.show)
	if err != nil {
		return p, nil, err
	}
	p = parcel{name: name, version: digest[:versionDigits], description: cmp.Or(l.Description, found.String()),
		arch: cmp.Or(l.Architecture, ready.Found.Architecture), virtualization: cmp.Or(ready.Found.Virtualization, l.Virtualization),
		boot: ready.Found.BootMode, files: ready.Files, upload: ready.Files.Disk, format: "RAW"}
	if err := b.override(&p, &ready.Found); err != nil {
		return p, nil, err
	}
	if f := importFormats[found.Format]; f != "" && found.Compression == "" && found.Archive == "" {
		p.upload, p.format = file, f // it is smaller, and the cloud reads it
	}
	return p, remove, nil
}

// importFormats are the disk formats that ImportSnapshot reads, by its names.
var importFormats = map[string]string{"qcow2": "QCOW2", "vmdk": "VMDK", "vhd": "VHD", "vhdx": "VHDX"}

// override what was found by what the command line says, and refuse what can't boot.
func (b *bringer) override(p *parcel, found *image.Finding) error {
	p.registered, p.public, p.ebs = b.name, b.public, b.ebs
	p.description = cmp.Or(b.description, p.description)
	p.arch = cmp.Or(b.arch, p.arch, "x86_64")
	p.virtualization = cmp.Or(cloud.Virtualization(b.virtualization), p.virtualization, cloud.HVM)
	p.kernel, p.ramdisk = b.kernel, b.ramdisk
	paravirtual := p.virtualization == cloud.Paravirtual
	if found != nil {
		if found.Contents.Format != "" {
			if err := found.Contents.NotAMachine(paravirtual); err != nil {
				return err
			}
		}
		if found.Virtualization == "" && b.virtualization == "" {
			return fmt.Errorf("%s is %s, which boots in no known way; where it is an image all the same, say which by --virtualization-type", found.Path, found)
		}
	}
	switch {
	case paravirtual && p.files.Root == "" && p.files.Disk != "":
		p.files.Root = p.files.Disk
	case !paravirtual && p.files.Disk == "":
		p.files.Disk = p.files.Root
	}
	switch {
	case paravirtual && p.files.Kernel == "" && p.kernel == "":
		return fmt.Errorf("%s is a root file system without a kernel: name a kernel image by --kernel eki-… (`mallee image install tiny-pv` brings one)", p.name)
	case !paravirtual && p.kernel != "":
		return errors.New("--kernel: the image is a disk, which boots by what is on it; --virtualization-type paravirtual says otherwise")
	case paravirtual && p.ebs:
		return errors.New("--ebs: a volume made of a root file system alone has no partition that Mallee's kernels look for; install it without")
	case p.ebs && p.registered == "":
		p.registered = p.name + "-" + p.version + "-ebs"
	}
	return nil
}

// sum is a file's SHA-256.
func (b *bringer) sum(ctx context.Context, file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for done := int64(0); ; {
		n, err := f.Read(buf)
		h.Write(buf[:n])
		done += int64(n)
		b.show.show("reading "+filepath.Base(file), done, info.Size())
		switch {
		case errors.Is(err, io.EOF):
			return hex.EncodeToString(h.Sum(nil)), nil
		case err != nil:
			return "", fmt.Errorf("reading %s: %w", file, err)
		case ctx.Err() != nil:
			return "", ctx.Err()
		}
	}
}

// nameOf makes a name of a path: what EC2 and S3 both take, without the endings of formats.
func nameOf(file string) string {
	name := path.Base(filepath.ToSlash(file))
	for {
		ext := path.Ext(name)
		if ext == "" || ext == name || !knownEnding[strings.ToLower(ext)] {
			break
		}
		name = strings.TrimSuffix(name, ext)
	}
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._-", r):
			return r
		}
		return '-'
	}, name)
	name = strings.Trim(name, ".-")
	return cmp.Or(name[:min(len(name), 60)], "image")
}

var knownEnding = map[string]bool{".img": true, ".raw": true, ".qcow2": true, ".vmdk": true, ".vhd": true, ".vhdx": true, ".ova": true,
	".tar": true, ".tgz": true, ".gz": true, ".xz": true, ".bz2": true, ".zst": true, ".disk": true}
