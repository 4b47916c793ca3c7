package ec2

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/iam"
	"mallee/state"
)

// What withVolumes puts into the state, all of it the user's and in zone one.
const (
	freeVolume      = "vol-00000001" // available, of 2 GiB
	dataVolume      = "vol-00000002" // of backedInstance, at /dev/sdf
	rootVolume      = "vol-00000003" // of backedInstance
	stoppedVolume   = "vol-00000004" // the root of stoppedInstance
	othersVolume    = "vol-00000005" // the system account's
	newVolume       = "vol-00000006" // not seen yet
	failedVolume    = "vol-00000007" // can't be made
	farVolume       = "vol-00000008" // in zone two
	backedInstance  = "i-000000b1"   // EBS-backed, runs
	stoppedInstance = "i-000000b2"   // EBS-backed, stopped
)

// stocked is a cloud that has one of everything.
func stocked(tb testing.TB) *aCloud { return ready(tb).withSnapshots().withVolumes() }

func (c *aCloud) withVolumes() *aCloud {
	c.withNodes("two", 1, cloud.Size{VCPUs: 8, MemoryMiB: 8192, DiskGiB: 100})
	volume := func(id cloud.VolumeID) cloud.Volume {
		return cloud.Volume{ID: id, Account: ordinary, Zone: "one", Node: "one-0", CreatedAt: c.now, SizeGiB: 2, Type: "gp2"}
	}
	others, far, encrypted := volume(othersVolume), volume(farVolume), volume(stoppedVolume)
	others.Account, far.Zone, far.Node = c.admin.Account, "two", "two-0"
	encrypted.Encrypted, encrypted.Snapshot = true, completeSnapshot
	c.write(func(tx *state.Tx) {
		for _, v := range []cloud.Volume{volume(freeVolume), volume(dataVolume), volume(rootVolume), encrypted, others, volume(newVolume), volume(failedVolume), far} {
			if _, err := state.MakeVolume(tx, v); err != nil {
				c.tb.Fatal(err)
			}
		}
		c.putBacked(tx, backedInstance, "r-000000b1")
		c.putBacked(tx, stoppedInstance, "r-000000b2")
		c.attachTo(tx, rootVolume, backedInstance, "/dev/sda", true)
		c.attachTo(tx, dataVolume, backedInstance, "/dev/sdf", false)
		c.attachTo(tx, stoppedVolume, stoppedInstance, "/dev/sda", true)
	})
	c.seenReady(freeVolume, dataVolume, rootVolume, stoppedVolume, othersVolume, farVolume)
	c.write(func(tx *state.Tx) {
		state.VolumeObservations.Put(tx, cloud.VolumeObservation{Volume: failedVolume, Phase: cloud.VolumeFailed})
		state.Observations.Put(tx, cloud.Observation{Instance: backedInstance, Phase: cloud.PhaseUp, UpWish: 1, At: c.now})
		i, _, _ := state.Instances.Get(tx, stoppedInstance)
		stopped := state.Want(tx, *i, cloud.WishStopped, cloud.Reason{Code: cloud.ReasonUserTerminated}, c.now)
		state.Observations.Put(tx, cloud.Observation{Instance: stopped.ID, Phase: cloud.PhaseGone, UpWish: 1, At: c.now})
		state.Vacate(tx, &stopped)
	})
	return c
}

func (c *aCloud) putBacked(tx *state.Tx, id cloud.InstanceID, r cloud.ReservationID) {
	i := cloud.Instance{
		ID: id, Reservation: r, Account: ordinary, Node: "one-0", Zone: "one", LaunchedAt: c.now, Type: "t2.micro", Size: cloud.Size{VCPUs: 1, MemoryMiB: 1024},
		Image: cloud.ImageRef{ID: "emi-0000000e"}, Architecture: "x86_64", Virtualization: cloud.HVM, RootDevice: "/dev/sda", EBS: true,
		Shutdown: cloud.ShutdownStop, Wish: cloud.WishRunning, Wishes: 1, WishedAt: c.now,
	}
	if err := state.Allocate(tx, c.Rand, c.Pools, &i, true); err != nil {
		c.tb.Fatal(err)
	}
	state.Instances.Put(tx, i)
	state.Reservations.Put(tx, cloud.Reservation{ID: r, Account: ordinary, Instances: []cloud.InstanceID{id}})
}

