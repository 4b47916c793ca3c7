package image

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"mallee/cloud"
)

// The paravirtual disk, as Eucalyptus lays it out around an image that is a bare file system:
//
//	sector 0    63               63+root                          end−512 MiB      end
//	┌────────┬───────────────────┬─────────────────────────────────┬────────────────┐
//	│ MBR    │ 1: root (image)   │ 2: ephemeral0, ext3             │ 3: swap        │
//	└────────┴───────────────────┴─────────────────────────────────┴────────────────┘
//
// The whole disk has the size of the instance type's; Eucalyptus put the 63 sectors in front of
// that, we take them from the ephemeral partition, so that every disk is a whole number of GiB.
// Figures are in cloud/disk.go, by which a launch is refused too.

// RootDevice is where the guest finds the root file system of a paravirtual disk.
const RootDevice = "/dev/vda1"

// formatTimeout bounds a format: it writes some megabytes, whatever the size.
const formatTimeout = 2 * time.Minute

// EphemeralLabel is the label of an ephemeral file system, which is mounted by it.
const EphemeralLabel = "ephemeral0"

// diskParts computes the paravirtual layout; sizes are bytes.
func diskParts(rootSize, diskSize int64) (root, ephemeral, swap partition, err error) {
	if rootSize <= 0 || diskSize%sector != 0 {
		return root, ephemeral, swap, fmt.Errorf("root of %d bytes on a disk of %d: want a root, and a disk of whole %d-byte sectors", rootSize, diskSize, sector)
	}
	if cloud.DiskNeeded(cloud.Paravirtual, rootSize) > diskSize {
		return root, ephemeral, swap, fmt.Errorf("%w: %d bytes, with %d of swap, on a disk of %d", ErrTooLarge, rootSize, int64(cloud.SwapSize), diskSize)
	}
	end := diskSize / sector
	root = partition{kind: typeLinux, active: true, start: cloud.DiskHeader, length: cloud.Sectors(rootSize)}
	swap = partition{kind: typeSwap, start: end - cloud.SwapSize/sector, length: cloud.SwapSize / sector}
	ephemeral = partition{kind: typeLinux, start: root.end(), length: swap.start - root.end()}
	return root, ephemeral, swap, nil
}

// FitsParavirtual returns ErrTooLarge where Paravirtual would. Sizes are bytes.
func FitsParavirtual(rootSize, diskSize int64) error {
	_, _, _, err := diskParts(rootSize, diskSize)
	return err
}

// Paravirtual writes the disk of diskSize bytes around a root file system into dst, an empty file:
// partition table, root, a formatted ephemeral file system and a swap area. The file is sparse: it
// takes the root's used blocks and some ten megabytes. Equal arguments make equal bytes. It
// returns ErrTooLarge where the root leaves no room, and MissingToolError without mke2fs.
func Paravirtual(ctx context.Context, dst *os.File, root io.ReaderAt, rootSize, diskSize int64) error {
	p1, p2, p3, err := diskParts(rootSize, diskSize)
	if err != nil {
		return err
	}
	if err := requireEmpty(dst); err != nil {
		return err
	}
	if err := dst.Truncate(diskSize); err != nil {
		return fmt.Errorf("making a disk of %d bytes: %w", diskSize, err)
	}
	id := derivedID("disk", diskSize)
	boot := make([]byte, sector)
	if err := writeTable(boot, uint32(id[0])<<24|uint32(id[1])<<16|uint32(id[2])<<8|uint32(id[3]), p1, p2, p3); err != nil {
		return err
	}
	if _, err := dst.WriteAt(boot, 0); err != nil {
		return fmt.Errorf("writing the partition table: %w", err)
	}
	if err := copySparse(dst, p1.start*sector, root, rootSize); err != nil {
		return fmt.Errorf("writing the root partition: %w", err)
	}
	if err := writeSwap(dst, p3.start*sector, p3.length*sector, derivedID("swap", diskSize), "swap"); err != nil {
		return fmt.Errorf("writing the swap partition: %w", err)
	}
	return format(ctx, dst, p2.start*sector, p2.length*sector)
}

// EphemeralSize is the size in bytes of the second disk of an HVM instance: what its image leaves
// of the type's disk. 0 means that there is no second disk; ErrTooLarge that not even the image fits.
func EphemeralSize(imageSize, diskSize int64) (int64, error) {
	rest := (diskSize - imageSize) / sector * sector
	switch {
	case cloud.DiskNeeded(cloud.HVM, imageSize) > diskSize:
		return 0, fmt.Errorf("%w: %d bytes on a disk of %d", ErrTooLarge, imageSize, diskSize)
	case rest < cloud.MinEphemeral:
		return 0, nil
	}
	return rest, nil
}

// Ephemeral makes dst, an empty file, an ephemeral disk of size bytes: an ext3 file system
// without a partition table, sparse, the same bytes for the same size.
func Ephemeral(ctx context.Context, dst *os.File, size int64) error {
	if size < cloud.MinEphemeral || size%sector != 0 {
		return fmt.Errorf("an ephemeral disk of %d bytes: want %d at least, in sectors of %d", size, cloud.MinEphemeral, sector)
	}
	if err := requireEmpty(dst); err != nil {
		return err
	}
	if err := dst.Truncate(size); err != nil {
		return fmt.Errorf("making a disk of %d bytes: %w", size, err)
	}
	return format(ctx, dst, 0, size)
}

// format makes an ext3 file system inside a file, by the host's mke2fs. On a regular file that
// writes no inode table: they are holes, and marked so, and the guest needn't clear them either.
// The command gets the open file, not a name that might be another file by then.
func format(ctx context.Context, f *os.File, off, size int64) error {
	tool, err := hostTool("mke2fs", "e2fsprogs")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, formatTimeout)
	defer cancel()
	id := uuid(derivedID("ephemeral", size))
	args := []string{"-q", "-F", "-t", "ext3", "-b", blockSize(size), "-m", "0", "-i", "65536", "-L", EphemeralLabel, "-U", id,
		"-E", "root_owner=0:0,hash_seed=" + id + ",offset=" + strconv.FormatInt(off, 10)}
	if size >= 64<<20 {
		args = append(args, "-J", "size=8") // MiB; mke2fs's own choice is 64 and more, and written
	}
	cmd := exec.CommandContext(ctx, tool, append(args, "/dev/fd/3", strconv.FormatInt(size/1024, 10)+"k")...)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Env = append(os.Environ(), "LC_ALL=C", fmt.Sprint("SOURCE_DATE_EPOCH=", epoch.Unix()), fmt.Sprint("E2FSPROGS_FAKE_TIME=", epoch.Unix()))
	var msg strings.Builder
	cmd.Stderr = &msg
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("formatting %d bytes as ephemeral storage: %w", size, commandError(cmd, err, msg.String()))
	}
	return nil
}

// blockSize is 4096 but for file systems so small that mke2fs could make none of it.
func blockSize(size int64) string {
	if size < 4<<20 {
		return "1024"
	}
	return "4096"
}

func requireEmpty(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() != 0 {
		return fmt.Errorf("%s is no empty file; a disk is built in a new one", f.Name())
	}
	return nil
}

// derivedID makes an identifier that depends on nothing but its arguments.
func derivedID(what string, size int64) [16]byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "mallee %s %d", what, size))
	id := [16]byte(sum[:])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // RFC 9562: version 8, variant 10
	return id
}

func uuid(id [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
