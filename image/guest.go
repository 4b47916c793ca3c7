package image

import (
	"compress/gzip"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// The tiny guest: Debian's cloud kernel, BusyBox for everything, Dropbear for SSH. The files under
// guest/ are its own: ramdisk/init finds the root file system, root/etc/mallee/boot begins the
// rest, and the scripts beside it follow on events: a DHCP lease brings the metadata, the metadata
// the host keys, the key to log in with, and the user data.

var guestPackages = []want{
	{name: "linux-image-cloud-amd64", meta: true, prefix: "linux-image-"},
	{name: "busybox-static"},
	{name: "dropbear-bin", deep: true},
	{name: "e2fsprogs", deep: true}, // for the build, not for the guest
}

// ParavirtualArguments is the kernel command line for a paravirtual disk's root: Eucalyptus's,
// which any kernel image understands.
const ParavirtualArguments = "root=" + RootDevice + " console=ttyS0"

// TinyArguments make the catalogue's own kernel boot faster; a hypervisor may add them to
// ParavirtualArguments. Mitigations guard processes of a guest from each other, of which this one
// has few. The next two save an emulated processor a quarter of its work before the first program:
// the crypto self-tests have passed at Debian, and patching the kernel's locks for a single
// processor throws away translated code. The last one: on a host that is busy the clock of an
// emulated machine may be too slow for the check of its timer, which then panics.
const TinyArguments = "quiet mitigations=off cryptomgr.notests noreplace-smp no_timer_check"

// Kernel modules, each after those it depends on. ext4 and the serial console are built in.
var (
	ramdiskModules = []string{"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_mmio", "virtio_blk"}
	netModules     = []string{"failover", "net_failover", "virtio_net"}
	powerModules   = []string{"button", "evdev"}
	lateModules    = []string{"virtio-rng", "scsi_common", "scsi_mod", "virtio_scsi", "sd_mod"}
)

const (
	guestBusybox = "bin/busybox"
	moduleDir    = "lib/modules"
)

// programs are the executables that builds use, by Debian's paths; a package may have them below
// usr/ instead.
var programs = []string{guestBusybox, "usr/sbin/dropbear", "usr/bin/dropbearkey", "sbin/mke2fs", "sbin/debugfs", "usr/bin/grub-mkimage"}

func isGuestModule(name string) bool {
	module := strings.TrimSuffix(path.Base(name), ".ko")
	for _, list := range [][]string{ramdiskModules, netModules, powerModules, lateModules} {
		if slices.Contains(list, module) {
			return true
		}
	}
	return false
}

// assembleTrio makes kernel, ramdisk and root file system.
func assembleTrio(ctx context.Context, b *bench) error {
	if err := b.installTools("mke2fs", "debugfs"); err != nil {
		return err
	}
	kernel, err := b.kernel()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, kernelName), kernel, 0o600); err != nil {
		return err
	}
	ramdisk, err := b.ramdisk()
	if err != nil {
		return err
	}
	if err := writeRamdisk(filepath.Join(b.dir, ramdiskName), ramdisk); err != nil {
		return err
	}
	root, err := b.root(ctx)
	if err != nil {
		return err
	}
	return extFS{label: "tiny", id: tinyID, size: 32 << 20, journal: 4, files: root}.write(ctx, b.tools, b.scratch, filepath.Join(b.dir, rootName))
}

// assembleDisk makes the bootable disk: the root file system with kernel and ramdisk in /boot.
func assembleDisk(ctx context.Context, b *bench) error {
	if err := b.installTools("mke2fs", "debugfs", "grub-mkimage"); err != nil {
		return err
	}
	root, err := b.root(ctx)
	if err != nil {
		return err
	}
	if err := b.addBoot(root); err != nil {
		return err
	}
	file := filepath.Join(b.scratch, rootName)
	if err := (extFS{label: "tiny", id: tinyID, size: 48 << 20, journal: 4, files: root}).write(ctx, b.tools, b.scratch, file); err != nil {
		return err
	}
	return bootDisk(ctx, b.tools, b.scratch, tinyBoot, file, filepath.Join(b.dir, diskName))
}

func (b *bench) addBoot(root tree) error {
	kernel, err := b.kernel()
	if err != nil {
		return err
	}
	root.file("boot/vmlinuz", 0o644, kernel)
	files, err := b.ramdisk()
	if err != nil {
		return err
	}
	packed := filepath.Join(b.scratch, ramdiskName)
	if err := writeRamdisk(packed, files); err != nil {
		return err
	}
	ramdisk, err := os.ReadFile(packed)
	if err != nil {
		return err
	}
	root.file("boot/initrd.gz", 0o644, ramdisk)
	return nil
}

