package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"mallee/block"
	"mallee/cloud"
	"mallee/hypervisor"
	"mallee/image"
	"mallee/network"
)

// ImageError tells that an image can't be used, which is for its owner to mend.
type ImageError struct {
	Image cloud.ImageID
	Err   error
}

func (e *ImageError) Error() string { return fmt.Sprintf("image %s: %v", e.Image, e.Err) }
func (e *ImageError) Unwrap() error { return e.Err }

// bases are the cache entries that the instance's machine stands on: known
// before any is there, and checked as far as figures go.
func bases(i cloud.Instance) ([]string, error) {
	if i.Virtualization == cloud.Paravirtual {
		return paravirtualBases(i)
	}
	var keys []string
	if !i.EBS {
		keys = append(keys, imageKey(i.Image))
	}
	_, rest, err := ephemeral(i)
	if err != nil {
		return nil, permanentError{&ImageError{i.Image.ID, err}}
	}
	if rest > 0 {
		keys = append(keys, ephemeralKey(rest))
	}
	return keys, nil
}

func paravirtualBases(i cloud.Instance) ([]string, error) {
	switch {
	case i.EBS:
		return nil, permanentError{errors.New("an instance whose root is a volume can't be paravirtual")}
	case i.Kernel == nil || i.Ramdisk == nil:
		return nil, permanentError{errors.New("a paravirtual instance needs a kernel and a ramdisk image")}
	}
	if err := image.FitsParavirtual(i.Image.Size, diskBytes(i)); err != nil {
		return nil, permanentError{&ImageError{i.Image.ID, err}}
	}
	return []string{imageKey(i.Image), paravirtualKey(i), imageKey(*i.Kernel), imageKey(*i.Ramdisk)}, nil
}

// defaultEphemeral is where the ephemeral disk of an HVM instance is if nothing
// is said (Eucalyptus's layout).
const defaultEphemeral = "/dev/sdb"

// ephemeral is the device and the size in bytes of the second disk of an HVM
// instance; the size is 0 where it has none. An instance whose image is on its
// disk has one if there is room and nothing else was said; one whose root is a
// volume has it if it was asked for.
func ephemeral(i cloud.Instance) (device string, size int64, err error) {
	image0 := i.Image.Size
	if i.EBS {
		image0 = 0
	}
	if size, err = image.EphemeralSize(image0, diskBytes(i)); err != nil {
		return "", 0, err
	}
	for _, m := range i.Mappings {
		if m.VirtualName == cloud.Ephemeral0 && !m.NoDevice {
			return m.Device, size, nil
		}
	}
	if i.EBS || len(i.Mappings) > 0 {
		return "", 0, nil
	}
	return defaultEphemeral, size, nil
}

// Keys of the cache: an image's bytes by its manifest's digest, and what is
// made from them or from nothing by what it is made from.
func imageKey(ref cloud.ImageRef) string {
	return strings.NewReplacer("/", "_", "+", "-", "=", "").Replace(ref.ManifestDigest)
}
func paravirtualKey(i cloud.Instance) string {
	return fmt.Sprintf("%s-paravirtual-%d", imageKey(i.Image), diskBytes(i))
}
func ephemeralKey(size int64) string { return fmt.Sprintf("ephemeral-%d", size) }

// placed is a disk at a device.
type placed struct {
	device string
	hypervisor.Disk
}

// prepare sees to it that all that a machine starts from is there. Its bases
// were remembered before, and its volumes are in hand.
func (n *Node) prepare(ctx context.Context, i cloud.Instance, volumes []cloud.Volume) (hypervisor.Machine, error) {
	wanted := hypervisor.Machine{
		ID: string(i.ID), Dir: n.machineDir(i.ID),
		VCPUs: i.Size.VCPUs, MemoryMiB: i.Size.MemoryMiB,
		UUID: machineUUID(i.ID), Manufacturer: "Mallee", Product: string(i.Type),
	}
	var disks []placed
	var err error
	switch {
	case i.EBS:
		disks, err = n.prepareEphemeral(ctx, i)
	case i.Virtualization == cloud.Paravirtual:
		disks, err = n.prepareParavirtual(ctx, i, &wanted)
	default:
		disks, err = n.prepareHVM(ctx, i)
	}
	if err != nil {
		return wanted, err
	}
	for _, w := range volumes {
		d, err := n.ensureVolume(ctx, w)
		if err != nil {
			return wanted, err
		}
		disks = append(disks, placed{w.Attachment.Device, d})
	}
	wanted.Disks, err = inOrder(disks, i.RootDevice)
	return wanted, err
}

// inOrder are the disks as the guest shall see them: the root first, for it is
// booted from, then by device.
func inOrder(disks []placed, root string) (list []hypervisor.Disk, err error) {
	rank := func(p placed) string {
		if cloud.Slot(p.device) == cloud.Slot(root) {
			return ""
		}
		return cloud.Slot(p.device)
	}
	slices.SortStableFunc(disks, func(a, b placed) int { return cmp.Compare(rank(a), rank(b)) })
	if len(disks) == 0 || rank(disks[0]) != "" {
		return nil, fmt.Errorf("no volume is attached at %s, which is the root", root)
	}
	for _, p := range disks {
		list = append(list, p.Disk)
	}
	return list, nil
}