func (c *aCloud) attachTo(tx *state.Tx, id cloud.VolumeID, i cloud.InstanceID, device string, delete bool) {
	v, _, _ := state.Volumes.Get(tx, id)
	state.Attach(tx, *v, cloud.Attachment{Instance: i, Device: device, DeleteOnTermination: delete, At: c.now})
}

// seenReady as a node's report would make it: attached where that is wished of an
// instance that runs.
func (c *aCloud) seenReady(ids ...cloud.VolumeID) {
	c.write(func(tx *state.Tx) {
		for _, id := range ids {
			v, _, ok := state.Volumes.Get(tx, id)
			if !ok {
				c.tb.Fatalf("%s is not there", id)
			}
			o := cloud.VolumeObservation{Volume: id, Phase: cloud.VolumeReady, SizeGiB: v.SizeGiB, At: c.now}
			if v.Attachment != nil && v.Attachment.Instance == backedInstance && v.Attachment.Detaching.IsZero() {
				o.Attached = v.Attachment.Instance
			}
			state.VolumeObservations.Put(tx, o)
			if v.Attachment != nil && !v.Attachment.Detaching.IsZero() {
				state.LetGo(tx, *v)
			}
		}
	})
}

func (c *aCloud) describeVolume(id string) volumeReply {
	c.tb.Helper()
	return get[describeVolumesReply](c, c.user, "DescribeVolumes", "VolumeId.1="+id).Volumes[0]
}

// TestCreateVolume with what each type has if nothing else is said.
func TestCreateVolume(t *testing.T) {
	for _, test := range []struct {
		parameters       []string
		size             int
		kind             string
		iops, throughput int
		snapshot         string
		encrypted        bool
	}{
		{[]string{"Size=1"}, 1, "gp2", 100, 0, "", false},
		{[]string{"Size=100"}, 100, "gp2", 300, 0, "", false},
		{[]string{"Size=16384"}, 16384, "gp2", 16000, 0, "", false},
		{[]string{"Size=1", "VolumeType=gp3"}, 1, "gp3", 3000, 125, "", false},
		{[]string{"Size=20", "VolumeType=gp3", "Iops=4000", "Throughput=500"}, 20, "gp3", 4000, 500, "", false},
		{[]string{"Size=4", "VolumeType=io1", "Iops=200"}, 4, "io1", 200, 0, "", false},
		{[]string{"Size=4", "VolumeType=io2", "Iops=2000"}, 4, "io2", 2000, 0, "", false},
		{[]string{"Size=1", "VolumeType=standard"}, 1, "standard", 0, 0, "", false},
		{[]string{"Size=125", "VolumeType=st1"}, 125, "st1", 0, 0, "", false},
		{[]string{"Size=500", "VolumeType=sc1", "Encrypted=true"}, 500, "sc1", 0, 0, "", true},
		{[]string{"SnapshotId=" + completeSnapshot}, 8, "gp2", 100, 0, completeSnapshot, false},
		{[]string{"SnapshotId=" + completeSnapshot, "Size=9", "Encrypted=true"}, 9, "gp2", 100, 0, completeSnapshot, true},
		{[]string{"SnapshotId=" + publicSnapshot}, 2, "gp2", 100, 0, publicSnapshot, true},
	} {
		c := stocked(t)
		v := get[volumeReply](c, c.user, "CreateVolume", append(test.parameters, "AvailabilityZone=one")...)
		if v.SizeGiB != test.size || v.Type != test.kind || v.IOPS != test.iops || v.Throughput != test.throughput || v.Snapshot != test.snapshot || v.Encrypted != test.encrypted || v.State != "creating" || v.Zone != "one" {
			t.Errorf("%v: %+v", test.parameters, v)
		}
		made, _, _ := state.Volumes.Get(c.Store.View(), cloud.VolumeID(v.ID))
		if made.Node != "one-1" {
			t.Errorf("%v: it is on %s, which keeps more than the other", test.parameters, made.Node)
		}
		if test.snapshot != "" && (made.Source == nil || made.Source.Manifest == "") {
			t.Errorf("%v: it starts from %v", test.parameters, made.Source)
		}
		if limited := made.IOPS > 0; limited != (test.iops > 0 && test.kind != "gp2") {
			t.Errorf("%v: it is limited to %d IOPS", test.parameters, made.IOPS)
		}
		checkBooks(t, c)
	}
}

