package ec2

import (
	"net/netip"
	"strings"
	"testing"

	"mallee/cloud"
	"mallee/state"
)

// What withAddress puts into the state, the user's own, on no instance; and on
// the backed instance, where there is one.
const (
	freeAllocation = "eipalloc-00000001"
	usedAllocation = "eipalloc-00000002"
	association    = "eipassoc-00000001"
)

func (c *aCloud) withAddresses() *aCloud {
	c.write(func(tx *state.Tx) {
		for _, id := range []cloud.AllocationID{freeAllocation, usedAllocation} {
			a, err := state.KeepAddress(tx, c.Rand, c.Pools, cloud.Address{ID: id, Account: ordinary, AllocatedAt: c.now})
			if err != nil {
				c.tb.Fatal(err)
			}
			if i, _, ok := state.Instances.Get(tx, backedInstance); ok && id == usedAllocation {
				state.Associate(tx, a, *i, association)
			}
		}
	})
	return c
}

// publicIP of an instance as it is shown.
func (c *aCloud) publicIP(id string) string {
	c.tb.Helper()
	return get[describeInstancesReply](c, c.user, "DescribeInstances", "InstanceId.1="+id).Reservations[0].Instances[0].PublicIP
}

func (c *aCloud) allocate() allocateAddressReply {
	c.tb.Helper()
	return get[allocateAddressReply](c, c.user, "AllocateAddress", "Domain=vpc")
}

// TestAddressOnAnInstance takes the place of the automatic one, moves to another,
// and leaves an automatic one behind, as in EC2.
func TestAddressOnAnInstance(t *testing.T) {
	c := ready(t)
	ids := c.run(c.user, "MinCount=2")
	automatic := c.publicIP(ids[0])
	a := c.allocate()
	first := get[associateReply](c, c.user, "AssociateAddress", "AllocationId="+a.ID, "InstanceId="+ids[0]).ID
	if again := get[associateReply](c, c.user, "AssociateAddress", "PublicIp="+a.IP, "InstanceId="+ids[0]).ID; again != first {
		t.Errorf("associated again, it is %s and was %s", again, first)
	}
	if c.publicIP(ids[0]) != a.IP || state.Owner(c.Store.View(), state.PublicAddress, automatic) != "" {
		t.Errorf("%s has %s, want %s; %s belongs to %q", ids[0], c.publicIP(ids[0]), a.IP, automatic, state.Owner(c.Store.View(), state.PublicAddress, automatic))
	}
	if r := c.refused(c.user, "AssociateAddress", "AllocationId="+a.ID, "InstanceId="+ids[1], "AllowReassociation=false"); r.Code != "Resource.AlreadyAssociated" || !strings.Contains(r.Message, first) {
		t.Errorf("associated with another: %+v", r)
	}
	if r := c.refused(c.user, "ReleaseAddress", "AllocationId="+a.ID); r.Code != "InvalidIPAddress.InUse" {
		t.Errorf("released while it is used: %+v", r)
	}
	eni := string((&cloud.Instance{ID: cloud.InstanceID(ids[1])}).Interface())
	second := get[associateReply](c, c.user, "AssociateAddress", "AllocationId="+a.ID, "NetworkInterfaceId="+eni).ID
	if c.publicIP(ids[1]) != a.IP || c.publicIP(ids[0]) == a.IP || c.publicIP(ids[0]) == "" {
		t.Errorf("moved: %s and %s", c.publicIP(ids[0]), c.publicIP(ids[1]))
	}
	checkBooks(t, c)
	b := c.allocate() // in its place
	get[associateReply](c, c.user, "AssociateAddress", "AllocationId="+b.ID, "InstanceId="+ids[1])
	if r := c.refused(c.user, "DisassociateAddress", "AssociationId="+second); r.Code != "InvalidAssociationID.NotFound" {
		t.Errorf("the association that another took the place of: %+v", r)
	}
	get[reply](c, c.user, "DisassociateAddress", "PublicIp="+b.IP)
	if now := c.publicIP(ids[1]); now == "" || now == a.IP || now == b.IP {
		t.Errorf("disassociated, it has %q", now)
	}
	get[reply](c, c.user, "ReleaseAddress", "AllocationId="+a.ID)
	get[reply](c, c.user, "ReleaseAddress", "PublicIp="+b.IP)
	checkBooks(t, c)
}

