package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mallee/block"
	"mallee/cloud"
	"mallee/hypervisor"
	hypervisorfake "mallee/hypervisor/fake"
	"mallee/link"
)

// volumeOf 1 GiB, number n, attached to an instance if one is named.
func volumeOf(n int, instance cloud.InstanceID, device string) cloud.Volume {
	w := cloud.Volume{ID: cloud.VolumeID(fmt.Sprintf("vol-%08x", n)), Node: "node-1", SizeGiB: 1, Type: "gp3", IOPS: 3000, Throughput: 125}
	if instance != "" {
		w.Attachment = &cloud.Attachment{Instance: instance, Device: device}
	}
	return w
}

func detaching(w cloud.Volume, force bool) cloud.Volume {
	a := *w.Attachment
	a.Detaching, a.Force = time.Unix(1, 0), force
	w.Attachment = &a
	return w
}

const first = cloud.InstanceID("i-00000001")

// reported is what the node says of a volume.
func (r *rig) reported(id cloud.VolumeID) (v link.Volume, ok bool) {
	report, _ := r.Report()
	for _, v := range report.Volumes {
		if v.Volume == id {
			return v, true
		}
	}
	return v, false
}

func (r *rig) wantVolume(when string, want link.Volume) {
	r.Helper()
	got, _ := r.reported(want.Volume)
	if got != want {
		r.Errorf("%s: reported %+v, want %+v", when, got, want)
	}
}

// serials of the disks of each machine, in order.
func (r *rig) serials() string {
	var list []string
	for _, m := range r.world.Machines() {
		var disks []string
		for _, d := range m.Disks {
			disks = append(disks, d.Serial)
		}
		list = append(list, m.ID+":"+strings.Join(disks, ","))
	}
	return strings.Join(list, " ")
}

func (r *rig) wantDisks(when, want string) {
	r.Helper()
	if got := r.serials(); got != want {
		r.Errorf("%s: disks %q, want %q", when, got, want)
	}
}

// passes of a minute each: all that waits for its time has it.
func (r *rig) passes(n int) {
	for range n {
		r.now = r.now.Add(time.Minute)
		r.step()
	}
}

func TestVolumeIsMadeGrownAndRemoved(t *testing.T) {
	r := newRig(t)
	w := volumeOf(1, "", "")
	r.tell(link.Assignment{Volumes: []cloud.Volume{w}})
	r.wantVolume("told of it", link.Volume{Volume: w.ID, Phase: cloud.VolumePreparing})
	r.step()
	r.wantVolume("made", link.Volume{Volume: w.ID, Phase: cloud.VolumeReady, SizeGiB: 1, Filled: 100})
	w.SizeGiB = 3
	r.tell(link.Assignment{Volumes: []cloud.Volume{w}})
	r.step()
	r.wantVolume("grown", link.Volume{Volume: w.ID, Phase: cloud.VolumeReady, SizeGiB: 3, Filled: 100})
	r.tell(link.Assignment{})
	r.open()
	r.passes(3)
	if names, _ := r.store.List(t.Context()); len(names) != 1 {
		t.Errorf("a volume that the node was not told of is left alone: %v", names)
	}
	w.Deleted = time.Unix(1, 0)
	r.tell(link.Assignment{Volumes: []cloud.Volume{w}})
	if _, ok := r.reported(w.ID); !ok {
		t.Error("reported as gone before it is")
	}
	r.step()
	if _, ok := r.reported(w.ID); ok {
		t.Error("reported when it is gone")
	}
	if names, _ := r.store.List(t.Context()); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	r.tell(link.Assignment{Volumes: []cloud.Volume{w}, Instances: []cloud.Instance{instance(1)}})
	if _, ok := r.reported(w.ID); ok {
		t.Error("reported again")
	}
	r.open() // a program that doesn't know it is gone
	if _, ok := r.reported(w.ID); !ok {
		t.Error("not reported before it was measured")
	}
	r.step()
	if _, ok := r.reported(w.ID); ok {
		t.Error("reported when it is gone")
	}
}

