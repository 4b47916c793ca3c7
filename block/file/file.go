// Package file keeps disks as qcow2 files in one folder, a file a disk:
// DIR/NAME.qcow2. A disk with a base is an overlay on it: what the guest
// writes goes to the file, everything else is read from the base, so that a
// fresh disk takes some kilobytes whatever its size.
//
// The hypervisor opens the files itself; nothing of ours stands between a
// guest and its data. The image is written here and not by qemu-img, which
// takes longer to start than all of our work; only the growing of images that
// remember what was written (dirty bitmaps) is left to it.
//
// A base may be at an NBD server. Its address is in the header until the
// hypervisor has copied all of it and takes it out.
//
// A file gets its name when it is whole and on the disk (written under another
// name, synced, renamed, folder synced). What a crash leaves under the other
// name goes when the store is opened next; a folder has one store at a time.
//
// What can go wrong: the file system is full (block.NoSpaceError, and nothing
// is left), a base is missing or larger than the disk, a file is there that is
// not the disk that is wished for. Later a guest may fill the file system by
// writing; the hypervisor then holds it.
package file

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"mallee/block"
	"mallee/durable"
)

const (
	suffix     = ".qcow2"
	tempPrefix = ".new-" // no disk's name begins like this
)

var validName = regexp.MustCompile(`^[a-z0-9-]{1,200}$`)

// Disks is a block.Disks of qcow2 files.
type Disks struct {
	dir string
}

var _ block.Disks = (*Disks)(nil)

// Open makes dir (with mode 0700) if it isn't there, and clears it of what a
// crash left half-made.
func Open(dir string) (*Disks, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the disks: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the disks: %w", err)
	}
	if err := sweep(dir); err != nil {
		return nil, fmt.Errorf("opening the disks: %w", err)
	}
	return &Disks{dir: dir}, nil
}

// sweep removes what a crash left half-made.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Ensure makes the disk d. See block.Disks.
func (s *Disks) Ensure(ctx context.Context, d block.Disk) (block.Attachment, error) {
	if err := ctx.Err(); err != nil {
		return block.Attachment{}, fmt.Errorf("making the disk %s: %w", d.Name, err)
	}
	if err := check(d); err != nil {
		return block.Attachment{}, err
	}
	path := s.path(d.Name)
	at := block.Attachment{Format: "qcow2", Path: path, Source: d.Source, Key: d.Key}
	have, err := inspect(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = s.create(d)
	case err == nil:
		at.Source = sourceNow(have, d)
		err = meet(ctx, path, have, d)
	}
	if err == nil {
		err = s.sync() // also for a disk that is there: its maker may have failed here
	}
	if err != nil {
		return block.Attachment{}, fmt.Errorf("making the disk %s: %w", d.Name, noSpace(err))
	}
	return at, nil
}

// check refuses a wish that no disk can fulfil.
func check(d block.Disk) error {
	switch {
	case !validName.MatchString(d.Name):
		return fmt.Errorf("disk name %q: want 1 to 200 of a-z, 0-9 and -", d.Name)
	case d.Size <= 0 || d.Size%512 != 0 || d.Size > maxSize:
		return fmt.Errorf("disk %s of %d bytes: want a multiple of 512, from 512 to %d", d.Name, d.Size, int64(maxSize))
	case len(d.Key) != 0 && len(d.Key) != block.KeySize:
		return fmt.Errorf("disk %s with a key of %d bytes: want %d", d.Name, len(d.Key), block.KeySize)
	case d.Source != block.Source{}:
		return checkSource(d)
	case d.Base == "":
		return nil
	case !filepath.IsAbs(d.Base):
		return fmt.Errorf("disk %s on the base %q: want an absolute path", d.Name, d.Base)
	case len(d.Base) > maxBackingName:
		return fmt.Errorf("disk %s on the base %q: its path has more than %d bytes", d.Name, d.Base, maxBackingName)
	}
	return nil
}

func checkSource(d block.Disk) error {
	err := d.CheckSource()
	if _, name := origin(d); err == nil && len(name) > maxBackingName {
		err = fmt.Errorf("its source %q has an address of more than %d bytes", d.Source.Export, maxBackingName)
	}
	if err != nil {
		return fmt.Errorf("disk %s: %w", d.Name, err)
	}
	return nil
}

