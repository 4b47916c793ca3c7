package node

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mallee/block"
	"mallee/cloud"
	"mallee/hypervisor"
	hypervisorfake "mallee/hypervisor/fake"
	"mallee/image"
)

func TestLaunch(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	if m := r.wantPhase(cloud.PhaseUp); m.Wishes != 1 || m.Reason != (cloud.Reason{}) {
		t.Errorf("reported %+v", m)
	}
	if got := r.order(); got != "observe, make port, unpack, make disk, start" {
		t.Errorf("effects: %s", got)
	}
	machines := r.world.Machines()
	if len(machines) != 1 {
		t.Fatalf("machines %v", machines)
	}
	m := machines[0]
	if m.ID != "i-00000001" || m.VCPUs != 1 || m.MemoryMiB != 512 || len(m.Disks) != 1 || m.Disks[0].Serial != "root" || len(m.NICs) != 1 || m.NICs[0].MAC != instance(1).MAC || m.Product != "m1.small" {
		t.Errorf("machine %+v", m)
	}
	if p, ok := r.net.Port("i-00000001"); !ok || p.Network != "123456789012" || p.Local != instance(1).Local || p.Name != "ip-172-31-0-1" {
		t.Errorf("port %+v", p)
	}
	if base, err := os.Stat(filepath.Join(r.dir, "cache", "abc-_")); err != nil || base.Size() != 1<<30 || base.Mode() != 0o400 {
		t.Errorf("cached image %v, %v", base, err)
	}
	r.wantPhase(cloud.PhaseUp)
	if got := r.order(); got != "observe, make port" {
		t.Errorf("effects of a pass with nothing to do: %s", got)
	}
}

// A second instance of the image finds it unpacked.
func TestImagesAreUnpackedOnce(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1), instance(2), instance(3))
	r.step()
	if n := len(r.world.Machines()); n != 3 || r.count("unpack") != 1 {
		t.Errorf("%d machines, %d times unpacked", n, r.count("unpack"))
	}
}

func TestParavirtual(t *testing.T) {
	r := newRig(t)
	i := instance(1)
	i.Virtualization = cloud.Paravirtual
	i.Kernel = &cloud.ImageRef{ID: "eki-00000001", ManifestDigest: "k", Size: 4096}
	i.Ramdisk = &cloud.ImageRef{ID: "eri-00000001", ManifestDigest: "r", Size: 8192}
	if _, err := bases(i); !errors.Is(err, image.ErrTooLarge) || !permanent(err) {
		t.Errorf("an image that fills its disk: %v", err)
	}
	i.Size.DiskGiB = 5
	got, err := bases(i)
	if err != nil || strings.Join(got, " ") != "abc-_ abc-_-paravirtual-5368709120 k r" {
		t.Errorf("bases %v, %v", got, err)
	}
	i.Ramdisk = nil
	r.assign(i)
	if m := r.wantPhase(cloud.PhaseFailed); m.Reason.Message != "Server.InternalError: a paravirtual instance needs a kernel and a ramdisk image" {
		t.Errorf("reason %+v", m.Reason)
	}
}