func TestCreateVolumeOnceByClientToken(t *testing.T) {
	c := stocked(t)
	create := []string{"AvailabilityZone=one", "Size=1", "ClientToken=tok", "TagSpecification.1.ResourceType=volume", "TagSpecification.1.Tag.1.Key=k"}
	first := get[volumeReply](c, c.user, "CreateVolume", create...)
	if again := get[volumeReply](c, c.user, "CreateVolume", create...); again.ID != first.ID || len(again.Tags) != 1 {
		t.Errorf("made %+v, then %+v", first, again)
	}
	if r := c.refused(c.user, "CreateVolume", append(create, "Iops=3")...); r.Code != "IdempotentParameterMismatch" {
		t.Errorf("other parameters: %+v", r)
	}
}

// TestVolumeLimit of an account, to the GiB, for new ones and those that grow.
func TestVolumeLimit(t *testing.T) {
	c := stocked(t)
	c.MaxVolumes = 20 // six of 2 GiB are there, in two zones
	get[volumeReply](c, c.user, "CreateVolume", "AvailabilityZone=one", "Size=5")
	for _, request := range [][]string{
		{"CreateVolume", "AvailabilityZone=one", "Size=2"},
		{"ModifyVolume", "VolumeId=" + freeVolume, "Size=4"},
	} {
		if r := c.refused(c.user, request[0], request[1:]...); r.Code != "VolumeLimitExceeded" || !strings.Contains(r.Message, "20 GiB") {
			t.Errorf("%v: %+v", request, r)
		}
	}
	get[modifyVolumeReply](c, c.user, "ModifyVolume", "VolumeId="+freeVolume, "Size=3")
	get[volumeReply](c, c.admin, "CreateVolume", "AvailabilityZone=one", "Size=5") // another's limit
	checkBooks(t, c)
}