func TestVolumeThatCantBeMade(t *testing.T) {
	r := newRig(t)
	w := volumeOf(1, "", "")
	r.fail["make volume"] = errors.New("I/O error")
	r.tell(link.Assignment{Volumes: []cloud.Volume{w}})
	why := cloud.Reason{Code: cloud.ReasonInternalError, Message: "Server.InternalError: make volume vol-00000001: I/O error"}
	for n := range attempts {
		r.passes(1)
		want := link.Volume{Volume: w.ID, Phase: cloud.VolumePreparing, Reason: why}
		if n == attempts-1 {
			want.Phase = cloud.VolumeFailed
		}
		r.wantVolume(fmt.Sprintf("attempt %d", n), want)
	}
	r.order()
	r.passes(2)
	if got := r.order(); got != "" {
		t.Errorf("it is tried again: %s", got)
	}
	w.Deleted = time.Unix(1, 0)
	r.tell(link.Assignment{Volumes: []cloud.Volume{w}})
	r.passes(1)
	if _, ok := r.reported(w.ID); ok {
		t.Error("it can't be deleted")
	}
}

func TestAttachToARunningMachine(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	r.lasts()
	w := volumeOf(1, first, "/dev/sdf")
	r.tell(link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: []cloud.Volume{w}})
	r.wantVolume("told", link.Volume{Volume: w.ID, Phase: cloud.VolumePreparing})
	r.step()
	r.wantVolume("attached", link.Volume{Volume: w.ID, Phase: cloud.VolumeReady, SizeGiB: 1, Filled: 100, Attached: first})
	r.wantDisks("attached", "i-00000001:root,vol00000001")
	if got := r.world.Machines()[0].Disks[1].Limits; got != (hypervisor.Limits{IOPS: 3000, BytesPerSecond: 125 << 20, OperationBytes: 256 << 10}) {
		t.Errorf("limits %+v", got)
	}
	w.SizeGiB, w.IOPS = 2, 4000
	r.tell(link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: []cloud.Volume{w}})
	r.order()
	r.step()
	if got := r.effects(); got != "adjust" {
		t.Errorf("effects %s", got)
	}
	r.wantVolume("grown", link.Volume{Volume: w.ID, Phase: cloud.VolumeReady, SizeGiB: 2, Filled: 100, Attached: first})
	r.step()
	if got := r.effects(); got != "" {
		t.Errorf("with nothing to do: %s", got)
	}
	r.tell(link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: []cloud.Volume{detaching(w, false)}})
	r.wantVolume("detaching", link.Volume{Volume: w.ID, Phase: cloud.VolumeReady, SizeGiB: 2, Filled: 100, Attached: first})
	r.passes(2)
	r.wantVolume("detached", link.Volume{Volume: w.ID, Phase: cloud.VolumeReady, SizeGiB: 2, Filled: 100})
	r.wantDisks("detached", "i-00000001:root")
}

// A guest that keeps a volume is asked again and again, and has it taken away by
// force alone.
func TestDetachFromAGuestThatKeepsIt(t *testing.T) {
	r := newRig(t)
	r.boots = func(hypervisor.Machine) (hypervisorfake.Guest, error) { return hypervisorfake.Guest{Keeps: true}, nil }
	w := volumeOf(1, first, "/dev/sdf")
	r.tell(link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: []cloud.Volume{w}})
	r.lasts()
	r.tell(link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: []cloud.Volume{detaching(w, false)}})
	r.order()
	r.passes(3)
	if got := r.count("unplug"); got != 3 {
		t.Errorf("asked %d times", got)
	}
	r.wantDisks("kept", "i-00000001:root,vol00000001")
	r.open() // the next program has not looked at the machine yet
	if v, _ := r.reported(w.ID); v.Attached != first {
		t.Errorf("reported %+v, and the guest has it", v)
	}
	r.tell(link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: []cloud.Volume{detaching(w, true)}})
	r.passes(2)
	r.wantDisks("by force", "i-00000001:root")
	if v, _ := r.reported(w.ID); v.Attached != "" {
		t.Errorf("reported %+v", v)
	}
}

