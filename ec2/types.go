package ec2

import (
	"cmp"
	"iter"
	"slices"
	"strconv"

	"mallee/cloud"
	"mallee/wire"
)

type describeTypesInput struct {
	common
	selection
	InstanceType []string `wire:"InstanceType,max=100"`
}

type describeTypesReply struct {
	Types     []typeReply `xml:"instanceTypeSet>item"`
	NextToken string      `xml:"nextToken,omitempty"`
}

type typeReply struct {
	Name              string   `xml:"instanceType"`
	CurrentGeneration bool     `xml:"currentGeneration"`
	FreeTier          bool     `xml:"freeTierEligible"`
	UsageClasses      []string `xml:"supportedUsageClasses>item"`
	RootDeviceTypes   []string `xml:"supportedRootDeviceTypes>item"`
	Virtualization    []string `xml:"supportedVirtualizationTypes>item"`
	BareMetal         bool     `xml:"bareMetal"`
	Hypervisor        string   `xml:"hypervisor"`
	Architectures     []string `xml:"processorInfo>supportedArchitectures>item"`
	VCPUs             int      `xml:"vCpuInfo>defaultVCpus"`
	Cores             int      `xml:"vCpuInfo>defaultCores"`
	ThreadsPerCore    int      `xml:"vCpuInfo>defaultThreadsPerCore"`
	MemoryMiB         int      `xml:"memoryInfo>sizeInMiB"`
	HasStorage        bool     `xml:"instanceStorageSupported"`
	DiskGiB           int      `xml:"instanceStorageInfo>totalSizeInGB"`
	NICs              int      `xml:"networkInfo>maximumNetworkInterfaces"`
	PlacementGroups   []string `xml:"placementGroupInfo>supportedStrategies>item"`
	Hibernation       bool     `xml:"hibernationSupported"`
	Burstable         bool     `xml:"burstablePerformanceSupported"`
	DedicatedHosts    bool     `xml:"dedicatedHostsSupported"`
	AutoRecovery      bool     `xml:"autoRecoverySupported"`
	BootModes         []string `xml:"supportedBootModes>item"`
}

var typeKind = kind[cloud.InstanceType]{
	key: func(t cloud.InstanceType) string { return string(t.Name) },
	fields: fields[cloud.InstanceType]{
		"auto-recovery-supported":                 fixed[cloud.InstanceType]("false"),
		"bare-metal":                              fixed[cloud.InstanceType]("false"),
		"burstable-performance-supported":         fixed[cloud.InstanceType]("false"),
		"current-generation":                      fixed[cloud.InstanceType]("true"),
		"dedicated-hosts-supported":               fixed[cloud.InstanceType]("false"),
		"free-tier-eligible":                      fixed[cloud.InstanceType]("false"),
		"hibernation-supported":                   fixed[cloud.InstanceType]("false"),
		"hypervisor":                              fixed[cloud.InstanceType](hypervisor),
		"instance-storage-info.total-size-in-gb":  text(func(t cloud.InstanceType) string { return strconv.Itoa(t.Size.DiskGiB) }),
		"instance-storage-supported":              fixed[cloud.InstanceType]("true"),
		"instance-type":                           text(func(t cloud.InstanceType) string { return string(t.Name) }),
		"memory-info.size-in-mib":                 text(func(t cloud.InstanceType) string { return strconv.Itoa(t.Size.MemoryMiB) }),
		"network-info.maximum-network-interfaces": text(func(t cloud.InstanceType) string { return strconv.Itoa(t.NICs) }),
		"processor-info.supported-architecture":   func(*call, cloud.InstanceType) []string { return architectures },
		"supported-boot-mode":                     fixed[cloud.InstanceType]("legacy-bios"),
		"supported-root-device-type":              func(*call, cloud.InstanceType) []string { return rootDeviceTypes },
		"supported-usage-class":                   fixed[cloud.InstanceType]("on-demand"),
		"supported-virtualization-type":           func(*call, cloud.InstanceType) []string { return virtualizations },
		"vcpu-info.default-cores":                 text(func(t cloud.InstanceType) string { return strconv.Itoa(t.Size.VCPUs) }),
		"vcpu-info.default-threads-per-core":      fixed[cloud.InstanceType]("1"),
		"vcpu-info.default-vcpus":                 text(func(t cloud.InstanceType) string { return strconv.Itoa(t.Size.VCPUs) }),
	},
}

var (
	architectures   = []string{"i386", "x86_64"}
	virtualizations = []string{string(cloud.HVM), string(cloud.Paravirtual)}
	rootDeviceTypes = []string{string(cloud.EBS), string(cloud.InstanceStore)}
)

// describeTypes lists the instance types by name.
func describeTypes(c *call, in *describeTypesInput) (*describeTypesReply, error) {
	candidates, err := typesNamed(in.InstanceType)
	if err != nil {
		return nil, err
	}
	p, err := typeKind.page(c, &in.selection, candidates)
	if err != nil {
		return nil, err
	}
	out := &describeTypesReply{NextToken: p.next}
	for _, t := range p.items {
		out.Types = append(out.Types, typeReply{
			Name: string(t.Name), CurrentGeneration: true, UsageClasses: []string{"on-demand"}, RootDeviceTypes: rootDeviceTypes,
			Virtualization: virtualizations, Hypervisor: hypervisor, Architectures: architectures,
			VCPUs: t.Size.VCPUs, Cores: t.Size.VCPUs, ThreadsPerCore: 1, MemoryMiB: t.Size.MemoryMiB,
			HasStorage: true, DiskGiB: t.Size.DiskGiB, NICs: t.NICs, BootModes: []string{"legacy-bios"},
		})
	}
	return out, nil
}

func typesNamed(names []string) (iter.Seq[cloud.InstanceType], error) {
	if len(names) == 0 {
		return sorted(slices.Clone(cloud.Types), typeKind.key), nil
	}
	var named []cloud.InstanceType
	for _, name := range names {
		t, ok := cloud.TypeNamed(cloud.TypeName(name))
		if !ok {
			return nil, wire.Errorf("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", wire.Shorten(name))
		}
		named = append(named, t)
	}
	return sorted(named, typeKind.key), nil
}

type describeOfferingsInput struct {
	common
	selection
	LocationType string `wire:"LocationType,enum=region|availability-zone|availability-zone-id"`
}

type describeOfferingsReply struct {
	Offerings []offering `xml:"instanceTypeOfferingSet>item"`
	NextToken string     `xml:"nextToken,omitempty"`
}

// offering says that a type is to be had in a place.
type offering struct {
	Type         string `xml:"instanceType"`
	LocationType string `xml:"locationType"`
	Location     string `xml:"location"`
}

var offeringKind = kind[offering]{
	key: func(o offering) string { return o.Type + "/" + o.Location },
	fields: fields[offering]{
		"instance-type": text(func(o offering) string { return o.Type }),
		"location":      text(func(o offering) string { return o.Location }),
	},
}

// describeOfferings: every type is to be had everywhere.
func describeOfferings(c *call, in *describeOfferingsInput) (*describeOfferingsReply, error) {
	where := cmp.Or(in.LocationType, "region")
	places := []string{c.Region}
	if where != "region" {
		places = cloud.Zones(c.nodes())
	}
	var all []offering
	for _, t := range cloud.Types {
		for _, place := range places {
			all = append(all, offering{string(t.Name), where, place})
		}
	}
	p, err := offeringKind.page(c, &in.selection, sorted(all, offeringKind.key))
	if err != nil {
		return nil, err
	}
	return &describeOfferingsReply{p.items, p.next}, nil
}
