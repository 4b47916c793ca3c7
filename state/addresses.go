package state

import (
	"fmt"
	"io"
	"net/netip"

	"mallee/cloud"
)

// A public address has one owner, by the guard PublicAddress: the instance that
// was given it automatically, or the allocation of the account that keeps it. So
// none is ever given out twice. An allocated one, while an instance has it, is
// that instance's Public, also while it is stopped.

// AddressesKept counts the addresses that an account keeps.
const AddressesKept = "addresses-kept"

// KeepAddress takes a free public address for an account, and writes its record.
// The error may be a *NoAddressError.
func KeepAddress(tx *Tx, random io.Reader, pools Pools, a cloud.Address) (cloud.Address, error) {
	var err error
	if a.IP, err = claimAddress(tx, random, PublicAddress, pools.Public, 1, string(a.ID)); err != nil {
		return a, err
	}
	if !a.IP.IsValid() {
		return a, &NoAddressError{pools.Public}
	}
	tx.Add(AddressesKept, string(a.Account), 1)
	Addresses.Put(tx, a)
	return a, nil
}

// ReturnAddress gives back one that no instance has.
func ReturnAddress(tx *Tx, a *cloud.Address) error {
	if a.Instance != "" {
		return fmt.Errorf("state: return %s: %s has it", a.IP, a.Instance)
	}
	tx.Release(PublicAddress, a.IP.String())
	tx.Add(AddressesKept, string(a.Account), -1)
	Addresses.Delete(tx, a.ID)
	TagSets.Delete(tx, string(a.ID))
	return nil
}

// Associate puts an address that no instance has on one, in place of what that
// had: an automatic address goes back to the pool, an allocated one to its account.
func Associate(tx *Tx, a cloud.Address, i cloud.Instance, as cloud.AssociationID) {
	dropPublic(tx, &i)
	a.Instance, a.Association = i.ID, as
	Addresses.Put(tx, a)
	i.Public = a.IP
	Instances.Put(tx, i)
	poke(tx, i.Node)
}

// Disassociate takes an address off its instance, which gets an automatic one
// again if it is to have one.
func Disassociate(tx *Tx, random io.Reader, pools Pools, a cloud.Address) error {
	i, _, ok := Instances.Get(tx, a.Instance)
	a.Instance, a.Association = "", ""
	Addresses.Put(tx, a)
	if !ok || i.Public != a.IP {
		return nil
	}
	without := *i
	without.Public = netip.Addr{}
	var err error
	if i.PublicWanted && !i.Vacated && i.Wish == cloud.WishRunning {
		without.Public, err = claimAddress(tx, random, PublicAddress, pools.Public, 1, string(i.ID))
	}
	Instances.Put(tx, without)
	poke(tx, i.Node)
	return err
}

// dropPublic gives back what public address an instance has; its record is for
// the caller to write.
func dropPublic(tx *Tx, i *cloud.Instance) {
	if !i.Public.IsValid() {
		return
	}
	switch Owner(tx, PublicAddress, i.Public.String()) {
	case string(i.ID):
		tx.Release(PublicAddress, i.Public.String())
	default:
		freeAddress(tx, i.ID)
	}
	i.Public = netip.Addr{}
}

// freeAddress that an instance has is with the account that keeps it, and on no
// instance. None has two.
func freeAddress(tx *Tx, id cloud.InstanceID) {
	for a := range AddressesByInstance.By(tx, id) {
		free := *a
		free.Instance, free.Association = "", ""
		Addresses.Put(tx, free)
		return
	}
}

// automatic says whether the instance's public address is its own, and not one
// that its account keeps.
func automatic(r Reader, i *cloud.Instance) bool {
	return i.Public.IsValid() && Owner(r, PublicAddress, i.Public.String()) == string(i.ID)
}