// TestAddressOutlivesItsInstance with the account; a private instance has none
// after it.
func TestAddressOutlivesItsInstance(t *testing.T) {
	c := ready(t)
	id := c.run(c.user, "AddressingType=private")[0]
	a := c.allocate()
	get[associateReply](c, c.user, "AssociateAddress", "AllocationId="+a.ID, "InstanceId="+id)
	get[reply](c, c.user, "DisassociateAddress", "PublicIp="+a.IP)
	if now := c.publicIP(id); now != "" {
		t.Errorf("a private instance has %s", now)
	}
	get[associateReply](c, c.user, "AssociateAddress", "AllocationId="+a.ID, "InstanceId="+id)
	get[terminateReply](c, c.user, "TerminateInstances", "InstanceId.1="+id)
	c.write(func(tx *state.Tx) {
		i, _, _ := state.Instances.Get(tx, cloud.InstanceID(id))
		state.Release(tx, i)
	})
	left := get[describeAddressesReply](c, c.user, "DescribeAddresses").Addresses
	if len(left) != 1 || left[0].IP != a.IP || left[0].Instance != "" || left[0].Association != "" {
		t.Errorf("left: %+v", left)
	}
	if owner := state.Owner(c.Store.View(), state.PublicAddress, a.IP); owner != a.ID {
		t.Errorf("the address belongs to %q", owner)
	}
	checkBooks(t, c)
}

// TestAddressOfAStoppedInstance stays with it; an automatic one does not.
func TestAddressOfAStoppedInstance(t *testing.T) {
	c := stocked(t).withAddresses()
	c.write(func(tx *state.Tx) {
		i, _, _ := state.Instances.Get(tx, backedInstance)
		stopped := state.Want(tx, *i, cloud.WishStopped, cloud.Reason{}, c.now)
		state.Vacate(tx, &stopped)
	})
	a, _, _ := state.Addresses.Get(c.Store.View(), usedAllocation)
	if c.publicIP(backedInstance) != a.IP.String() || a.Instance != backedInstance {
		t.Errorf("stopped it has %s, want %s, which %s has", c.publicIP(backedInstance), a.IP, a.Instance)
	}
	c.write(func(tx *state.Tx) {
		i, _, _ := state.Instances.Get(tx, backedInstance)
		if _, err := state.Start(tx, c.Rand, c.Pools, *i, "one-0", c.now); err != nil {
			t.Fatal(err)
		}
	})
	if c.publicIP(backedInstance) != a.IP.String() {
		t.Errorf("started it has %s, want %s", c.publicIP(backedInstance), a.IP)
	}
	checkBooks(t, c)
}

// TestAddressesRunOut of the pool, which instances and accounts share.
func TestAddressesRunOut(t *testing.T) {
	c := ready(t)
	c.Options.Pools.Public = netip.MustParsePrefix("127.31.0.0/29") // six
	given := map[string]bool{c.publicIP(c.run(c.user)[0]): true}
	for range 5 {
		given[c.allocate().IP] = true
	}
	if len(given) != 6 {
		t.Errorf("of six addresses %v were given out", given)
	}
	if r := c.refused(c.user, "AllocateAddress"); r.Code != "InsufficientAddressCapacity" || !strings.Contains(r.Message, "127.31.0.0/29") {
		t.Errorf("a seventh: %+v", r)
	}
	if ip := c.publicIP(c.run(c.user)[0]); ip != "" {
		t.Errorf("another instance has %s", ip)
	}
	checkBooks(t, c)
}

func TestAddressLimit(t *testing.T) {
	c := ready(t)
	c.write(func(tx *state.Tx) { tx.Add(state.AddressesKept, string(ordinary), maxAddresses) })
	if r := c.refused(c.user, "AllocateAddress"); r.Code != "AddressLimitExceeded" {
		t.Errorf("one too many: %+v", r)
	}
}

