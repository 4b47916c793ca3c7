package image

import (
	"context"
	"embed"
	"io/fs"
	"path/filepath"
	"strings"
)

// Debian for instances: what debootstrap would install, with systemd, cloud-init, OpenSSH and Debian's cloud kernel. The
// scripts under debian/ run in the machine that installs it: init, install, and finish, which removes what must not
// be the same in every instance. overlay/ are the files that differ from Debian's.

//go:embed debian
var debianFiles embed.FS

const (
	debianSize = 2 << 30 // bytes of the root file system
	debianID   = "6d616c6c-6565-4000-8000-646562693132"
)

var debian12 = system{
	packages: []string{"apt", "ca-certificates", "cloud-guest-utils", "cloud-init", "dbus", "init", "initramfs-tools", "iproute2", "iputils-ping",
		"isc-dhcp-client", "less", "libnss-resolve", "linux-image-cloud-amd64", "nano-tiny", "netbase", "openssh-server", "sudo", "systemd-sysv", "udev", "usr-is-merged"},
	release: "12.",
	files:   "debian",
}

// The kernel and its ramdisk are found by links that each new kernel's package points at itself.
var debianBoot = bootConfig("/vmlinuz", "/initrd.img", "root=PARTUUID=6d616c6c-01 ro console=tty0 console=ttyS0,115200 quiet no_timer_check")

// debianPackages are what the build itself needs.
var debianPackages = []want{
	{name: "linux-image-cloud-amd64", meta: true, prefix: "linux-image-"},
	{name: "busybox-static"},
	{name: "e2fsprogs", deep: true},
	{name: "grub-common", deep: true},
	{name: "grub-pc-bin"},
}

// assembleDebian makes the bootable disk of a Debian system.
func assembleDebian(ctx context.Context, b *bench) error {
	if err := b.installTools("mke2fs", "debugfs", "grub-mkimage"); err != nil {
		return err
	}
	root, err := debian12.installed(ctx, b)
	if err != nil {
		return err
	}
	b.progress("writing the disk", 0, 0)
	file := filepath.Join(b.scratch, rootName)
	e := extFS{label: "debian", id: debianID, size: debianSize, journal: 32, files: root}
	if err := e.write(ctx, b.tools, b.scratch, file); err != nil {
		return err
	}
	return bootDisk(ctx, b.tools, b.scratch, debianBoot, file, filepath.Join(b.dir, diskName))
}

// addEmbedded copies a folder of embedded files to a place in the tree. Scripts become executable.
func addEmbedded(t tree, files embed.FS, from, to string) error {
	return fs.WalkDir(files, from, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		perm := fs.FileMode(0o644)
		if strings.HasPrefix(string(data), "#!") {
			perm = 0o755
		}
		t.file(to+strings.TrimPrefix(name, from), perm, data)
		return nil
	})
}
