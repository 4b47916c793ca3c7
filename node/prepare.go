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

// prepare sees to it that all that a machine starts from is there.
func (n *Node) prepare(ctx context.Context, i cloud.Instance, m *memo) (hypervisor.Machine, error) {
	wanted := hypervisor.Machine{
		ID: string(i.ID), Dir: n.machineDir(i.ID),
		VCPUs: i.Size.VCPUs, MemoryMiB: i.Size.MemoryMiB,
		UUID: machineUUID(i.ID), Manufacturer: "Mallee", Product: string(i.Type),
	}
	var err error
	if i.Virtualization == cloud.Paravirtual {
		err = n.prepareParavirtual(ctx, i, m, &wanted)
	} else {
		err = n.prepareHVM(ctx, i, m, &wanted)
	}
	return wanted, noSpace(err)
}

// prepareHVM: the image as it is, and the rest of the type's disk as a second,
// formatted one (Eucalyptus's layout).
func (n *Node) prepareHVM(ctx context.Context, i cloud.Instance, m *memo, wanted *hypervisor.Machine) error {
	root, err := n.ensureImage(ctx, i.Image, m)
	if err != nil {
		return err
	}
	if err := n.ensureDisk(ctx, i, "root", root, roundUp(i.Image.Size), wanted); err != nil {
		return err
	}
	rest, err := image.EphemeralSize(i.Image.Size, diskBytes(i))
	if err != nil {
		return &ImageError{i.Image.ID, err}
	}
	if rest == 0 {
		return nil
	}
	base, err := n.ensureBase(m, fmt.Sprintf("ephemeral-%d", rest), func(f *os.File) error {
		return image.Ephemeral(ctx, f, rest)
	})
	if err != nil {
		return err
	}
	return n.ensureDisk(ctx, i, "ephemeral0", base, rest, wanted)
}

// prepareParavirtual: one disk of three partitions around the root file
// system, kernel and ramdisk beside it.
func (n *Node) prepareParavirtual(ctx context.Context, i cloud.Instance, m *memo, wanted *hypervisor.Machine) error {
	root, err := n.ensureImage(ctx, i.Image, m)
	if err != nil {
		return err
	}
	size := diskBytes(i)
	base, err := n.ensureBase(m, fmt.Sprintf("%s-paravirtual-%d", imageKey(i.Image), size), func(f *os.File) error {
		return paravirtual(ctx, f, root, i.Image, size)
	})
	if err != nil {
		return err
	}
	if err := n.ensureDisk(ctx, i, "root", base, size, wanted); err != nil {
		return err
	}
	if i.Kernel == nil || i.Ramdisk == nil {
		return permanentError{fmt.Errorf("a paravirtual instance needs a kernel and a ramdisk image")}
	}
	if wanted.Kernel, err = n.ensureImage(ctx, *i.Kernel, m); err != nil {
		return err
	}
	if wanted.Ramdisk, err = n.ensureImage(ctx, *i.Ramdisk, m); err != nil {
		return err
	}
	wanted.Append = "root=" + image.RootDevice + " ro console=ttyS0 quiet mitigations=off"
	return nil
}

func paravirtual(ctx context.Context, dst *os.File, root string, ref cloud.ImageRef, size int64) error {
	src, err := os.Open(root)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := image.Paravirtual(ctx, dst, src, ref.Size, size); err != nil {
		return &ImageError{ref.ID, err}
	}
	return nil
}

// ensureImage has the raw image in the cache.
func (n *Node) ensureImage(ctx context.Context, ref cloud.ImageRef, m *memo) (path string, err error) {
	return n.ensureBase(m, imageKey(ref), func(f *os.File) error {
		out := newSparseWriter(f)
		if err := n.Images.Unpack(ctx, ref, out, n.progress(ref)); err != nil {
			return &ImageError{ref.ID, err}
		}
		return out.finish(ref.Size)
	})
}

// imageKey names an image's bytes in the cache: the manifest's digest, as a
// file name.
func imageKey(ref cloud.ImageRef) string {
	return strings.NewReplacer("/", "_", "+", "-", "=", "").Replace(ref.ManifestDigest)
}

// ensureBase has one entry in the cache, and remembers first that this machine
// needs it, so that it is not evicted from under its disks.
func (n *Node) ensureBase(m *memo, key string, build func(*os.File) error) (string, error) {
	if !contains(m.Bases, key) {
		m.Bases = append(m.Bases, key)
		if err := n.remember(*m); err != nil {
			return "", err
		}
	}
	return n.cache.ensure(key, n.basesInUse, build)
}

func (n *Node) ensureDisk(ctx context.Context, i cloud.Instance, role, base string, size int64, wanted *hypervisor.Machine) error {
	a, err := n.Disks.Ensure(ctx, block.Disk{Name: diskName(i.ID, role), Base: base, Size: size})
	if err != nil {
		return fmt.Errorf("make disk %s: %w", role, err)
	}
	wanted.Disks = append(wanted.Disks, hypervisor.Disk{Serial: role, Attachment: a})
	return nil
}

// askToPowerDown presses the guest's power button once per reboot, and says
// whether its time to obey is over.
func (n *Node) askToPowerDown(ctx context.Context, i cloud.Instance) (due bool, err error) {
	n.mu.Lock()
	m := n.know(i.ID)
	asked := m.powerDown == i.Reboots
	if !asked {
		m.powerDown, m.powerDownBy = i.Reboots, n.Now().Add(powerDownGrace)
	}
	due = !n.Now().Before(m.powerDownBy)
	n.mu.Unlock()
	if asked {
		return due, nil
	}
	if err := n.Hypervisor.PowerDown(ctx, n.machineDir(i.ID)); err != nil {
		return false, fmt.Errorf("ask the guest to shut down: %w", err)
	}
	return false, nil
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
// DataSourceEc2).
func machineUUID(id cloud.InstanceID) string {
	hex := strings.TrimPrefix(string(id), cloud.PrefixInstance+"-") + "00000000000000000"
	return "ec200000-0000-4000-8" + hex[:3] + "-" + hex[3:15]
}

func diskBytes(i cloud.Instance) int64 { return int64(i.Size.DiskGiB) << 30 }

func roundUp(size int64) int64 { return (size + 511) &^ 511 }

// noSpace puts a full disk, wherever it was met, in the seam's words.
func noSpace(err error) error {
	var known *block.NoSpaceError
	if errors.Is(err, syscall.ENOSPC) && !errors.As(err, &known) {
		return &block.NoSpaceError{Err: err}
	}
	return err
}
