// Package rbd keeps disks in Ceph, an image of RBD a disk, all of a cloud in a
// namespace of its own in one pool: POOL/NAMESPACE/NAME.
//
// What is in an image is what block/file has in a file, qcow2, and the
// hypervisor opens it the same way but for the lowest node. So dirty bitmaps,
// sources, encryption and all that is done with them are one path. RBD's own
// snapshots and clones are not used: an RBD image can neither stand on an NBD export
// nor remember durably what was written. The image is as long as the qcow2 in
// it; QEMU makes it longer as the guest writes, and its removal costs what was written.
//
// An image gets its name when it is whole: it is imported under another name,
// and renamed. What a crash leaves under the other name goes when the store is
// opened next; a namespace has one store at a time. The directory of the
// namespace says what is there. A rename that was cut off may leave the new name
// taken and not in the directory; making that disk mends it.
//
// Ceph is asked by its own command, rbd, a process each time, and nothing of ours
// is between a guest and its data. Images have no exclusive lock: the lock of a QEMU that
// was killed would keep the next from writing for half a minute. So nothing here
// keeps two QEMUs from one disk, as a file's lock does; that is the node's care.
//
// What can go wrong: the cluster does not answer (an error after a while, and a
// guest's writes wait), it is full (block.NoSpaceError, and nothing is left), or
// a disk can't be removed for the half minute in which Ceph still believes in a QEMU that
// was killed.
package rbd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"mallee/block"
	"mallee/block/file"
)

// How long one command may take: one that looks or makes, and one that removes
// all objects of an image, which goes on where it was cut off.
const (
	commandTime = 2 * time.Minute
	removeTime  = 30 * time.Minute
)

// tempPrefix begins the names of what is not whole, and no disk's.
const tempPrefix = ".new-"

