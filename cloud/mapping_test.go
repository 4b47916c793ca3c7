package cloud

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// errNoSnapshot is what findSnapshot fails with.
var errNoSnapshot = errors.New("no such snapshot, or not yours")

// findSnapshot knows two: snap-8 may be used by all, snap-9 by who inherits it.
func findSnapshot(id SnapshotID, inherited bool) (*Snapshot, error) {
	switch {
	case id == "snap-8":
		return &Snapshot{ID: id, SizeGiB: 8}, nil
	case id == "snap-9" && inherited:
		return &Snapshot{ID: id, SizeGiB: 9, Encrypted: true}, nil
	}
	return nil, fmt.Errorf("%w: %s", errNoSnapshot, id)
}

func instanceStore(v Virtualization, mappings ...Mapping) *Image {
	root := map[Virtualization]string{HVM: HVMRoot, Paravirtual: PVRoot}[v]
	return &Image{ID: "emi-1", Kind: MachineImage, Virtualization: v, RootDevice: root, Mappings: mappings}
}

func backed(root string, mappings ...Mapping) *Image {
	volume := Mapping{Device: root, EBS: &EBSMapping{Snapshot: "snap-9", SizeGiB: 10, VolumeType: "gp3", IOPS: 4000, Throughput: 200, DeleteOnTermination: true, Encrypted: true}}
	return &Image{ID: "emi-2", Kind: MachineImage, Virtualization: HVM, RootDevice: root, Mappings: append(mappings, volume)}
}

func ephemeral(device string, n int) Mapping {
	return Mapping{Device: device, VirtualName: fmt.Sprint("ephemeral", n)}
}

func asked(device string, e EBSRequest) MappingRequest {
	return MappingRequest{Device: device, EBS: &e}
}

