package ec2

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mallee/cloud"
	"mallee/iam"
	"mallee/state"
)

// complete a snapshot, as its node would.
func (c *aCloud) complete(id string) {
	c.write(func(tx *state.Tx) {
		s, _, ok := state.Snapshots.Get(tx, cloud.SnapshotID(id))
		if !ok {
			c.tb.Fatalf("%s is not there", id)
		}
		state.CompleteSnapshot(tx, *s, cloud.Content{Manifest: strings.Repeat("c", 64), Size: int64(s.SizeGiB) << 30}, c.now)
	})
}

// took notes that the instant of a snapshot is past, and how far it is stored.
func (c *aCloud) took(id string, done int64) {
	c.write(func(tx *state.Tx) {
		state.SnapshotObservations.Put(tx, cloud.SnapshotObservation{Snapshot: cloud.SnapshotID(id), Taken: true, Done: done, Total: 100, At: c.now})
	})
}

func (c *aCloud) describeSnapshot(id string) snapshotReply {
	c.tb.Helper()
	return get[describeSnapshotsReply](c, c.user, "DescribeSnapshots", "SnapshotId.1="+id).Snapshots[0]
}

// TestLifeOfASnapshot as a client sees it; it outlives its volume, and the volumes
// that are made of it outlive it.
func TestLifeOfASnapshot(t *testing.T) {
	c := stocked(t)
	made := get[snapshotReply](c, c.user, "CreateSnapshot", "VolumeId="+freeVolume, "Description=d")
	if made.State != "pending" || made.Progress != "0%" || made.Volume != freeVolume || made.SizeGiB != 2 || made.Owner != string(ordinary) {
		t.Errorf("made: %+v", made)
	}
	c.took(made.ID, 42)
	if s := c.describeSnapshot(made.ID); s.State != "pending" || s.Progress != "42%" || s.CompletedAt != nil {
		t.Errorf("half stored: %+v", s)
	}
	create := []string{"AvailabilityZone=one", "SnapshotId=" + made.ID}
	if r := c.refused(c.user, "CreateVolume", create...); r.Code != "IncorrectState" {
		t.Errorf("a volume of a pending one: %+v", r)
	}
	c.complete(made.ID)
	if s := c.describeSnapshot(made.ID); s.State != "completed" || s.Progress != "100%" || s.CompletedAt == nil {
		t.Errorf("stored: %+v", s)
	}
	get[reply](c, c.user, "DeleteVolume", "VolumeId="+freeVolume)
	v := get[volumeReply](c, c.user, "CreateVolume", create...)
	get[reply](c, c.user, "DeleteSnapshot", "SnapshotId="+made.ID)
	if r := c.refused(c.user, "DescribeSnapshots", "SnapshotId.1="+made.ID); r.Code != "InvalidSnapshot.NotFound" {
		t.Errorf("deleted: %+v", r)
	}
	if kept, _, _ := state.Volumes.Get(c.Store.View(), cloud.VolumeID(v.ID)); kept.Source == nil || c.describeVolume(v.ID).Snapshot != made.ID {
		t.Errorf("the volume made of it: %+v", kept)
	}
	if r := c.refused(c.user, "CreateVolume", create...); r.Code != "InvalidSnapshot.NotFound" {
		t.Errorf("a volume of a deleted one: %+v", r)
	}
	checkBooks(t, c)
}

// TestSnapshotsBuildOnTheLast of the same volume.
func TestSnapshotsBuildOnTheLast(t *testing.T) {
	c := stocked(t)
	var ids []string
	for range 4 {
		c.now = c.now.Add(time.Second)
		ids = append(ids, get[snapshotReply](c, c.user, "CreateSnapshot", "VolumeId="+freeVolume).ID)
		if len(ids) == 1 {
			c.complete(ids[0])
		}
		if len(ids) == 3 {
			c.write(func(tx *state.Tx) {
				s, _, _ := state.Snapshots.Get(tx, cloud.SnapshotID(ids[2]))
				state.FailSnapshot(tx, *s, cloud.Reason{Code: "c"})
			})
		}
	}
	for n, parent := range []string{"", ids[0], ids[1], ids[1]} {
		s, _, _ := state.Snapshots.Get(c.Store.View(), cloud.SnapshotID(ids[n]))
		if string(s.Parent) != parent || (s.Base != nil) != (n == 1) {
			t.Errorf("snapshot %d builds on %q, of which %v is known; want %q", n, s.Parent, s.Base, parent)
		}
	}
	get[reply](c, c.user, "DeleteSnapshot", "SnapshotId="+ids[0])
	if s, _, _ := state.Snapshots.Get(c.Store.View(), cloud.SnapshotID(ids[1])); s.Base == nil {
		t.Error("with the first one went what the second builds on")
	}
}