// installTools makes the packages' programs runnable in the scratch folder.
func (b *bench) installTools(names ...string) error {
	files := tree{}
	files.file(mkfsConfigName, 0o644, []byte(mkfsConfig))
	for _, name := range names {
		source, err := b.program(name)
		if err != nil {
			return err
		}
		if err := addProgram(files, b.packages, source, name); err != nil {
			return err
		}
	}
	for name, n := range b.packages {
		if strings.HasPrefix(name, grubModules+"/") && slices.Contains(names, "grub-mkimage") {
			files.put(name, n)
		}
	}
	b.tools.dir = filepath.Join(b.scratch, "tools")
	if err := os.Mkdir(b.tools.dir, 0o700); err != nil {
		return err
	}
	return files.write(b.tools.dir)
}

// program finds where the packages have a program.
func (b *bench) program(name string) (string, error) {
	for _, p := range programs {
		if path.Base(p) != name {
			continue
		}
		for _, at := range []string{p, "usr/" + p} {
			if _, err := b.packages.follow(at); err == nil {
				return at, nil
			}
		}
	}
	return "", fmt.Errorf("program %s is in none of the packages: %w", name, fs.ErrNotExist)
}

func (b *bench) kernel() ([]byte, error) {
	for _, name := range b.packages.names() {
		if strings.HasPrefix(name, "boot/vmlinuz-") {
			return b.packages.follow(name)
		}
	}
	return nil, fmt.Errorf("boot/vmlinuz-* is in none of the packages: %w", fs.ErrNotExist)
}

// addModules copies kernel modules into one flat folder, in the order in which a script of the
// same folder's list loads them.
func (b *bench) addModules(t tree, list string, modules []string) error {
	for _, m := range modules {
		file := m + ".ko"
		i := slices.IndexFunc(b.packages.names(), func(name string) bool { return path.Base(name) == file })
		if i < 0 {
			return fmt.Errorf("kernel module %s is in none of the packages: %w", file, fs.ErrNotExist)
		}
		data, err := b.packages.follow(b.packages.names()[i])
		if err != nil {
			return err
		}
		t.file(path.Join(moduleDir, file), 0o644, data)
	}
	t.file(path.Join(moduleDir, list), 0o644, []byte(strings.Join(modules, "\n")+"\n"))
	return nil
}

// ramdisk is what runs before the root file system is there.
func (b *bench) ramdisk() (tree, error) {
	t := tree{}
	busybox, err := b.packages.follow(guestBusybox)
	if err != nil {
		return nil, err
	}
	t.file(guestBusybox, 0o755, busybox)
	for _, dir := range []string{"dev", "proc", "sys", "root"} {
		t.dir(dir, 0o755)
	}
	t.console("dev/console") // the kernel opens it for init, before devtmpfs is mounted
	if err := b.addModules(t, "ramdisk", ramdiskModules); err != nil {
		return nil, err
	}
	return t, addGuest(t, "guest/ramdisk")
}

// root is the root file system's content.
func (b *bench) root(ctx context.Context) (tree, error) {
	t := tree{}
	for _, dir := range []string{"dev", "proc", "sys", "run", "mnt", "boot", "etc/dropbear", "usr/share", "var/log", "var/lib/mallee"} {
		t.dir(dir, 0o755)
	}
	t.dir("tmp", 0o755) // a tmpfs with its own permissions is mounted on it
	t.dir("root", 0o700)
	t.dir("root/.ssh", 0o700)
	for name, target := range map[string]string{"var/run": "/run", "var/tmp": "/tmp", "etc/mtab": "/proc/mounts"} {
		t.symlink(name, target)
	}
	if err := b.addBusybox(ctx, t); err != nil {
		return nil, err
	}
	for _, name := range []string{"dropbear", "dropbearkey"} {
		source, err := b.program(name)
		if err != nil {
			return nil, err
		}
		if err := addProgram(t, b.packages, source, source); err != nil {
			return nil, err
		}
	}
	for list, modules := range map[string][]string{"net": netModules, "power": powerModules, "late": lateModules} {
		if err := b.addModules(t, list, modules); err != nil {
			return nil, err
		}
	}
	return t, addGuest(t, "guest/root")
}

// addBusybox installs BusyBox and a symbolic link for each of its programs, as it lists them itself.
func (b *bench) addBusybox(ctx context.Context, t tree) error {
	data, err := b.packages.follow(guestBusybox)
	if err != nil {
		return err
	}
	t.file(guestBusybox, 0o755, data)
	file := filepath.Join(b.scratch, "busybox")
	if err := os.WriteFile(file, data, 0o700); err != nil {
		return err
	}
	list, err := exec.CommandContext(ctx, file, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("asking busybox for its programs: %w", err)
	}
	for line := range strings.Lines(string(list)) {
		if name := strings.TrimSpace(line); name != "" && t[name] == nil {
			t.symlink(name, "/"+guestBusybox)
		}
	}
	return nil
}

// addGuest copies the tiny guest's files.
func addGuest(t tree, from string) error {
	if err := addEmbedded(t, guestFiles, from, ""); err != nil {
		return err
	}
	if shadow := t["etc/shadow"]; shadow != nil {
		shadow.mode = 0o600
	}
	return nil
}

func writeRamdisk(file string, t tree) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := writeCPIO(z, t); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return f.Close()
}
