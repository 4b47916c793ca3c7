package ec2

import (
	"strconv"

	"mallee/cloud"
)

type describeStatusInput struct {
	common
	selection
	InstanceID          []string `wire:"InstanceId,max=1000"`
	IncludeAllInstances bool
}

type describeStatusReply struct {
	Statuses  []statusReply `xml:"instanceStatusSet>item"`
	NextToken string        `xml:"nextToken,omitempty"`
}

type statusReply struct {
	ID       string       `xml:"instanceId"`
	Zone     string       `xml:"availabilityZone"`
	Events   []string     `xml:"eventsSet>item"`
	State    stateReply   `xml:"instanceState"`
	System   statusChecks `xml:"systemStatus"`
	Instance statusChecks `xml:"instanceStatus"`
}

type statusChecks struct {
	Status  string        `xml:"status"`
	Details []statusCheck `xml:"details>item"`
}

type statusCheck struct {
	Name   string `xml:"name"`
	Status string `xml:"status"`
}

var statusKind = kind[*cloud.Instance]{
	key:  instanceKey,
	tags: func(c *call, i *cloud.Instance) map[string]string { return c.tagsOf(string(i.ID)) },
	fields: fields[*cloud.Instance]{
		"availability-zone":            text(func(i *cloud.Instance) string { return i.Zone }),
		"event.code":                   fixed[*cloud.Instance](""), // nothing is ever scheduled
		"event.description":            fixed[*cloud.Instance](""),
		"event.not-after":              fixed[*cloud.Instance](""),
		"event.not-before":             fixed[*cloud.Instance](""),
		"instance-state-code":          func(c *call, i *cloud.Instance) []string { return one(strconv.Itoa(c.stateOf(i).Code())) },
		"instance-state-name":          func(c *call, i *cloud.Instance) []string { return one(string(c.stateOf(i))) },
		"instance-status.reachability": func(c *call, i *cloud.Instance) []string { return one(checksOf(c.stateOf(i)).Details[0].Status) },
		"instance-status.status":       func(c *call, i *cloud.Instance) []string { return one(checksOf(c.stateOf(i)).Status) },
		"system-status.reachability":   func(c *call, i *cloud.Instance) []string { return one(checksOf(c.stateOf(i)).Details[0].Status) },
		"system-status.status":         func(c *call, i *cloud.Instance) []string { return one(checksOf(c.stateOf(i)).Status) },
	},
}

// describeStatus tells of the running instances, or of all.
func describeStatus(c *call, in *describeStatusInput) (*describeStatusReply, error) {
	if err := in.noPages(in.InstanceID, "InstanceId"); err != nil {
		return nil, err
	}
	candidates, err := c.instanceCandidates(in.InstanceID, in.Filter)
	if err != nil {
		return nil, err
	}
	shown := func(yield func(*cloud.Instance) bool) {
		for i := range candidates {
			if (in.IncludeAllInstances || c.stateOf(i) == cloud.Running) && !yield(i) {
				return
			}
		}
	}
	p, err := statusKind.page(c, &in.selection, shown)
	if err != nil {
		return nil, err
	}
	out := &describeStatusReply{NextToken: p.next}
	for _, i := range p.items {
		s := c.stateOf(i)
		out.Statuses = append(out.Statuses, statusReply{ID: string(i.ID), Zone: i.Zone, State: stateReplyOf(s), System: checksOf(s), Instance: checksOf(s)})
	}
	return out, nil
}

// checksOf an instance follow from its state: a machine is either seen to run
// or it isn't, and nothing looks into the guest.
func checksOf(s cloud.InstanceState) statusChecks {
	status, reachability := "not-applicable", "insufficient-data"
	switch s {
	case cloud.Running:
		status, reachability = "ok", "passed"
	case cloud.Pending:
		status, reachability = "initializing", "initializing"
	}
	return statusChecks{status, []statusCheck{{"reachability", reachability}}}
}