// TestCreateSnapshotWaitsForTheInstant after its commit, and not for ever.
func TestCreateSnapshotWaitsForTheInstant(t *testing.T) {
	for _, test := range []struct {
		name   string
		happen func(c *aCloud, id string)
		after  time.Duration
	}{
		{"the instant", func(c *aCloud, id string) { c.took(id, 0) }, time.Second},
		{"all is stored already", func(c *aCloud, id string) { c.complete(id) }, time.Second},
		{"it failed", func(c *aCloud, id string) {
			c.write(func(tx *state.Tx) {
				s, _, _ := state.Snapshots.Get(tx, cloud.SnapshotID(id))
				state.FailSnapshot(tx, *s, cloud.Reason{Code: "c"})
			})
		}, time.Second},
		{"nothing", func(*aCloud, string) {}, DefaultTakeWithin},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := stocked(t)
				c.TakeWithin = DefaultTakeWithin
				go func() {
					time.Sleep(time.Second) // the bubble's
					for s := range state.SnapshotsToTake.By(c.Store.View(), "one-0") {
						test.happen(c, string(s.ID))
						return
					}
					t.Error("it waits for what isn't committed")
				}()
				began := time.Now()
				if s := get[snapshotReply](c, c.user, "CreateSnapshot", "VolumeId="+freeVolume); s.State != "pending" {
					t.Errorf("%+v", s)
				}
				if waited := time.Since(began); waited != test.after {
					t.Errorf("it waited for %s, want %s", waited, test.after)
				}
			})
		})
	}
}

// TestCreateSnapshots of an instance's volumes, all at one instant.
func TestCreateSnapshots(t *testing.T) {
	const of = "InstanceSpecification."
	for _, test := range []struct {
		parameters []string
		volumes    string
	}{
		{nil, dataVolume + " " + rootVolume},
		{[]string{of + "ExcludeBootVolume=true"}, dataVolume},
		{[]string{of + "ExcludeDataVolumeId.1=" + dataVolume}, rootVolume},
	} {
		c := stocked(t)
		get[reply](c, c.user, "CreateTags", "ResourceId.1="+dataVolume, "ResourceId.2="+rootVolume, "Tag.1.Key=k", "Tag.1.Value=v")
		list := get[createSnapshotsReply](c, c.user, "CreateSnapshots", append(test.parameters, of+"InstanceId="+backedInstance, "CopyTagsFromSource=volume", "Description=d")...).Snapshots
		var volumes []string
		sets := map[string]bool{}
		for _, s := range list {
			volumes = append(volumes, s.Volume)
			kept, _, _ := state.Snapshots.Get(c.Store.View(), cloud.SnapshotID(s.ID))
			sets[kept.Set] = true
			if s.State != "pending" || s.Description != "d" || len(c.describeSnapshot(s.ID).Tags) != 1 || kept.Set == "" || kept.Reboot {
				t.Errorf("%v: %+v, %+v", test.parameters, s, kept)
			}
		}
		if strings.Join(volumes, " ") != test.volumes || len(sets) != 1 {
			t.Errorf("%v: of %v, in the sets %v", test.parameters, volumes, sets)
		}
	}
}

// TestCopySnapshot is complete at once, and outlives what it was copied from.
func TestCopySnapshot(t *testing.T) {
	c := stocked(t)
	id := get[copySnapshotReply](c, c.user, "CopySnapshot", "SourceRegion=mallee", "SourceSnapshotId="+publicSnapshot, "Description=mine now",
		"TagSpecification.1.ResourceType=snapshot", "TagSpecification.1.Tag.1.Key=k").ID
	get[reply](c, c.admin, "DeleteSnapshot", "SnapshotId="+publicSnapshot)
	s := c.describeSnapshot(id)
	if s.State != "completed" || s.Owner != string(ordinary) || s.Description != "mine now" || !s.Encrypted || s.SizeGiB != 2 || s.Volume != "vol-ffffffff" || len(s.Tags) != 1 {
		t.Errorf("the copy: %+v", s)
	}
	get[volumeReply](c, c.user, "CreateVolume", "AvailabilityZone=one", "SnapshotId="+id)
}

