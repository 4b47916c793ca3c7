package ec2

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// reservationReply is one reservation with those of its instances that are
// shown.
type reservationReply struct {
	ID        string          `xml:"reservationId"`
	Owner     string          `xml:"ownerId"`
	Groups    []groupRef      `xml:"groupSet>item"`
	Instances []instanceReply `xml:"instancesSet>item"`
}

type groupRef struct {
	ID   string `xml:"groupId"`
	Name string `xml:"groupName"`
}

type instanceReply struct {
	ID             string           `xml:"instanceId"`
	Image          string           `xml:"imageId"`
	State          stateReply       `xml:"instanceState"`
	PrivateDNS     string           `xml:"privateDnsName"`
	DNS            string           `xml:"dnsName"`
	Transition     string           `xml:"reason"`
	KeyName        string           `xml:"keyName,omitempty"`
	LaunchIndex    int              `xml:"amiLaunchIndex"`
	ProductCodes   []string         `xml:"productCodes>item"`
	Type           string           `xml:"instanceType"`
	LaunchTime     *wire.Time       `xml:"launchTime"`
	Placement      placement        `xml:"placement"`
	Kernel         string           `xml:"kernelId,omitempty"`
	Ramdisk        string           `xml:"ramdiskId,omitempty"`
	Platform       string           `xml:"platform,omitempty"`
	Monitoring     string           `xml:"monitoring>state"`
	PrivateIP      string           `xml:"privateIpAddress,omitempty"`
	PublicIP       string           `xml:"ipAddress,omitempty"`
	Groups         []groupRef       `xml:"groupSet>item"`
	StateReason    *stateReason     `xml:"stateReason"`
	Architecture   string           `xml:"architecture"`
	RootDeviceType string           `xml:"rootDeviceType"`
	RootDevice     string           `xml:"rootDeviceName,omitempty"`
	Mappings       []instanceVolume `xml:"blockDeviceMapping>item"`
	Virtualization string           `xml:"virtualizationType"`
	ClientToken    string           `xml:"clientToken"`
	Tags           []tag            `xml:"tagSet>item"`
	Hypervisor     string           `xml:"hypervisor"`
	Subnet         string           `xml:"subnetId,omitempty"`
	VPC            string           `xml:"vpcId,omitempty"`
	SourceCheck    bool             `xml:"sourceDestCheck"`
	Interfaces     []interfaceReply `xml:"networkInterfaceSet>item"`
	EBSOptimized   bool             `xml:"ebsOptimized"`
	Cores          int              `xml:"cpuOptions>coreCount"`
	ThreadsPerCore int              `xml:"cpuOptions>threadsPerCore"`
	Metadata       metadataOptions  `xml:"metadataOptions"`
}

type stateReply struct {
	Code int    `xml:"code"`
	Name string `xml:"name"`
}

type stateReason struct {
	Code    string `xml:"code"`
	Message string `xml:"message"`
}

type placement struct {
	Zone      string `xml:"availabilityZone"`
	GroupName string `xml:"groupName"`
	Tenancy   string `xml:"tenancy"`
}

// stateOf an instance, derived from its wish and what was seen of it.
func (c *call) stateOf(i *cloud.Instance) cloud.InstanceState {
	seen, _, ok := state.Observations.Get(c.read, i.ID)
	if !ok {
		return i.State(cloud.Observation{})
	}
	return i.State(*seen)
}

func stateReplyOf(s cloud.InstanceState) stateReply { return stateReply{s.Code(), string(s)} }

func (c *call) reservationReply(r *cloud.Reservation, list []*cloud.Instance) reservationReply {
	out := reservationReply{ID: string(r.ID), Owner: string(r.Account), Groups: groupRefs(r.Groups)}
	for _, i := range list {
		out.Instances = append(out.Instances, c.instanceReply(i))
	}
	return out
}

func groupRefs(groups []cloud.Group) []groupRef {
	refs := make([]groupRef, 0, len(groups))
	for _, g := range groups {
		refs = append(refs, groupRef{string(g.ID), g.Name})
	}
	return refs
}

