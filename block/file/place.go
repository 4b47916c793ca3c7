package file

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"mallee/block"
)

// Place is where an image like ours lies, which need not be a file: block/rbd
// puts the same bytes into Ceph.
type Place struct {
	Name  string             // in errors
	Bytes func() io.ReaderAt // that are there now
	Node  map[string]any     // how QEMU opens what they lie in
}

// Check refuses a wish that no disk can fulfil.
func Check(d block.Disk) error { return check(d) }

// Fresh is a fresh image of the disk, in memory; closing it frees that.
func Fresh(d block.Disk) (*os.File, error) {
	if err := checkBase(d); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("disk", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making room for an image: %w", err)
	}
	f := os.NewFile(uintptr(fd), "disk")
	if err := lay(f, d); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Meet makes the image that is there what d wishes for, if it can be, and says on
// which source it stands.
func (p Place) Meet(ctx context.Context, d block.Disk) (block.Source, error) {
	have, err := decodeHeader(p.Bytes())
	if err != nil {
		return block.Source{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	err = have.suits(p.Name, d)
	if err == nil && have.size() < d.Size {
		err = resize(ctx, p, d)
	}
	return sourceNow(have, d), err
}