// written is a mapping in short: sdb=ephemeral0, sdf=:20:gp2, sda=snap-9:10:gp3:4000:200:delete:encrypted.
func written(list []Mapping) string {
	var out []string
	for _, m := range list {
		s := strings.TrimPrefix(m.Device, "/dev/") + "=" + m.VirtualName
		if m.NoDevice {
			s += "none"
		}
		if e := m.EBS; e != nil {
			s += fmt.Sprintf("%s:%d:%s", e.Snapshot, e.SizeGiB, e.VolumeType)
			if e.IOPS != 0 || e.Throughput != 0 {
				s += fmt.Sprintf(":%d:%d", e.IOPS, e.Throughput)
			}
			if e.DeleteOnTermination {
				s += ":delete"
			}
			if e.Encrypted {
				s += ":encrypted"
			}
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

type mappingCase struct {
	name     string
	image    *Image
	requests []MappingRequest
	want     string // or, after a "!", what the error says
	rule     Rule
}

func (c *mappingCase) check(t *testing.T, got []Mapping, err error) {
	t.Helper()
	says, fails := strings.CutPrefix(c.want, "!")
	if !fails {
		if err != nil || written(got) != c.want {
			t.Errorf("%s: %s, %v; want %s", c.name, written(got), err, c.want)
		}
		return
	}
	var rule *RuleError
	known := errors.As(err, &rule) && rule.Rule == c.rule || errors.Is(err, errNoSnapshot)
	if err == nil || !known || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %s, %v; want an error of %q", c.name, written(got), err, says)
	}
}

func TestMergeMappings(t *testing.T) {
	no, yes := new(bool), new(bool)
	*yes = true
	const root = "sda1=snap-9:10:gp3:4000:200:delete:encrypted"
	volume := Mapping{Device: "/dev/sdf", EBS: &EBSMapping{Snapshot: "snap-8", SizeGiB: 8, VolumeType: "gp2"}}
	hvm, pv, ebs := instanceStore(HVM), instanceStore(Paravirtual), backed("/dev/sda1")
	for _, c := range []mappingCase{
		// an instance-store image
		{name: "the default disk", image: hvm, want: "sdb=ephemeral0"},
		{name: "asked for", image: hvm, requests: []MappingRequest{{Device: "sdb", VirtualName: "ephemeral0"}}, want: "sdb=ephemeral0"},
		{name: "moved", image: hvm, requests: []MappingRequest{{Device: "/dev/sdc", VirtualName: "ephemeral0"}}, want: "sdc=ephemeral0"},
		{name: "suppressed", image: hvm, requests: []MappingRequest{{Device: "/dev/xvdb", NoDevice: true}}, want: "xvdb=none"},
		{name: "as many as Amazon's images name", image: instanceStore(HVM, ephemeral("sdb", 0), ephemeral("sdc", 1)), want: "sdb=ephemeral0"},
		{name: "moved by the image", image: instanceStore(HVM, ephemeral("/dev/sdc", 0)), want: "sdc=ephemeral0"},
		{name: "moved by both", image: instanceStore(HVM, ephemeral("/dev/sdc", 0)), requests: []MappingRequest{{Device: "/dev/sdd", VirtualName: "ephemeral0"}}, want: "sdd=ephemeral0"},
		{name: "suppressed by the image", image: instanceStore(HVM, Mapping{Device: "/dev/sdb", NoDevice: true}), want: "sdb=none"},
		{name: "wanted again", image: instanceStore(HVM, Mapping{Device: "/dev/sdb", NoDevice: true}), requests: []MappingRequest{{Device: "/dev/sdb", VirtualName: "ephemeral0"}}, want: "sdb=ephemeral0"},
		{name: "a volume in its place", image: hvm, requests: []MappingRequest{asked("/dev/sdb", EBSRequest{SizeGiB: 20})}, want: "sdb=:20:gp2:delete"},
		{name: "a volume beside it", image: hvm, requests: []MappingRequest{asked("/dev/sdf", EBSRequest{SizeGiB: 20, VolumeType: "io1", IOPS: 100, DeleteOnTermination: no, Encrypted: yes})}, want: "sdb=ephemeral0 sdf=:20:io1:100:0:encrypted"},
		{name: "a volume from a snapshot", image: hvm, requests: []MappingRequest{asked("xvdf", EBSRequest{Snapshot: "snap-8"})}, want: "sdb=ephemeral0 xvdf=snap-8:8:gp2:delete"},
		{name: "a larger one", image: hvm, requests: []MappingRequest{asked("xvdf", EBSRequest{Snapshot: "snap-8", SizeGiB: 9})}, want: "sdb=ephemeral0 xvdf=snap-8:9:gp2:delete"},
		{name: "the image's volume", image: instanceStore(HVM, volume), want: "sdb=ephemeral0 sdf=snap-8:8:gp2"},
		{name: "the image's volume, otherwise", image: instanceStore(HVM, volume), requests: []MappingRequest{asked("sdf", EBSRequest{SizeGiB: 100, VolumeType: "gp3", DeleteOnTermination: yes})}, want: "sdb=ephemeral0 sdf=snap-8:100:gp3:delete"},
		{name: "the image's volume suppressed", image: instanceStore(HVM, volume), requests: []MappingRequest{{Device: "sdf", NoDevice: true}}, want: "sdb=ephemeral0 sdf=none"},
		{name: "the root as a volume", image: hvm, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{SizeGiB: 8})}, want: "!/dev/sda1 is the root of emi-1"},
		{name: "the root by another name", image: hvm, requests: []MappingRequest{asked("/dev/xvda", EBSRequest{SizeGiB: 8})}, want: "!/dev/xvda is the root of emi-1"},
		{name: "no root", image: hvm, requests: []MappingRequest{{Device: "/dev/sda", NoDevice: true}}, want: "!/dev/sda is the root"},

		// a paravirtual one
		{name: "the default partition", image: pv, want: "sda2=ephemeral0"},
		{name: "the partition asked for", image: pv, requests: []MappingRequest{{Device: "sda2", VirtualName: "ephemeral0"}}, want: "sda2=ephemeral0"},
		{name: "a paravirtual instance's volume", image: pv, requests: []MappingRequest{asked("/dev/sdb", EBSRequest{SizeGiB: 1})}, want: "sda2=ephemeral0 sdb=:1:gp2:delete"},
		{name: "a partition moved", image: pv, requests: []MappingRequest{{Device: "/dev/sdb", VirtualName: "ephemeral0"}}, want: "!can't be moved"},
		{name: "a partition suppressed", image: pv, requests: []MappingRequest{{Device: "/dev/sda2", NoDevice: true}}, want: "!can't be moved or suppressed"},
		{name: "a partition as a volume", image: pv, requests: []MappingRequest{asked("/dev/sda2", EBSRequest{SizeGiB: 1})}, want: "!partition of the root's disk"},
		{name: "the root partition", image: pv, requests: []MappingRequest{{Device: "/dev/sda1", NoDevice: true}}, want: "!/dev/sda1 is the root"},
		{name: "the root's disk", image: pv, requests: []MappingRequest{asked("/dev/sda", EBSRequest{SizeGiB: 1})}, want: "!/dev/sda is the root"},
		{name: "the swap partition", image: pv, requests: []MappingRequest{{Device: "/dev/sda3", NoDevice: true}}, want: "!partition"},

		// an EBS-backed one
		{name: "as the image says", image: ebs, want: root},
		{name: "the root first", image: backed("/dev/sda1", volume), want: root + " sdf=snap-8:8:gp2"},
		{name: "no ephemeral disk but what is mapped", image: backed("/dev/sda1", ephemeral("/dev/sdb", 0), ephemeral("/dev/sdc", 1)), want: root + " sdb=ephemeral0"},
		{name: "the root grown", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{SizeGiB: 50})}, want: "sda1=snap-9:50:gp3:4000:200:delete:encrypted"},
		{name: "the root by its disk's name", image: ebs, requests: []MappingRequest{asked("/dev/sda", EBSRequest{SizeGiB: 50})}, want: "sda1=snap-9:50:gp3:4000:200:delete:encrypted"},
		{name: "down to its snapshot", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{SizeGiB: 9})}, want: "sda1=snap-9:9:gp3:4000:200:delete:encrypted"},
		{name: "the same snapshot said", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{Snapshot: "snap-9", DeleteOnTermination: no})}, want: "sda1=snap-9:10:gp3:4000:200:encrypted"},
		{name: "of another type", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{VolumeType: "gp2"})}, want: "sda1=snap-9:10:gp2:delete:encrypted"},
		{name: "of the same type", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{VolumeType: "gp3", IOPS: 5000})}, want: "sda1=snap-9:10:gp3:5000:200:delete:encrypted"},
		{name: "smaller than its snapshot", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{SizeGiB: 8})}, want: "!Volume of size 8GB is smaller than snapshot 'snap-9', expect size >= 9GB"},
		{name: "another snapshot", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{Snapshot: "snap-8"})}, want: "!can't be changed to snap-8"},
		{name: "decrypted", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{Encrypted: no})}, want: "!is encrypted"},
		{name: "the root suppressed", image: ebs, requests: []MappingRequest{{Device: "/dev/sda1", NoDevice: true}}, want: "!can't be suppressed"},
		{name: "the root as an ephemeral disk", image: ebs, requests: []MappingRequest{{Device: "/dev/sda1", VirtualName: "ephemeral0"}}, want: "!can't be ephemeral0"},
		{name: "a stranger's snapshot that the image inherits", image: ebs, requests: []MappingRequest{asked("/dev/sdf", EBSRequest{Snapshot: "snap-9"})}, want: "!not yours"},
		{name: "a volume replaced", image: backed("/dev/xvda", volume), requests: []MappingRequest{asked("/dev/sdf", EBSRequest{SizeGiB: 100, VolumeType: "standard"})}, want: "xvda=snap-9:10:gp3:4000:200:delete:encrypted sdf=snap-8:100:standard"},

		// what nobody can have
		{name: "no device", image: hvm, requests: []MappingRequest{{Device: "disk1", NoDevice: true}}, want: "!Invalid device name disk1"},
		{name: "a partition", image: ebs, requests: []MappingRequest{asked("/dev/sdb1", EBSRequest{SizeGiB: 1})}, want: "!partition's"},
		{name: "another partition of the root", image: ebs, requests: []MappingRequest{asked("/dev/sda2", EBSRequest{SizeGiB: 20})}, want: "!partition's"},
		{name: "a name of none", image: hvm, requests: []MappingRequest{{Device: "/dev/sdb", VirtualName: "ephemeral4"}}, want: "!Invalid virtual name ephemeral4"},
		{name: "twice", image: hvm, requests: []MappingRequest{{Device: "/dev/sdb", NoDevice: true}, {Device: "xvdb", NoDevice: true}}, want: "!'xvdb' is used in more than one"},
		{name: "twice the same", image: hvm, requests: []MappingRequest{{Device: "/dev/sdb", VirtualName: "ephemeral0"}, {Device: "/dev/sdc", VirtualName: "ephemeral0"}}, want: "!ephemeral0 is mapped twice"},
		{name: "an empty volume without a size", image: hvm, requests: []MappingRequest{asked("/dev/sdf", EBSRequest{DeleteOnTermination: yes})}, want: "!needs a size", rule: RuleMissing},
		{name: "no such type", image: hvm, requests: []MappingRequest{asked("/dev/sdf", EBSRequest{SizeGiB: 1, VolumeType: "gp9"})}, want: "!gp9", rule: RuleVolumeType},
		{name: "figures that aren't the type's", image: hvm, requests: []MappingRequest{asked("/dev/sdf", EBSRequest{SizeGiB: 1, IOPS: 100})}, want: "!iops is not supported for gp2", rule: RuleCombination},
		{name: "too large", image: hvm, requests: []MappingRequest{asked("/dev/sdf", EBSRequest{SizeGiB: 16385})}, want: "!too large", rule: RuleValue},
		{name: "no such snapshot", image: hvm, requests: []MappingRequest{asked("/dev/sdf", EBSRequest{Snapshot: "snap-7"})}, want: "!no such snapshot"},
	} {
		before := written(c.image.Mappings)
		got, err := MergeMappings(c.image, c.requests, findSnapshot)
		c.check(t, got, err)
		if written(c.image.Mappings) != before {
			t.Errorf("%s changed the image: %s became %s", c.name, before, written(c.image.Mappings))
		}
	}
}

