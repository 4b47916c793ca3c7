package ec2

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"mallee/cloud"
	"mallee/state"
)

func TestRunInstancesMakesOneReservation(t *testing.T) {
	c := ready(t)
	get[createKeyPairReply](c, c.user, "CreateKeyPair", "KeyName=mine", "KeyType=ed25519")
	r := get[reservationReply](c, c.user, "RunInstances", "ImageId="+pvImage, "MinCount=3", "MaxCount=3", "InstanceType=m1.large", "KeyName=mine",
		"UserData="+base64.StdEncoding.EncodeToString([]byte("#!/bin/sh")), "TagSpecification.1.ResourceType=instance",
		"TagSpecification.1.Tag.1.Key=Name", "TagSpecification.1.Tag.1.Value=web")
	if len(r.Instances) != 3 || r.Owner != string(ordinary) || r.Groups[0].Name != "default" {
		t.Fatalf("the reservation is %+v", r)
	}
	locals, publics := map[string]bool{}, map[string]bool{}
	for index, i := range r.Instances {
		if i.State.Name != "pending" || i.LaunchIndex != index || i.Kernel != kernelImage || i.Ramdisk != ramdiskImage || i.Tags[0] != (tag{"Name", "web"}) {
			t.Errorf("instance %d is %+v", index, i)
		}
		locals[i.PrivateIP], publics[i.PublicIP] = true, true
	}
	if len(locals) != 3 || len(publics) != 3 {
		t.Errorf("addresses are shared: %v, %v", locals, publics)
	}
	stored, _, _ := state.Instances.Get(c.Store.View(), cloud.InstanceID(r.Instances[0].ID))
	if string(stored.UserData) != "#!/bin/sh" || !strings.HasPrefix(stored.PublicKey, "ssh-ed25519 ") || stored.Wishes != 1 || stored.Shutdown != cloud.ShutdownTerminate {
		t.Errorf("the instance on record is %+v", stored)
	}
	if local := stored.Local.As4(); stored.MAC != netip.AddrFrom4(local).String() && !strings.HasPrefix(stored.MAC, "d0:0d:ac:1f:") {
		t.Errorf("the MAC of %s is %s", stored.Local, stored.MAC)
	}
	checkBooks(t, c)
}

// checkBooks holds what nodes and guards count against the instances there are.
func checkBooks(t *testing.T, c *aCloud) {
	t.Helper()
	view := c.Store.View()
	used, addresses := map[cloud.NodeID]cloud.Size{}, map[string]string{}
	gib := map[string]int64{}
	for v := range state.Volumes.All(view) {
		gib[string(v.Account)] += int64(v.SizeGiB)
	}
	for i := range state.Instances.All(view) {
		if state.Owner(view, state.LocalAddress, i.Local.String()) == "" && i.Wish == cloud.WishTerminated {
			continue // released
		}
		if !i.Vacated {
			used[i.Node] = used[i.Node].Add(i.Size)
		}
		addresses[state.LocalAddress+"/"+i.Local.String()] = string(i.ID)
		if i.Public.IsValid() {
			addresses[state.PublicAddress+"/"+i.Public.String()] = string(i.ID)
		}
	}
	for a := range state.Addresses.All(view) {
		if i, _, ok := state.Instances.Get(view, a.Instance); a.Instance != "" && (!ok || i.Public != a.IP) {
			t.Errorf("%s is on %s, which has %s", a.IP, a.Instance, i.Public)
		}
		addresses[state.PublicAddress+"/"+a.IP.String()] = string(a.ID)
	}
	for n := range state.Nodes.All(view) {
		if n.Used != used[n.ID] {
			t.Errorf("node %s has given away %+v, its instances have %+v", n.ID, n.Used, used[n.ID])
		}
	}
	for g := range state.Guards.All(view) {
		if g.Kind == state.VolumeRoom && g.Count != gib[g.Name] {
			t.Errorf("%d GiB are counted for account %s, whose volumes have %d", g.Count, g.Name, gib[g.Name])
		}
		if g.Kind != state.LocalAddress && g.Kind != state.PublicAddress {
			continue
		}
		if key := g.Kind + "/" + g.Name; addresses[key] != g.Owner {
			t.Errorf("%s belongs to %s, and is with %s", key, g.Owner, addresses[key])
		} else {
			delete(addresses, key)
		}
	}
	for address, id := range addresses {
		t.Errorf("%s of %s is not guarded", address, id)
	}
}

