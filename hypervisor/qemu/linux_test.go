package qemu

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mallee/block"
	"mallee/hypervisor"
	"mallee/hypervisor/hypervisortest"
	"mallee/image"
)

// linux is a guest with a shell at its serial console.
type linux struct {
	t    testing.TB
	h    *Hypervisor
	m    hypervisor.Machine
	conn net.Conn
	said []byte
	n    int // commands so far
}

// guestPatience is how long a guest may take: its emulated processor shares a
// busy host.
const guestPatience = 3 * time.Minute

// startLinux boots the catalogue's smallest image into a shell.
func startLinux(t testing.TB) *linux {
	t.Helper()
	if testing.Short() {
		t.Skip("takes many seconds of real guests")
	}
	needsQEMU(t)
	needsTools(t)
	a := tinyImage(t)
	h := openTest(t)
	t.Cleanup(func() { h.Close() })
	m := sectorMachine(t, nil)
	killLater(t, m.Dir)
	root, err := os.ReadFile(a.Root)
	if err == nil {
		err = os.WriteFile(m.Disks[0].Attachment.Path, root, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.MemoryMiB, m.Kernel, m.Ramdisk = 128, a.Kernel, a.Ramdisk
	m.Append = "root=LABEL=tiny ro console=ttyS0 init=/bin/sh"
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	dir, err := openFolder(m.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	conn, err := dir.dial(t.Context(), serialName)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	g := &linux{t: t, h: h, m: m, conn: conn}
	if err := g.until(regexp.MustCompile(`# `)); err != nil {
		t.Fatal(err)
	}
	return g
}

// tinyImage is built once for all tests of this user.
func tinyImage(t testing.TB) image.Artifacts {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "mallee-test", "catalog")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	recipe, err := image.FindRecipe("tiny-pv")
	if err != nil {
		t.Fatal(err)
	}
	a, err := image.Build(t.Context(), recipe, dir, image.Quiet)
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("apt can't deliver what the image needs: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// in is the guest for a subtest, while its test waits.
func (g *linux) in(t testing.TB) *linux {
	g.t = t
	return g
}

// until reads the console up to what is wanted.
func (g *linux) until(want *regexp.Regexp) error {
	g.conn.SetReadDeadline(time.Now().Add(guestPatience))
	piece := make([]byte, 4096)
	for {
		if at := want.FindIndex(g.said); at != nil {
			g.said = g.said[at[1]:]
			return nil
		}
		n, err := g.conn.Read(piece)
		g.said = append(g.said, piece[:n]...)
		if err != nil {
			return fmt.Errorf("waiting for %s, the console says %q: %w", want, g.said, err)
		}
	}
}

// begin types a command; end waits for its output and status.
func (g *linux) begin(command string) {
	g.t.Helper()
	g.n++
	// Quoted so that its echo is not taken for its end.
	if _, err := fmt.Fprintf(g.conn, "echo '<'%d; { %s\n} 2>&1; echo '>'%d $?\n", g.n, command, g.n); err != nil {
		g.t.Fatal(err)
	}
}

func (g *linux) end() (output string, status int) {
	g.t.Helper()
	if err := g.until(regexp.MustCompile(fmt.Sprintf(`(?m)^<%d\r?$`, g.n))); err != nil {
		g.t.Fatal(err)
	}
	before := len(g.said)
	end := regexp.MustCompile(fmt.Sprintf(`(?s)^(.*)>%d (\d+)\r?\n`, g.n))
	g.conn.SetReadDeadline(time.Now().Add(guestPatience))
	piece := make([]byte, 4096)
	for {
		if match := end.FindSubmatch(g.said); match != nil {
			g.said = g.said[len(match[0]):]
			status, _ = strconv.Atoi(string(match[2]))
			return strings.TrimSpace(strings.ReplaceAll(string(match[1]), "\r", "")), status
		}
		n, err := g.conn.Read(piece)
		g.said = append(g.said, piece[:n]...)
		if err != nil {
			g.t.Fatalf("a command does not end; since byte %d the console says %q: %v", before, g.said, err)
		}
	}
}

func (g *linux) run(command string) string {
	g.t.Helper()
	g.begin(command)
	output, status := g.end()
	if status != 0 {
		g.t.Fatalf("%s: status %d, %s", command, status, output)
	}
	return output
}

func (g *linux) eventually(what string, so func() bool) {
	g.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(guestPatience)
	for !so() {
		select {
		case <-tick.C:
		case <-deadline:
			g.t.Fatalf("not within %v: %s", guestPatience, what)
		}
	}
}

// plug plugs a disk, and waits until the guest has its device.
func (g *linux) plug(d hypervisor.Disk) (device string) {
	g.t.Helper()
	if err := g.h.Plug(g.t.Context(), g.m.Dir, d); err != nil {
		g.t.Fatal(err)
	}
	return g.deviceOf(d.Serial)
}

// deviceOf a disk, when the guest has it.
func (g *linux) deviceOf(serial string) (device string) {
	g.t.Helper()
	g.eventually("the guest sees "+serial, func() bool {
		out := g.run(`for s in /sys/block/vd*/serial; do echo "$(cat $s) $s"; done`)
		match := regexp.MustCompile(`(?m)^` + serial + ` /sys/block/(\w+)/serial$`).FindStringSubmatch(out)
		if match != nil {
			device = "/dev/" + match[1]
		}
		return match != nil
	})
	return device
}

func (g *linux) disks() []string {
	g.t.Helper()
	serials, err := g.h.Disks(g.t.Context(), g.m.Dir)
	if err != nil {
		g.t.Fatal(err)
	}
	return serials
}

func (g *linux) do(what string, err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatalf("%s: %v", what, err)
	}
}

func (g *linux) copied(mark string) {
	g.t.Helper()
	g.eventually("the copy "+mark+" ends", func() bool {
		jobs, err := g.h.Jobs(g.t.Context(), g.m.Dir)
		g.do("Jobs", err)
		i := slices.IndexFunc(jobs, func(j hypervisor.Job) bool { return j.ID == mark })
		if i >= 0 && jobs[i].Ended {
			g.do("the copy "+mark, jobs[i].Err)
			return true
		}
		return false
	})
	g.do("Dismiss", g.h.Dismiss(g.t.Context(), g.m.Dir, mark))
}

// TestLinuxDisks goes the way of a volume with a guest that answers.
func TestLinuxDisks(t *testing.T) {
	g := startLinux(t)
	server := serve(t)
	d := newDisk(t, "vol-1", block.Disk{})
	device := g.plug(d)

	// The guest writes a number to one place and, when it is there, to another.
	const far = 4 << 20
	g.run(`cat > /dev/w.sh <<'END'
i=0
while [ ! -e /dev/stop ]; do
	i=$((i+1))
	for at in 0 8192; do printf "%0512d" $i | dd of=` + device + ` bs=512 seek=$at conv=notrunc,fsync 2>/dev/null; done
done
echo $i > /dev/last
END`)
	g.run("sh /dev/w.sh & sleep 1")
	sink, one := server.sink(hypervisortest.Takes, hypervisortest.DiskSize)
	begun := time.Now()
	full, err := g.h.Copy(t.Context(), g.m.Dir, []hypervisor.Copy{{Serial: "vol-1", Mark: "a", Socket: sink.Socket, Export: sink.Export}})
	g.do("Copy", err)
	t.Logf("a point in time under a writing guest: %v", time.Since(begun))
	if !full[0] {
		t.Errorf("the first copy is not full")
	}
	g.run("sleep 1")
	g.copied("a")
	number := func(content []byte, at int) int {
		n, err := strconv.Atoi(string(bytes.TrimLeft(content[at:at+512], "0")))
		if err != nil {
			t.Fatalf("at %d is %.80q", at, content[at:at+512])
		}
		return n
	}
	first, second := number(sink.Bytes(), 0), number(sink.Bytes(), far)
	if first < 1 || first != second && first != second+1 {
		t.Errorf("at one instant there are %d and %d, written one after the other", first, second)
	}
	if one.received > 2<<20 {
		t.Errorf("the copy of two blocks sent %d bytes of data", one.received)
	}
	sink, _ = server.sink(hypervisortest.Takes, hypervisortest.DiskSize)
	full, err = g.h.Copy(t.Context(), g.m.Dir, []hypervisor.Copy{{Serial: "vol-1", Mark: "b", Since: "a", Socket: sink.Socket, Export: sink.Export}})
	g.do("Copy", err)
	g.copied("b")
	if touched := sink.Touched(); full[0] || !slices.Equal(touched, []int64{0, 8}) {
		t.Errorf("the increment (full: %t) has the blocks %v, want 0 and 8", full[0], touched)
	}
	if next := number(sink.Bytes(), 0); next <= first {
		t.Errorf("the increment has the number %d, want more than %d", next, first)
	}
	g.run("> /dev/stop; wait; cat /dev/last")

	t.Run("Grows", func(t *testing.T) {
		g := g.in(t)
		g.do("Adjust", g.h.Adjust(t.Context(), g.m.Dir, "vol-1", hypervisortest.DiskSize+1<<20, hypervisor.Limits{}))
		g.eventually("the guest sees the size", func() bool {
			return g.run("cat /sys/block/"+filepath.Base(device)+"/size") == fmt.Sprint((hypervisortest.DiskSize+1<<20)/512)
		})
	})
	t.Run("IsLimited", func(t *testing.T) {
		g := g.in(t)
		g.do("Adjust", g.h.Adjust(t.Context(), g.m.Dir, "vol-1", 0, hypervisor.Limits{BytesPerSecond: 1 << 20}))
		begun := time.Now()
		g.run("dd if=" + device + " of=/dev/null bs=64k count=64 iflag=direct")
		if took := time.Since(begun); took < 3*time.Second {
			t.Errorf("4 MiB at 1 MiB a second took %v", took)
		}
		g.do("Adjust", g.h.Adjust(t.Context(), g.m.Dir, "vol-1", 0, hypervisor.Limits{IOPS: 10}))
		begun = time.Now()
		g.run("echo 3 > /proc/sys/vm/drop_caches; for i in $(seq 30); do dd if=" + device + " of=/dev/null bs=256k skip=$i count=1 2>/dev/null; done")
		if took := time.Since(begun); took < 2*time.Second {
			t.Errorf("30 reads at 10 a second took %v", took)
		}
		g.do("Adjust", g.h.Adjust(t.Context(), g.m.Dir, "vol-1", 0, hypervisor.Limits{}))
	})
	t.Run("IsGivenBack", func(t *testing.T) {
		g := g.in(t)
		g.do("Unplug", g.h.Unplug(t.Context(), g.m.Dir, "vol-1", false))
		g.eventually("the guest gives it back", func() bool { return !slices.Contains(g.disks(), "vol-1") })
		g.run("! grep -q " + filepath.Base(device) + " /proc/partitions")
		content := readDisk(t, d) // QEMU's own lock says that it is closed
		if last := number(content, 0); last != number(content, far) {
			t.Errorf("in the end there are %d and %d", last, number(content, far))
		}
	})
	t.Run("IsTaken", func(t *testing.T) {
		g := g.in(t)
		device := g.plug(d)
		g.run("printf kept | dd of=" + device + " bs=512 seek=4 conv=sync,notrunc,fsync")
		machine := g.h.machines[g.m.Dir]
		g.do("stop", machine.execute(t.Context(), command{Name: "stop"}, nil)) // so that it can't answer
		g.do("Unplug", g.h.Unplug(t.Context(), g.m.Dir, "vol-1", true))
		if disks := g.disks(); slices.Contains(disks, "vol-1") {
			t.Errorf("Disks = %q", disks)
		}
		if content := readDisk(t, d); string(content[2048:2052]) != "kept" {
			t.Errorf("what the guest had flushed is %q", content[2048:2052])
		}
		g.do("cont", machine.execute(t.Context(), command{Name: "cont"}, nil))
		g.run("! dd if=" + device + " of=/dev/null bs=512 count=1 iflag=direct")
		g.eventually("the guest lets go of the device", func() bool {
			g.disks()
			s, err := machine.storage(t.Context())
			g.do("storage", err)
			_, stays := s.nodes[gonePrefix+"vol-1"]
			return !stays && !s.devices[diskPrefix+"vol-1"]
		})
		g.plug(d) // as if nothing had been
	})
}

// TestLinuxLosesItsSource has a source's server fail under a guest, and come back.
func TestLinuxLosesItsSource(t *testing.T) {
	g := startLinux(t)
	server := serve(t)
	content := bytes.Repeat([]byte("source "), hypervisortest.DiskSize/7+1)[:hypervisortest.DiskSize]
	source, one := server.source(content)
	d := sourcedDisk(t, "vol-1", source)
	device := g.plug(d)
	sum := func(from int) string {
		return g.run(fmt.Sprintf("dd if=%s bs=64k skip=%d count=16 iflag=direct 2>/dev/null | md5sum", device, from))
	}
	good := sum(0)
	broken := func(is bool) {
		one.mu.Lock()
		defer one.mu.Unlock()
		one.broken = is
	}
	broken(true)
	g.begin(fmt.Sprintf("dd if=%s bs=64k skip=16 count=16 iflag=direct 2>/dev/null | md5sum", device))
	waitState(t, g.h, g.m.Dir, stateIOError)
	if s := observe(t, g.h, g.m.Dir); s != hypervisor.Running {
		t.Errorf("a guest that waits for its source is %s", s)
	}
	waitState(t, g.h, g.m.Dir, stateIOError) // it has tried in vain
	broken(false)
	observe(t, g.h, g.m.Dir)
	if out, status := g.end(); status != 0 || out == "" {
		t.Errorf("the read that had to wait: status %d, %q", status, out)
	}
	g.run("dd if=/dev/zero of=" + device + " bs=4k seek=1025 count=1 conv=notrunc,fsync")
	copy(content[1025*4096:], make([]byte, 4096))
	if again := sum(0); again != good {
		t.Errorf("the sum is %s, and was %s", again, good)
	}

	g.do("Fill", g.h.Fill(t.Context(), g.m.Dir, "vol-1", 0))
	g.eventually("it is full", func() bool {
		jobs, err := g.h.Jobs(t.Context(), g.m.Dir)
		g.do("Jobs", err)
		return len(jobs) == 1 && jobs[0].Ended && jobs[0].Err == nil
	})
	broken(true)
	g.run(fmt.Sprintf("echo 3 > /proc/sys/vm/drop_caches; dd if=%s of=/dev/null bs=64k iflag=direct", device))
	testStorage(t).Crash(t, g.m.Dir)
	if got := readDisk(t, d); !bytes.Equal(got, content) {
		t.Errorf("the disk has other bytes after a crash")
	}
}
