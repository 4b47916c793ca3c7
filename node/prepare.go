package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"mallee/block"
	"mallee/cloud"
	"mallee/hypervisor"
	"mallee/image"
	"mallee/network"
)

// powerDownGrace is how long a guest that is asked to reboot may take to shut
// down before it is reset hard (EC2 waits four minutes).
const powerDownGrace = 4 * time.Minute

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
	keys := []string{imageKey(i.Image)}
	if i.Virtualization == cloud.Paravirtual {
		if i.Kernel == nil || i.Ramdisk == nil {
			return nil, permanentError{errors.New("a paravirtual instance needs a kernel and a ramdisk image")}
		}
		if err := image.FitsParavirtual(i.Image.Size, diskBytes(i)); err != nil {
			return nil, permanentError{&ImageError{i.Image.ID, err}}
		}
		return append(keys, paravirtualKey(i), imageKey(*i.Kernel), imageKey(*i.Ramdisk)), nil
	}
	rest, err := image.EphemeralSize(i.Image.Size, diskBytes(i))
	if err != nil {
		return nil, permanentError{&ImageError{i.Image.ID, err}}
	}
	if rest > 0 {
		keys = append(keys, ephemeralKey(rest))
	}
	return keys, nil
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

// prepare sees to it that all that a machine starts from is there. Its bases
// were remembered before.
func (n *Node) prepare(ctx context.Context, i cloud.Instance) (hypervisor.Machine, error) {
	wanted := hypervisor.Machine{
		ID: string(i.ID), Dir: n.machineDir(i.ID),
		VCPUs: i.Size.VCPUs, MemoryMiB: i.Size.MemoryMiB,
		UUID: machineUUID(i.ID), Manufacturer: "Mallee", Product: string(i.Type),
	}
	root, err := n.ensureImage(ctx, i.Image)
	if err != nil {
		return wanted, err
	}
	if i.Virtualization == cloud.Paravirtual {
		return wanted, n.prepareParavirtual(ctx, i, root, &wanted)
	}
	return wanted, n.prepareHVM(ctx, i, root, &wanted)
}

// prepareHVM: the image as it is, and the rest of the type's disk as a second,
// formatted one (Eucalyptus's layout).
func (n *Node) prepareHVM(ctx context.Context, i cloud.Instance, root string, wanted *hypervisor.Machine) error {
	if err := n.ensureDisk(ctx, i, roleRoot, root, roundUp(i.Image.Size), wanted); err != nil {
		return err
	}
	rest, err := image.EphemeralSize(i.Image.Size, diskBytes(i))
	if err != nil || rest == 0 {
		return err
	}
	base, err := n.ensureBase(ctx, ephemeralKey(rest), func(f *os.File) error {
		return image.Ephemeral(ctx, f, rest)
	})
	if err != nil {
		return fmt.Errorf("format the ephemeral disk: %w", err)
	}
	return n.ensureDisk(ctx, i, roleEphemeral, base, rest, wanted)
}

// prepareParavirtual: one disk of three partitions around the root file
// system, kernel and ramdisk beside it.
func (n *Node) prepareParavirtual(ctx context.Context, i cloud.Instance, root string, wanted *hypervisor.Machine) error {
	base, err := n.ensureBase(ctx, paravirtualKey(i), func(f *os.File) error {
		src, err := os.Open(root)
		if err != nil {
			return err
		}
		defer src.Close()
		return image.Paravirtual(ctx, f, src, i.Image.Size, diskBytes(i))
	})
	if err != nil {
		return fmt.Errorf("lay out the disk: %w", err)
	}
	if err := n.ensureDisk(ctx, i, roleRoot, base, diskBytes(i), wanted); err != nil {
		return err
	}
	if wanted.Kernel, err = n.ensureImage(ctx, *i.Kernel); err != nil {
		return err
	}
	if wanted.Ramdisk, err = n.ensureImage(ctx, *i.Ramdisk); err != nil {
		return err
	}
	wanted.Append = image.ParavirtualArguments
	return nil
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

func (n *Node) ensureDisk(ctx context.Context, i cloud.Instance, role, base string, size int64, wanted *hypervisor.Machine) error {
	a, err := n.Disks.Ensure(ctx, block.Disk{Name: diskName(i.ID, role), Base: base, Size: size})
	if err != nil {
		return fmt.Errorf("make disk %s: %w", role, err)
	}
	wanted.Disks = append(wanted.Disks, hypervisor.Disk{Serial: role, Attachment: a})
	return nil
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
		MAC: i.MAC, Local: i.Local, Public: i.Public, Name: i.HostName(),
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