func TestAddressRefusals(t *testing.T) {
	c := stocked(t).withAddresses()
	ended := c.run(c.user)[0]
	get[terminateReply](c, c.user, "TerminateInstances", "InstanceId.1="+ended)
	others := c.run(c.admin)[0]
	associate := func(p ...string) []string { return append([]string{"AssociateAddress"}, p...) }
	for _, test := range []refusalCase{
		{[]string{"AllocateAddress", "Domain=standard"}, "UnsupportedOperation", "Domain"},
		{[]string{"AllocateAddress", "PublicIpv4Pool=mine"}, "UnsupportedOperation", "PublicIpv4Pool"},
		{[]string{"ReleaseAddress"}, "MissingParameter", "AllocationId"},
		{[]string{"ReleaseAddress", "AllocationId=eipalloc-99999999"}, "InvalidAllocationID.NotFound", "eipalloc-99999999"},
		{[]string{"ReleaseAddress", "AllocationId=x"}, "InvalidAllocationID.NotFound", "'x'"},
		{[]string{"ReleaseAddress", "PublicIp=127.31.255.254"}, "InvalidAddress.NotFound", "127.31.255.254"},
		{[]string{"ReleaseAddress", "PublicIp=home"}, "InvalidAddress.Malformed", "home"},
		{[]string{"ReleaseAddress", "PublicIp=127.0.0.1", "AllocationId=" + freeAllocation}, "InvalidParameterCombination", "PublicIp"},
		{[]string{"DescribeAddresses", "PublicIp.1=127.31.255.254"}, "InvalidAddress.NotFound", "127.31.255.254"},
		{associate("AllocationId=" + freeAllocation), "MissingParameter", "InstanceId"},
		{associate("InstanceId=" + backedInstance), "MissingParameter", "AllocationId"},
		{associate("AllocationId="+freeAllocation, "InstanceId=i-99999999"), "InvalidInstanceID.NotFound", "i-99999999"},
		{associate("AllocationId="+freeAllocation, "InstanceId="+others), "InvalidInstanceID.NotFound", others},
		{associate("AllocationId="+freeAllocation, "InstanceId="+ended), "InvalidInstanceID", ended},
		{associate("AllocationId="+freeAllocation, "InstanceId="+backedInstance, "PrivateIpAddress=10.0.0.1"), "InvalidParameterValue", "10.0.0.1"},
		{associate("AllocationId="+freeAllocation, "NetworkInterfaceId=eni-99999999"), "InvalidNetworkInterfaceID.NotFound", "eni-99999999"},
		{associate("AllocationId="+freeAllocation, "NetworkInterfaceId=x"), "InvalidNetworkInterfaceId.Malformed", `"x"`},
		{associate("AllocationId="+freeAllocation, "InstanceId="+backedInstance, "NetworkInterfaceId=eni-99999999"), "InvalidParameterCombination", "eni-99999999"},
		{[]string{"DisassociateAddress"}, "MissingParameter", "AssociationId"},
		{[]string{"DisassociateAddress", "AssociationId=eipassoc-99999999"}, "InvalidAssociationID.NotFound", "eipassoc-99999999"},
		{[]string{"DisassociateAddress", "AssociationId=" + association, "PublicIp=127.0.0.1"}, "InvalidParameterCombination", "PublicIp"},
	} {
		if r := c.refused(c.user, test.request[0], test.request[1:]...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%v: %+v", test.request, r)
		}
	}
	if r := c.refused(c.user, "DisassociateAddress", "PublicIp="+c.addressOf(freeAllocation)); r.Code != "InvalidAssociationID.NotFound" {
		t.Errorf("one that is on nothing: %+v", r)
	}
}

func (c *aCloud) addressOf(id cloud.AllocationID) string {
	a, _, _ := state.Addresses.Get(c.Store.View(), id)
	return a.IP.String()
}

// TestAddressReplies compares whole replies, and tries each filter.
func TestAddressReplies(t *testing.T) {
	c := stocked(t).withAddresses()
	say := func(name, action string, parameters ...string) {
		t.Helper()
		_, body := c.send(c.user, action, parameters...)
		compare(t, name, body)
	}
	say("AllocateAddress", "AllocateAddress", "Domain=vpc", "TagSpecification.1.ResourceType=elastic-ip", "TagSpecification.1.Tag.1.Key=for")
	say("DescribeAddresses", "DescribeAddresses")
	for _, f := range []string{
		"allocation-id=" + usedAllocation, "association-id=" + association, "instance-id=" + backedInstance, "network-interface-id=eni-*",
		"network-interface-owner-id=" + string(ordinary), "private-ip-address=172.31.*", "public-ip=" + c.addressOf(usedAllocation),
	} {
		if found := get[describeAddressesReply](c, c.user, "DescribeAddresses", asked(f)...).Addresses; len(found) != 1 || found[0].ID != usedAllocation {
			t.Errorf("%s finds %+v", f, found)
		}
	}
	for f, want := range map[string]int{"domain=vpc": 3, "network-border-group=mallee": 3, "tag-key=for": 1} {
		if n := len(get[describeAddressesReply](c, c.user, "DescribeAddresses", asked(f)...).Addresses); n != want {
			t.Errorf("%s finds %d", f, n)
		}
	}
	say("AssociateAddress", "AssociateAddress", "AllocationId="+freeAllocation, "InstanceId="+backedInstance)
	say("DisassociateAddress", "DisassociateAddress", "PublicIp="+c.addressOf(freeAllocation))
	say("ReleaseAddress", "ReleaseAddress", "AllocationId="+freeAllocation)
}