func (c *call) instanceReply(i *cloud.Instance) instanceReply {
	s := c.stateOf(i)
	r := instanceReply{
		ID: string(i.ID), Image: string(i.Image.ID), State: stateReplyOf(s), Transition: transition(i),
		KeyName: i.KeyName, LaunchIndex: i.LaunchIndex, Type: string(i.Type), LaunchTime: wire.At(i.LaunchedAt),
		Placement: placement{Zone: i.Zone, Tenancy: "default"}, Kernel: refID(i.Kernel), Ramdisk: refID(i.Ramdisk),
		Platform: i.Platform, Monitoring: "disabled", Groups: groupRefs(i.Groups), StateReason: reasonOf(i, s), Architecture: i.Architecture,
		RootDeviceType: rootDeviceType(i), Mappings: c.volumesReply(i), RootDevice: i.RootDevice, Virtualization: string(i.Virtualization),
		ClientToken: i.ClientToken, Tags: c.tagSet(string(i.ID)), Hypervisor: hypervisor,
		Cores: i.Size.VCPUs, ThreadsPerCore: 1, Metadata: metadataOptionsOf(i),
	}
	if s != cloud.Terminated {
		r.PrivateIP, r.PrivateDNS = i.Local.String(), i.PrivateName()
		r.PublicIP, r.DNS = publicOf(i), publicOf(i)
		r.VPC, r.Subnet, r.SourceCheck = vpcOf(i.Account), subnetOf(i.Account, i.Zone), true
		r.Interfaces = []interfaceReply{c.interfaceOf(i)}
	}
	return r
}

// publicOf an instance; there is no DNS for public addresses, so the name is the
// address.
func publicOf(i *cloud.Instance) string {
	if !i.Public.IsValid() {
		return ""
	}
	return i.Public.String()
}

func refID(r *cloud.ImageRef) string {
	if r == nil {
		return ""
	}
	return string(r.ID)
}

// reasonOf the state: why the wish is no longer running, or EC2's words for not
// being there yet.
func reasonOf(i *cloud.Instance, s cloud.InstanceState) *stateReason {
	switch {
	case i.Reason.Code != "":
		return &stateReason{i.Reason.Code, i.Reason.Message}
	case s == cloud.Pending:
		return &stateReason{"pending", "pending"}
	}
	return nil
}

// transition is EC2's StateTransitionReason: who ended it, and when.
func transition(i *cloud.Instance) string {
	when := i.WishedAt.UTC().Format("2006-01-02 15:04:05 GMT")
	switch i.Reason.Code {
	case "":
		return ""
	case cloud.ReasonUserTerminated:
		return fmt.Sprintf("User initiated (%s)", when)
	case cloud.ReasonGuestPoweredOff:
		return fmt.Sprintf("Instance initiated (%s)", when)
	}
	return fmt.Sprintf("%s (%s)", i.Reason.Code, when)
}

type describeInstancesInput struct {
	common
	selection
	InstanceID []string `wire:"InstanceId,max=1000"`
}

type describeInstancesReply struct {
	Reservations []reservationReply `xml:"reservationSet>item"`
	NextToken    string             `xml:"nextToken,omitempty"`
}

// describeInstances lists instances by reservation and launch index. A page may
// end within a reservation; the next one then goes on with it.
func describeInstances(c *call, in *describeInstancesInput) (*describeInstancesReply, error) {
	if err := in.noPages(in.InstanceID, "InstanceId"); err != nil {
		return nil, err
	}
	candidates, err := c.instanceCandidates(in.InstanceID, in.Filter)
	if err != nil {
		return nil, err
	}
	p, err := instanceKind.page(c, &in.selection, candidates)
	if err != nil {
		return nil, err
	}
	return &describeInstancesReply{c.byReservation(p.items), p.next}, nil
}

// byReservation groups instances, which are in the order of their reservations.
func (c *call) byReservation(list []*cloud.Instance) []reservationReply {
	var out []reservationReply
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].Reservation == list[0].Reservation {
			n++
		}
		r := cloud.Reservation{ID: list[0].Reservation, Account: list[0].Account, Groups: list[0].Groups}
		out = append(out, c.reservationReply(&r, list[:n]))
		list = list[n:]
	}
	return out
}

