package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// A BadImageError reports a file that is at fault itself, in words for whoever brought it.
// Everything else that goes wrong is this machine's affair.
type BadImageError struct {
	Reason string
	Absent bool // there is nothing at an address, or nothing that may be had; it may come yet
}

// Error says what is wrong with the file and, where something can be done, what.
func (e *BadImageError) Error() string { return e.Reason }

func refuse(format string, args ...any) error {
	return &BadImageError{Reason: fmt.Sprintf(format, args...)}
}

// Limits are what a file that nobody vouches for may cost.
type Limits struct {
	VirtualSize int64         // bytes of the disk that comes out, and of each file that is unpacked on the way
	Memory      int64         // bytes of address space of a conversion
	CPU         time.Duration // processor time of a conversion
}

// DefaultLimits fit a large disk and a small machine.
var DefaultLimits = Limits{VirtualSize: 1 << 40, Memory: 2 << 30, CPU: 2 * time.Hour}

// fileSize is the largest file that a conversion may write: other formats than raw need some more than
// the disk has.
func (l Limits) fileSize() int64 { return l.VirtualSize + l.VirtualSize/64 + 64<<20 }

func (l Limits) check() error {
	if l.VirtualSize <= 0 || l.VirtualSize > 1<<60 || l.Memory <= 0 || l.CPU < time.Second {
		return fmt.Errorf("limits of %d bytes of disk, %d of memory and %s: each must be more than nothing", l.VirtualSize, l.Memory, l.CPU)
	}
	return nil
}

// fits refuses a disk that is larger than the limit, or whose size isn't one.
func (l Limits) fits(what string, size uint64) error {
	switch {
	case size == 0:
		return refuse("the %s says that its disk is empty", what)
	case size > uint64(l.VirtualSize):
		return refuse("the %s says that its disk has %d bytes; the limit is %d", what, size, l.VirtualSize)
	}
	return nil
}

// A window is the part of a file that an image takes: all of it, or a member of an archive.
type window struct {
	file  string
	off   int64
	size  int64
	whole bool // nothing of the file is outside
}

func (w window) reader(f io.ReaderAt) io.ReaderAt { return io.NewSectionReader(f, w.off, w.size) }

// A driver is what QEMU has to be told of a file that passed.
type driver struct {
	name    string         // QEMU's
	options map[string]any // beside the file
	virtual int64          // bytes of the disk
}

// examiners look through the headers of a disk format, before QEMU sees any of it. Each refuses what
// leads out of the file, what is larger than limits, encrypted, or cut off; none allocates by
// what a header says, but for tables that are bounded by a constant.
var examiners = map[string]func(r io.ReaderAt, size int64, limits Limits) (driver, error){
	"qcow2": examineQCOW2,
	"vmdk":  examineVMDK,
	"vhd":   examineVHD,
	"vhdx":  examineVHDX,
}

// examine the headers of a disk image in one of the formats that are converted.
func examine(r io.ReaderAt, size int64, format string, limits Limits) (driver, error) {
	if format == "raw" {
		return driver{name: "raw", virtual: size}, limits.fits("image", uint64(size))
	}
	look, ok := examiners[format]
	if !ok {
		return driver{}, refuse("the image is in %s format, which isn't taken; raw, qcow2, VMDK, VHD, VHDX and OVA are", format)
	}
	return look(r, size, limits)
}

// part reads n bytes at off of a file of size bytes; what isn't there is the file's fault.
// n is a constant of the format or has been compared with one.
func part(r io.ReaderAt, size int64, what string, off uint64, n int) ([]byte, error) {
	if !within(off, uint64(n), size) {
		return nil, refuse("the %s is cut off or lies: %d bytes at %d, in a file of %d", what, n, off, size)
	}
	b, err := readAt(r, int64(off), int64(n))
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, refuse("the %s is cut off at %d", what, off)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	return b, nil
}

// within tells whether n bytes at off are inside size bytes, whatever the figures.
func within(off, n uint64, size int64) bool {
	return n <= uint64(size) && off <= uint64(size)-n
}

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

// eachEntry reads a table of n entries of width bytes at off, in pieces. What there is to be read was compared with the
// file's size before.
func eachEntry(r io.ReaderAt, off, n uint64, width int, look func(entry []byte) error) error {
	const most = 64 << 10
	for n > 0 {
		some := min(n, uint64(most/width))
		b, err := readAt(r, int64(off), int64(some)*int64(width))
		if err != nil {
			return fmt.Errorf("reading a table of the image: %w", err)
		}
		for ; len(b) > 0; b = b[width:] {
			if err := look(b[:width]); err != nil {
				return err
			}
		}
		off, n = off+some*uint64(width), n-some
	}
	return nil
}
