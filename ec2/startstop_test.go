package ec2

import (
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/state"
)

// gone is what the loops conclude when the node has nothing left of an instance.
func (c *aCloud) gone(id cloud.InstanceID) {
	c.write(func(tx *state.Tx) {
		i, _, _ := state.Instances.Get(tx, id)
		state.Observations.Put(tx, cloud.Observation{Instance: id, Phase: cloud.PhaseGone, UpWish: i.Wishes - 1, At: c.now})
		if i.Wish == cloud.WishStopped {
			state.Vacate(tx, i)
		} else {
			state.Release(tx, i)
		}
	})
}

func (c *aCloud) describeInstance(id string) instanceReply {
	c.tb.Helper()
	return get[describeInstancesReply](c, c.user, "DescribeInstances", "InstanceId.1="+id).Reservations[0].Instances[0]
}

// TestStopAndStart keep what EC2 keeps: the volumes and the private address.
func TestStopAndStart(t *testing.T) {
	c := stocked(t)
	was := c.describeInstance(backedInstance)
	change := func(action, from, to string) {
		t.Helper()
		got := get[terminateReply](c, c.user, action, "InstanceId.1="+backedInstance).Instances
		if len(got) != 1 || got[0].Previous.Name != from || got[0].Current.Name != to {
			t.Errorf("%s: %+v, want %s to %s", action, got, from, to)
		}
	}
	change("StartInstances", "running", "running")
	change("StopInstances", "running", "stopping")
	change("StopInstances", "stopping", "stopping")
	if r := c.refused(c.user, "StartInstances", "InstanceId.1="+backedInstance); r.Code != "IncorrectInstanceState" || !strings.Contains(r.Message, "stopping") {
		t.Errorf("started while it stops: %+v", r)
	}
	c.gone(backedInstance)
	i := c.describeInstance(backedInstance)
	if i.State.Name != "stopped" || i.PrivateIP != was.PrivateIP || i.PublicIP != "" || len(i.Mappings) != 2 || i.Mappings[0].State != "attached" || i.StateReason.Code != cloud.ReasonUserTerminated {
		t.Errorf("stopped: %+v", i)
	}
	checkBooks(t, c)
	change("StopInstances", "stopped", "stopped")
	c.now = c.now.Add(time.Hour)
	change("StartInstances", "stopped", "pending")
	i = c.describeInstance(backedInstance)
	if i.State.Name != "pending" || i.PrivateIP != was.PrivateIP || i.PublicIP == "" || i.StateReason.Code != "pending" || !i.LaunchTime.Equal(c.now) || i.Mappings[0].State != "attached" {
		t.Errorf("started: %+v", i)
	}
	change("StartInstances", "pending", "pending")
	if r := c.refused(c.user, "StopInstances", "InstanceId.1="+backedInstance); r.Code != "IncorrectInstanceState" {
		t.Errorf("stopped before it ran: %+v", r)
	}
	got := get[terminateReply](c, c.user, "StopInstances", "InstanceId.1="+backedInstance, "Force=true").Instances
	if got[0].Current.Name != "stopping" {
		t.Errorf("stopped by force before it ran: %+v", got)
	}
	checkBooks(t, c)
}

// TestTerminateTheStopped is over at once, volumes and all.
func TestTerminateTheStopped(t *testing.T) {
	c := stocked(t)
	got := get[terminateReply](c, c.user, "TerminateInstances", "InstanceId.1="+stoppedInstance).Instances
	if got[0].Previous.Name != "stopped" || got[0].Current.Name != "terminated" {
		t.Errorf("terminated: %+v", got)
	}
	if v := c.describeVolume(stoppedVolume); v.State != "deleting" || len(v.Attachments) != 0 {
		t.Errorf("its root: %+v", v)
	}
	for _, action := range []string{"StartInstances", "StopInstances"} {
		if r := c.refused(c.user, action, "InstanceId.1="+stoppedInstance); r.Code != "IncorrectInstanceState" {
			t.Errorf("%s: %+v", action, r)
		}
	}
	checkBooks(t, c)
}

// TestSwapTheRoot of a stopped instance: it starts with another, or not at all.
func TestSwapTheRoot(t *testing.T) {
	c := stocked(t)
	get[attachmentReply](c, c.user, "DetachVolume", "VolumeId="+stoppedVolume)
	if r := c.refused(c.user, "StartInstances", "InstanceId.1="+stoppedInstance); r.Code != "InvalidParameterValue" || !strings.Contains(r.Message, "does not have a volume attached at root (/dev/sda)") {
		t.Errorf("started without a root: %+v", r)
	}
	c.seenReady(stoppedVolume)
	c.write(func(tx *state.Tx) {
		state.Volumes.Edit(tx, freeVolume, func(v *cloud.Volume) { v.Node = "one-1" })
	})
	a := get[attachmentReply](c, c.user, "AttachVolume", "VolumeId="+freeVolume, "InstanceId="+stoppedInstance, "Device=/dev/sda1")
	if a.State != "attached" {
		t.Errorf("attached to a stopped instance: %+v", a)
	}
	get[terminateReply](c, c.user, "StartInstances", "InstanceId.1="+stoppedInstance)
	if i, _, _ := state.Instances.Get(c.Store.View(), stoppedInstance); i.Node != "one-1" {
		t.Errorf("it starts on %s, and its root is on one-1", i.Node)
	}
	checkBooks(t, c)
}

func TestStartStopRefusals(t *testing.T) {
	c := stocked(t)
	stored := c.run(c.user)[0]
	c.seenUp(stored)
	before := c.Store.View().Revision()
	for _, test := range []refusalCase{
		{[]string{"StopInstances", "InstanceId.1=" + backedInstance, "InstanceId.2=" + stored}, "UnsupportedOperation", "The instance '" + stored + "' does not have an 'ebs' root device type and cannot be stopped."},
		{[]string{"StopInstances", "InstanceId.1=" + backedInstance, "Hibernate=true"}, "UnsupportedOperation", "Hibernate"},
		{[]string{"ModifyInstanceAttribute", "InstanceId=" + backedInstance}, "MissingParameter", "attribute"},
		{[]string{"ModifyInstanceAttribute", "InstanceId=" + backedInstance, "InstanceInitiatedShutdownBehavior.Value=explode"}, "InvalidParameterValue", "explode"},
		{[]string{"ModifyInstanceAttribute", "InstanceId=" + stored, "InstanceInitiatedShutdownBehavior.Value=stop"}, "InvalidParameterCombination", "cannot be stopped"},
		{[]string{"ModifyInstanceAttribute", "InstanceId=" + backedInstance, "Attribute=kernel", "Value=x"}, "UnsupportedOperation", "kernel"},
		{[]string{"ModifyInstanceAttribute", "InstanceId=" + backedInstance, "Value=stop"}, "InvalidParameterCombination", "Attribute"},
		{[]string{"ModifyInstanceAttribute", "InstanceId=" + backedInstance, "BlockDeviceMapping.1.DeviceName=/dev/sdf"}, "MissingParameter", "DeleteOnTermination"},
		{[]string{"ModifyInstanceAttribute", "InstanceId=" + backedInstance, "BlockDeviceMapping.1.DeviceName=/dev/sdz", "BlockDeviceMapping.1.Ebs.DeleteOnTermination=true"}, "InvalidInstanceAttributeValue", "/dev/sdz"},
		{[]string{"ModifyInstanceAttribute", "InstanceId=" + backedInstance, "BlockDeviceMapping.1.DeviceName=/dev/sdf", "BlockDeviceMapping.1.Ebs.DeleteOnTermination=true", "BlockDeviceMapping.1.Ebs.VolumeId=" + rootVolume}, "InvalidParameterValue", dataVolume},
		{[]string{"CreateImage", "InstanceId=" + stored, "Name=image"}, "UnsupportedOperation", "bundle it"},
		{[]string{"CreateImage", "InstanceId=" + backedInstance, "Name=x"}, "InvalidAMIName.Malformed", "x"},
		{[]string{"CreateImage", "InstanceId=" + backedInstance, "Name=image", "SnapshotLocation=local"}, "UnsupportedOperation", "SnapshotLocation"},
		{append([]string{"CreateImage", "InstanceId=" + backedInstance, "Name=image"}, mapped("/dev/sda", "NoDevice=")...), "InvalidBlockDeviceMapping", "root"},
		{append([]string{"CreateImage", "InstanceId=" + backedInstance, "Name=image"}, mapped("/dev/sda", "VirtualName=ephemeral0")...), "InvalidBlockDeviceMapping", "root"},
		{append([]string{"CreateImage", "InstanceId=" + backedInstance, "Name=image"}, mapped("/dev/sda", "Ebs.SnapshotId="+completeSnapshot)...), "InvalidBlockDeviceMapping", "can't be changed"},
		{append([]string{"CreateImage", "InstanceId=" + backedInstance, "Name=image"}, mapped("/dev/sda", "Ebs.VolumeSize=1")...), "InvalidBlockDeviceMapping", "smaller"},
		{append([]string{"CreateImage", "InstanceId=" + backedInstance, "Name=image"}, mapped("/dev/sdg", "Ebs.SnapshotId="+secretSnapshot)...), "InvalidSnapshot.NotFound", secretSnapshot},
	} {
		if r := c.refused(c.user, test.request[0], test.request[1:]...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%.160v: %+v", test.request, r)
		}
	}
	c.write(func(tx *state.Tx) {
		state.Nodes.Edit(tx, "one-0", func(n *cloud.Node) { n.Capacity.MemoryMiB = n.Used.MemoryMiB })
	})
	if r := c.refused(c.user, "StartInstances", "InstanceId.1="+stoppedInstance); r.Code != "InsufficientInstanceCapacity" {
		t.Errorf("started where there is no room: %+v", r)
	}
	if after := c.Store.View().Revision(); after != before+1 {
		t.Errorf("a refused request wrote: revision %d became %d", before, after)
	}
}

// TestDeleteOnTermination is what it was last said to be, per device.
func TestDeleteOnTermination(t *testing.T) {
	c := stocked(t)
	get[reply](c, c.user, "ModifyInstanceAttribute", "InstanceId="+backedInstance,
		"BlockDeviceMapping.1.DeviceName=/dev/sdf", "BlockDeviceMapping.1.Ebs.DeleteOnTermination=true",
		"BlockDeviceMapping.2.DeviceName=/dev/sda", "BlockDeviceMapping.2.Ebs.DeleteOnTermination=false")
	for _, m := range get[instanceAttributeReply](c, c.user, "DescribeInstanceAttribute", "InstanceId="+backedInstance, "Attribute=blockDeviceMapping").Mappings.Items {
		if m.DeleteOnTermination != (m.Device == "/dev/sdf") {
			t.Errorf("%+v", m)
		}
	}
	get[terminateReply](c, c.user, "TerminateInstances", "InstanceId.1="+backedInstance)
	if v := c.describeVolume(dataVolume); v.State != "in-use" {
		t.Errorf("before the machine is gone: %+v", v)
	}
	c.gone(backedInstance)
	if v := c.describeVolume(dataVolume); v.State != "deleting" {
		t.Errorf("to be deleted: %+v", v)
	}
	if v := c.describeVolume(rootVolume); v.State != "available" {
		t.Errorf("to be kept: %+v", v)
	}
	if i := c.describeInstance(backedInstance); i.State.Name != "terminated" || len(i.Mappings) != 0 {
		t.Errorf("the instance: %+v", i)
	}
	checkBooks(t, c)
}

func TestShutdownBehavior(t *testing.T) {
	c := stocked(t)
	for _, p := range [][]string{{"InstanceInitiatedShutdownBehavior.Value=terminate"}, {"Attribute=instanceInitiatedShutdownBehavior", "Value=stop"}} {
		get[reply](c, c.user, "ModifyInstanceAttribute", append(p, "InstanceId="+backedInstance)...)
		want := p[len(p)-1][strings.IndexByte(p[len(p)-1], '=')+1:]
		if got := get[instanceAttributeReply](c, c.user, "DescribeInstanceAttribute", "InstanceId="+backedInstance, "Attribute=instanceInitiatedShutdownBehavior").Shutdown; got.Value != want {
			t.Errorf("%v: %+v", p, got)
		}
	}
}

