package qemu

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"mallee/block"
	"mallee/block/file"
	"mallee/hypervisor"
)

// writes has the firmware write 64 sectors from the 128th on, then prints "W".
var writes = append(ending{
	0x6a, 0x00, // push 0                what to write, from its end:
	0x6a, 0x00, // push 0
	0x6a, 0x00, // push 0
	0x68, 0x80, 0x00, // push 128        sector
	0x6a, 0x00, // push 0
	0x68, 0x00, 0x80, // push 0x8000     memory
	0x6a, 0x40, // push 64               sectors
	0x6a, 0x10, // push 16               length of this
	0x89, 0xe6, // mov si, sp
	0xb8, 0x00, 0x43, // mov ax, 0x4300
	0xb2, 0x80, // mov dl, 0x80          first disk
	0xcd, 0x13, // int 0x13
	0xb0, 'W', // mov al, 'W'
	0xba, 0xf8, 0x03, // mov dx, 0x3f8
	0xee, // out dx, al
}, halts...)

const smallDir = "MALLEE_TEST_SMALL_DIR" // set in the child of TestFullDisk: where it may mount

// TestFullDisk lets the file system be full under a guest that writes: the
// guest waits, and goes on when there is space again and somebody observes it.
// It runs in a mount namespace of its own.
func TestFullDisk(t *testing.T) {
	needsQEMU(t)
	if dir := os.Getenv(smallDir); dir != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
			t.Skipf("mounting a small file system: %v", err)
		}
		waitsForSpace(t, dir)
		return
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
	child.Env = append(os.Environ(), smallDir+"="+t.TempDir())
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		child.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skipf("no namespace to mount a small file system in: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skipf("%s", out)
	}
}

func waitsForSpace(t *testing.T, dir string) {
	h := openTest(t)
	defer h.Close()
	m := sectorMachine(t, printSector("boots ", writes))
	killLater(t, m.Dir)
	disks, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := disks.Ensure(t.Context(), block.Disk{Name: "root", Base: m.Disks[0].Attachment.Path, Size: sectorDiskSize})
	if err != nil {
		t.Fatal(err)
	}
	m.Disks[0].Attachment = overlay
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 8<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the file system: %v", err)
	}
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	waitConsole(t, h, m.Dir, "boots ")
	waitState(t, h, m.Dir, stateIOError)
	if s := observe(t, h, m.Dir); s != hypervisor.Running {
		t.Errorf("a guest that waits for space is %s, want running", s)
	}
	waitState(t, h, m.Dir, stateIOError) // it has tried in vain
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for readConsole(t, h, m.Dir) != "boots W" {
		if time.Now().After(deadline) {
			t.Fatalf("the guest does not go on; its console says %q", readConsole(t, h, m.Dir))
		}
		observe(t, h, m.Dir) // as a node does all the time
	}
}

func waitState(t *testing.T, h *Hypervisor, dir string, want runState) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		state, err := h.machines[dir].state(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if state == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("QEMU's state is %s, want %s", state, want)
		}
	}
}