// TestVolumeRefusals of everything that the generic tests don't reach.
func TestVolumeRefusals(t *testing.T) {
	c := stocked(t)
	create := func(p ...string) []string { return append([]string{"CreateVolume", "AvailabilityZone=one"}, p...) }
	attach := func(volume, instance, device string) []string {
		return []string{"AttachVolume", "VolumeId=" + volume, "InstanceId=" + instance, "Device=" + device}
	}
	stored, pending := c.run(c.user)[0], c.run(c.user)[0]
	c.seenUp(stored)
	before := c.Store.View().Revision()
	for _, test := range []refusalCase{
		{create(), "MissingParameter", "Size or SnapshotId"},
		{create("Size=0"), "InvalidParameterValue", "0GiB is too small"},
		{create("Size=-1"), "InvalidParameterValue", "-1GiB is too small"},
		{create("Size=16385"), "InvalidParameterValue", "16385GiB is too large"},
		{create("Size=9223372036854775807"), "InvalidParameterValue", "too large"},
		{create("Size=1", "VolumeType=floppy"), "UnknownVolumeType", "floppy"},
		{create("Size=4", "VolumeType=io1"), "MissingParameter", "iops"},
		{create("Size=3", "VolumeType=io1", "Iops=100"), "InvalidParameterValue", "too small"},
		{create("Size=4", "VolumeType=io1", "Iops=201"), "InvalidParameterValue", "ratio"},
		{create("Size=4", "Iops=200"), "InvalidParameterCombination", "iops"},
		{create("Size=4", "Iops=0"), "InvalidParameterValue", "Iops"},
		{create("Size=4", "VolumeType=gp3", "Throughput=2000"), "InvalidParameterValue", "2000"},
		{create("Size=4", "VolumeType=gp3", "Throughput=-5"), "InvalidParameterValue", "Throughput"},
		{create("SnapshotId=snap-99999999"), "InvalidSnapshot.NotFound", "snap-99999999"},
		{create("SnapshotId=" + secretSnapshot), "InvalidSnapshot.NotFound", secretSnapshot},
		{create("SnapshotId=x"), "InvalidSnapshotID.Malformed", `"x"`},
		{create("SnapshotId=" + pendingSnapshot), "IncorrectState", "pending"},
		{create("SnapshotId=" + errorSnapshot), "IncorrectState", "error"},
		{create("SnapshotId="+completeSnapshot, "Size=7"), "InvalidParameterValue", "8 GiB"},
		{create("SnapshotId="+publicSnapshot, "Encrypted=false"), "InvalidParameterCombination", "encrypted"},
		{create("Size=1", "KmsKeyId=k"), "UnsupportedOperation", "KmsKeyId"},
		{create("Size=4", "MultiAttachEnabled=true"), "UnsupportedOperation", "MultiAttachEnabled"},
		{create("Size=1", "AvailabilityZoneId=z"), "UnsupportedOperation", "AvailabilityZoneId"},
		{[]string{"CreateVolume", "Size=1", "AvailabilityZone=nowhere"}, "InvalidZone.NotFound", "nowhere"},

		{[]string{"DeleteVolume", "VolumeId=" + dataVolume}, "VolumeInUse", backedInstance},
		{[]string{"DeleteVolume", "VolumeId=" + othersVolume}, "InvalidVolume.NotFound", "The volume '" + othersVolume + "' does not exist."},
		{[]string{"DeleteVolume", "VolumeId=vol-99999999"}, "InvalidVolume.NotFound", "vol-99999999"},
		{[]string{"DeleteVolume", "VolumeId=disk"}, "InvalidVolumeID.Malformed", `"disk"`},
		{[]string{"DescribeVolumes", "VolumeId.1=" + freeVolume, "VolumeId.2=vol-99999999", "VolumeId.3=" + othersVolume}, "InvalidVolume.NotFound", "The volumes 'vol-99999999, " + othersVolume + "' do not exist."},
		{[]string{"DescribeVolumes", "VolumeId.1=" + freeVolume, "MaxResults=5"}, "InvalidParameterCombination", "MaxResults"},
		{[]string{"DescribeVolumesModifications", "VolumeId.1=" + freeVolume}, "InvalidVolumeModification.NotFound", freeVolume},
		{[]string{"DescribeVolumeAttribute", "VolumeId=" + freeVolume, "Attribute=colour"}, "InvalidParameterValue", "colour"},
		{[]string{"ModifyVolumeAttribute", "VolumeId=" + freeVolume}, "MissingParameter", "AutoEnableIO"},

		{attach(dataVolume, backedInstance, "/dev/sdg"), "VolumeInUse", "already attached"},
		{attach(dataVolume, stoppedInstance, "/dev/sdg"), "VolumeInUse", "already attached"},
		{attach(newVolume, backedInstance, "/dev/sdg"), "IncorrectState", "'creating'"},
		{attach(failedVolume, backedInstance, "/dev/sdg"), "IncorrectState", "'error'"},
		{attach(farVolume, backedInstance, "/dev/sdg"), "InvalidVolume.ZoneMismatch", "not in the same availability zone"},
		{attach(freeVolume, pending, "/dev/sdg"), "IncorrectState", "'pending'"},
		{attach(freeVolume, backedInstance, "/dev/sdf"), "InvalidParameterValue", "Attachment point /dev/sdf is already in use"},
		{attach(freeVolume, backedInstance, "xvdf"), "InvalidParameterValue", "already in use"},
		{attach(freeVolume, backedInstance, "/dev/sda1"), "InvalidParameterValue", "already in use"},
		{attach(freeVolume, stored, "/dev/sda"), "InvalidParameterValue", "already in use"},
		{attach(freeVolume, stored, "/dev/sdb"), "InvalidParameterValue", "already in use"},
		{attach(freeVolume, backedInstance, "../../etc"), "InvalidParameterValue", "not a valid EBS device name"},
		{attach(othersVolume, backedInstance, "/dev/sdg"), "InvalidVolume.NotFound", othersVolume},
		{attach(freeVolume, "i-99999999", "/dev/sdg"), "InvalidInstanceID.NotFound", "i-99999999"},

		{[]string{"DetachVolume", "VolumeId=" + freeVolume}, "IncorrectState", "'available'"},
		{[]string{"DetachVolume", "VolumeId=" + dataVolume, "InstanceId=" + stoppedInstance}, "InvalidAttachment.NotFound", stoppedInstance},
		{[]string{"DetachVolume", "VolumeId=" + dataVolume, "Device=/dev/sdh"}, "InvalidAttachment.NotFound", "/dev/sdh"},
		{[]string{"DetachVolume", "VolumeId=" + dataVolume, "InstanceId=i-99999999"}, "InvalidInstanceID.NotFound", "i-99999999"},
		{[]string{"DetachVolume", "VolumeId=" + rootVolume}, "OperationNotPermitted", "Unable to detach root volume '" + rootVolume + "' from instance"},
		{[]string{"DetachVolume", "VolumeId=" + rootVolume, "Force=true"}, "OperationNotPermitted", "root volume"},

		{[]string{"ModifyVolume", "VolumeId=" + freeVolume}, "MissingParameter", "Size"},
		{[]string{"ModifyVolume", "VolumeId=" + freeVolume, "Size=1"}, "InvalidParameterValue", "cannot be smaller"},
		{[]string{"ModifyVolume", "VolumeId=" + freeVolume, "Size=16385"}, "InvalidParameterValue", "too large"},
		{[]string{"ModifyVolume", "VolumeId=" + freeVolume, "VolumeType=io1"}, "InvalidParameterValue", "too small"},
		{[]string{"ModifyVolume", "VolumeId=" + freeVolume, "Iops=100"}, "InvalidParameterCombination", "iops"},
		{[]string{"ModifyVolume", "VolumeId=" + freeVolume, "MultiAttachEnabled=true"}, "UnsupportedOperation", "MultiAttachEnabled"},
		{[]string{"ModifyVolume", "VolumeId=" + newVolume, "Size=5"}, "IncorrectState", "creating"},
	} {
		if r := c.refused(c.user, test.request[0], test.request[1:]...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%.120v: %+v", test.request, r)
		}
	}
	if after := c.Store.View().Revision(); after != before {
		t.Errorf("a refused request wrote: revision %d became %d", before, after)
	}
}

