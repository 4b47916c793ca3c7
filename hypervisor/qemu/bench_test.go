package qemu

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mallee/hypervisor"
)

// BenchmarkStart compares Start with the bare command line, each until QEMU's
// monitor answers and until the guest's first byte, turn by turn.
func BenchmarkStart(b *testing.B) {
	needsQEMU(b)
	var ours, bare, oursByte, bareByte []time.Duration
	h := openTest(b)
	defer h.Close()
	m := sectorMachine(b, printSector("hello\n", halts))
	killLater(b, m.Dir)
	var work time.Duration
	for b.Loop() {
		begin, busy := time.Now(), cpu(b)
		if err := h.Start(b.Context(), m); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, time.Since(begin))
		work += cpu(b) - busy
		waitConsole(b, h, m.Dir, "hello\n")
		oursByte = append(oursByte, time.Since(begin))
		endBench(b, h, m)

		greeted, first := startBare(b, h, m)
		bare, bareByte = append(bare, greeted), append(bareByte, first)
	}
	for name, times := range map[string][]time.Duration{
		"ours-qmp-ms": ours, "bare-qmp-ms": bare, "ours-byte-ms": oursByte, "bare-byte-ms": bareByte,
	} {
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, name)
	}
	b.ReportMetric(float64(work.Microseconds())/1000/float64(b.N), "ours-cpu-ms")
	b.ReportMetric(0, "ns/op")
}

// cpu is the processor's time that this program took, its children not counted.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// endBench makes the folder as it was.
func endBench(b *testing.B, h *Hypervisor, m hypervisor.Machine) {
	b.Helper()
	if err := h.Kill(b.Context(), m.Dir); err != nil {
		b.Fatal(err)
	}
	if err := os.Remove(filepath.Join(m.Dir, consoleName)); err != nil {
		b.Fatal(err)
	}
}

// startBare runs the same command line as a shell would.
func startBare(b *testing.B, h *Hypervisor, m hypervisor.Machine) (greeted, first time.Duration) {
	b.Helper()
	listener, err := net.Listen("unix", filepath.Join(b.TempDir(), "qmp"))
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	socket, err := listener.(*net.UnixListener).File()
	if err != nil {
		b.Fatal(err)
	}
	defer socket.Close()
	conn, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	begin := time.Now()
	bare := exec.CommandContext(b.Context(), defaultBinary, commandLine(m, testAccel)...)
	bare.Dir, bare.ExtraFiles = m.Dir, []*os.File{socket}
	if err := bare.Start(); err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Fprintln(conn, `{"execute":"qmp_capabilities"}`); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(conn)
	for range 2 { // greeting and answer
		if !lines.Scan() {
			b.Fatal(lines.Err())
		}
	}
	greeted = time.Since(begin)
	waitConsole(b, h, m.Dir, "hello\n")
	first = time.Since(begin)
	bare.Process.Kill()
	bare.Wait()
	if err := os.Remove(filepath.Join(m.Dir, consoleName)); err != nil {
		b.Fatal(err)
	}
	return greeted, first
}

// BenchmarkFootprint tells what a running machine takes of this program.
func BenchmarkFootprint(b *testing.B) {
	needsQEMU(b)
	const machines = 10
	h := openTest(b)
	defer h.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	files, threads := count(b, "/proc/self/fd"), count(b, "/proc/self/task")
	for range machines {
		m := sectorMachine(b, printSector("hello\n", halts))
		killLater(b, m.Dir)
		if err := h.Start(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	begin := time.Now()
	for b.Loop() {
		for dir := range h.machines {
			if _, err := h.Observe(context.Background(), dir); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(time.Since(begin).Microseconds())/float64(b.N*machines), "us/observe")
	b.ReportMetric(float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/machines, "bytes/machine")
	b.ReportMetric(float64(count(b, "/proc/self/fd")-files)/machines, "files/machine")
	b.ReportMetric(float64(count(b, "/proc/self/task")-threads)/machines, "threads/machine")
	for _, m := range h.machines {
		b.ReportMetric(resident(b, m.process.pid), "qemu-pss-MiB")
	}
}

func count(b *testing.B, dir string) int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		b.Fatal(err)
	}
	return len(entries)
}

// resident is a process's share of memory in MiB.
func resident(b *testing.B, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "Pss: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	b.Fatalf("no Pss in %s", text)
	return 0
}