func ebsInstance(n int) cloud.Instance {
	i := instance(n)
	i.EBS, i.RootDevice, i.Image = true, "/dev/sda1", cloud.ImageRef{ID: "emi-00000001"}
	return i
}

func TestInstanceWhoseRootIsAVolume(t *testing.T) {
	r := newRig(t)
	i := ebsInstance(1)
	i.Mappings = []cloud.Mapping{{Device: "/dev/sdc", VirtualName: "ephemeral0"}}
	a := link.Assignment{Volumes: []cloud.Volume{volumeOf(1, first, "/dev/sdd"), volumeOf(2, first, "/dev/sda"), volumeOf(3, first, "xvdb"), volumeOf(4, "i-00000002", "/dev/sda")}}
	r.tell(link.Assignment{Volumes: a.Volumes, Instances: []cloud.Instance{i}})
	r.lasts()
	r.wantDisks("started", "i-00000001:vol00000002,vol00000003,ephemeral0,vol00000001")
	if r.count("unpack") != 0 {
		t.Error("the image was fetched")
	}
	r.world.Write(r.machineDir(first), "vol00000002", 0, []byte(strings.Repeat("x", 512)))
	r.tell(a) // stopped
	r.order()
	r.passes(2)
	if got := r.order("observe", "make volume"); got != "power down, kill, remove port, remove disk, remove disk" {
		t.Errorf("stopped by %s", got)
	}
	r.wantDisks("stopped", "")
	if names, _ := r.store.List(t.Context()); len(names) != 4 {
		t.Errorf("volumes %v", names)
	}
	r.tell(link.Assignment{Volumes: a.Volumes, Instances: []cloud.Instance{i}})
	r.passes(1)
	r.wantDisks("started again", "i-00000001:vol00000002,vol00000003,ephemeral0,vol00000001")
	got := make([]byte, 512)
	if err := r.store.Read("vol-00000002", 0, got); err != nil || got[0] != 'x' {
		t.Errorf("the root holds %q, %v", got[:1], err)
	}
}

func TestInstanceWithoutItsRoot(t *testing.T) {
	r := newRig(t)
	r.tell(link.Assignment{Instances: []cloud.Instance{ebsInstance(1)}, Volumes: []cloud.Volume{volumeOf(1, first, "/dev/sdf")}})
	if m := r.wantPhase(cloud.PhasePreparing); !strings.Contains(m.Reason.Message, "no volume is attached at /dev/sda1") {
		t.Errorf("reason %+v", m.Reason)
	}
	i := ebsInstance(1)
	i.Virtualization = cloud.Paravirtual
	if _, err := bases(i); !permanent(err) {
		t.Errorf("a paravirtual one: %v", err)
	}
}

func TestEphemeral(t *testing.T) {
	small := func(change func(*cloud.Instance)) cloud.Instance {
		i := instance(1)
		i.Image.Size = 256 << 20
		change(&i)
		return i
	}
	for name, c := range map[string]struct {
		i      cloud.Instance
		device string
		size   int64
	}{
		"by default": {small(func(*cloud.Instance) {}), "/dev/sdb", 768 << 20},
		"elsewhere":  {small(func(i *cloud.Instance) { i.Mappings = []cloud.Mapping{{Device: "sdc", VirtualName: "ephemeral0"}} }), "sdc", 768 << 20},
		"suppressed": {small(func(i *cloud.Instance) { i.Mappings = []cloud.Mapping{{Device: "sdb", NoDevice: true}} }), "", 0},
		"no room":    {instance(1), "/dev/sdb", 0},
		"of volumes": {small(func(i *cloud.Instance) { i.EBS = true }), "", 0},
		"of volumes, asked": {small(func(i *cloud.Instance) {
			i.EBS, i.Mappings = true, []cloud.Mapping{{Device: "sdb", VirtualName: "ephemeral0"}}
		}), "sdb", 1 << 30},
		"another one's place": {small(func(i *cloud.Instance) { i.Mappings = []cloud.Mapping{{Device: "sdb", VirtualName: "ephemeral1"}} }), "", 0},
	} {
		device, size, err := ephemeral(c.i)
		if device != c.device || size != c.size || err != nil {
			t.Errorf("%s: %q, %d bytes, %v", name, device, size, err)
		}
	}
}