func TestRunInstancesPlaces(t *testing.T) {
	small := cloud.Size{VCPUs: 100, MemoryMiB: 4 * 512, DiskGiB: 1000} // four of m1.small
	tests := []struct {
		name       string
		parameters []string
		zone       string
		count      int
		refused    string
	}{
		{"the roomiest zone", []string{"MinCount=1", "MaxCount=1"}, "two", 1, ""},
		{"the zone named", []string{"MinCount=1", "MaxCount=1", "Placement.AvailabilityZone=one"}, "one", 1, ""},
		{"as many as fit", []string{"MinCount=2", "MaxCount=50"}, "two", 8, ""},
		{"not across zones", []string{"MinCount=9", "MaxCount=9"}, "", 0, "Not enough resources (8 in two < 9): vm instances."},
		{"not in the zone named", []string{"MinCount=5", "MaxCount=9", "Placement.AvailabilityZone=one"}, "", 0, "Not enough resources (4 in one < 5): vm instances."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCloud(t).withImages().withNodes("one", 1, small).withNodes("two", 2, small)
			parameters := append(test.parameters, "ImageId="+hvmImage)
			if test.refused != "" {
				if r := c.refused(c.user, "RunInstances", parameters...); r.Code != "InsufficientInstanceCapacity" || r.Message != test.refused {
					t.Errorf("refused as %+v", r)
				}
				return
			}
			r := get[reservationReply](c, c.user, "RunInstances", parameters...)
			if len(r.Instances) != test.count {
				t.Fatalf("%d instances", len(r.Instances))
			}
			for _, i := range r.Instances {
				if i.Placement.Zone != test.zone {
					t.Errorf("instance %s is in %s", i.ID, i.Placement.Zone)
				}
			}
			checkBooks(t, c)
		})
	}
}

// TestRunInstancesFitsToTheByte what the node will lay out on the type's disk.
func TestRunInstancesFitsToTheByte(t *testing.T) {
	c := ready(t)
	const disk = 5 << 30 // of m1.small
	for id, most := range map[cloud.ImageID]int64{hvmImage: disk, pvImage: disk - cloud.DiskNeeded(cloud.Paravirtual, 0)} {
		for size, fits := range map[int64]bool{most - 511: true, most: true, most + 1: false} {
			c.write(func(tx *state.Tx) { state.Images.Edit(tx, id, func(i *cloud.Image) { i.Size = size }) })
			if fits {
				get[reservationReply](c, c.user, "RunInstances", "ImageId="+string(id), "InstanceType=m1.small")
			} else if r := c.refused(c.user, "RunInstances", "ImageId="+string(id), "InstanceType=m1.small"); r.Code != "InvalidParameterCombination" || !strings.Contains(r.Message, "InstanceType") {
				t.Errorf("%s of %d bytes: %+v", id, size, r)
			}
		}
	}
}

func TestRunInstancesOnceByClientToken(t *testing.T) {
	c := ready(t)
	first := get[reservationReply](c, c.user, "RunInstances", "ImageId="+hvmImage, "MinCount=2", "MaxCount=2", "ClientToken=tok")
	again := get[reservationReply](c, c.user, "RunInstances", "ImageId="+hvmImage, "MinCount=2", "MaxCount=2", "ClientToken=tok")
	if again.ID != first.ID || len(again.Instances) != 2 || again.Instances[1].ID != first.Instances[1].ID {
		t.Errorf("made %v, then %v", first, again)
	}
	if r := c.refused(c.user, "RunInstances", "ImageId="+hvmImage, "MinCount=1", "MaxCount=1", "ClientToken=tok"); r.Code != "IdempotentParameterMismatch" {
		t.Errorf("other parameters are refused as %+v", r)
	}
	if other := get[reservationReply](c, c.admin, "RunInstances", "ImageId="+hvmImage, "ClientToken=tok"); other.ID == first.ID {
		t.Error("a token counts in another account")
	}
	if r := c.refused(c.user, "RunInstances", "ImageId="+hvmImage, "ClientToken=dry", "DryRun=true"); r.Code != "DryRunOperation" {
		t.Errorf("a dry run is %+v", r)
	}
	get[reservationReply](c, c.user, "RunInstances", "ImageId="+hvmImage, "MinCount=2", "ClientToken=dry")
	checkBooks(t, c)
}

