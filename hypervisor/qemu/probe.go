package qemu

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	kvmDevice = "/dev/kvm"
	bootID    = "/proc/sys/kernel/random/boot_id"

	// How long the probe's guest may take: some 0.1 s with KVM, and 0.15 s
	// without on an idle machine.
	kvmTimeout = 2 * time.Second
	tcgTimeout = 30 * time.Second
)

// Proof is what Probe found out. A caller may keep it as JSON, and hand it to
// the next Probe.
type Proof struct {
	Accel Accel  `json:"accel"`
	Why   string `json:"why"` // one line: why it isn't KVM, or how it was proven
	Key   string `json:"key"` // what it holds for: this boot, this QEMU, this device
}

// Probe finds the acceleration that works here. That /dev/kvm is there proves
// nothing: hosts exist where a guest hangs in it or QEMU aborts. So a small
// guest has to run. A kept proof that still holds is returned as it is, at the
// cost of some system calls; otherwise it takes some 0.1 s, and 2 s where a guest hangs.
// binary is as in Options.
func Probe(ctx context.Context, binary string, kept Proof) Proof {
	key := proofKey(binary)
	if kept.Key == key && (kept.Accel == KVM || kept.Accel == TCG) {
		return kept
	}
	err := checkKVM()
	if err == nil {
		err = Try(ctx, binary, KVM)
	}
	switch {
	case err == nil:
		return Proof{Accel: KVM, Why: "a small guest has run under KVM", Key: key}
	case ctx.Err() != nil:
		return Proof{Accel: TCG, Why: err.Error()} // proves nothing for later
	}
	return Proof{Accel: TCG, Why: err.Error(), Key: key}
}

// proofKey changes when a proof may no longer hold.
func proofKey(binary string) string {
	boot, _ := os.ReadFile(bootID) // without it the rest has to do
	path, err := findBinary(cmp.Or(binary, defaultBinary))
	if err != nil {
		path = "none"
	}
	return fmt.Sprintf("%s %s as %d", bytes.TrimSpace(boot), identify(path), os.Getuid()) +
		" on " + identify(kvmDevice) + access(kvmDevice)
}

// identify names a file's contents or a device, without reading it.
func identify(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return path + " missing"
	}
	return fmt.Sprintf("%s %v %d %d", path, info.Mode(), info.Size(), info.ModTime().UnixNano())
}

func access(path string) string {
	if err := openKVM(path); err != nil {
		return " closed"
	}
	return " open"
}

func openKVM(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// checkKVM tells what keeps us from KVM before any guest does, and what mends it.
func checkKVM() error {
	err := openKVM(kvmDevice)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no %s: the processor's virtualization is switched off, or its module not loaded (modprobe kvm_intel or kvm_amd)", kvmDevice)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be opened by this user (sudo usermod -aG kvm %s, and log in anew)", kvmDevice, cmp.Or(os.Getenv("USER"), "$USER"))
	case err != nil:
		return fmt.Errorf("KVM can't be used: %w", err)
	}
	return nil
}

// Try runs a small guest, which boots by firmware from a disk into 64-bit code
// and says so. The error tells why that fails. binary is as in Options.
func Try(ctx context.Context, binary string, accel Accel) error {
	path, err := findBinary(cmp.Or(binary, defaultBinary))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mallee-probe-")
	if err != nil {
		return fmt.Errorf("trying %s: %w", accel, err)
	}
	defer os.RemoveAll(dir)
	disk := filepath.Join(dir, "disk")
	if err := writeSectorDisk(disk, probeSector()); err != nil {
		return fmt.Errorf("trying %s: %w", accel, err)
	}
	limit := tcgTimeout
	if accel == KVM {
		limit = kvmTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it hangs: nothing within %v", limit))
	defer cancel()
	if err := tryGuest(ctx, path, probeCommand(disk, accel)); err != nil {
		return fmt.Errorf("a small guest does not run under %s: %w", strings.ToUpper(string(accel)), err)
	}
	return nil
}

func writeSectorDisk(path string, sector []byte) error {
	if err := os.WriteFile(path, sector, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, sectorDiskSize)
}

// probeCommand has the machine and processor that guests get.
func probeCommand(disk string, accel Accel) []string {
	return append(accelerator(accel),
		"-nodefaults", "-no-user-config", "-display", "none", "-m", "32",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-serial", "stdio",
		"-device", fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=4", exitPort),
		"-blockdev", "driver=raw,node-name=disk,file.driver=file,file.filename="+escape(disk),
		"-device", "virtio-blk-pci,drive=disk",
	)
}

// tryGuest runs QEMU and judges what it wrote and how it ended.
func tryGuest(ctx context.Context, binary string, args []string) error {
	// A guest that hangs must not outlive us; the kernel tells the thread that
	// started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var console, said bytes.Buffer
	qemu := exec.CommandContext(ctx, binary, args...)
	qemu.Stdout, qemu.Stderr = &console, &said
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	qemu.WaitDelay = time.Second
	err := qemu.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitStatus && strings.Contains(console.String(), strings.TrimSpace(probeText)) {
		return nil
	}
	if first, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n"); first != "" {
		return fmt.Errorf("%s (%v)", first, err)
	}
	return fmt.Errorf("QEMU ends with %v, having printed %q", err, console.String())
}