// Whatever fails, at whichever step: three attempts, a reason, and nothing is
// left when the instance is taken back.
func TestLaunchFails(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	for _, c := range []struct {
		effect string
		err    error
		code   string
		words  string
	}{
		{"observe", errors.New("no answer"), cloud.ReasonInternalError, "look at the machine: no answer"},
		{"make port", errors.New("address in use"), cloud.ReasonInternalError, "connect to the network: address in use"},
		{"unpack", errors.New("part 3: wrong digest"), cloud.ReasonInvalidImage, "image emi-00000001: part 3: wrong digest"},
		{"make disk", errors.New("I/O error"), cloud.ReasonInternalError, "make disk root: I/O error"},
		{"start", errors.New("QEMU is not installed"), cloud.ReasonInternalError, "start the machine: QEMU is not installed"},
		{"make port", full, cloud.ReasonNoCapacity, "no space left on the node's disk"},
		{"unpack", full, cloud.ReasonNoCapacity, "no space left on the node's disk"},
		{"make disk", &block.NoSpaceError{Err: full}, cloud.ReasonNoCapacity, "no space left on the node's disk: write x"},
		{"start", full, cloud.ReasonNoCapacity, "no space left on the node's disk"},
	} {
		t.Run(c.effect+" "+c.err.Error(), func(t *testing.T) {
			r := newRig(t)
			r.fail[c.effect] = c.err
			r.assign(instance(1))
			for range 2 {
				r.wantPhase(cloud.PhasePreparing)
				before := len(r.did)
				r.wantPhase(cloud.PhasePreparing)
				if len(r.did) != before {
					t.Errorf("tried again at once: %v", r.did[before:])
				}
				r.now = r.now.Add(2 * time.Second)
			}
			m := r.wantPhase(cloud.PhaseFailed)
			if m.Reason.Code != c.code || !strings.HasPrefix(m.Reason.Message, c.code+": ") || !strings.Contains(m.Reason.Message, c.words) {
				t.Errorf("reason %+v", m.Reason)
			}
			if got := r.count(c.effect); got != attempts {
				t.Errorf("%d attempts", got)
			}
			r.fail[c.effect] = nil
			r.now = r.now.Add(time.Hour)
			r.wantPhase(cloud.PhaseFailed) // it is the cloud's to take it back
			r.assign()
			r.step()
			r.wantNothing()
		})
	}
}

func TestLaunchRecovers(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	r.fail["start"] = errors.New("not now")
	m := r.wantPhase(cloud.PhasePreparing)
	if !strings.Contains(m.Reason.Message, "not now") {
		t.Errorf("reason %+v", m.Reason)
	}
	r.fail["start"] = nil
	r.now = r.now.Add(time.Second)
	if m := r.wantPhase(cloud.PhaseUp); m.Reason != (cloud.Reason{}) {
		t.Errorf("reason of one that is up: %+v", m.Reason)
	}
	if r.count("unpack") != 1 {
		t.Error("the image was unpacked anew")
	}
}

func TestImageLargerThanDiskIsNotTriedTwice(t *testing.T) {
	r := newRig(t)
	i := instance(1)
	i.Image.Size = 40 << 30
	r.assign(i)
	m := r.wantPhase(cloud.PhaseFailed)
	if m.Reason.Code != cloud.ReasonInvalidImage || !strings.Contains(m.Reason.Message, "emi-00000001") {
		t.Errorf("reason %+v", m.Reason)
	}
	if got := r.count("unpack"); got != 0 {
		t.Error("it was unpacked first")
	}
}

// An image whose bundle holds less or more than was registered.
func TestImageOfAnotherSize(t *testing.T) {
	r := newRig(t)
	r.Images = wrongSize{}
	r.assign(instance(1))
	m := r.wantPhase(cloud.PhasePreparing)
	if m.Reason.Code != cloud.ReasonInvalidImage || !strings.Contains(m.Reason.Message, "5 bytes where 1073741824 were registered") {
		t.Errorf("reason %+v", m.Reason)
	}
}

// Once it was up, a guest's disk holds what nobody else has.
func TestNeverFailedAfterOnceUp(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	r.lasts()
	for _, restart := range []bool{false, true} {
		r.world.Reboot() // the host lost power
		if restart {
			r.open()
		}
		r.fail["start"] = permanentError{errors.New("QEMU is gone")}
		for range 2 * attempts {
			r.wantPhase(cloud.PhasePreparing)
			r.now = r.now.Add(time.Minute)
		}
		r.fail["start"] = nil
		r.lasts()
	}
	if disks, _ := r.disks.List(t.Context()); len(disks) != 1 {
		t.Errorf("disks %v", disks)
	}
}

