package state

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"time"

	"mallee/cloud"
)

// What an instance takes from the cloud, and how it is given back:
//
//	Allocate   room on its node, a private and perhaps a public address  by RunInstances
//	AllocateStopped  a private address, of one that is yet to be started  by ImportInstance
//	Want       another wish; Reboot counts one                          by the API and the loops
//	Vacate     room and public address of a stopped one                 by the loops, when the node has nothing left
//	Start      room and public address again                            by the API
//	Release    all that Allocate took, and its volumes                  by the loops, when the node has nothing left
//	Forget     the record, its tags, its observation                    by the loops, an hour after
//
// Each writes the node's record, which guards its room and whose revision is the
// generation of its assignment (package link). Each is idempotent.

// Kinds of the guards that say who has an address.
const (
	LocalAddress  = "local-address"
	PublicAddress = "public-address"
)

// Pools are where addresses come from; IPv4. The first four addresses of Local
// and the last are the network's own, as in EC2; of Public the first and last.
type Pools struct{ Local, Public netip.Prefix }

// NoAddressError tells that a pool has no free address.
type NoAddressError struct{ Pool netip.Prefix }

func (e *NoAddressError) Error() string {
	return fmt.Sprintf("no free address is left in %s", e.Pool)
}

// Allocate takes for the instance, whose ID, Node and Size are set, room on the
// node and a private address, which fixes its MAC; and a public address if one
// is wanted and free. The caller has seen in this transaction that the node
// has room. The error may be a *NoAddressError.
func Allocate(tx *Tx, random io.Reader, pools Pools, i *cloud.Instance, public bool) error {
	if err := keepAddress(tx, random, pools, i, public); err != nil {
		return err
	}
	return enter(tx, random, pools, i)
}

// AllocateStopped takes for an instance that was never started, and begins as a
// stopped one, what a stopped one has: its private address. Start does the rest.
func AllocateStopped(tx *Tx, random io.Reader, pools Pools, i *cloud.Instance, public bool, now time.Time) error {
	i.Vacated = true
	Observations.Put(tx, cloud.Observation{Instance: i.ID, Phase: cloud.PhaseGone, At: now})
	return keepAddress(tx, random, pools, i, public)
}

// keepAddress takes what an instance keeps until its end.
func keepAddress(tx *Tx, random io.Reader, pools Pools, i *cloud.Instance, public bool) (err error) {
	if i.Local, err = claimAddress(tx, random, LocalAddress, pools.Local, 4, string(i.ID)); err != nil {
		return err
	}
	if !i.Local.IsValid() {
		return &NoAddressError{pools.Local}
	}
	i.MAC, i.PublicWanted = macOf(i.Local), public
	joinGroups(tx, i)
	return nil
}

// enter takes what a stopped instance hasn't: room on its node, and a public
// address.
func enter(tx *Tx, random io.Reader, pools Pools, i *cloud.Instance) (err error) {
	if !occupy(tx, i.Node, i.Size) {
		return fmt.Errorf("state: allocate %s: node %s is not there", i.ID, i.Node)
	}
	if i.PublicWanted && !i.Public.IsValid() {
		i.Public, err = claimAddress(tx, random, PublicAddress, pools.Public, 1, string(i.ID))
	}
	return err
}

// leave gives back what enter took.
func leave(tx *Tx, i *cloud.Instance) {
	if automatic(tx, i) {
		tx.Release(PublicAddress, i.Public.String())
	}
	occupy(tx, i.Node, cloud.Size{}.Sub(i.Size))
}

// Vacate gives back what a stopped instance doesn't keep: its private address it
// does, and its volumes. The node must have nothing left of it, and must not start
// it unless Start says so.
func Vacate(tx *Tx, i *cloud.Instance) {
	if i.Vacated || Owner(tx, LocalAddress, i.Local.String()) != string(i.ID) {
		return
	}
	vacated := *i
	if vacated.Vacated = true; automatic(tx, i) {
		vacated.Public = netip.Addr{}
	}
	leave(tx, i)
	Instances.Put(tx, vacated)
}

// Start wishes for a vacated instance to run, on the node given: the caller has
// seen in this transaction that it has room and keeps the instance's volumes. What
// was observed of the instance, that nothing is left of it, counts no more.
func Start(tx *Tx, random io.Reader, pools Pools, i cloud.Instance, node cloud.NodeID, now time.Time) (cloud.Instance, error) {
	started := i.Want(cloud.WishRunning, cloud.Reason{}, now)
	if !i.Vacated || started.Wishes == i.Wishes {
		return i, fmt.Errorf("state: start %s: it is not stopped", i.ID)
	}
	started.Node, started.LaunchedAt, started.Vacated = node, now, false
	if err := enter(tx, random, pools, &started); err != nil {
		return i, err
	}
	Instances.Put(tx, started)
	forget(tx, i.ID)
	return started, nil
}

// forget what was seen of an instance, but for the password of its administrator,
// which its guest makes once, at the first launch.
func forget(tx *Tx, id cloud.InstanceID) {
	if seen, _, ok := Observations.Get(tx, id); ok && seen.Password != "" {
		Observations.Put(tx, cloud.Observation{Instance: id, Password: seen.Password})
		return
	}
	Observations.Delete(tx, id)
}

