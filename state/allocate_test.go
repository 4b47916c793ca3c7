package state_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"testing"

	"mallee/cloud"
	"mallee/state"
)

func allocationStore(t *testing.T) *state.Store {
	t.Helper()
	s, err := state.OpenMemory(context.Background(), state.NewMemory(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	allocationWrite(t, s, func(tx *state.Tx) error {
		state.Nodes.Put(tx, cloud.Node{ID: "n", Capacity: cloud.Size{VCPUs: 1000, MemoryMiB: 1000, DiskGiB: 1000}})
		return nil
	})
	return s
}

func allocationWrite(t *testing.T, s *state.Store, f func(*state.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

// TestAllocateEveryAddress of a pool once, and all of them again after their
// release.
func TestAllocateEveryAddress(t *testing.T) {
	s, random := allocationStore(t), rand.NewChaCha8([32]byte{})
	pools := state.Pools{Local: netip.MustParsePrefix("10.1.2.0/24"), Public: netip.MustParsePrefix("127.5.0.0/28")}
	for range 2 {
		var made []cloud.Instance
		locals, publics := map[netip.Addr]bool{}, 0
		for n := range 251 { // 256 less five
			i := cloud.Instance{ID: cloud.InstanceID("i-" + strconv.Itoa(n)), Node: "n", Size: cloud.Size{VCPUs: 1, MemoryMiB: 2, DiskGiB: 3}}
			allocationWrite(t, s, func(tx *state.Tx) error { return state.Allocate(tx, random, pools, &i, true) })
			locals[i.Local] = true
			if i.Public.IsValid() {
				publics++
			}
			if a := i.Local.As4(); !pools.Local.Contains(i.Local) || a[3] < 4 || a[3] == 255 || i.MAC[:9] != "d0:0d:0a:" {
				t.Fatalf("%s has %s and %s", i.ID, i.Local, i.MAC)
			}
			made = append(made, i)
		}
		if len(locals) != 251 || publics != 14 {
			t.Fatalf("%d private and %d public addresses", len(locals), publics)
		}
		err := s.Update(context.Background(), func(tx *state.Tx) error {
			return state.Allocate(tx, random, pools, &cloud.Instance{ID: "i-more", Node: "n"}, true)
		})
		var none *state.NoAddressError
		if !errors.As(err, &none) {
			t.Fatalf("one too many is %v", err)
		}
		for range 2 {
			allocationWrite(t, s, func(tx *state.Tx) error {
				for _, i := range made {
					state.Release(tx, &i)
				}
				return nil
			})
		}
		if n, _, _ := state.Nodes.Get(s.View(), "n"); n.Used != (cloud.Size{}) {
			t.Fatalf("after all was released the node counts %+v", n.Used)
		}
		for g := range state.Guards.All(s.View()) {
			t.Errorf("%s %s is still with %s", g.Kind, g.Name, g.Owner)
		}
	}
}

// TestReleaseIsNotForTheNext who has the address by now.
func TestReleaseIsNotForTheNext(t *testing.T) {
	s, random := allocationStore(t), rand.NewChaCha8([32]byte{})
	pools := state.Pools{Local: netip.MustParsePrefix("10.0.0.0/29")} // 3 addresses
	first := cloud.Instance{ID: "i-1", Node: "n", Size: cloud.Size{VCPUs: 1}}
	allocationWrite(t, s, func(tx *state.Tx) error { return state.Allocate(tx, random, pools, &first, true) })
	allocationWrite(t, s, func(tx *state.Tx) error { state.Release(tx, &first); return nil })
	for n := range 3 {
		i := cloud.Instance{ID: cloud.InstanceID("i-next-" + strconv.Itoa(n)), Node: "n", Size: cloud.Size{VCPUs: 1}}
		allocationWrite(t, s, func(tx *state.Tx) error { return state.Allocate(tx, random, pools, &i, true) })
	}
	allocationWrite(t, s, func(tx *state.Tx) error { state.Release(tx, &first); return nil })
	if n, _, _ := state.Nodes.Get(s.View(), "n"); n.Used.VCPUs != 3 {
		t.Errorf("a release made twice took another's: %d of 3 counted", n.Used.VCPUs)
	}
	if owner := state.Owner(s.View(), state.LocalAddress, first.Local.String()); owner == "" {
		t.Errorf("%s was taken from who has it", first.Local)
	}
}
