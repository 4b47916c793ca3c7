package cloud

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestPlace(t *testing.T) {
	one := Size{VCPUs: 1, MemoryMiB: 1, DiskGiB: 1}
	node := func(id NodeID, zone string, capacity, used int) Node {
		return Node{ID: id, Zone: zone, Capacity: one.Times(capacity), Used: one.Times(used)}
	}
	nodes := []Node{node("b", "east", 4, 1), node("a", "east", 5, 4), node("c", "west", 3, 0), node("d", "west", 10, 10)}
	for _, test := range []struct {
		name        string
		zone        string
		least, most int
		want        []NodeID
		free        int // where it is refused
		in          string
	}{
		{"one goes to the roomiest node", "", 1, 1, []NodeID{"b"}, 0, ""},
		{"they spread by what is left", "", 4, 4, []NodeID{"b", "b", "a", "b"}, 0, ""},
		{"as many as fit in the zone", "", 1, 9, []NodeID{"b", "b", "a", "b"}, 0, ""},
		{"in the zone named", "west", 1, 2, []NodeID{"c", "c"}, 0, ""},
		{"never across zones", "", 5, 5, nil, 4, "east"},
		{"nor more than the named has", "west", 4, 4, nil, 3, "west"},
		{"an unknown zone has nothing", "north", 1, 1, nil, 0, "north"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Place(nodes, one, test.zone, test.least, test.most)
			var full *NoRoomError
			if errors.As(err, &full) != (test.want == nil) {
				t.Fatalf("%v, %v", got, err)
			}
			if full != nil && (full.Free != test.free || full.Zone != test.in || full.Wanted != test.least) {
				t.Errorf("refused as %+v", full)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
	if _, err := Place(nil, one, "", 1, 1); err == nil {
		t.Error("a cloud without nodes has room")
	}
}

// TestPlaceKeepsWithinEveryNode whatever the nodes.
func TestPlaceKeepsWithinEveryNode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := Size{rapid.IntRange(1, 4).Draw(t, "vcpus"), rapid.IntRange(1, 4).Draw(t, "memory"), rapid.IntRange(0, 4).Draw(t, "disk")}
		nodes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Node {
			n := rapid.IntRange(0, 30)
			return Node{
				ID: NodeID(rapid.StringMatching("[a-z]{8}").Draw(t, "id")), Zone: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "zone"),
				Capacity: Size{n.Draw(t, "c"), n.Draw(t, "m"), n.Draw(t, "d")}, Used: Size{n.Draw(t, "uc") / 3, n.Draw(t, "um") / 3, n.Draw(t, "ud") / 3},
			}
		}), 0, 6).Draw(t, "nodes")
		least := rapid.IntRange(1, 5).Draw(t, "least")
		most := least + rapid.IntRange(0, 20).Draw(t, "more")
		chosen, err := Place(nodes, size, "", least, most)
		if err != nil {
			return
		}
		if len(chosen) < least || len(chosen) > most {
			t.Fatalf("%d chosen of %d to %d", len(chosen), least, most)
		}
		count, zones := map[NodeID]int{}, map[string]bool{}
		for _, id := range chosen {
			count[id]++
		}
		for _, n := range nodes {
			if count[n.ID] > n.Fits(size) {
				t.Errorf("node %s holds %d and was given %d", n.ID, n.Fits(size), count[n.ID])
			}
			if count[n.ID] > 0 {
				zones[n.Zone] = true
			}
		}
		if len(zones) != 1 {
			t.Errorf("one reservation in the zones %v", zones)
		}
	})
}

func TestTypesAreDistinct(t *testing.T) {
	seen := map[TypeName]bool{}
	for _, typ := range Types {
		if seen[typ.Name] || typ.Size.VCPUs < 1 || typ.Size.MemoryMiB < 512 || typ.Size.DiskGiB < 5 || typ.NICs < 1 {
			t.Errorf("the type %+v", typ)
		}
		seen[typ.Name] = true
	}
	if !seen[DefaultType] {
		t.Errorf("the default type %s is not in the table", DefaultType)
	}
}