// Release gives back what Allocate took, and lets the volumes go: those that were
// to be deleted with the instance are. The node must have nothing left of the
// instance, and must never start it again.
func Release(tx *Tx, i *cloud.Instance) {
	if Owner(tx, LocalAddress, i.Local.String()) != string(i.ID) {
		return
	}
	tx.Release(LocalAddress, i.Local.String())
	leaveGroups(tx, i)
	if !i.Vacated {
		leave(tx, i)
	}
	freeAddress(tx, i.ID)
	for _, v := range VolumesOf(tx, i.ID) {
		if v.Attachment.DeleteOnTermination && v.Attachment.Detaching.IsZero() {
			DeleteVolume(tx, *v, i.WishedAt)
		} else {
			LetGo(tx, *v)
		}
	}
}

// Forget removes what is remembered of an instance that was released, and of
// its reservation with the last one of it.
func Forget(tx *Tx, i *cloud.Instance) {
	Instances.Delete(tx, i.ID)
	Observations.Delete(tx, i.ID)
	TagSets.Delete(tx, string(i.ID))
	TagSets.Delete(tx, string(i.Interface()))
	r, _, ok := Reservations.Get(tx, i.Reservation)
	if !ok {
		return
	}
	for _, id := range r.Instances {
		if _, _, left := Instances.Get(tx, id); left {
			return
		}
	}
	Reservations.Delete(tx, r.ID)
	if i.ClientToken != "" {
		ClientTokens.Delete(tx, ClientTokenKey(i.Account, "RunInstances", i.ClientToken))
	}
}

// Want changes what is wished of an instance, and tells its node. It returns
// the instance as it is then; see cloud.Instance.Want for what is no change. A
// stopped instance of which nothing is left is released at once; to run again it
// needs Start.
func Want(tx *Tx, i cloud.Instance, w cloud.Wish, why cloud.Reason, now time.Time) cloud.Instance {
	wanted := i.Want(w, why, now)
	if wanted.Wishes == i.Wishes {
		return i
	}
	Instances.Put(tx, wanted)
	poke(tx, i.Node)
	if w == cloud.WishTerminated && i.Vacated {
		Release(tx, &wanted)
	}
	return wanted
}

// ChangeInstance changes what the node of an instance has to know beside the wish.
func ChangeInstance(tx *Tx, i cloud.Instance) {
	Instances.Put(tx, i)
	poke(tx, i.Node)
}

// Reboot asks the node to start the instance's guest anew.
func Reboot(tx *Tx, i cloud.Instance) {
	i.Reboots++
	Instances.Put(tx, i)
	poke(tx, i.Node)
}

func occupy(tx *Tx, id cloud.NodeID, size cloud.Size) bool {
	node, _, ok := Nodes.Get(tx, id)
	if !ok {
		return false
	}
	n := *node
	n.Used = n.Used.Add(size)
	n.Wishes++
	Nodes.Put(tx, n)
	return true
}

// poke makes the node's assignment newer than any that the node has.
func poke(tx *Tx, id cloud.NodeID) { occupy(tx, id, cloud.Size{}) }

// probes is how many addresses are tried at random. Of a pool that is 90% full
// they find one but in a thousandth of the launches; then it is searched whole.
const probes = 64

// claimAddress takes a free address of the pool for its owner; an invalid
// one says that there is none. Addresses are drawn at random, so that the cost
// doesn't grow with the number of instances, writers rarely meet, and an
// address that was given back isn't the next to be given out.
func claimAddress(tx *Tx, random io.Reader, kind string, pool netip.Prefix, reserved uint64, owner string) (netip.Addr, error) {
	size := usable(pool, reserved)
	if size == 0 {
		return netip.Addr{}, nil
	}
	for range probes {
		n, err := draw(random, size)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("state: draw an address of %s: %w", pool, err)
		}
		if a := plus(pool, reserved+n); Owner(tx, kind, a.String()) == "" {
			return a, tx.Claim(kind, a.String(), owner)
		}
	}
	a := firstFree(tx, kind, pool, reserved, size)
	if !a.IsValid() {
		return a, nil
	}
	return a, tx.Claim(kind, a.String(), owner)
}

// firstFree goes through the guards by a range, which the commit doesn't
// compare: 65,000 addresses in use would be 65,000 comparisons.
func firstFree(tx *Tx, kind string, pool netip.Prefix, reserved, size uint64) netip.Addr {
	taken := map[string]bool{}
	for g := range Guards.All(tx) {
		if g.Kind == kind {
			taken[g.Name] = true
		}
	}
	for n := range size {
		if a := plus(pool, reserved+n); !taken[a.String()] {
			return a
		}
	}
	return netip.Addr{}
}

// usable is how many addresses of the pool there are to give out: all but the
// reserved first ones and the last.
func usable(pool netip.Prefix, reserved uint64) uint64 {
	if !pool.IsValid() || !pool.Addr().Is4() {
		return 0
	}
	size := uint64(1) << (32 - pool.Bits())
	return max(size, reserved+1) - reserved - 1
}

func draw(random io.Reader, below uint64) (uint64, error) {
	var raw [8]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(raw[:]) % below, nil
}

func plus(pool netip.Prefix, n uint64) netip.Addr {
	raw := pool.Masked().Addr().As4()
	binary.BigEndian.PutUint32(raw[:], binary.BigEndian.Uint32(raw[:])+uint32(n))
	return netip.AddrFrom4(raw)
}

// macOf a private address: Eucalyptus's prefix and the address itself, which
// makes it as unique as the address.
func macOf(local netip.Addr) string {
	a := local.As4()
	return fmt.Sprintf("d0:0d:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])
}