func TestDryRunChangesNothing(t *testing.T) {
	c := ready(t)
	before := c.Store.View().Revision()
	r := c.refused(c.user, "RunInstances", "ImageId="+hvmImage, "MinCount=2", "MaxCount=2", "DryRun=true")
	if r.Code != "DryRunOperation" || c.Store.View().Revision() != before {
		t.Errorf("%+v, from revision %d to %d", r, before, c.Store.View().Revision())
	}
	if r := c.refused(c.user, "RunInstances", "ImageId=emi-99999999", "DryRun=true"); r.Code != "InvalidAMIID.NotFound" {
		t.Errorf("a dry run of what can't be is %+v", r)
	}
	powerless := iamUser("somebody")
	if r := c.refused(powerless, "RunInstances", "ImageId="+hvmImage, "DryRun=true"); r.Code != "UnauthorizedOperation" {
		t.Errorf("a dry run without the right is %+v", r)
	}
}

func TestTerminateReleaseForget(t *testing.T) {
	c := ready(t)
	ids := c.run(c.user, "MinCount=2", "MaxCount=2", "ClientToken=tok", "TagSpecification.1.ResourceType=instance",
		"TagSpecification.1.Tag.1.Key=Name", "TagSpecification.1.Tag.1.Value=web")
	c.seenUp(ids[0])
	out := get[terminateReply](c, c.user, "TerminateInstances", "InstanceId.1="+ids[0], "InstanceId.2="+ids[1], "InstanceId.3="+ids[0])
	if len(out.Instances) != 2 || out.Instances[0].Previous.Name != "running" || out.Instances[0].Current.Name != "shutting-down" {
		t.Errorf("terminated: %+v", out)
	}
	wishes := wishesOf(c)
	if again := get[terminateReply](c, c.user, "TerminateInstances", "InstanceId.1="+ids[0]); again.Instances[0].Previous.Name != "shutting-down" {
		t.Errorf("terminated again: %+v", again)
	}
	if wishesOf(c) != wishes {
		t.Error("the same wish again is news to the node")
	}
	for range 2 { // releasing is idempotent
		c.write(func(tx *state.Tx) {
			for _, id := range ids {
				i, _, _ := state.Instances.Get(tx, cloud.InstanceID(id))
				state.Observations.Put(tx, cloud.Observation{Instance: i.ID, Phase: cloud.PhaseGone})
				state.Release(tx, i)
			}
		})
	}
	for n := range state.Nodes.All(c.Store.View()) {
		if n.Used != (cloud.Size{}) {
			t.Errorf("node %s still counts %+v", n.ID, n.Used)
		}
	}
	left := get[describeInstancesReply](c, c.user, "DescribeInstances")
	if i := left.Reservations[0].Instances[0]; i.State.Name != "terminated" || i.PrivateIP != "" || i.StateReason.Code != cloud.ReasonUserTerminated {
		t.Errorf("a terminated instance is shown as %+v", i)
	}
	c.write(func(tx *state.Tx) {
		for _, id := range ids {
			i, _, _ := state.Instances.Get(tx, cloud.InstanceID(id))
			state.Forget(tx, i)
		}
	})
	checkNothingLeft(t, c)
}

func wishesOf(c *aCloud) (wishes int) {
	for n := range state.Nodes.All(c.Store.View()) {
		wishes += n.Wishes
	}
	return wishes
}

