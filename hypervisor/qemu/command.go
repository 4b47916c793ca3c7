package qemu

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"mallee/hypervisor"
)

const (
	// What QEMU's translations may take of the host's memory for one guest, in
	// MiB; when it is full all is translated anew. Booting a small Linux fills
	// 54. QEMU's own default is as much as the guest touches, up to a GiB.
	translationMiB = 64
)

// check refuses a machine that QEMU would misunderstand.
func check(m hypervisor.Machine) error {
	switch {
	case !filepath.IsAbs(m.Dir):
		return fmt.Errorf("folder %q: want an absolute path", m.Dir)
	case m.VCPUs < 0:
		return fmt.Errorf("%d vCPUs: want one at least, or none for a keeper", m.VCPUs)
	case m.VCPUs == 0:
		return checkDisks(m.Disks)
	case m.MemoryMiB < 1:
		return fmt.Errorf("%d MiB of memory: want one at least", m.MemoryMiB)
	case m.Kernel == "" && (m.Ramdisk != "" || m.Append != ""):
		return fmt.Errorf("ramdisk %q and command line %q without a kernel", m.Ramdisk, m.Append)
	}
	if len(m.Disks) > 1+lastSlot {
		return fmt.Errorf("%d disks: want no more than %d", len(m.Disks), 1+lastSlot)
	}
	return checkDisks(m.Disks)
}

// commandLine is QEMU's, without its name. All sockets and logs are named
// relative to the machine's folder, in which QEMU runs.
func commandLine(m hypervisor.Machine, accel Accel) []string {
	args := []string{
		"-name", "guest=" + escape(m.ID),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-action", "reboot=reset,shutdown=pause",
		"-pidfile", pidName,
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", listenFD),
		"-mon", "chardev=qmp,mode=control",
	}
	args = append(args, accelerator(accel)...)
	args = append(args,
		"-smp", strconv.Itoa(m.VCPUs),
		"-m", strconv.Itoa(m.MemoryMiB),
		"-chardev", "socket,id=serial,path="+serialName+",server=on,wait=off,logfile="+consoleName+",logappend=on",
		"-serial", "chardev:serial",
		"-object", "rng-builtin,id=rng",
		"-device", "virtio-rng-pci,rng=rng",
	)
	args = append(args, display()...)
	args = append(args, identity(m)...)
	args = append(args, boot(m, accel)...)
	args = append(args, firstDisk(m)...)
	for i, n := range m.NICs {
		args = append(args, nic(i, n)...)
	}
	return append(args, otherDisks(m)...)
}

func accelerator(accel Accel) []string {
	if accel == KVM {
		return []string{"-M", "q35", "-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-M", "q35", "-accel", fmt.Sprintf("tcg,thread=multi,tb-size=%d", translationMiB), "-cpu", "max"}
}

// identity is how the guest sees whose machine it is.
func identity(m hypervisor.Machine) []string {
	if m.UUID == "" {
		return nil
	}
	return []string{"-uuid", m.UUID, "-smbios", fmt.Sprintf("type=1,manufacturer=%s,product=%s,serial=%s,uuid=%s",
		escape(m.Manufacturer), escape(m.Product), escape(m.UUID), escape(m.UUID))}
}

// emulatedArguments spare an emulated processor what a Linux kernel does only
// for a real one's sake, a quarter of its boot: mitigations of faults that it
// doesn't have, self-tests, and patching the kernel's locks, which throws
// translated code away. Its clock may be too slow for the check of the timer,
// which a loaded host fails with a panic.
const emulatedArguments = " mitigations=off cryptomgr.notests noreplace-smp no_timer_check quiet"

func boot(m hypervisor.Machine, accel Accel) []string {
	if m.Kernel == "" {
		return []string{"-boot", "strict=on"} // the first disk or nothing
	}
	args := []string{"-kernel", m.Kernel}
	if m.Ramdisk != "" {
		args = append(args, "-initrd", m.Ramdisk)
	}
	if m.Append != "" && accel == TCG {
		m.Append += emulatedArguments
	}
	if m.Append != "" {
		args = append(args, "-append", m.Append)
	}
	return args
}

// firstDisk opens all disks, and shows the guest the first, where firmware looks
// for it. It is there for good.
func firstDisk(m hypervisor.Machine) []string {
	args := diskOptions(m.Disks)
	if len(m.Disks) == 0 {
		return args
	}
	options := device(m.Disks[0])
	if m.Kernel == "" {
		options = append(options, option{"bootindex", "0"}) // a kernel has it otherwise
	}
	return append(args, "-device", commandOption(options))
}

// otherDisks sit behind the bridge, where the guest may be asked to give them back
// and finds those that come later. The bridge is the last on its bus: what is before it stays
// where it is, whatever the disks are.
func otherDisks(m hypervisor.Machine) []string {
	args := []string{"-device", "pcie-pci-bridge,id=" + slotsBridge}
	for i, d := range m.Disks {
		if i > 0 {
			args = append(args, "-device", commandOption(inSlot(device(d), i)))
		}
	}
	return args
}

// nic is an interface on a pair of datagram sockets, without a boot ROM.
func nic(i int, n hypervisor.NIC) []string {
	id := fmt.Sprintf("nic%d", i)
	device := fmt.Sprintf("virtio-net-pci,netdev=%s,mac=%s,romfile=", id, escape(n.MAC))
	if mtu := n.Attachment.MTU; mtu > 1500 {
		device += fmt.Sprintf(",host_mtu=%d", mtu)
	}
	return []string{
		"-netdev", fmt.Sprintf("dgram,id=%s,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s",
			id, escape(n.Attachment.Machine), escape(n.Attachment.Switch)),
		"-device", device,
	}
}

// escape writes a value into a list of options, where a comma ends one.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }
