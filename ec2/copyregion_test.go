package ec2

import (
	"context"
	"strings"
	"testing"

	"mallee/cloud"
	"mallee/peer"
	"mallee/state"
)

// abroad has images of the region far-1.
type abroad map[string]peer.Image

func (a abroad) Image(_ context.Context, region, id string) (*peer.Image, error) {
	i, ok := a[id]
	if region != "far-1" {
		return nil, ErrNoPeer
	}
	if !ok {
		return nil, context.DeadlineExceeded // whatever the other cloud said
	}
	return &i, nil
}

func farImage(id string, public bool) peer.Image {
	i := peer.Image{
		ID: id, State: "available", Public: public, Name: "far", Architecture: "x86_64", RootDeviceType: "ebs", RootDevice: "/dev/xvda", ENA: true,
		Devices: []peer.Device{{Name: "/dev/xvda"}, {Name: "/dev/sdb", VirtualName: "ephemeral0"}, {Name: "/dev/sdf"}},
	}
	for n, v := range map[int]string{0: "snap-0000f001", 2: "snap-0000f002"} {
		d := &i.Devices[n]
		d.Volume = &peer.Volume{Snapshot: v, GiB: 8, Type: "gp2", IOPS: 100, DeleteOnTermination: n == 0}
	}
	return i
}

// TestCopyFromAnotherRegion makes a pending image whose snapshots a task
// completes.
func TestCopyFromAnotherRegion(t *testing.T) {
	c := ready(t)
	c.Peers = abroad{"emi-0000fa01": farImage("emi-0000fa01", true)}
	id := get[registerImageReply](c, c.user, "CopyImage", "Name=near", "SourceImageId=emi-0000fa01", "SourceRegion=far-1").ImageID
	r := get[describeImagesReply](c, c.user, "DescribeImages", "ImageId.1="+id)
	if len(r.Images) != 1 || r.Images[0].State != string(cloud.ImagePending) || r.Images[0].Public {
		t.Fatalf("%+v", r.Images)
	}
	i, _, _ := state.Images.Get(c.Store.View(), cloud.ImageID(id))
	if i.Account != ordinary || i.RootDevice != "/dev/xvda" || len(i.Mappings) != 3 || i.Root().SizeGiB != 8 || i.Root().IOPS != 0 || i.Mappings[1].VirtualName != "ephemeral0" {
		t.Errorf("%+v", i)
	}
	var task *cloud.Task
	for one := range state.TasksByAccount.By(c.Store.View(), ordinary) {
		task = one
	}
	if task == nil || len(task.Sources) != 2 || task.Sources[0].Key != "snap-0000f001" || task.Sources[1].Snapshot != i.Mappings[2].EBS.Snapshot || task.Params[cloud.ParamRegion] != "far-1" {
		t.Fatalf("the task is %+v", task)
	}
	for _, f := range task.Sources {
		if s, _, ok := state.Snapshots.Get(c.Store.View(), f.Snapshot); !ok || s.State() != cloud.SnapshotPending || s.Account != ordinary {
			t.Errorf("%+v", s)
		}
	}
}

// TestCopyFromAnotherRegionRefuses: nobody learns what isn't public there.
func TestCopyFromAnotherRegionRefuses(t *testing.T) {
	c := ready(t)
	stored, pending := farImage("emi-0000fa03", true), farImage("emi-0000fa04", true)
	stored.RootDeviceType, pending.State = "instance-store", "pending"
	c.Peers = abroad{"emi-0000fa02": farImage("emi-0000fa02", false), stored.ID: stored, pending.ID: pending}
	copied := func(id, region string) []string {
		return []string{"Name=near", "SourceImageId=" + id, "SourceRegion=" + region}
	}
	hidden := c.refused(c.user, "CopyImage", copied("emi-0000fa02", "far-1")...)
	unknown := c.refused(c.user, "CopyImage", copied("emi-0000fa09", "far-1")...)
	if hidden.Code != "InvalidAMIID.NotFound" || unknown.Code != hidden.Code || strings.ReplaceAll(hidden.Message, "fa02", "fa09") != unknown.Message {
		t.Errorf("%+v and %+v differ", hidden, unknown)
	}
	for _, test := range []struct{ id, region, code string }{
		{"emi-0000fa03", "far-1", "InvalidParameterValue"},
		{"emi-0000fa04", "far-1", "InvalidAMIID.Unavailable"},
		{"emi-0000fa02", "nowhere", "InvalidParameterValue"},
	} {
		if r := c.refused(c.user, "CopyImage", copied(test.id, test.region)...); r.Code != test.code {
			t.Errorf("%s of %s: %+v", test.id, test.region, r)
		}
	}
	get[registerImageReply](c, c.admin, "CopyImage", copied("emi-0000fa02", "far-1")...) // who runs this cloud may
}