func TestSnapshotRefusals(t *testing.T) {
	c := stocked(t)
	used := c.backedImage("of a snapshot")
	stored := c.run(c.user)[0]
	c.write(func(tx *state.Tx) {
		state.Images.Put(tx, cloud.Image{ID: "emi-0000000f", Account: c.admin.Account, RootDevice: "/dev/sda", Mappings: []cloud.Mapping{{Device: "/dev/sda", EBS: &cloud.EBSMapping{Snapshot: errorSnapshot}}}})
	})
	const of = "InstanceSpecification."
	before := c.Store.View().Revision()
	for _, test := range []refusalCase{
		{[]string{"CreateSnapshot", "VolumeId=" + newVolume}, "IncorrectState", "'creating'"},
		{[]string{"CreateSnapshot", "VolumeId=" + failedVolume}, "IncorrectState", "'error'"},
		{[]string{"CreateSnapshot", "VolumeId=" + othersVolume}, "InvalidVolume.NotFound", othersVolume},
		{[]string{"CreateSnapshot", "VolumeId=" + freeVolume, "Description=" + strings.Repeat("d", 256)}, "InvalidParameterValue", "Description"},
		{[]string{"CreateSnapshot", "VolumeId=" + freeVolume, "OutpostArn=arn"}, "UnsupportedOperation", "OutpostArn"},
		{[]string{"CreateSnapshot", "VolumeId=" + freeVolume, "Location=local"}, "UnsupportedOperation", "Location"},
		{[]string{"CreateSnapshots", of + "InstanceId=i-99999999"}, "InvalidInstanceID.NotFound", "i-99999999"},
		{[]string{"CreateSnapshots", of + "InstanceId=" + stored}, "InvalidParameterValue", "no volume"},
		{[]string{"CreateSnapshots", of + "InstanceId=" + stoppedInstance, of + "ExcludeBootVolume=true"}, "InvalidParameterValue", "none that isn't excluded"},
		{[]string{"CreateSnapshots", of + "InstanceId=" + backedInstance, of + "ExcludeDataVolumeId.1=" + rootVolume}, "InvalidParameterValue", rootVolume},
		{[]string{"CreateSnapshots", of + "InstanceId=" + backedInstance, of + "ExcludeDataVolumeId.1=" + freeVolume}, "InvalidParameterValue", freeVolume},
		{[]string{"CreateSnapshots", of + "InstanceId=" + backedInstance, "CopyTagsFromSource=moon"}, "InvalidParameterValue", "CopyTagsFromSource"},
		{[]string{"DeleteSnapshot", "SnapshotId=" + completeSnapshot}, "InvalidSnapshot.InUse", "The snapshot " + completeSnapshot + " is currently in use by " + used},
		{[]string{"DeleteSnapshot", "SnapshotId=" + errorSnapshot}, "InvalidSnapshot.InUse", "in use by an image of another account"},
		{[]string{"DeleteSnapshot", "SnapshotId=" + secretSnapshot}, "InvalidSnapshot.NotFound", secretSnapshot},
		{[]string{"DeleteSnapshot", "SnapshotId=" + publicSnapshot}, "AuthFailure", publicSnapshot},
		{[]string{"DeleteSnapshot", "SnapshotId=x"}, "InvalidSnapshotID.Malformed", `"x"`},
		{[]string{"CopySnapshot", "SourceRegion=us-east-1", "SourceSnapshotId=" + completeSnapshot}, "UnsupportedOperation", "SourceRegion"},
		{[]string{"CopySnapshot", "SourceRegion=mallee", "SourceSnapshotId=" + secretSnapshot}, "InvalidSnapshot.NotFound", secretSnapshot},
		{[]string{"CopySnapshot", "SourceRegion=mallee", "SourceSnapshotId=" + pendingSnapshot}, "IncorrectState", "pending"},
		{[]string{"CopySnapshot", "SourceRegion=mallee", "SourceSnapshotId=" + completeSnapshot, "Encrypted=true"}, "UnsupportedOperation", "Encrypted"},
		{[]string{"DescribeSnapshots", "SnapshotId.1=" + completeSnapshot, "MaxResults=5"}, "InvalidParameterCombination", "MaxResults"},
		{[]string{"DescribeSnapshots", "SnapshotId.1=snap-99999999", "SnapshotId.2=" + secretSnapshot}, "InvalidSnapshot.NotFound", "The snapshots 'snap-99999999, " + secretSnapshot + "' do not exist."},
		{[]string{"DescribeSnapshotAttribute", "SnapshotId=" + publicSnapshot, "Attribute=createVolumePermission"}, "AuthFailure", publicSnapshot},
		{[]string{"ModifySnapshotAttribute", "SnapshotId=" + publicSnapshot, "UserId.1=" + string(ordinary), "OperationType=add"}, "AuthFailure", publicSnapshot},
		{[]string{"ModifySnapshotAttribute", "SnapshotId=" + completeSnapshot, "UserId.1=000000000000", "OperationType=add"}, "InvalidParameterValue", "no such account"},
		{[]string{"ModifySnapshotAttribute", "SnapshotId=" + completeSnapshot, "UserId.1=joe", "OperationType=add"}, "InvalidParameterValue", "joe"},
		{[]string{"ModifySnapshotAttribute", "SnapshotId=" + completeSnapshot, "UserId.1=000000000000"}, "MissingParameter", "OperationType"},
		{[]string{"ModifySnapshotAttribute", "SnapshotId=" + completeSnapshot, "UserGroup.1=friends", "OperationType=add"}, "InvalidParameterValue", "friends"},
		{[]string{"ModifySnapshotAttribute", "SnapshotId=" + completeSnapshot, "CreateVolumePermission.Add.1.Group=all", "CreateVolumePermission.Add.1.UserId=000000000000"}, "InvalidParameterCombination", "not both"},
		{[]string{"ModifySnapshotAttribute", "SnapshotId=" + completeSnapshot, "CreateVolumePermission.Add.1.Group=all", "UserGroup.1=all"}, "InvalidParameterCombination", "not both"},
	} {
		if r := c.refused(c.user, test.request[0], test.request[1:]...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%.120v: %+v", test.request, r)
		}
	}
	if after := c.Store.View().Revision(); after != before {
		t.Errorf("a refused request wrote: revision %d became %d", before, after)
	}
}

