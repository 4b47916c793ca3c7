package cloud

import (
	"cmp"
	"fmt"
	"slices"
)

// NoRoomError tells that no zone holds as many machines as were asked for.
type NoRoomError struct {
	Zone   string // the one with the most room; empty where there is no zone
	Free   int    // how many it could hold
	Wanted int
}

func (e *NoRoomError) Error() string {
	return fmt.Sprintf("not enough room: %d in zone %q, %d wanted", e.Free, e.Zone, e.Wanted)
}

// Place chooses a node for each machine of a reservation: as many machines of
// size as fit, up to most, and not fewer than least (then it is a
// *NoRoomError). A reservation stays in one zone: the one named, or of all
// zones the one with the most room. Within it each machine goes to the node with
// the most room left, so that load spreads. Equal choices fall by name, which
// makes the result a function of its arguments.
func Place(nodes []Node, size Size, zone string, least, most int) ([]NodeID, error) {
	best := NoRoomError{Zone: zone, Wanted: least}
	var rooms []room
	for _, z := range Zones(nodes) {
		if zone != "" && z != zone {
			continue
		}
		here := roomsIn(nodes, z, size)
		if free := total(here); free > best.Free || best.Zone == "" {
			best.Zone, best.Free, rooms = z, free, here
		}
	}
	if best.Free < least {
		return nil, &best
	}
	return spread(rooms, min(best.Free, most)), nil
}

// room is how many machines a node still holds.
type room struct {
	node NodeID
	free int
}

// Zones of the nodes, sorted.
func Zones(nodes []Node) []string {
	var zones []string
	for i := range nodes {
		zones = append(zones, nodes[i].Zone)
	}
	slices.Sort(zones)
	return slices.Compact(zones)
}

func roomsIn(nodes []Node, zone string, size Size) []room {
	var rooms []room
	for i := range nodes {
		if n := &nodes[i]; n.Zone == zone {
			rooms = append(rooms, room{n.ID, n.Fits(size)})
		}
	}
	slices.SortFunc(rooms, func(a, b room) int { return cmp.Compare(a.node, b.node) })
	return rooms
}

func total(rooms []room) (free int) {
	for _, r := range rooms {
		free += r.free
	}
	return free
}

// spread gives each machine to the node with the most room left; there is room for n.
func spread(rooms []room, n int) []NodeID {
	chosen := make([]NodeID, 0, n)
	for range n {
		best := 0
		for i, r := range rooms {
			if r.free > rooms[best].free {
				best = i
			}
		}
		rooms[best].free--
		chosen = append(chosen, rooms[best].node)
	}
	return chosen
}