// A volume that two machines are told to have is had by one; the other gets it
// when the first has closed it.
func TestVolumeIsInOneMachine(t *testing.T) {
	r := newRig(t)
	both := []cloud.Instance{ebsInstance(1), ebsInstance(2)}
	w := volumeOf(9, first, "/dev/sda1")
	r.tell(link.Assignment{Instances: both[:1], Volumes: []cloud.Volume{w}})
	r.lasts()
	w.Attachment = &cloud.Attachment{Instance: "i-00000002", Device: "/dev/sda1"}
	r.tell(link.Assignment{Instances: both[1:], Volumes: []cloud.Volume{w}})
	r.fail["kill"] = errors.New("it doesn't end")
	r.passes(3)
	r.wantDisks("while the first has it", "i-00000001:vol00000009")
	report, _ := r.Report()
	if m := report.Machines[1]; m.Phase != cloud.PhasePreparing || m.Reason != (cloud.Reason{}) {
		t.Errorf("who waits is reported as %+v", m)
	}
	r.fail["kill"] = nil
	r.passes(2)
	r.wantDisks("when it has not", "i-00000002:vol00000009")
}

// A machine that waits for a volume asks for a pass over it, but not while one is
// being made: where those are slow, the next would have it in hand before the machine can.
func TestWaitingForAVolumeAsksOnce(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	r.lasts()
	w := volumeOf(1, first, "/dev/sdf")
	r.tell(link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: []cloud.Volume{w}})
	v, m := r.volumes[w.ID], r.machines[first]
	for _, busy := range []bool{true, false} {
		v.busy, v.kept, v.due = busy, true, false
		if err := r.claim(m, w); !errors.Is(err, errWaiting) || v.due == busy {
			t.Errorf("in a pass %v: %v, another is due %v", busy, err, v.due)
		}
	}
}

// What a machine can't be given is said, and is no harm to the machine.
func TestAttachFails(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	r.lasts()
	w := volumeOf(1, first, "/dev/sdf")
	r.fail["plug"] = errors.New("no slot is free")
	r.tell(link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: []cloud.Volume{w}})
	for range 2 * attempts {
		if m := r.wantPhase(cloud.PhaseUp); !strings.Contains(m.Reason.Message, "attach volume vol-00000001: no slot is free") {
			t.Errorf("reason %+v", m.Reason)
		}
	}
	r.tell(link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: []cloud.Volume{detaching(w, false)}})
	r.wantPhase(cloud.PhaseUp)
	if v, _ := r.reported(w.ID); v.Attached != "" {
		t.Errorf("reported %+v", v)
	}
}