// TestLifeOfAVolume as a client sees it, with a node that does what is wished.
func TestLifeOfAVolume(t *testing.T) {
	c := stocked(t)
	id := get[volumeReply](c, c.user, "CreateVolume", "AvailabilityZone=one", "Size=1").ID
	c.write(func(tx *state.Tx) {
		state.Volumes.Edit(tx, cloud.VolumeID(id), func(v *cloud.Volume) { v.Node = "one-0" })
	})
	c.seenReady(cloud.VolumeID(id))
	state := func(when, volume, attachment string) {
		t.Helper()
		v, got := c.describeVolume(id), ""
		if len(v.Attachments) > 0 {
			got = v.Attachments[0].State
		}
		if v.State != volume || got != attachment {
			t.Errorf("%s: %s and %q, want %s and %q", when, v.State, got, volume, attachment)
		}
	}
	state("ready", "available", "")
	a := get[attachmentReply](c, c.user, "AttachVolume", "VolumeId="+id, "InstanceId="+backedInstance, "Device=/dev/sdg")
	if a.State != "attaching" || a.Device != "/dev/sdg" || a.Instance != backedInstance || a.At == nil || a.DeleteOnTermination {
		t.Errorf("attached: %+v", a)
	}
	state("wished for", "in-use", "attaching")
	c.seenReady(cloud.VolumeID(id))
	state("seen", "in-use", "attached")
	if r := c.refused(c.user, "AttachVolume", "VolumeId="+id, "InstanceId="+backedInstance, "Device=/dev/sdg"); r.Code != "VolumeInUse" {
		t.Errorf("once more: %+v", r)
	}
	for range 2 {
		if a := get[attachmentReply](c, c.user, "DetachVolume", "VolumeId="+id, "Force=true"); a.State != "detaching" {
			t.Errorf("detached: %+v", a)
		}
	}
	state("to be given back", "in-use", "detaching")
	c.seenReady(cloud.VolumeID(id))
	state("given back", "available", "")
	get[reply](c, c.user, "DeleteVolume", "VolumeId="+id)
	state("deleted", "deleting", "")
	if r := c.refused(c.user, "DeleteVolume", "VolumeId="+id); r.Code != "IncorrectState" {
		t.Errorf("deleted again: %+v", r)
	}
	if r := c.refused(c.user, "CreateSnapshot", "VolumeId="+id); r.Code != "IncorrectState" || !strings.Contains(r.Message, "deleting") {
		t.Errorf("a snapshot of it: %+v", r)
	}
	checkBooks(t, c)
}