// instanceCandidates are those named, or those that the filters can leave of the
// account's, or everybody's.
func (c *call) instanceCandidates(ids []string, filters []filter) (iter.Seq[*cloud.Instance], error) {
	ids, everybody := c.everybody(ids)
	switch {
	case everybody:
		return c.instancesOf(firsts(state.Reservations.All(c.read))), nil
	case len(ids) == 0:
		if few, ok := c.fewByTag(filters); ok {
			return sorted(few, instanceKey), nil
		}
		return c.instancesOf(firsts(state.ReservationsByAccount.By(c.read, c.account()))), nil
	}
	named, err := c.instances(ids)
	if err != nil {
		return nil, err
	}
	return sorted(named, instanceKey), nil
}

// few is how many instances are worth finding by an index and sorting.
const few = 1000

// fewByTag finds, by the index of tags, the instances of the account that a
// filter by a tag's plain value leaves; unless they are many, or there is no such
// filter. Whether they pass the filters is still to be tested.
func (c *call) fewByTag(filters []filter) (found []*cloud.Instance, ok bool) {
	for _, f := range filters {
		key, isTag := strings.CutPrefix(f.Name, "tag:")
		if !isTag || len(f.Value) == 0 || slices.ContainsFunc(f.Value, isPattern) {
			continue
		}
		for _, value := range f.Value {
			for set := range state.TagSetsByTag.By(c.read, state.TagValue(c.account(), key, value)) {
				if i, _, is := state.Instances.Get(c.read, cloud.InstanceID(set.Resource)); is {
					found = append(found, i)
				}
				if len(found) > few {
					return nil, false
				}
			}
		}
		return found, true
	}
	return nil, false
}

func (c *call) instancesOf(reservations iter.Seq[*cloud.Reservation]) iter.Seq[*cloud.Instance] {
	return func(yield func(*cloud.Instance) bool) {
		for r := range reservations {
			for _, id := range r.Instances {
				if i, _, ok := state.Instances.Get(c.read, id); ok && !yield(i) {
					return
				}
			}
		}
	}
}

// instanceKey orders instances by reservation, and in it by launch index, which
// is below maxLaunch.
func instanceKey(i *cloud.Instance) string {
	index := strconv.Itoa(maxLaunch + i.LaunchIndex)
	return string(i.Reservation) + "/" + index
}