// What is known of a machine can't be read: it is neither started nor given up,
// and can be taken back.
func TestDamagedMemo(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	r.wantPhase(cloud.PhaseUp)
	r.world.Reboot()
	if err := os.WriteFile(r.memoPath("i-00000001"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.open()
	for range 2 * attempts {
		if m := r.wantPhase(cloud.PhasePreparing); !strings.Contains(m.Reason.Message, "machine.json is damaged") {
			t.Errorf("reason %+v", m.Reason)
		}
		r.now = r.now.Add(time.Minute)
	}
	r.assign()
	r.step()
	r.wantNothing()
}

// lasts sees the machine up, and long enough to have proven that it runs.
func (r *rig) lasts() {
	r.Helper()
	r.wantPhase(cloud.PhaseUp)
	r.now = r.now.Add(settleTime)
	r.wantPhase(cloud.PhaseUp)
}

// A machine that starts and is gone again at once has failed to start, as far
// as anybody who waits for it is concerned.
func TestEndsEarly(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	for range attempts {
		r.wantPhase(cloud.PhaseUp)
		r.now = r.now.Add(settleTime - time.Second)
		r.world.Crash(r.machineDir("i-00000001"))
		r.step()
		r.now = r.now.Add(time.Minute)
	}
	m := r.wantPhase(cloud.PhaseFailed)
	if !strings.Contains(m.Reason.Message, "ended 9s after its start") || r.count("start") != attempts {
		t.Errorf("%d starts, and the reason %+v", r.count("start"), m.Reason)
	}
}

func TestCrashAndPowerOff(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	r.lasts()
	dir := r.machineDir("i-00000001")
	r.world.Crash(dir)
	r.wantPhase(cloud.PhaseUp)
	if r.count("start") != 2 {
		t.Error("it was not started again")
	}
	r.world.PowerOff(dir)
	r.wantPhase(cloud.PhaseExited)
	r.wantPhase(cloud.PhaseExited)
	if r.count("start") != 2 {
		t.Error("a guest that powered itself off was started again")
	}
}

func TestBackoff(t *testing.T) {
	var got []time.Duration
	for n := 1; n <= 9; n++ {
		got = append(got, backoff(n)/time.Second)
	}
	if want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestGiveBack(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	r.wantPhase(cloud.PhaseUp)
	r.order()
	r.assign()
	r.step()
	if got := r.order(); got != "kill, remove port, remove disk, remove disk" {
		t.Errorf("order: %s", got)
	}
	r.wantNothing()
}

// Until all is gone the node reports it, and tries again.
func TestGiveBackFails(t *testing.T) {
	for _, effect := range []string{"kill", "remove port", "remove disk"} {
		r := newRig(t)
		r.assign(instance(1))
		r.wantPhase(cloud.PhaseUp)
		r.assign()
		r.fail[effect] = errors.New("not now")
		for range 2 * attempts {
			if m := r.step(); m.Instance != "i-00000001" {
				t.Errorf("%s: reported %+v", effect, m)
			}
		}
		if _, err := os.Stat(r.machineDir("i-00000001")); err != nil {
			t.Errorf("%s: the folder went first: %v", effect, err)
		}
		r.fail[effect] = nil
		r.step()
		r.wantNothing()
	}
}

// A new program finds what is to be given back by any rest of it.
func TestGiveBackAfterRestart(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	r.wantPhase(cloud.PhaseUp)
	r.assign()
	r.open()
	r.step()
	r.wantNothing()
}

// A program that ends in the middle of a pass has not seen a failure.
func TestEndInTheMiddle(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 * attempts {
		r.Step(ctx)
	}
	if m := r.first(); m.Phase != cloud.PhasePreparing || m.Reason != (cloud.Reason{}) {
		t.Errorf("reported %+v", m)
	}
	r.wantPhase(cloud.PhaseUp)
	r.assign()
	r.Step(ctx)
	if m := r.first(); m.Instance == "" {
		t.Error("it was taken for removed")
	}
}

// wrongSize is an image of five bytes.
type wrongSize struct{}

func (wrongSize) Unpack(_ context.Context, _ cloud.ImageRef, dst io.Writer, _ func(done, total int64)) error {
	_, err := dst.Write([]byte("short"))
	return err
}

func stubborn(m hypervisor.Machine) (hypervisorfake.Guest, error) {
	return hypervisorfake.Guest{Prints: "boot\n", Ignores: true}, nil
}