// TestModifyVolume grows it and changes what it may ask for, one change at a time.
func TestModifyVolume(t *testing.T) {
	c := stocked(t)
	m := get[modifyVolumeReply](c, c.user, "ModifyVolume", "VolumeId="+freeVolume, "Size=10", "VolumeType=gp3", "Iops=4000").Modification
	if m.State != "modifying" || m.OriginalSize != 2 || m.TargetSize != 10 || m.OriginalType != "gp2" || m.TargetType != "gp3" || m.TargetIOPS != 4000 || m.TargetThroughput != 125 || m.OriginalIOPS != 100 {
		t.Errorf("modified: %+v", m)
	}
	if v := c.describeVolume(freeVolume); v.SizeGiB != 10 || v.Type != "gp3" || v.IOPS != 4000 || v.Throughput != 125 || v.State != "available" {
		t.Errorf("the volume: %+v", v)
	}
	if r := c.refused(c.user, "ModifyVolume", "VolumeId="+freeVolume, "Size=11"); r.Code != "IncorrectModificationState" {
		t.Errorf("another while it goes on: %+v", r)
	}
	c.write(func(tx *state.Tx) {
		state.Volumes.Edit(tx, freeVolume, func(v *cloud.Volume) { v.Modification.Ended = c.now.Add(time.Second) })
	})
	list := get[describeModificationsReply](c, c.user, "DescribeVolumesModifications", asked("modification-state=completed", "target-size=10")...).Modifications
	if len(list) != 1 || list[0].ID != freeVolume || list[0].Progress != 100 || list[0].EndedAt == nil {
		t.Errorf("the modifications: %+v", list)
	}
	m = get[modifyVolumeReply](c, c.user, "ModifyVolume", "VolumeId="+freeVolume, "Throughput=250").Modification
	if m.TargetIOPS != 4000 || m.TargetThroughput != 250 || m.TargetSize != 10 {
		t.Errorf("what isn't said became %+v", m)
	}
	checkBooks(t, c)
}

// TestVolumeFilters choose by everything that a volume shows.
func TestVolumeFilters(t *testing.T) {
	c := stocked(t)
	get[reply](c, c.user, "CreateTags", "ResourceId.1="+freeVolume, "Tag.1.Key=k", "Tag.1.Value=v")
	for filter, want := range map[string]string{
		"attachment.attach-time=2026-11-22T*": "234", "attachment.delete-on-termination=true": "34", "attachment.device=/dev/sd?": "234",
		"attachment.instance-id=" + backedInstance: "23", "attachment.status=attached": "234", "attachment.status=detaching": "",
		"availability-zone=two": "8", "create-time=2026*": "1234678", "encrypted=true": "4", "fast-restored=true": "", "multi-attach-enabled=false": "1234678",
		"size=2": "1234678", "size=3": "", "snapshot-id=" + completeSnapshot: "4", "status=available": "18", "status=in-use": "234", "status=creating": "6", "status=error": "7",
		"volume-id=" + freeVolume: "1", "volume-type=gp2": "1234678", "tag:k=v": "1", "tag-key=k": "1",
	} {
		got := ""
		for _, v := range get[describeVolumesReply](c, c.user, "DescribeVolumes", asked(filter)...).Volumes {
			got += v.ID[len(v.ID)-1:]
		}
		if got != want {
			t.Errorf("%s: %q, want %q", filter, got, want)
		}
	}
	everybodys := get[describeVolumesReply](c, c.admin, "DescribeVolumes", "VolumeId.1=verbose").Volumes
	if own := get[describeVolumesReply](c, c.admin, "DescribeVolumes").Volumes; len(own) != 1 || len(everybodys) != 8 {
		t.Errorf("who runs the cloud has %d, and sees %d", len(own), len(everybodys))
	}
	first := get[describeVolumesReply](c, c.user, "DescribeVolumes", "MaxResults=5")
	rest := get[describeVolumesReply](c, c.user, "DescribeVolumes", "MaxResults=5", "NextToken="+first.NextToken)
	if len(first.Volumes) != 5 || len(rest.Volumes) != 2 || rest.NextToken != "" {
		t.Errorf("pages of %d and %d", len(first.Volumes), len(rest.Volumes))
	}
	for filter, want := range map[string]int{"volume-status.status=ok": 5, "volume-status.status=impaired": 1, "volume-status.status=insufficient-data": 1, "volume-status.details-name=io-enabled": 6, "volume-status.details-status=failed": 1, "availability-zone=one": 6} {
		if got := get[volumeStatusesReply](c, c.user, "DescribeVolumeStatus", asked(filter)...).Statuses; len(got) != want {
			t.Errorf("%s: %d, want %d", filter, len(got), want)
		}
	}
}