// Whatever the program dies of, at whichever effect: the next one comes to the
// same end, and no volume is ever open twice (the world refuses that).
func TestVolumesSurviveDeaths(t *testing.T) {
	for n := 1; ; n++ {
		r := newRig(t)
		w := volumeOf(1, first, "/dev/sda1")
		w.Source = &cloud.Content{Manifest: "m", Size: 1 << 30}
		r.diesAt = n
		died := false
		story := func(a link.Assignment, done func() bool) {
			r.tell(a)
			for range 30 {
				died = r.outlive(func() { r.passes(1) }) || died
				if done() {
					return
				}
			}
			report, _ := r.Report()
			t.Fatalf("death %d: no end is reached: %+v, machines %s, did %v", n, report, r.serials(), r.did)
		}
		attached := func(want string) func() bool {
			return func() bool { v, ok := r.reported(w.ID); return ok && string(v.Attached) == want }
		}
		story(link.Assignment{Instances: []cloud.Instance{ebsInstance(1)}, Volumes: []cloud.Volume{w}}, attached("i-00000001"))
		story(link.Assignment{Volumes: []cloud.Volume{w}}, attached(""))
		w.Attachment = nil
		w.SizeGiB = 2
		story(link.Assignment{Volumes: []cloud.Volume{w}}, func() bool { v, _ := r.reported(w.ID); return v.Filled == 100 && v.SizeGiB == 2 })
		w.Attachment = &cloud.Attachment{Instance: first, Device: "/dev/sdf"}
		r.tell(link.Assignment{Instances: []cloud.Instance{instance(1)}})
		story(link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: []cloud.Volume{w}}, attached("i-00000001"))
		story(link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: []cloud.Volume{detaching(w, false)}}, attached(""))
		w.Attachment, w.Deleted = nil, time.Unix(1, 0)
		story(link.Assignment{Volumes: []cloud.Volume{w}}, func() bool { _, there := r.reported(w.ID); return !there && len(r.world.Machines()) == 0 })
		if names, _ := r.store.List(t.Context()); len(names) != 0 {
			t.Fatalf("death %d: left: %v", n, names)
		}
		r.wantNothing()
		if !died {
			if n < 20 {
				t.Errorf("only %d effects", n)
			}
			return
		}
	}
}

// outlive a death of the program, if it comes, with the next one.
func (r *rig) outlive(do func()) (died bool) {
	defer func() {
		of := recover()
		if of == nil {
			return
		}
		var dead death
		if err, ok := of.(error); !ok || !errors.As(err, &dead) { // who hands a panic on wraps it
			panic(of)
		}
		died = true
		r.open()
	}()
	do()
	return false
}

func TestCompareDevices(t *testing.T) {
	list := []string{"/dev/sdf", "xvdb", "/dev/vda1", "sdc"}
	slices.SortFunc(list, compareDevices)
	if got := strings.Join(list, " "); got != "/dev/vda1 xvdb sdc /dev/sdf" {
		t.Error(got)
	}
}

// An encrypted volume is opened with its own key, by the next program too.
func TestEncryptedVolume(t *testing.T) {
	r := newRig(t)
	var all []cloud.Volume
	for n := range 2 {
		w := volumeOf(n+1, first, fmt.Sprintf("/dev/sd%c", 'f'+n))
		w.Encrypted = true
		all = append(all, w)
	}
	r.tell(link.Assignment{Instances: []cloud.Instance{instance(1)}, Volumes: all})
	r.wantPhase(cloud.PhaseUp)
	disks := r.world.Machines()[0].Disks
	one, two := disks[1].Attachment.Key, disks[2].Attachment.Key
	if len(one) != block.KeySize || len(two) != block.KeySize || string(one) == string(two) || len(disks[0].Attachment.Key) != 0 {
		t.Errorf("keys %x and %x", one, two)
	}
	r.world.Reboot()
	r.open()
	r.lasts()
	if again := r.world.Machines()[0].Disks[1].Attachment.Key; string(again) != string(one) {
		t.Errorf("the next program has the key %x, not %x", again, one)
	}
}

// TestLimitsOf: the node hands on all that the type says.
func TestLimitsOf(t *testing.T) {
	for _, test := range []struct {
		volume cloud.Volume
		want   hypervisor.Limits
	}{
		{cloud.Volume{SizeGiB: 100, Type: "gp2"}, hypervisor.Limits{IOPS: 300, BurstIOPS: 3000, BurstSeconds: 1800, BytesPerSecond: 128 << 20, OperationBytes: 256 << 10}},
		{cloud.Volume{SizeGiB: 1024, Type: "st1"}, hypervisor.Limits{IOPS: 500, BytesPerSecond: 40 << 20, BurstBytesPerSecond: 250 << 20, BurstSeconds: 4194, OperationBytes: 1 << 20}},
	} {
		if got := limitsOf(test.volume); got != test.want {
			t.Errorf("%s of %d GiB: %+v, want %+v", test.volume.Type, test.volume.SizeGiB, got, test.want)
		}
	}
}
