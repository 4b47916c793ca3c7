package euca

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// cloudCommands tell what the cloud has.
func cloudCommands() []command {
	return []command{
		{
			name: "version", short: "Say which version of the commands this is",
			run: func(s *session) error {
				return s.show(map[string]string{"version": Version}, func() { s.line("mallee " + Version) })
			},
		},
		{
			name: "describe-availability-zones", short: "Show the zones, and what they have room for (verbose)",
			takes: "[ZONE...]", as: "ZoneName", filters: true,
			run: calling("DescribeAvailabilityZones", printZones),
		},
		{
			name: "describe-regions", short: "Show the regions and their endpoints",
			takes: "[REGION...]", as: "RegionName", filters: true,
			run: calling("DescribeRegions", printRegions),
		},
		{
			name: "describe-account-attributes", short: "Show what the account may have",
			takes: "[ATTRIBUTE...]", as: "AttributeName",
			run: calling("DescribeAccountAttributes", printAccountAttributes),
		},
		{
			name: "describe-instance-types", short: "Show the types of instances",
			takes: "[INSTANCETYPE...]", as: "InstanceType", filters: true,
			options: []option{
				toggle("by-zone", "show each zone's room separately"),
				toggle("show-capacity", "show how many instances the cloud has room for"),
			},
			run: describeInstanceTypes,
		},
	}
}

func printZones(s *session, reply *element) {
	for zone := range reply.each("availabilityZoneInfo") {
		s.line("AVAILABILITYZONE", zone.get("zoneName"), zone.get("zoneState"), strings.Join(zone.texts("messageSet", "message"), ", "))
	}
}

func printRegions(s *session, reply *element) {
	for region := range reply.each("regionInfo") {
		s.line("REGION", region.get("regionName"), region.get("regionEndpoint"))
	}
}

func printAccountAttributes(s *session, reply *element) {
	for attribute := range reply.each("accountAttributeSet") {
		s.line("ACCOUNTATTRIBUTE", attribute.get("attributeName"))
		for _, value := range attribute.texts("attributeValueSet", "attributeValue") {
			s.line("VALUE", value)
		}
	}
}

// describeInstanceTypes asks as EC2 does. Eucalyptus's answer, instanceTypeDetails,
// is understood too.
func describeInstanceTypes(s *session) error {
	reply, err := s.call("DescribeInstanceTypes")
	if err != nil {
		return err
	}
	types := typeRows(reply)
	if !s.given("by-zone") && !s.given("show-capacity") {
		return s.show(reply, func() { printTypes(s, types, nil) })
	}
	room, err := zonesRoom(s)
	if err != nil {
		return err
	}
	return s.show(map[string]any{"instanceTypes": reply, "capacity": room}, func() {
		if !s.given("by-zone") {
			printTypes(s, types, total(room))
			return
		}
		for _, zone := range room {
			s.line("AVAILABILITYZONE", zone.Zone)
			printTypes(s, types, zone.Types)
			s.out.WriteByte('\n')
		}
	})
}

// typeRow is an instance type: its name, virtual processors, memory (MiB), disk
// (GiB) and network interfaces.
type typeRow [5]string

func typeRows(reply *element) (rows []typeRow) {
	for t := range reply.each("instanceTypeSet") {
		rows = append(rows, typeRow{t.get("instanceType"), t.get("vCpuInfo/defaultVCpus"), t.get("memoryInfo/sizeInMiB"),
			cmp.Or(t.get("instanceStorageInfo/totalSizeInGB"), "0"), t.get("networkInfo/maximumNetworkInterfaces")})
	}
	for t := range reply.each("instanceTypeDetails") {
		rows = append(rows, typeRow{t.get("name"), t.get("cpu"), t.get("memory"), t.get("disk"), t.get("networkInterfaces")})
	}
	return rows
}

// room is how many instances of a type there is room for, of how many at all.
type room struct {
	Free int `json:"free"`
	Max  int `json:"max"`
}

type zoneRoom struct {
	Zone  string          `json:"zone"`
	Types map[string]room `json:"types"`
}

// zonesRoom asks for the capacity table, which Eucalyptus's clouds show their
// administrators as zones named "|- TYPE" with the state "FREE / MAX CPU RAM DISK".
func zonesRoom(s *session) (all []zoneRoom, err error) {
	asked := *s
	asked.params = map[string][]string{"ZoneName.1": {"verbose"}}
	reply, err := asked.call("DescribeAvailabilityZones")
	if err != nil {
		return nil, err
	}
	for zone := range reply.each("availabilityZoneInfo") {
		name, isType := strings.CutPrefix(zone.get("zoneName"), "|-")
		if !isType {
			all = append(all, zoneRoom{zone.get("zoneName"), map[string]room{}})
			continue
		}
		figures := strings.Fields(strings.Replace(zone.get("zoneState"), "/", " ", 1))
		if len(all) == 0 || len(figures) < 2 {
			continue
		}
		free, err1 := strconv.Atoi(figures[0])
		most, err2 := strconv.Atoi(figures[1])
		if err1 == nil && err2 == nil { // else it is the table's head
			all[len(all)-1].Types[strings.TrimSpace(name)] = room{free, most}
		}
	}
	return all, nil
}

func total(zones []zoneRoom) map[string]room {
	sum := map[string]room{}
	for _, zone := range zones {
		for name, r := range zone.Types {
			sum[name] = room{sum[name].Free + r.Free, sum[name].Max + r.Max}
		}
	}
	return sum
}

// printTypes as a table whose columns are as wide as what they hold; capacity
// may be nil.
func printTypes(s *session, types []typeRow, capacity map[string]room) {
	head := typeRow{"Name", "CPUs", "Memory (MiB)", "Disk (GiB)", "NICs"}
	var width [len(head)]int
	for _, row := range append([]typeRow{head}, types...) {
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
	}
	print := func(row typeRow, used, most, share string) {
		line := fmt.Sprintf("%-*s", width[0], row[0])
		for i, cell := range row[1:] {
			line += fmt.Sprintf("  %*s", width[i+1], cell)
		}
		if capacity != nil {
			line += fmt.Sprintf("  %4s / %5s  %6s", used, most, share)
		}
		s.line("INSTANCETYPE", " "+line)
	}
	print(head, "Used", "Total", "Used %")
	for _, row := range types {
		r, share := capacity[row[0]], ""
		if r.Max > 0 {
			share = fmt.Sprintf("%d%%", 100*(r.Max-r.Free)/r.Max)
		}
		print(row, strconv.Itoa(r.Max-r.Free), strconv.Itoa(r.Max), share)
	}
}