func TestVolumeAttributes(t *testing.T) {
	c := stocked(t)
	for _, value := range []string{"true", "true", "false"} {
		get[reply](c, c.user, "ModifyVolumeAttribute", "VolumeId="+dataVolume, "AutoEnableIO.Value="+value)
		if got := get[volumeAttributeReply](c, c.user, "DescribeVolumeAttribute", "VolumeId="+dataVolume, "Attribute=autoEnableIO"); got.AutoEnableIO.Value != value {
			t.Errorf("set to %s it is %+v", value, got)
		}
	}
	get[reply](c, c.user, "EnableVolumeIO", "VolumeId="+dataVolume)
}

// TestTroubledVolumes: of a source that is away its owner is told otherwise than of
// one that is damaged.
func TestTroubledVolumes(t *testing.T) {
	c := stocked(t)
	for _, test := range []struct {
		trouble                             cloud.Trouble
		status, enabled, performance, event string
	}{
		{cloud.Trouble{Message: "the disk is away"}, "impaired", "passed", "stalled", "io-performance:stalled"},
		{cloud.Trouble{Damaged: true, Message: "blocks/12 is damaged"}, "impaired", "failed", "not-applicable", "potential-data-inconsistency"},
		{cloud.Trouble{}, "ok", "passed", "not-applicable", ""},
	} {
		c.write(func(tx *state.Tx) {
			o, _, _ := state.VolumeObservations.Get(tx, dataVolume)
			seen := *o
			seen.Trouble, seen.Troubled = test.trouble, c.now
			state.VolumeObservations.Put(tx, seen)
		})
		got := get[volumeStatusesReply](c, c.user, "DescribeVolumeStatus", "VolumeId.1="+dataVolume).Statuses[0]
		if got.Status.Status != test.status || got.Status.Details[0].Status != test.enabled || got.Status.Details[1].Status != test.performance {
			t.Errorf("%+v: %+v", test.trouble, got.Status)
		}
		if test.event == "" {
			if len(got.Events) != 0 {
				t.Errorf("without trouble there are %+v", got.Events)
			}
			get[reply](c, c.user, "EnableVolumeIO", "VolumeId="+dataVolume)
			continue
		}
		if len(got.Events) != 1 || got.Events[0].Type != test.event || !strings.Contains(got.Events[0].Description, test.trouble.Message) || !got.Events[0].NotBefore.Equal(c.now) {
			t.Errorf("%+v: the events %+v", test.trouble, got.Events)
		}
		if found := get[volumeStatusesReply](c, c.user, "DescribeVolumeStatus", asked("event.event-type="+test.event)...).Statuses; len(found) != 1 || found[0].ID != dataVolume {
			t.Errorf("by its event are found %+v", found)
		}
		if test.trouble.Damaged {
			if e := c.refused(c.user, "EnableVolumeIO", "VolumeId="+dataVolume); e.Code != "IncorrectState" || !strings.Contains(e.Message, test.trouble.Message) {
				t.Errorf("EnableVolumeIO: %+v", e)
			}
		}
	}
}

// TestVolumesOfOthers are nowhere: no action admits that they exist.
func TestVolumesOfOthers(t *testing.T) {
	c := stocked(t)
	stranger := iam.Principal{Account: "999900001111", User: iam.AdminUser}
	for _, name := range []string{"DeleteVolume", "EnableVolumeIO", "CreateSnapshot", "DetachVolume", "ModifyVolume", "ModifyVolumeAttribute", "DescribeVolumeAttribute"} {
		parameters := slices.DeleteFunc(requiredOf(name), func(p string) bool { return strings.HasPrefix(p, "VolumeId=") })
		there := c.refused(stranger, name, append(parameters, "VolumeId="+dataVolume)...)
		nowhere := c.refused(stranger, name, append(parameters, "VolumeId=vol-99999999")...)
		if there.Code != nowhere.Code || strings.ReplaceAll(there.Message, dataVolume, "") != strings.ReplaceAll(nowhere.Message, "vol-99999999", "") {
			t.Errorf("%s: %+v, and of one that isn't there %+v", name, there, nowhere)
		}
	}
	if list := get[describeVolumesReply](c, stranger, "DescribeVolumes").Volumes; len(list) != 0 {
		t.Errorf("a stranger sees %+v", list)
	}
}

