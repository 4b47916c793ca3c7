package qemu

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mallee/block"
	"mallee/block/file"
	"mallee/hypervisor"
	"mallee/hypervisor/hypervisortest"
	"mallee/network"
)

// testAccel is what works on every host.
const testAccel = TCG

func openTest(t testing.TB) *Hypervisor {
	t.Helper()
	h, err := Open(Options{Accel: testAccel, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// testWriter logs to the test.
type testWriter struct{ testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.Logf("%s", p)
	return len(p), nil
}

// sectorMachine boots a sector, in a folder whose path is longer than a
// socket's address can be.
func sectorMachine(t testing.TB, sector []byte) hypervisor.Machine {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a-folder-whose-path-is-much-longer-than-the-address-of-a-unix-socket-may-be-which-is-a-hundred-and-seven-bytes")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if said, err := os.ReadFile(filepath.Join(dir, logName)); t.Failed() && err == nil && len(said) > 0 {
			t.Logf("QEMU says %s", said)
		}
	})
	disk := filepath.Join(dir, "boot.raw")
	if err := writeSectorDisk(disk, sector); err != nil {
		t.Fatal(err)
	}
	return hypervisor.Machine{
		ID: "i-0000cafe", Dir: dir, VCPUs: 1, MemoryMiB: 32,
		Disks: []hypervisor.Disk{{Serial: "vol-boot", Attachment: block.Attachment{Format: "raw", Path: disk}}},
		UUID:  "ec2c0ffe-0000-4000-8000-000000000001", Manufacturer: "Eucalyptus, and others", Product: "m1.small",
	}
}

func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds of real guests")
	}
	needsQEMU(t)
	endings := map[hypervisortest.Guest]ending{
		hypervisortest.Halts:     halts,
		hypervisortest.PowersOff: powersOff,
		hypervisortest.Obeys:     obeys,
	}
	needsTools(t)
	hypervisortest.Run(t, func(t *testing.T) hypervisortest.World {
		return hypervisortest.World{
			Storage: testStorage(t),
			Open:    func(t *testing.T) hypervisor.Hypervisor { return openTest(t) },
			Machine: func(t *testing.T, g hypervisortest.Guest) hypervisor.Machine {
				return sectorMachine(t, printSector(hypervisortest.Hello, endings[g]))
			},
			Broken: func(t *testing.T) hypervisor.Machine {
				m := sectorMachine(t, nil)
				m.Disks[0].Attachment.Path += ".gone"
				return m
			},
		}
	})
}

func readConsole(t testing.TB, h *Hypervisor, dir string) string {
	t.Helper()
	r, err := h.Console(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// printKernel is a Linux kernel by its header, of the oldest boot protocol: a
// boot sector that is not run, and a setup sector that is, in real mode with
// ds at the boot sector. Source: Linux's Documentation/arch/x86/boot.rst.
func printKernel(text string) []byte {
	const setupSectors, entry, code = 0x1f1, 0x200, 0x280
	kernel := make([]byte, 64<<10)
	copy(kernel, bootable(nil))
	kernel[setupSectors] = 4
	copy(kernel[entry:], []byte{0xe9, code - entry - 3, 0}) // jmp code
	copy(kernel[code:], printCode(code, text, halts))
	return kernel
}

// TestKernel boots a kernel and no firmware's disk.
func TestKernel(t *testing.T) {
	needsQEMU(t)
	h := openTest(t)
	defer h.Close()
	m := sectorMachine(t, printSector("from the disk\n", halts))
	killLater(t, m.Dir)
	m.Kernel, m.Append = filepath.Join(m.Dir, "kernel"), "root=/dev/vda1, really"
	if err := os.WriteFile(m.Kernel, printKernel("from the kernel\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	waitConsole(t, h, m.Dir, "from the kernel\n")
}

// TestEverything has several disks, among them an overlay, an interface whose
// other side isn't there, and several processors.
func TestEverything(t *testing.T) {
	needsQEMU(t)
	h := openTest(t)
	defer h.Close()
	m := sectorMachine(t, nil)
	killLater(t, m.Dir)
	disks, err := file.Open(filepath.Join(m.Dir, "disks, ours"))
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(m.Dir, "base, a.raw")
	if err := writeSectorDisk(base, printSector("hello\n", halts)); err != nil {
		t.Fatal(err)
	}
	m.Disks = nil
	for i, d := range []block.Disk{{Name: "root", Base: base, Size: 5 << 30}, {Name: "swap", Size: 1 << 30}} {
		attachment, err := disks.Ensure(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		m.Disks = append(m.Disks, hypervisor.Disk{Serial: fmt.Sprintf("vol-%d", i), Attachment: attachment})
	}
	m.VCPUs = 2
	m.NICs = []hypervisor.NIC{{MAC: "d0:0d:00:00:00:01", Attachment: network.Attachment{Machine: "net.sock", Switch: "switch.sock", MTU: 9000}}}
	for range 2 { // the second time over what the first left
		if err := h.Start(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		waitConsole(t, h, m.Dir, "hello\n")
		if err := h.Kill(t.Context(), m.Dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(m.Dir, consoleName)); err != nil {
			t.Fatal(err)
		}
	}
}

func waitConsole(t testing.TB, h *Hypervisor, dir, want string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(readConsole(t, h, dir), want) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the console never says %q but %q", want, readConsole(t, h, dir))
		}
	}
}