// checkNothingLeft of any instance.
func checkNothingLeft(t *testing.T, c *aCloud) {
	t.Helper()
	view := c.Store.View()
	for i := range state.Instances.All(view) {
		t.Errorf("instance %s is left", i.ID)
	}
	for r := range state.Reservations.All(view) {
		t.Errorf("reservation %s is left", r.ID)
	}
	for s := range state.TagSets.All(view) {
		t.Errorf("tags of %s are left", s.Resource)
	}
	for k := range state.ClientTokens.All(view) {
		t.Errorf("client token %s is left", k.Token)
	}
	for o := range state.Observations.All(view) {
		t.Errorf("observation of %s is left", o.Instance)
	}
	for g := range state.Guards.All(view) {
		if g.Kind == state.LocalAddress || g.Kind == state.PublicAddress {
			t.Errorf("address %s is left", g.Name)
		}
	}
}

func TestRebootTellsTheNode(t *testing.T) {
	c := ready(t)
	ids := c.run(c.user, "MinCount=2", "MaxCount=2")
	get[terminateReply](c, c.user, "TerminateInstances", "InstanceId.1="+ids[1])
	before := wishesOf(c)
	get[reply](c, c.user, "RebootInstances", "InstanceId.1="+ids[0], "InstanceId.2="+ids[1])
	var reboots []int
	for _, id := range ids {
		i, _, _ := state.Instances.Get(c.Store.View(), cloud.InstanceID(id))
		reboots = append(reboots, i.Reboots)
	}
	if !slices.Equal(reboots, []int{1, 0}) || wishesOf(c) != before+1 {
		t.Errorf("reboots %v, wishes from %d to %d", reboots, before, wishesOf(c))
	}
}

// TestRunInstancesConcurrently has many launch into the last room at once.
func TestRunInstancesConcurrently(t *testing.T) {
	c := newCloud(t).withImages().withNodes("one", 2, cloud.Size{VCPUs: 100, MemoryMiB: 10 * 512, DiskGiB: 1000})
	const callers = 40
	statuses := make(chan int)
	for range callers {
		go func() {
			status, _ := c.send(c.user, "RunInstances", "ImageId="+hvmImage)
			statuses <- status
		}()
	}
	made := 0
	for range callers {
		if <-statuses == 200 {
			made++
		}
	}
	if made != 20 {
		t.Errorf("%d instances in room for 20", made)
	}
	checkBooks(t, c)
}

func TestRunInstancesWithoutFreeAddresses(t *testing.T) {
	c := ready(t)
	c.Pools = state.Pools{Local: netip.MustParsePrefix("10.0.0.0/28"), Public: netip.MustParsePrefix("127.1.0.0/30")}
	r := get[reservationReply](c, c.user, "RunInstances", "ImageId="+hvmImage, "MinCount=11", "MaxCount=11")
	public := 0
	for _, i := range r.Instances {
		if i.PublicIP != "" {
			public++
		}
	}
	if public != 2 {
		t.Errorf("%d public addresses of a pool of 2", public)
	}
	checkBooks(t, c)
	if r := c.refused(c.user, "RunInstances", "ImageId="+hvmImage); r.Code != "InsufficientFreeAddressesInSubnet" {
		t.Errorf("refused as %+v", r)
	}
}

func TestConsoleOutput(t *testing.T) {
	c := ready(t)
	ids := c.run(c.user, "MinCount=2", "MaxCount=2")
	long := strings.Repeat("0123456789", 10_000)
	c.console[cloud.InstanceID(ids[0])] = long
	for id, want := range map[string]string{ids[0]: long[len(long)-consoleTail:], ids[1]: ""} {
		out := get[consoleReply](c, c.user, "GetConsoleOutput", "InstanceId="+id, "Latest=true")
		text, err := base64.StdEncoding.DecodeString(out.Output)
		if err != nil || string(text) != want || out.InstanceID != id {
			t.Errorf("console of %s: %d bytes, %v", id, len(text), err)
		}
	}
}