// inspect reads what the disk at path is; where there is none the error is
// fs.ErrNotExist.
func inspect(path string) (image, error) {
	f, err := os.Open(path)
	if err != nil {
		return image{}, err
	}
	defer f.Close()
	have, err := decodeHeader(f)
	if err != nil {
		return image{}, fmt.Errorf("%s: %w", path, err)
	}
	return have, nil
}

// sourceNow is what the disk still stands on. Where it is the wish's export, the
// wish knows best where that is served.
func sourceNow(have image, d block.Disk) block.Source {
	source, ok := have.source()
	if ok && source.Export == d.Source.Export {
		source.Socket = d.Source.Socket
	}
	return source
}

// meet makes the disk that is there what d wishes for, if it can be.
func meet(ctx context.Context, path string, have image, d block.Disk) error {
	err := have.suits(path, d)
	if err == nil && have.size() < d.Size {
		err = grow(ctx, path, have, d)
	}
	return err
}

// suits refuses the image at path where it is not the disk, nor what grows to be it.
func (i image) suits(path string, d block.Disk) error {
	base := i.base
	if _, ok := i.source(); ok {
		base = ""
	}
	switch {
	case base != d.Base:
		return fmt.Errorf("%s is there with the base %q, not %q", path, base, d.Base)
	case i.size() > d.Size:
		return fmt.Errorf("%s is there with %d bytes, more than %d", path, i.size(), d.Size)
	case i.encrypted() && len(d.Key) == 0:
		return fmt.Errorf("%s is there encrypted, and there is no key for it", path)
	case !i.encrypted() && len(d.Key) > 0:
		return fmt.Errorf("%s is there without encryption", path)
	}
	return nil
}

// create writes the image under a temporary name and renames it when it is
// durable.
func (s *Disks) create(d block.Disk) error {
	if err := checkBase(d); err != nil {
		return err
	}
	temp := filepath.Join(s.dir, tempPrefix+d.Name)
	err := write(temp, d)
	if err == nil {
		err = os.Rename(temp, s.path(d.Name))
	}
	if err != nil {
		return errors.Join(err, removeFile(temp))
	}
	return nil
}

func checkBase(d block.Disk) error {
	if d.Base == "" {
		return nil
	}
	info, err := os.Stat(d.Base)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("its base %s is not there", d.Base) // not ErrNotExist, which would speak of the disk
	case err != nil:
		return fmt.Errorf("its base: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("its base %s is no regular file: %s", d.Base, info.Mode())
	case info.Size() > d.Size:
		return fmt.Errorf("its base %s has %d bytes, more than the disk's %d", d.Base, info.Size(), d.Size)
	}
	return nil
}

// write makes the file at path and syncs it.
func write(path string, d block.Disk) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := lay(f, d); err != nil {
		return err
	}
	return f.Sync()
}

// lay writes the image into an empty file.
func lay(f *os.File, d block.Disk) error {
	pieces, length, err := layout(d, rand.Reader)
	if err != nil {
		return err
	}
	for _, p := range pieces {
		if _, err := f.WriteAt(p.bytes, p.offset); err != nil {
			return err
		}
	}
	return f.Truncate(length)
}

// Remove deletes the disk. See block.Disks.
func (s *Disks) Remove(_ context.Context, name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("disk name %q: want 1 to 200 of a-z, 0-9 and -", name)
	}
	if err := removeFile(s.path(name)); err != nil {
		return fmt.Errorf("removing the disk %s: %w", name, err)
	}
	return s.sync()
}

// List names the disks. See block.Disks.
func (s *Disks) List(context.Context) ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("listing the disks: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && validName.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names) // the entries' order is that of names with the suffix
	return names, nil
}

// Usage is the space that the file's blocks take. See block.Disks.
func (s *Disks) Usage(_ context.Context, name string) (int64, error) {
	info, err := os.Stat(s.path(name))
	if err != nil {
		return 0, fmt.Errorf("measuring the disk %s: %w", name, err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512, nil // Linux counts blocks of 512 bytes
}

func (s *Disks) path(name string) string { return filepath.Join(s.dir, name+suffix) }

// sync makes names that came and went durable.
func (s *Disks) sync() error {
	if err := durable.SyncDir(s.dir); err != nil {
		return fmt.Errorf("syncing the disks' folder: %w", err)
	}
	return nil
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// noSpace marks the errors that freed space would mend.
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &block.NoSpaceError{Err: err}
	}
	return err
}
