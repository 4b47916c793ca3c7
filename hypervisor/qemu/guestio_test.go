package qemu

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"mallee/block"
	"mallee/hypervisor"
)

var (
	ioMiB = flag.Int64("io-mib", 128, "how many MiB the disks of BenchmarkGuestIO have")
	ioFor = flag.Int("io-ms", 1000, "for how many milliseconds each pattern is repeated on each disk")
)

// ioPatterns are those of testdata/load.
var ioPatterns = []string{"random-read", "random-write", "sequential-read", "sequential-write", "sync-write"}

// BenchmarkGuestIO compares disks as one guest sees them, turn by turn: what
// instances and volumes have, against a raw file that QEMU is given by itself,
// with nothing of ours. It reports, for each, by how many times the raw file is
// faster in each turn.
func BenchmarkGuestIO(b *testing.B) {
	g := startLinux(b)
	devices := map[string]string{"bare": g.plugBare(b), "instance-store": g.plug(overlaid(b)), "volume": g.plug(volumed(b))}
	load := g.plugLoad(b)
	for name, device := range devices {
		g.run(fmt.Sprintf("%s %s sequential-write all", load, device))
		b.Logf("%s is %s, written once", name, device)
	}
	devices["streaming"] = g.plug(streaming(b))
	g.do("Fill", g.h.Fill(b.Context(), g.m.Dir, "streaming", 1<<20))
	ratios := map[string][]float64{}
	for turn := 0; b.Loop(); turn++ {
		for _, pattern := range ioPatterns {
			g.compare(pattern, load, turn, devices, ratios)
		}
	}
	for name, list := range ratios {
		for turn, ratio := range list {
			b.ReportMetric(ratio, fmt.Sprintf("%s#%d", name, turn))
		}
	}
	b.ReportMetric(0, "ns/op")
}

// compare the disks in one pattern; who begins changes with the turn.
func (g *linux) compare(pattern, load string, turn int, devices map[string]string, ratios map[string][]float64) {
	g.t.Helper()
	names := []string{"bare", "instance-store", "volume", "streaming"}
	rates := map[string]float64{}
	for i := range names {
		name := names[(i+turn)%len(names)]
		out := g.run(fmt.Sprintf("%s %s %s %d", load, devices[name], pattern, *ioFor))
		rate, err := strconv.ParseFloat(out, 64)
		if err != nil || rate <= 0 {
			g.t.Fatalf("%s on %s: %q, %v", pattern, name, out, err)
		}
		rates[name] = rate
		g.t.Logf("turn %d: %s on %s: %.1f operations a second", turn, pattern, name, rate)
	}
	for _, name := range names[1:] {
		key := "bare/" + name + "-" + pattern
		ratios[key] = append(ratios[key], rates["bare"]/rates[name])
	}
}

// plugBare gives the guest a raw file as QEMU's manual does.
func (g *linux) plugBare(b *testing.B) (device string) {
	b.Helper()
	const serial = "bare"
	orders := []step{
		{"blockdev-add", arguments{"driver": "raw", "node-name": serial, "file": arguments{"driver": "file", "filename": rawFile(b, "bare.raw")}}},
		{"device_add", arguments{"driver": "virtio-blk-pci", "id": serial, "drive": serial, "serial": serial, "bus": slotsBridge, "addr": "0x1e"}},
	}
	g.do("plug", g.h.machines[g.m.Dir].orders(b.Context(), orders...))
	return g.deviceOf(serial)
}

// overlaid is what an instance-store root has: an overlay on an image.
func overlaid(b *testing.B) hypervisor.Disk {
	b.Helper()
	return newDisk(b, "overlaid", block.Disk{Base: rawFile(b, "image.raw"), Size: *ioMiB << 20})
}

// volumed is a volume of its own, with limits so high that they are never reached.
func volumed(b *testing.B) hypervisor.Disk {
	b.Helper()
	d := newDisk(b, "volume", block.Disk{Size: *ioMiB << 20})
	d.Limits = hypervisor.Limits{IOPS: 10_000_000, BytesPerSecond: 1 << 40, OperationBytes: 256 << 10}
	return d
}

// streaming is a volume that stands on its snapshot yet.
func streaming(b *testing.B) hypervisor.Disk {
	b.Helper()
	source, _ := serve(b).source(slices.Repeat([]byte("source. "), int(*ioMiB<<17)))
	return newDisk(b, "streaming", block.Disk{Size: *ioMiB << 20, Source: source})
}

// rawFile of noise enough that it isn't sparse.
func rawFile(b *testing.B, name string) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), name)
	if err := os.WriteFile(path, slices.Repeat([]byte("raw file"), int(*ioMiB<<17)), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// plugLoad builds the load and brings it into the guest on a disk: its path there.
func (g *linux) plugLoad(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "load")
	build := exec.CommandContext(b.Context(), "go", "build", "-ldflags", "-s -w", "-o", path, "./testdata/load")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.Truncate(path, (info.Size()+511)/512*512); err != nil { // whole sectors; what follows an executable is ignored
		b.Fatal(err)
	}
	device := g.plug(hypervisor.Disk{Serial: "load", Attachment: block.Attachment{Format: "raw", Path: path}})
	g.run("cat " + device + " > /dev/load; chmod +x /dev/load")
	return "/dev/load"
}
