package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

const (
	bootGap = 1 << 20    // bytes before the first partition; GRUB's core lives in it
	diskID  = 0x6d616c6c // the MBR's; partition 1 is PARTUUID=6d616c6c-01

	bootCode = 440 // bytes of the first sector that are the boot loader's

	grubModules = "usr/lib/grub/i386-pc"
)

// bootConfig is built into GRUB's core: it boots one kernel and asks nobody. linux16 starts the
// kernel by its 16-bit entry, at 1 MiB where GRUB has put it; `linux` would first move the 54 MB
// that the kernel wants at 16 MiB, byte by byte, which takes an emulated processor seconds.
func bootConfig(kernel, ramdisk, arguments string) string {
	return `serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set root=(hd0,msdos1)
linux16 ` + kernel + ` ` + arguments + `
initrd16 ` + ramdisk + `
boot
`
}

var tinyBoot = bootConfig("/boot/vmlinuz", "/boot/initrd.gz", "root=/dev/vda1 console=ttyS0 edd=off "+TinyArguments)

// bootDisk writes a disk that BIOS firmware boots: GRUB's boot sector with a partition table, GRUB's
// core from sector 1, and the file system at 1 MiB. GRUB's images are used as they are: the boot
// sector loads its core from sector 1 unless an installer says otherwise.
func bootDisk(ctx context.Context, t tools, scratch, config, rootFile, file string) error {
	boot, err := grubBoot(ctx, t, scratch, config)
	if err != nil {
		return err
	}
	root, err := os.Open(rootFile)
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Stat()
	if err != nil {
		return err
	}
	length := info.Size()
	err = writeTable(boot[:sector], diskID, partition{kind: typeLinux, active: true, start: bootGap / sector, length: length / sector})
	if err != nil {
		return err
	}
	if err := createSparse(file, bootGap+length); err != nil {
		return err
	}
	disk, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	if _, err := disk.WriteAt(boot, 0); err != nil {
		return err
	}
	if err := copySparse(disk, bootGap, root, length); err != nil {
		return err
	}
	return disk.Close()
}

// grubBoot is the first sector and GRUB's core behind it.
func grubBoot(ctx context.Context, t tools, scratch, config string) ([]byte, error) {
	modules := filepath.Join(t.dir, grubModules)
	early, core := filepath.Join(scratch, "early.cfg"), filepath.Join(scratch, "core.img")
	if err := os.WriteFile(early, []byte(config), 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(early)
	defer os.Remove(core)
	_, err := t.run(ctx, nil, "grub-mkimage", "-d", modules, "-O", "i386-pc", "-c", early, "-p", "(hd0,msdos1)/boot/grub",
		"-o", core, "biosdisk", "part_msdos", "ext2", "linux16", "serial", "terminal")
	if err != nil {
		return nil, err
	}
	first, err := os.ReadFile(filepath.Join(modules, "boot.img"))
	if err != nil {
		return nil, err
	}
	rest, err := os.ReadFile(core)
	if err != nil {
		return nil, err
	}
	if len(first) != sector || sector+len(rest) > bootGap {
		return nil, fmt.Errorf("GRUB's boot.img has %d bytes and its core %d: they don't fit before 1 MiB", len(first), len(rest))
	}
	clear(first[bootCode:])
	return append(first, rest...), nil
}