func TestRegisterMappings(t *testing.T) {
	no := new(bool)
	hvm, pv := instanceStore(HVM), instanceStore(Paravirtual)
	ebs := &Image{Virtualization: HVM, RootDevice: "/dev/sda1"}
	for _, c := range []mappingCase{
		{name: "nothing", image: hvm},
		{name: "ephemeral disks", image: hvm, requests: []MappingRequest{{Device: "/dev/sdb", VirtualName: "ephemeral0"}, {Device: "/dev/sdc", VirtualName: "ephemeral1"}}, want: "sdb=ephemeral0 sdc=ephemeral1"},
		{name: "none", image: hvm, requests: []MappingRequest{{Device: "/dev/sdb", NoDevice: true}}, want: "sdb=none"},
		{name: "a volume of an instance-store image", image: hvm, requests: []MappingRequest{asked("/dev/sdf", EBSRequest{SizeGiB: 3})}, want: "sdf=:3:gp2:delete"},
		{name: "the partition where it is", image: pv, requests: []MappingRequest{{Device: "sda2", VirtualName: "ephemeral0"}}, want: "sda2=ephemeral0"},
		{name: "the partition elsewhere", image: pv, requests: []MappingRequest{{Device: "sdb", VirtualName: "ephemeral0"}}, want: "!ephemeral0 at /dev/sda2"},
		{name: "a root", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{Snapshot: "snap-8"})}, want: "sda1=snap-8:8:gp2:delete"},
		{name: "a root by its disk's name", image: ebs, requests: []MappingRequest{asked("/dev/sda", EBSRequest{Snapshot: "snap-8", SizeGiB: 20, VolumeType: "gp3", IOPS: 3000, DeleteOnTermination: no})}, want: "sda1=snap-8:20:gp3:3000:0"},
		{name: "a root and more", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{Snapshot: "snap-8"}), asked("/dev/sdf", EBSRequest{Snapshot: "snap-8"}), {Device: "/dev/sdb", VirtualName: "ephemeral0"}}, want: "sda1=snap-8:8:gp2:delete sdf=snap-8:8:gp2:delete sdb=ephemeral0"},
		{name: "a root without data", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{SizeGiB: 8})}, want: "!needs a snapshot"},
		{name: "a root that is none", image: ebs, requests: []MappingRequest{{Device: "/dev/sda1", VirtualName: "ephemeral0"}}, want: "!is the root"},
		{name: "a paravirtual root", image: pv, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{Snapshot: "snap-8"})}, want: "!hvm"},
		{name: "a root and nothing", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{Snapshot: "snap-8"}), {Device: "/dev/sdb", NoDevice: true}}, want: "!can't be suppressed"},
		{name: "a snapshot of somebody else", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{Snapshot: "snap-9"})}, want: "!not yours"},
		{name: "a root smaller than its snapshot", image: ebs, requests: []MappingRequest{asked("/dev/sda1", EBSRequest{Snapshot: "snap-8", SizeGiB: 7})}, want: "!expect size >= 8GB"},
	} {
		got, err := RegisterMappings(c.image, c.requests, findSnapshot)
		c.check(t, got, err)
	}
}

