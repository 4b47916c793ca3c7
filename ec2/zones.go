package ec2

import (
	"fmt"
	"iter"
	"slices"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

const available = "available" // what zones are: a zone is there because its nodes are

type describeZonesInput struct {
	common
	filtered
	ZoneName             []string `wire:"ZoneName,max=1000"`
	ZoneID               []string `wire:"ZoneId,max=1000"`
	AllAvailabilityZones bool     // there are no others
}

type describeZonesReply struct {
	Zones []zoneReply `xml:"availabilityZoneInfo>item"`
}

type zoneReply struct {
	Name        string        `xml:"zoneName"`
	State       string        `xml:"zoneState"`
	Region      string        `xml:"regionName"`
	ID          string        `xml:"zoneId,omitempty"`
	Type        string        `xml:"zoneType,omitempty"`
	OptInStatus string        `xml:"optInStatus,omitempty"`
	GroupName   string        `xml:"groupName,omitempty"`
	Border      string        `xml:"networkBorderGroup,omitempty"`
	Messages    []zoneMessage `xml:"messageSet>item"`
}

type zoneMessage struct {
	Text string `xml:"message"`
}

var zoneKind = kind[string]{
	key: func(z string) string { return z },
	fields: fields[string]{
		"group-name":    func(c *call, _ string) []string { return one(c.Region) },
		"message":       fixed[string](""),
		"opt-in-status": fixed[string]("opt-in-not-required"),
		"region-name":   func(c *call, _ string) []string { return one(c.Region) },
		"state":         fixed[string](available),
		"zone-id":       text(func(z string) string { return z }),
		"zone-name":     text(func(z string) string { return z }),
		"zone-type":     fixed[string]("availability-zone"),
	},
}

// describeZones lists the zones that the nodes are in. Who runs the cloud may
// ask for verbose, and gets Eucalyptus's table of what each has room for, as
// zones that aren't.
func describeZones(c *call, in *describeZonesInput) (*describeZonesReply, error) {
	nodes := c.nodes()
	names, everything := c.everybody(in.ZoneName)
	candidates, err := zonesNamed(cloud.Zones(nodes), append(names, in.ZoneID...))
	if err != nil {
		return nil, err
	}
	list, err := zoneKind.all(c, in.filtered, candidates)
	if err != nil {
		return nil, err
	}
	out := &describeZonesReply{}
	for _, z := range list {
		out.Zones = append(out.Zones, zoneReply{
			Name: z, State: available, Region: c.Region, ID: z, Type: "availability-zone",
			OptInStatus: "opt-in-not-required", GroupName: c.Region, Border: c.Region,
		})
		if everything {
			out.Zones = append(out.Zones, c.roomIn(z, nodes)...)
		}
	}
	return out, nil
}

func (c *call) nodes() []cloud.Node {
	var nodes []cloud.Node
	for n := range state.Nodes.All(c.read) {
		nodes = append(nodes, *n)
	}
	return nodes
}

func zonesNamed(zones, names []string) (iter.Seq[string], error) {
	if len(names) == 0 {
		return slices.Values(zones), nil
	}
	var named []string
	for _, name := range names {
		z, err := findZone(zones, name)
		if err != nil {
			return nil, err
		}
		named = append(named, z)
	}
	return sorted(named, zoneKind.key), nil
}

func findZone(zones []string, name string) (string, error) {
	if slices.Contains(zones, name) {
		return name, nil
	}
	return "", wire.Errorf("InvalidParameterValue", "Invalid availability zone: [%s]", wire.Shorten(name))
}

// roomIn a zone, a line a type: free and most machines, processors, memory in
// MiB, disk in GiB.
func (c *call) roomIn(zone string, nodes []cloud.Node) []zoneReply {
	line := func(name, state string) zoneReply {
		return zoneReply{Name: "|- " + name, State: state, Region: c.Region}
	}
	lines := []zoneReply{line("vm types", "free / max   cpu   ram  disk")}
	for _, t := range cloud.Types {
		free, most := 0, 0
		for i := range nodes {
			if nodes[i].Zone != zone {
				continue
			}
			empty := nodes[i]
			empty.Used = cloud.Size{}
			free += nodes[i].Fits(t.Size)
			most += empty.Fits(t.Size)
		}
		lines = append(lines, line(string(t.Name),
			fmt.Sprintf("%04d / %04d  %2d   %4d  %4d", free, most, t.Size.VCPUs, t.Size.MemoryMiB, t.Size.DiskGiB)))
	}
	return lines
}

type describeRegionsInput struct {
	common
	filtered
	RegionName []string `wire:"RegionName,max=1000"`
	AllRegions bool
}

type describeRegionsReply struct {
	Regions []regionReply `xml:"regionInfo>item"`
}

type regionReply struct {
	Name        string `xml:"regionName"`
	Endpoint    string `xml:"regionEndpoint"`
	OptInStatus string `xml:"optInStatus"`
}

var regionKind = kind[string]{
	key: func(r string) string { return r },
	fields: fields[string]{
		"endpoint":      func(c *call, _ string) []string { return one(c.Endpoint) },
		"opt-in-status": fixed[string]("opt-in-not-required"),
		"region-name":   text(func(r string) string { return r }),
	},
}

// describeRegions knows one: this cloud.
func describeRegions(c *call, in *describeRegionsInput) (*describeRegionsReply, error) {
	for _, name := range in.RegionName {
		if name != c.Region {
			return nil, wire.Errorf("InvalidParameterValue", "Invalid region name: [%s]", wire.Shorten(name))
		}
	}
	list, err := regionKind.all(c, in.filtered, slices.Values([]string{c.Region}))
	if err != nil {
		return nil, err
	}
	out := &describeRegionsReply{}
	for _, r := range list {
		out.Regions = append(out.Regions, regionReply{r, c.Endpoint, "opt-in-not-required"})
	}
	return out, nil
}
