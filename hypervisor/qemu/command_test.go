package qemu

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mallee/block"
	"mallee/hypervisor"
	"mallee/network"
)

var update = flag.Bool("update", false, "write testdata anew")

// hvm is a machine as a node wishes for it.
func hvm() hypervisor.Machine {
	return hypervisor.Machine{
		ID: "i-1a2b3c4d", Dir: "/data/machines/i-1a2b3c4d", VCPUs: 1, MemoryMiB: 512,
		Disks: []hypervisor.Disk{{
			Serial:     "i-1a2b3c4d-root",
			Attachment: block.Attachment{Format: "qcow2", Path: "/data/disks/i-1a2b3c4d-root.qcow2"},
		}},
		NICs: []hypervisor.NIC{{
			MAC:        "d0:0d:1a:2b:3c:4d",
			Attachment: network.Attachment{Machine: "net.sock", Switch: "switch.sock", MTU: 1500},
		}},
		UUID:         "ec2a1b2c-3d4e-4f50-8123-456789abcdef",
		Manufacturer: "Mallee",
		Product:      "m1.small",
	}
}

// paravirtual is one with a kernel, and with all that can be odd.
func paravirtual() hypervisor.Machine {
	m := hvm()
	m.VCPUs, m.MemoryMiB, m.Product = 4, 4096, "c1.xlarge"
	m.Kernel, m.Ramdisk, m.Append = "/data/images/eki", "/data/images/eri", "root=/dev/vda1 console=ttyS0"
	m.NICs[0].Attachment.MTU = 65521
	return m
}

func severalDisks() hypervisor.Machine {
	m := hvm()
	for i, name := range []string{"ephemeral, with a comma", `quo"te`} {
		m.Disks = append(m.Disks, hypervisor.Disk{
			Serial:     fmt.Sprintf("vol-%d", i),
			Attachment: block.Attachment{Format: "raw", Path: "/data/disks/" + name},
			Limits: hypervisor.Limits{
				IOPS: 100 * i, BurstIOPS: 3000 * i, BurstSeconds: 1800 * i, BytesPerSecond: 128 << 20, OperationBytes: 256 << 10,
			},
		})
	}
	m.Disks = append(m.Disks, hypervisor.Disk{
		Serial: "vol-1a2b3c4d",
		Attachment: block.Attachment{
			Format: "qcow2", Path: "/data/volumes/vol-1a2b3c4d.qcow2", Key: make([]byte, block.KeySize),
			Source: block.Source{Socket: "/run/nbd.sock", Export: "snap-1", Size: 1 << 30},
		},
	})
	return m
}

func keeper(m hypervisor.Machine) hypervisor.Machine {
	return hypervisor.Machine{ID: m.ID, Dir: m.Dir, Disks: m.Disks}
}

func TestCommandLine(t *testing.T) {
	for _, test := range []struct {
		name    string
		machine hypervisor.Machine
		accel   Accel
	}{
		{"hvm-tcg", hvm(), TCG},
		{"hvm-kvm", hvm(), KVM},
		{"paravirtual-tcg", paravirtual(), TCG},
		{"several-disks-tcg", severalDisks(), TCG},
		{"keeper", keeper(severalDisks()), TCG},
		{"bare-tcg", hypervisor.Machine{ID: "i-00000001", Dir: "/m", VCPUs: 1, MemoryMiB: 64}, TCG},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := check(test.machine); err != nil {
				t.Fatal(err)
			}
			args := commandLine(test.machine, test.accel)
			if test.machine.VCPUs == 0 {
				args = keeperCommandLine(test.machine)
			}
			transcript(t, test.name, lines(args))
		})
	}
}

// lines puts each option on a line of its own.
func lines(args []string) string {
	var b strings.Builder
	for i, arg := range args {
		if strings.HasPrefix(arg, "-") && i > 0 {
			b.WriteByte('\n')
		} else if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(arg)
	}
	return b.String() + "\n"
}

// transcript compares with a file in testdata, or writes it.
func transcript(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the command line is not that of %s (-update writes it anew); it is:\n%s", path, got)
	}
}

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(*hypervisor.Machine)
		want  string
	}{
		{"relative folder", func(m *hypervisor.Machine) { m.Dir = "machines" }, `"machines"`},
		{"minus one vCPU", func(m *hypervisor.Machine) { m.VCPUs = -1 }, "vCPU"},
		{"negative memory", func(m *hypervisor.Machine) { m.MemoryMiB = -1 }, "-1 MiB"},
		{"ramdisk alone", func(m *hypervisor.Machine) { m.Ramdisk = "/eri" }, "/eri"},
		{"command line alone", func(m *hypervisor.Machine) { m.Append = "quiet" }, "quiet"},
		{"long serial", func(m *hypervisor.Machine) { m.Disks[0].Serial = "i-0123456789abcdef0-root" }, "20 bytes"},
		{"no serial", func(m *hypervisor.Machine) { m.Disks[0].Serial = "" }, "20 bytes"},
		{"a dot", func(m *hypervisor.Machine) { m.Disks[0].Serial = "a.b" }, "a.b"},
		{"two of a serial", func(m *hypervisor.Machine) { m.Disks = append(m.Disks, m.Disks[0]) }, "two disks"},
		{"a raw disk with a key", func(m *hypervisor.Machine) {
			m.Disks[0].Attachment.Format, m.Disks[0].Attachment.Key = "raw", make([]byte, 32)
		}, "qcow2"},
		{"a negative limit", func(m *hypervisor.Machine) { m.Disks[0].Limits.IOPS = -1 }, "below zero"},
		{"a burst below the limit", func(m *hypervisor.Machine) {
			m.Disks[0].Limits = hypervisor.Limits{IOPS: 2, BurstIOPS: 1, BurstSeconds: 1}
		}, "at least the limit"},
		{"a burst of no length", func(m *hypervisor.Machine) { m.Disks[0].Limits = hypervisor.Limits{IOPS: 1, BurstIOPS: 2} }, "its seconds"},
		{"too many disks", func(m *hypervisor.Machine) {
			for i := range 32 {
				d := m.Disks[0]
				d.Serial = fmt.Sprintf("vol-%d", i)
				m.Disks = append(m.Disks, d)
			}
		}, "33 disks"},
		{"unknown format", func(m *hypervisor.Machine) { m.Disks[0].Attachment.Format = "vmdk" }, "vmdk"},
		{"a file and an image", func(m *hypervisor.Machine) { m.Disks[0].Attachment.RBD.Image = "vol" }, "want one of them"},
		{"relative disk", func(m *hypervisor.Machine) { m.Disks[0].Attachment.Path = "disk" }, `"disk"`},
	} {
		m := hvm()
		test.spoil(&m)
		if err := check(m); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q in it", test.name, err, test.want)
		}
	}
}