var (
	validName = regexp.MustCompile(`^[a-z0-9-]{1,200}$`)
	validPart = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`) // what needs no quotes for Ceph
)

// Options of a store.
type Options struct {
	Conf      string // absolute path of the cluster's ceph.conf
	User      string // without "client."; its key is where Conf says
	Pool      string // that is there already
	Namespace string // of the pool
	Known     bool   // the namespace has been made: where it is not there, this is another cluster
	Log       *slog.Logger
}

// Disks is a block.Disks in Ceph.
type Disks struct{ Options }

var _ block.Disks = (*Disks)(nil)

// Open makes the namespace where it isn't there, and clears it of what a crash
// left half-made.
func Open(ctx context.Context, o Options) (*Disks, error) {
	s := &Disks{o}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("opening the disks in Ceph: %w", err)
	}
	err := s.makeNamespace(ctx)
	if err == nil {
		err = s.sweep(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the disks in Ceph's pool %s, by %s as %s: %w", o.Pool, o.Conf, o.User, err)
	}
	return s, nil
}

func (s *Disks) check() error {
	if !filepath.IsAbs(s.Conf) {
		return fmt.Errorf("the configuration %q: want an absolute path", s.Conf)
	}
	for what, name := range map[string]string{"user": s.User, "pool": s.Pool, "namespace": s.Namespace} {
		if !validPart.MatchString(name) || name[0] == '-' {
			return fmt.Errorf("the %s %q: want 1 to 100 of a-z, A-Z, 0-9, ., _ and -, which is not the first", what, name)
		}
	}
	return nil
}

func (s *Disks) makeNamespace(ctx context.Context) error {
	out, err := s.rbd(ctx, "namespace", "ls", "--pool", s.Pool, "--format", "json")
	if err != nil {
		return err
	}
	var have []struct{ Name string }
	if err := json.Unmarshal(out, &have); err != nil {
		return fmt.Errorf("rbd's list of namespaces: %w", err)
	}
	for _, n := range have {
		if n.Name == s.Namespace {
			return nil
		}
	}
	if s.Known {
		return fmt.Errorf("the namespace %s, in which this cloud's volumes were, is not there: is this another cluster?", s.Namespace)
	}
	_, err = s.rbd(ctx, "namespace", "create", "--pool", s.Pool, "--namespace", s.Namespace)
	return err
}

// sweep removes what a crash left half-made. What Ceph still believes to be in
// use, for half a minute, stays until the next time.
func (s *Disks) sweep(ctx context.Context) error {
	images, err := s.images(ctx)
	if err != nil {
		return err
	}
	for _, name := range images {
		if !strings.HasPrefix(name, tempPrefix) {
			continue
		}
		if err := s.remove(ctx, name); err != nil {
			s.Log.Warn("a disk that was not made whole stays in Ceph until the next start", "image", s.spec(name), "err", err)
		}
	}
	return nil
}

// Ensure makes the disk d. See block.Disks.
func (s *Disks) Ensure(ctx context.Context, d block.Disk) (block.Attachment, error) {
	if err := ctx.Err(); err != nil {
		return block.Attachment{}, fmt.Errorf("making the disk %s: %w", d.Name, err)
	}
	if err := file.Check(d); err != nil {
		return block.Attachment{}, err
	}
	at := block.Attachment{Format: "qcow2", RBD: s.image(d.Name), Source: d.Source, Key: d.Key}
	there, err := s.there(ctx, d.Name)
	switch {
	case err == nil && there:
		at.Source, err = s.place(ctx, d.Name).Meet(ctx, d)
	case err == nil:
		err = s.create(ctx, d)
	}
	if err != nil {
		return block.Attachment{}, fmt.Errorf("making the disk %s: %w", d.Name, noSpace(err))
	}
	return at, nil
}

// there asks the directory, and not for the image: "not found" may be of much else.
func (s *Disks) there(ctx context.Context, name string) (bool, error) {
	images, err := s.images(ctx)
	return slices.Contains(images, name), err
}

// Remove deletes the disk. See block.Disks.
func (s *Disks) Remove(ctx context.Context, name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("disk name %q: want 1 to 200 of a-z, 0-9 and -", name)
	}
	there, err := s.there(ctx, name)
	if err == nil && there {
		err = s.remove(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("removing the disk %s: %w", name, err)
	}
	return nil
}

// List names the disks. See block.Disks.
func (s *Disks) List(ctx context.Context) ([]string, error) {
	images, err := s.images(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the disks: %w", err)
	}
	names := slices.DeleteFunc(images, func(name string) bool { return !validName.MatchString(name) })
	slices.Sort(names)
	return names, nil
}

// Usage is what of the image's objects is written. See block.Disks.
func (s *Disks) Usage(ctx context.Context, name string) (int64, error) {
	var used struct {
		Images []struct {
			Used int64 `json:"used_size"`
		}
	}
	out, err := s.rbd(ctx, "du", "--exact", "--format", "json", s.spec(name))
	if err == nil {
		err = json.Unmarshal(out, &used)
	}
	if err == nil && len(used.Images) != 1 {
		err = fmt.Errorf("rbd tells of %d images", len(used.Images))
	}
	if err != nil {
		return 0, fmt.Errorf("measuring the disk %s: %w", name, err)
	}
	return used.Images[0].Used, nil
}

// create imports the image under another name, and renames it when it is whole.
func (s *Disks) create(ctx context.Context, d block.Disk) error {
	fresh, err := file.Fresh(d)
	if err != nil {
		return err
	}
	defer fresh.Close()
	temp := tempName(d.Name)
	err = s.importFile(ctx, fresh, temp)
	if err == nil {
		err = s.rename(ctx, temp, d.Name)
	}
	if err == nil {
		return nil
	}
	undo := s.remove(context.WithoutCancel(ctx), temp)
	if errors.Is(undo, errNotFound) {
		undo = nil // it did not come that far
	}
	return errors.Join(err, undo)
}

// rename gives a whole image its name. Where that is taken, but by nothing that the
// directory knows, it is what is left of a rename that was cut off. Removing
// that says that nothing was found.
func (s *Disks) rename(ctx context.Context, temp, name string) error {
	err := s.move(ctx, temp, name)
	if !errors.Is(err, errExists) {
		return err
	}
	there, lost := s.there(ctx, name)
	if lost != nil || there {
		return errors.Join(err, lost)
	}
	if err := s.remove(ctx, name); err != nil && !errors.Is(err, errNotFound) {
		return err
	}
	return s.move(ctx, temp, name)
}