// TestRegisteredMappingsLaunch: what can be registered can be launched, and
// launches as it was registered.
func TestRegisteredMappingsLaunch(t *testing.T) {
	image := &Image{ID: "emi-3", Virtualization: HVM, RootDevice: "/dev/sda1"}
	var err error
	image.Mappings, err = RegisterMappings(image, []MappingRequest{asked("/dev/sdf", EBSRequest{SizeGiB: 1}), asked("/dev/sda", EBSRequest{Snapshot: "snap-8"})}, findSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	got, err := MergeMappings(image, nil, findSnapshot)
	if err != nil || written(got) != "sda1=snap-8:8:gp2:delete sdf=:1:gp2:delete" {
		t.Errorf("launched with %s, %v", written(got), err)
	}
	if image.RootDeviceType() != EBS || !slices.Equal(image.Snapshots(), []SnapshotID{"snap-8"}) {
		t.Errorf("it is %s backed, by %v", image.RootDeviceType(), image.Snapshots())
	}
}

// FuzzMergeMappings: whatever is asked, nothing panics, and what comes out names
// each device once.
func FuzzMergeMappings(f *testing.F) {
	f.Add("/dev/sdb", "ephemeral0", "sda1", 8, true)
	f.Add("xvdz9", "", "/dev/sdf", -1, false)
	f.Fuzz(func(t *testing.T, a, virtual, b string, size int, ebs bool) {
		requests := []MappingRequest{{Device: a, VirtualName: virtual}, {Device: b, NoDevice: !ebs}}
		if ebs {
			requests[1].EBS = &EBSRequest{SizeGiB: size}
		}
		for _, image := range []*Image{instanceStore(HVM), instanceStore(Paravirtual), backed("/dev/sda1")} {
			list, err := MergeMappings(image, requests, findSnapshot)
			if err != nil {
				continue
			}
			for n, m := range list {
				if slices.ContainsFunc(list[:n], func(o Mapping) bool { return sameDevice(o.Device, m.Device) }) {
					t.Errorf("%+v and %+v make %s", image.Mappings, requests, written(list))
				}
			}
		}
	})
}