var instanceKind = kind[*cloud.Instance]{
	key:  instanceKey,
	tags: func(c *call, i *cloud.Instance) map[string]string { return c.tagsOf(string(i.ID)) },
	fields: fields[*cloud.Instance]{
		"architecture":                     text(func(i *cloud.Instance) string { return i.Architecture }),
		"availability-zone":                text(func(i *cloud.Instance) string { return i.Zone }),
		"block-device-mapping.attach-time": ofVolumes(func(v instanceVolume) string { return timestamp(v.AttachedAt.Time) }),
		"block-device-mapping.delete-on-termination": ofVolumes(func(v instanceVolume) string {
			return strconv.FormatBool(v.DeleteOnTermination)
		}),
		"block-device-mapping.device-name": ofVolumes(func(v instanceVolume) string { return v.Device }),
		"block-device-mapping.status":      ofVolumes(func(v instanceVolume) string { return v.State }),
		"block-device-mapping.volume-id":   ofVolumes(func(v instanceVolume) string { return v.Volume }),
		"client-token":                     text(func(i *cloud.Instance) string { return i.ClientToken }),
		"dns-name":                         living(publicOf),
		"group-id":                         instanceGroups(func(g cloud.Group) string { return string(g.ID) }),
		"group-name":                       instanceGroups(func(g cloud.Group) string { return g.Name }),
		"hypervisor":                       fixed[*cloud.Instance](hypervisor),
		"image-id":                         text(func(i *cloud.Instance) string { return string(i.Image.ID) }),
		"instance.group-id":                instanceGroups(func(g cloud.Group) string { return string(g.ID) }),
		"instance.group-name":              instanceGroups(func(g cloud.Group) string { return g.Name }),
		"instance-id":                      text(func(i *cloud.Instance) string { return string(i.ID) }),
		"instance-lifecycle":               fixed[*cloud.Instance](""), // neither spot nor scheduled
		"instance-state-code":              func(c *call, i *cloud.Instance) []string { return one(strconv.Itoa(c.stateOf(i).Code())) },
		"instance-state-name":              func(c *call, i *cloud.Instance) []string { return one(string(c.stateOf(i))) },
		"instance-type":                    text(func(i *cloud.Instance) string { return string(i.Type) }),
		"ip-address":                       living(publicOf),
		"kernel-id":                        text(func(i *cloud.Instance) string { return refID(i.Kernel) }),
		"key-name":                         text(func(i *cloud.Instance) string { return i.KeyName }),
		"launch-index":                     text(func(i *cloud.Instance) string { return strconv.Itoa(i.LaunchIndex) }),
		"launch-time":                      text(func(i *cloud.Instance) string { return timestamp(i.LaunchedAt) }),
		"metadata-options.http-endpoint":   text(func(i *cloud.Instance) string { return enabled(!i.MetadataOff) }),
		"metadata-options.http-put-response-hop-limit": text(func(i *cloud.Instance) string { return strconv.Itoa(i.Hops()) }),
		"metadata-options.http-tokens":                 text(tokens),
		"metadata-options.instance-metadata-tags":      text(func(i *cloud.Instance) string { return enabled(i.MetadataTags) }),
		"monitoring-state":                             fixed[*cloud.Instance]("disabled"),
		"owner-id":                                     text(func(i *cloud.Instance) string { return string(i.Account) }),
		"placement-group-name":                         fixed[*cloud.Instance](""),
		"platform":                                     text(func(i *cloud.Instance) string { return i.Platform }),
		"private-dns-name":                             living(func(i *cloud.Instance) string { return i.PrivateName() }),
		"private-ip-address":                           living(func(i *cloud.Instance) string { return i.Local.String() }),
		"product-code":                                 fixed[*cloud.Instance](""),
		"product-code.type":                            fixed[*cloud.Instance](""),
		"ramdisk-id":                                   text(func(i *cloud.Instance) string { return refID(i.Ramdisk) }),
		"reason":                                       text(transition),
		"reservation-id":                               text(func(i *cloud.Instance) string { return string(i.Reservation) }),
		"root-device-name":                             text(func(i *cloud.Instance) string { return i.RootDevice }),
		"root-device-type":                             text(rootDeviceType),
		"state-reason-code":                            text(func(i *cloud.Instance) string { return i.Reason.Code }),
		"state-reason-message":                         text(func(i *cloud.Instance) string { return i.Reason.Message }),
		"subnet-id":                                    living(func(i *cloud.Instance) string { return subnetOf(i.Account, i.Zone) }),
		"tenancy":                                      fixed[*cloud.Instance]("default"),
		"virtualization-type":                          text(func(i *cloud.Instance) string { return string(i.Virtualization) }),
		"vpc-id":                                       living(func(i *cloud.Instance) string { return vpcOf(i.Account) }),
	},
}

// living is a field that an instance loses with its end.
func living(of func(*cloud.Instance) string) func(*call, *cloud.Instance) []string {
	return func(c *call, i *cloud.Instance) []string {
		if c.stateOf(i) == cloud.Terminated {
			return nil
		}
		return one(of(i))
	}
}

func instanceGroups(of func(cloud.Group) string) func(*call, *cloud.Instance) []string {
	return func(_ *call, i *cloud.Instance) []string {
		var values []string
		for _, g := range i.Groups {
			values = append(values, of(g))
		}
		return values
	}
}

// timestamp for filters: as replies write it.
func timestamp(t time.Time) string {
	b, _ := wire.Time{Time: t}.MarshalText() // never fails
	return string(b)
}
