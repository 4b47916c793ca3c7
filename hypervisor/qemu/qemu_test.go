package qemu

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"mallee/block"
	"mallee/hypervisor"
	"mallee/hypervisor/hypervisortest"
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
	needsQEMU(t)
	endings := map[hypervisortest.Guest]ending{
		hypervisortest.Halts:     halts,
		hypervisortest.PowersOff: powersOff,
		hypervisortest.Obeys:     obeys,
	}
	hypervisortest.Run(t, func(*testing.T) hypervisortest.World {
		return hypervisortest.World{
			Open: func(t *testing.T) hypervisor.Hypervisor { return openTest(t) },
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