// TestCreateImage of an instance: what it maps, what is taken, and how it comes to
// be available.
func TestCreateImage(t *testing.T) {
	device := func(n, name string, p ...string) []string {
		out := []string{"BlockDeviceMapping." + n + ".DeviceName=" + name}
		for _, x := range p {
			out = append(out, "BlockDeviceMapping."+n+"."+x)
		}
		return out
	}
	for _, test := range []struct {
		name       string
		instance   string
		parameters []string
		mapped     string // devices
		taken      string // volumes
		reboot     bool
	}{
		{"as it is", backedInstance, nil, "/dev/sda /dev/sdf", dataVolume + " " + rootVolume, true},
		{"without a reboot", backedInstance, []string{"NoReboot=true"}, "/dev/sda /dev/sdf", dataVolume + " " + rootVolume, false},
		{"stopped", stoppedInstance, nil, "/dev/sda", stoppedVolume, false},
		{"without a volume", backedInstance, device("1", "/dev/sdf", "NoDevice="), "/dev/sda", rootVolume, true},
		{"another in a volume's place", backedInstance, device("1", "/dev/sdf", "Ebs.SnapshotId="+completeSnapshot), "/dev/sda /dev/sdf", rootVolume, true},
		{"more devices", backedInstance, append(device("1", "/dev/sdb", "VirtualName=ephemeral0"), device("2", "/dev/sdh", "Ebs.VolumeSize=5")...), "/dev/sda /dev/sdf /dev/sdb /dev/sdh", dataVolume + " " + rootVolume, true},
		{"a larger root", backedInstance, device("1", "/dev/sda", "Ebs.VolumeSize=9", "Ebs.DeleteOnTermination=false"), "/dev/sda /dev/sdf", dataVolume + " " + rootVolume, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := stocked(t)
			before := map[cloud.SnapshotID]bool{}
			for s := range state.Snapshots.All(c.Store.View()) {
				before[s.ID] = true
			}
			id := get[registerImageReply](c, c.user, "CreateImage", append(test.parameters, "InstanceId="+test.instance, "Name=an image", "Description=d",
				"TagSpecification.1.ResourceType=snapshot", "TagSpecification.1.Tag.1.Key=k")...).ImageID
			var devices, volumes []string
			image, _, _ := state.Images.Get(c.Store.View(), cloud.ImageID(id))
			for _, m := range image.Mappings {
				devices = append(devices, m.Device)
			}
			var taken []cloud.SnapshotID
			for v, snapshots := range takenOf(c, before) {
				volumes = append(volumes, v)
				taken = append(taken, snapshots.ID)
				if snapshots.Reboot != test.reboot || snapshots.Set != id || len(c.tagsIn(string(snapshots.ID))) != 1 {
					t.Errorf("taken is %+v", snapshots)
				}
			}
			if strings.Join(devices, " ") != test.mapped || !sameWords(volumes, test.taken) {
				t.Errorf("it maps %v; snapshots were taken of %v", devices, volumes)
			}
			shown := func() imageReply {
				return get[describeImagesReply](c, c.user, "DescribeImages", "ImageId.1="+id).Images[0]
			}
			if i := shown(); i.State != "pending" || i.RootDeviceType != "ebs" || i.SourceInstance != test.instance || i.Description != "d" {
				t.Errorf("it is %+v", i)
			}
			if r := c.refused(c.user, "RunInstances", "ImageId="+id); r.Code != "InvalidAMIID.Unavailable" {
				t.Errorf("launched while it is pending: %+v", r)
			}
			if r := c.refused(c.user, "DeleteSnapshot", "SnapshotId="+string(taken[0])); r.Code != "InvalidSnapshot.InUse" {
				t.Errorf("a snapshot of it deleted: %+v", r)
			}
			for _, s := range taken {
				c.complete(string(s))
			}
			if i := shown(); i.State != "available" {
				t.Errorf("when all is stored it is %s", i.State)
			}
			get[reservationReply](c, c.user, "RunInstances", "ImageId="+id, "InstanceType=t2.micro")
			checkBooks(t, c)
		})
	}
}

// takenOf are the snapshots that weren't there before, by volume.
func takenOf(c *aCloud, before map[cloud.SnapshotID]bool) map[string]*cloud.Snapshot {
	taken := map[string]*cloud.Snapshot{}
	for s := range state.Snapshots.All(c.Store.View()) {
		if !before[s.ID] {
			taken[string(s.Volume)] = s
		}
	}
	return taken
}

func (c *aCloud) tagsIn(id string) map[string]string {
	if set, _, ok := state.TagSets.Get(c.Store.View(), id); ok {
		return set.Tags
	}
	return nil
}

func sameWords(got []string, want string) bool {
	for _, w := range got {
		if !strings.Contains(want, w) {
			return false
		}
	}
	return len(got) == len(strings.Fields(want))
}

// TestFailedImage says why.
func TestFailedImage(t *testing.T) {
	c := stocked(t)
	id := get[registerImageReply](c, c.user, "CreateImage", "InstanceId="+stoppedInstance, "Name=an image").ImageID
	c.write(func(tx *state.Tx) {
		for _, s := range takenOf(c, map[cloud.SnapshotID]bool{completeSnapshot: true, pendingSnapshot: true, publicSnapshot: true, secretSnapshot: true, errorSnapshot: true}) {
			state.FailSnapshot(tx, *s, cloud.Reason{Code: "Server.InternalError", Message: "Server.InternalError: the store is full"})
		}
	})
	i := get[describeImagesReply](c, c.user, "DescribeImages", "ImageId.1="+id).Images[0]
	if i.State != "failed" || i.StateReason == nil || !strings.Contains(i.StateReason.Message, "the store is full") {
		t.Errorf("%+v", i)
	}
}