// TestVolumeReplies compares whole replies with those in testdata/replies.
func TestVolumeReplies(t *testing.T) {
	c := stocked(t)
	say := func(name, action string, parameters ...string) {
		t.Helper()
		status, body := c.send(c.user, action, parameters...)
		if status != http.StatusOK {
			t.Fatalf("%s: %s", action, body)
		}
		compare(t, name, body)
	}
	say("CreateVolume", "CreateVolume", "AvailabilityZone=one", "SnapshotId="+completeSnapshot, "VolumeType=gp3", "TagSpecification.1.ResourceType=volume", "TagSpecification.1.Tag.1.Key=for")
	say("DescribeVolumes", "DescribeVolumes", "VolumeId.1="+dataVolume, "VolumeId.2="+stoppedVolume)
	say("DescribeVolumes-none", "DescribeVolumes", asked("size=77")...)
	say("DescribeVolumeStatus", "DescribeVolumeStatus", "VolumeId.1="+freeVolume, "VolumeId.2="+newVolume)
	say("DescribeVolumeAttribute", "DescribeVolumeAttribute", "VolumeId="+freeVolume, "Attribute=autoEnableIO")
	say("ModifyVolumeAttribute", "ModifyVolumeAttribute", "VolumeId="+freeVolume, "AutoEnableIO.Value=true")
	say("EnableVolumeIO", "EnableVolumeIO", "VolumeId="+freeVolume)
	say("AttachVolume", "AttachVolume", "VolumeId="+freeVolume, "InstanceId="+backedInstance, "Device=/dev/sdg")
	say("DetachVolume", "DetachVolume", "VolumeId="+freeVolume)
	say("ModifyVolume", "ModifyVolume", "VolumeId="+dataVolume, "Size=7")
	say("DescribeVolumesModifications", "DescribeVolumesModifications")
	say("CreateSnapshot", "CreateSnapshot", "VolumeId="+dataVolume, "Description=nightly", "TagSpecification.1.ResourceType=snapshot", "TagSpecification.1.Tag.1.Key=for")
	say("CreateSnapshots", "CreateSnapshots", "InstanceSpecification.InstanceId="+backedInstance)
	say("DescribeSnapshots", "DescribeSnapshots", "SnapshotId.1="+completeSnapshot, "SnapshotId.2="+errorSnapshot)
	say("CopySnapshot", "CopySnapshot", "SourceRegion=mallee", "SourceSnapshotId="+completeSnapshot)
	c.write(func(tx *state.Tx) { state.Accounts.Put(tx, cloud.Account{ID: "999900001111"}) })
	say("ModifySnapshotAttribute", "ModifySnapshotAttribute", "SnapshotId="+completeSnapshot, "CreateVolumePermission.Add.1.Group=all", "CreateVolumePermission.Add.2.UserId=999900001111")
	say("DescribeSnapshotAttribute", "DescribeSnapshotAttribute", "SnapshotId="+completeSnapshot, "Attribute=createVolumePermission")
	say("ResetSnapshotAttribute", "ResetSnapshotAttribute", "SnapshotId="+completeSnapshot, "Attribute=createVolumePermission")
	say("DeleteSnapshot", "DeleteSnapshot", "SnapshotId="+completeSnapshot)
	say("DescribeInstances-backed", "DescribeInstances", "InstanceId.1="+backedInstance)
	say("DescribeInstanceAttribute-devices", "DescribeInstanceAttribute", "InstanceId="+backedInstance, "Attribute=blockDeviceMapping")
	say("ModifyInstanceAttribute", "ModifyInstanceAttribute", "InstanceId="+backedInstance, "BlockDeviceMapping.1.DeviceName=/dev/sdf", "BlockDeviceMapping.1.Ebs.DeleteOnTermination=true")
	say("StartInstances", "StartInstances", "InstanceId.1="+stoppedInstance)
	say("CreateImage", "CreateImage", "InstanceId="+backedInstance, "Name=of an instance")
	say("StopInstances-backed", "StopInstances", "InstanceId.1="+backedInstance)
	say("DeleteVolume", "DeleteVolume", "VolumeId="+farVolume)
}
