package state_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"mallee/cloud"
	"mallee/state"
)

func anImage(id cloud.ImageID, name string, snapshot cloud.SnapshotID) *cloud.Image {
	return &cloud.Image{ID: id, Account: "1", Name: name, RootDevice: "/dev/sda", Mappings: []cloud.Mapping{{Device: "/dev/sda", EBS: &cloud.EBSMapping{Snapshot: snapshot}}}}
}

func TestImageNamesAreUnique(t *testing.T) {
	s := allocationStore(t)
	enroll := func(i *cloud.Image) error {
		return s.Update(context.Background(), func(tx *state.Tx) error { return state.Enroll(tx, i) })
	}
	first := anImage("emi-1", "name", "")
	if err := enroll(first); err != nil {
		t.Fatal(err)
	}
	var taken *state.TakenError
	if err := enroll(anImage("emi-2", "name", "")); !errors.As(err, &taken) || taken.Owner != "emi-1" {
		t.Errorf("the name again: %v", err)
	}
	elsewhere := anImage("emi-3", "name", "")
	elsewhere.Account = "2"
	if err := errors.Join(enroll(elsewhere), enroll(anImage("emi-4", "other", ""))); err != nil {
		t.Error(err)
	}
	allocationWrite(t, s, func(tx *state.Tx) error { state.Withdraw(tx, first); return nil })
	if err := enroll(anImage("emi-2", "name", "")); err != nil {
		t.Errorf("the name that was given back: %v", err)
	}
}

// TestSnapshotsUnderImagesStay also where another process makes an image of a
// snapshot while it is being deleted: one of the two doesn't come about.
func TestSnapshotsUnderImagesStay(t *testing.T) {
	m, ctx := state.NewMemory(), context.Background()
	var stores [2]*state.Store
	for n := range stores {
		var err error
		if stores[n], err = state.OpenMemory(ctx, m, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		defer stores[n].Close()
	}
	allocationWrite(t, stores[0], func(tx *state.Tx) error {
		state.PutSnapshot(tx, cloud.Snapshot{ID: "snap-1", Account: "1", Content: &cloud.Content{}})
		return nil
	})
	inUse := errors.New("in use")
	runs := 0
	err := stores[0].Update(ctx, func(tx *state.Tx) error {
		s, _, _ := state.Snapshots.Get(tx, "snap-1")
		for range state.ImagesBySnapshot.By(tx, s.ID) {
			return inUse
		}
		if runs++; runs == 1 {
			register(t, stores[1])
		}
		state.ForgetSnapshot(tx, s)
		return nil
	})
	if !errors.Is(err, inUse) || runs != 1 {
		t.Errorf("deleted under an image that was made meanwhile: %v, after %d runs", err, runs)
	}
}

func register(t *testing.T, s *state.Store) {
	err := s.Update(context.Background(), func(tx *state.Tx) error {
		if _, _, ok := state.Snapshots.Get(tx, "snap-1"); !ok {
			return errors.New("the snapshot is not there")
		}
		return state.Enroll(tx, anImage("emi-1", "name", "snap-1"))
	})
	if err != nil {
		t.Fatal(err)
	}
}