// TestSharedSnapshots are seen by those that they were shared with, until that is
// taken back.
func TestSharedSnapshots(t *testing.T) {
	c := stocked(t)
	friend := iam.Principal{Account: "999900001111", User: iam.AdminUser}
	c.write(func(tx *state.Tx) { state.Accounts.Put(tx, cloud.Account{ID: friend.Account}) })
	modify := func(p ...string) {
		t.Helper()
		get[reply](c, c.user, "ModifySnapshotAttribute", append(p, "SnapshotId="+completeSnapshot)...)
	}
	seen := func(when string, want bool, parameters ...string) {
		t.Helper()
		list := get[describeSnapshotsReply](c, friend, "DescribeSnapshots", parameters...).Snapshots
		if got := slices.ContainsFunc(list, func(s snapshotReply) bool { return s.ID == completeSnapshot }); got != want {
			t.Errorf("%s, by %v: %t", when, parameters, got)
		}
	}
	seen("private", false)
	modify("CreateVolumePermission.Add.1.UserId=" + string(friend.Account))
	seen("shared", true)
	seen("shared", true, "RestorableBy.1=self")
	seen("shared", true, "RestorableBy.1="+string(friend.Account), "Owner.1="+string(ordinary))
	seen("shared", false, "RestorableBy.1=all")
	seen("shared", false, "Owner.1=self")
	get[volumeReply](c, friend, "CreateVolume", "AvailabilityZone=one", "SnapshotId="+completeSnapshot)
	get[copySnapshotReply](c, friend, "CopySnapshot", "SourceRegion=mallee", "SourceSnapshotId="+completeSnapshot)
	modify("OperationType=remove", "UserId.1="+string(friend.Account))
	seen("taken back", false)
	modify("OperationType=add", "UserGroup.1=all", "Attribute=createVolumePermission")
	seen("public", true, "RestorableBy.1=all")
	modify("CreateVolumePermission.Remove.1.Group=all")
	seen("private again", false)
	modify("CreateVolumePermission.Add.1.Group=all")
	get[reply](c, c.user, "ResetSnapshotAttribute", "SnapshotId="+completeSnapshot, "Attribute=createVolumePermission")
	seen("reset", false)
}

func TestSnapshotFilters(t *testing.T) {
	c := stocked(t)
	get[reply](c, c.user, "CreateTags", "ResourceId.1="+completeSnapshot, "Tag.1.Key=k", "Tag.1.Value=v")
	c.write(func(tx *state.Tx) {
		state.Snapshots.Edit(tx, completeSnapshot, func(s *cloud.Snapshot) { s.Volume, s.Description = freeVolume, "nightly" })
	})
	for filter, want := range map[string]string{
		"description=night*": "1", "encrypted=true": "3", "owner-alias=eucalyptus": "3", "owner-id=" + string(ordinary): "125", "progress=100%": "13", "progress=0%": "25",
		"snapshot-id=" + pendingSnapshot: "2", "start-time=2026-11-22T*": "1235", "status=completed": "13", "status=error": "5", "storage-tier=standard": "1235",
		"volume-id=" + freeVolume: "1", "volume-size=8": "125", "tag:k=v": "1", "tag-key=*": "1",
	} {
		got := ""
		for _, s := range get[describeSnapshotsReply](c, c.user, "DescribeSnapshots", asked(filter)...).Snapshots {
			got += s.ID[len(s.ID)-1:]
		}
		if got != want {
			t.Errorf("%s: %q, want %q", filter, got, want)
		}
	}
	if list := get[describeSnapshotsReply](c, c.admin, "DescribeSnapshots", "SnapshotId.1=verbose").Snapshots; len(list) != 5 {
		t.Errorf("who runs the cloud sees %d", len(list))
	}
}
