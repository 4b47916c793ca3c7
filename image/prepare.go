package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Prepared is an image ready to be bundled, or made a volume.
type Prepared struct {
	Files Artifacts // Disk; or Root, and where the file has them Kernel and Ramdisk
	More  []string  // an OVA's disks after the first, raw
	Found Finding   // with all that could be told
}

// Names of prepared files that aren't a built image's too.
const (
	preparedRoot    = "root.raw"
	preparedRamdisk = "initrd"
)

// Prepare makes the raw, sparse files of what Inspect found, in the folder dir. The file is looked at anew:
// what it says now counts. They have their names when all is done; after an error nothing is left of
// them, and after a crash a folder prepare-*. A *BadImageError says that the file is at fault.
func Prepare(ctx context.Context, found Finding, dir string, limits Limits, progress Progress) (Prepared, error) {
	if err := limits.check(); err != nil {
		return Prepared{}, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Prepared{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Prepared{}, fmt.Errorf("making a folder for the image: %w", err)
	}
	scratch, err := os.MkdirTemp(dir, "prepare-")
	if err != nil {
		return Prepared{}, fmt.Errorf("making a folder for the image: %w", err)
	}
	defer os.RemoveAll(scratch)
	f, w, err := openImage(found.Path)
	if err != nil {
		return Prepared{}, err
	}
	defer f.Close()
	p := preparation{dir: scratch, limits: limits, progress: progress, found: found}
	if err := p.image(ctx, f, w, 0); err != nil {
		return Prepared{}, fmt.Errorf("preparing %s: %w", filepath.Base(found.Path), err)
	}
	return p.finish(dir)
}

// A preparation works in a folder of its own.
type preparation struct {
	dir      string
	limits   Limits
	progress Progress
	found    Finding
	more     []string
}

func (p *preparation) path(name string) string { return filepath.Join(p.dir, name) }

// image makes the files of an image that is inside depth compressions.
func (p *preparation) image(ctx context.Context, f *os.File, w window, depth int) error {
	info, err := Probe(w.reader(f), w.size)
	if err != nil {
		return err
	}
	switch {
	case info.Size == 0:
		return refuse("the file is empty")
	case unpackers[info.Format] != nil && !info.Ramdisk && depth == 0:
		return p.compressed(ctx, f, w, info.Format)
	case info.Format == "tar":
		return p.archive(ctx, f, w)
	}
	if err := convertible(info.Format); err != nil {
		return err
	}
	if info.Format == "raw" && depth > 0 && w.whole {
		return os.Rename(w.file, p.path(diskName)) // it is ours, and sparse
	}
	return p.convert(ctx, f, w, info.Format, diskName)
}

// convert a disk image into a raw file.
func (p *preparation) convert(ctx context.Context, f *os.File, w window, format, name string) error {
	dst, err := os.OpenFile(p.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(convert(ctx, dst, f, w, format, p.limits, p.progress), dst.Close())
}

// compressed unpacks an archive's files one by one, anything else as a whole.
func (p *preparation) compressed(ctx context.Context, f *os.File, w window, format string) error {
	stream, err := w.unpack(ctx, f, format)
	if err != nil {
		return err
	}
	defer stream.Close()
	show := func(int64) { p.progress("unpacking the "+format+" file", stream.file.n.Load(), w.size) }
	if p.found.Archive == "tar" {
		return p.members(ctx, stream, show)
	}
	const name = "unpacked"
	if err := p.write(name, stream, p.limits.VirtualSize, show); err != nil {
		return err
	}
	inner, iw, err := openImage(p.path(name))
	if err != nil {
		return err
	}
	defer inner.Close()
	defer os.Remove(iw.file)
	return p.image(ctx, inner, iw, 1)
}

// write a stream into a new file.
func (p *preparation) write(name string, r io.Reader, limit int64, show func(int64)) error {
	dst, err := os.OpenFile(p.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = writeSparse(dst, r, limit, show)
	return errors.Join(err, dst.Close())
}

func (p *preparation) archive(ctx context.Context, f *os.File, w window) error {
	if p.found.Archive == "tar" {
		var done int64
		return p.members(ctx, io.NewSectionReader(f, w.off, w.size), func(written int64) {
			done = max(done, written)
			p.progress("unpacking the archive", done, w.size)
		})
	}
	all, err := list(ctx, io.NewSectionReader(f, w.off, w.size), p.limits)
	if err != nil {
		return err
	}
	if !isOVA(all) {
		return refuse("the archive has changed since it was inspected")
	}
	o, err := openOVA(w.reader(f), all)
	if err != nil {
		return err
	}
	if err := o.verify(ctx, w.reader(f), p.progress); err != nil {
		return err
	}
	p.found.Archive, p.found.Disks, p.found.Disk = "ova", len(o.disks), o.disks[0].name
	p.found.BootMode, p.found.Architecture = o.boot, o.arch
	return p.ovaDisks(ctx, f, w, o)
}

func (p *preparation) ovaDisks(ctx context.Context, f *os.File, w window, o *ova) error {
	for i, m := range o.disks {
		inner := w.member(m)
		info, err := Probe(inner.reader(f), inner.size)
		if err != nil {
			return err
		}
		if err := convertible(info.Format); err != nil {
			return err
		}
		name := diskName
		if i > 0 {
			name = fmt.Sprintf("disk-%d.raw", i+1)
			p.more = append(p.more, name)
		}
		if err := p.convert(ctx, f, inner, info.Format, name); err != nil {
			return fmt.Errorf("disk %q: %w", m.name, err)
		}
	}
	return nil
}

// members takes the files out of an archive that Inspect chose.
func (p *preparation) members(ctx context.Context, r io.Reader, show func(int64)) error {
	names := map[string]string{p.found.Kernel: kernelName, p.found.Ramdisk: preparedRamdisk, p.found.Root: preparedRoot, p.found.Disk: "member"}
	delete(names, "")
	err := walk(ctx, r, p.limits, func(h *tar.Header, r io.Reader) error {
		name, ok := names[path.Clean(h.Name)]
		if !ok {
			return nil
		}
		delete(names, path.Clean(h.Name))
		return p.write(name, r, h.Size, show)
	})
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return refuse("the archive has changed since it was inspected")
	}
	if p.found.Disk == "" {
		return nil
	}
	f, w, err := openImage(p.path("member"))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := Probe(f, w.size)
	if err != nil {
		return err
	}
	if info.Format == "raw" {
		return os.Rename(w.file, p.path(diskName))
	}
	defer os.Remove(w.file)
	return p.convert(ctx, f, w, info.Format, diskName)
}

// finish looks at what was made, and gives it its names.
func (p *preparation) finish(dir string) (Prepared, error) {
	done := Prepared{Found: p.found}
	if err := p.look(&done.Found); err != nil {
		return Prepared{}, err
	}
	disk := diskName
	if _, err := os.Lstat(p.path(diskName)); err == nil && done.Found.rootOnly() {
		if err := os.Rename(p.path(diskName), p.path(preparedRoot)); err != nil {
			return Prepared{}, err
		}
	}
	var err error
	give := func(name string) string {
		to := filepath.Join(dir, name)
		switch renamed := os.Rename(p.path(name), to); {
		case errors.Is(renamed, fs.ErrNotExist):
			return ""
		case renamed != nil:
			err = errors.Join(err, renamed)
		}
		return to
	}
	done.Files = Artifacts{Disk: give(disk), Root: give(preparedRoot), Kernel: give(kernelName), Ramdisk: give(preparedRamdisk)}
	for _, name := range p.more {
		done.More = append(done.More, give(name))
	}
	if err != nil {
		for _, name := range append(done.More, done.Files.Disk, done.Files.Root, done.Files.Kernel, done.Files.Ramdisk) {
			os.Remove(name)
		}
		return Prepared{}, fmt.Errorf("putting the image in place: %w", err)
	}
	return done, nil
}

// rootOnly tells a bare root file system from a disk.
func (found Finding) rootOnly() bool {
	return found.Contents.FileSystem != "" && found.Contents.Partitions == "" && !found.Contents.BootSector
}

// look at the raw files: now all can be told.
func (p *preparation) look(found *Finding) error {
	boot, arch := found.BootMode, found.Architecture
	for _, name := range []string{diskName, preparedRoot} {
		c, err := lookAt(p.path(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		found.Contents, found.VirtualSize = c, c.Size
		found.conclude()
	}
	if c, err := lookAt(p.path(kernelName)); err == nil {
		found.Architecture = c.Architecture
	}
	if found.BootMode == "" {
		found.BootMode = boot
	}
	if found.Architecture == "" {
		found.Architecture = arch
	}
	return nil
}

func lookAt(path string) (Contents, error) {
	f, err := os.Open(path)
	if err != nil {
		return Contents{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Contents{}, err
	}
	return LookInside(f, info.Size())
}