// prepareHVM: the image as it is, and the rest of the type's disk as a second,
// formatted one (Eucalyptus's layout).
func (n *Node) prepareHVM(ctx context.Context, i cloud.Instance) ([]placed, error) {
	base, err := n.ensureImage(ctx, i.Image)
	if err != nil {
		return nil, err
	}
	root, err := n.ensureDisk(ctx, i, roleRoot, base, roundUp(i.Image.Size))
	if err != nil {
		return nil, err
	}
	rest, err := n.prepareEphemeral(ctx, i)
	return append([]placed{{i.RootDevice, root}}, rest...), err
}

// prepareEphemeral: the second disk, where the instance has one.
func (n *Node) prepareEphemeral(ctx context.Context, i cloud.Instance) ([]placed, error) {
	device, size, err := ephemeral(i)
	if err != nil || size == 0 {
		return nil, err
	}
	base, err := n.ensureBase(ctx, ephemeralKey(size), func(f *os.File) error {
		return image.Ephemeral(ctx, f, size)
	})
	if err != nil {
		return nil, fmt.Errorf("format the ephemeral disk: %w", err)
	}
	disk, err := n.ensureDisk(ctx, i, roleEphemeral, base, size)
	return []placed{{device, disk}}, err
}

// prepareParavirtual: one disk of three partitions around the root file
// system, kernel and ramdisk beside it.
func (n *Node) prepareParavirtual(ctx context.Context, i cloud.Instance, wanted *hypervisor.Machine) ([]placed, error) {
	root, err := n.ensureImage(ctx, i.Image)
	if err != nil {
		return nil, err
	}
	base, err := n.ensureBase(ctx, paravirtualKey(i), func(f *os.File) error {
		src, err := os.Open(root)
		if err != nil {
			return err
		}
		defer src.Close()
		return image.Paravirtual(ctx, f, src, i.Image.Size, diskBytes(i))
	})
	if err != nil {
		return nil, fmt.Errorf("lay out the disk: %w", err)
	}
	disk, err := n.ensureDisk(ctx, i, roleRoot, base, diskBytes(i))
	if err != nil {
		return nil, err
	}
	if wanted.Kernel, err = n.ensureImage(ctx, *i.Kernel); err != nil {
		return nil, err
	}
	if wanted.Ramdisk, err = n.ensureImage(ctx, *i.Ramdisk); err != nil {
		return nil, err
	}
	wanted.Append = image.ParavirtualArguments
	return []placed{{i.RootDevice, disk}}, nil
}

// ensureImage has the raw image in the cache. A write that failed is the
// node's matter, all else the image's.
func (n *Node) ensureImage(ctx context.Context, ref cloud.ImageRef) (string, error) {
	return n.ensureBase(ctx, imageKey(ref), func(f *os.File) error {
		out := newSparseWriter(f)
		err := n.Images.Unpack(ctx, ref, out, n.progress(ref))
		if err == nil {
			err = out.finish(ref.Size)
		}
		if err == nil || out.err != nil {
			return out.err
		}
		return &ImageError{ref.ID, err}
	})
}

// ensureBase has the entry in the cache. Machines that want one at once wait for
// whoever came first; where that one is abandoned, the next goes on.
func (n *Node) ensureBase(ctx context.Context, key string, build func(*os.File) error) (string, error) {
	for {
		path, err := n.cache.ensure(key, n.basesInUse, func(f *os.File) error {
			return errors.Join(build(f), ctx.Err())
		})
		if !errors.Is(err, context.Canceled) || ctx.Err() != nil {
			return path, err
		}
	}
}

func (n *Node) ensureDisk(ctx context.Context, i cloud.Instance, role, base string, size int64) (hypervisor.Disk, error) {
	a, err := n.Disks.Ensure(ctx, block.Disk{Name: diskName(i.ID, role), Base: base, Size: size})
	if err != nil {
		return hypervisor.Disk{}, fmt.Errorf("make disk %s: %w", role, err)
	}
	return hypervisor.Disk{Serial: role, Attachment: a}, nil
}

func (n *Node) progress(ref cloud.ImageRef) func(done, total int64) {
	var said int64
	return func(done, total int64) {
		if total > 0 && (done-said)*10 >= total {
			said = done
			n.Log.Info("unpacking an image", "image", ref.ID, "percent", done*100/total)
		}
	}
}

func portOf(i cloud.Instance, dir string) network.Port {
	return network.Port{
		ID: string(i.ID), Dir: dir, Network: string(i.Account),
		MAC: i.MAC, Local: i.Local, Public: i.Public, Name: i.HostName(), Groups: groupIDs(i),
	}
}

// machineUUID begins with ec2, by which guests recognise an EC2 (cloud-init's
// DataSourceEc2), and is otherwise a version 4 of RFC 9562 with the 8 or 17
// digits of the id in it, and how many those are.
func machineUUID(id cloud.InstanceID) string {
	digits := strings.TrimPrefix(string(id), cloud.PrefixInstance+"-")
	hex := fmt.Sprintf("%-17s%x", digits, len(digits)%16)
	hex = strings.ReplaceAll(hex, " ", "0")
	return "ec200000-0000-4" + hex[:3] + "-8" + hex[3:6] + "-" + hex[6:]
}

func diskBytes(i cloud.Instance) int64 { return int64(i.Size.DiskGiB) << 30 }

func roundUp(size int64) int64 { return (size + 511) &^ 511 }

// noSpace puts a full disk, wherever it was met, in the seam's words.
func noSpace(err error) error {
	var known *block.NoSpaceError
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	if full && !errors.As(err, &known) {
		return &block.NoSpaceError{Err: err}
	}
	return err
}
