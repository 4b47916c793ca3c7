package ec2

import (
	"strconv"

	"mallee/cloud"
	"mallee/state"
)

type terminateInput struct {
	common
	InstanceID     []string `wire:"InstanceId,required,max=1000"`
	Force          bool     // a termination is never held up for longer than a guest's minute to shut down
	SkipOsShutdown bool     // a guest is always asked, whose volumes outlive its machine
}

type terminateReply struct {
	Instances []stateChange `xml:"instancesSet>item"`
}

// stateChange of an instance by a call.
type stateChange struct {
	ID       string     `xml:"instanceId"`
	Current  stateReply `xml:"currentState"`
	Previous stateReply `xml:"previousState"`
}

// terminateInstances wishes for their end; the loops give back what they took.
// All ids are checked before any instance is touched.
func terminateInstances(c *call, in *terminateInput) (*terminateReply, error) {
	if err := only("SkipOsShutdown", strconv.FormatBool(in.SkipOsShutdown), "false"); err != nil {
		return nil, err
	}
	list, err := c.instancesToChange(in.InstanceID)
	if err != nil {
		return nil, err
	}
	why := cloud.Reason{Code: cloud.ReasonUserTerminated, Message: cloud.ReasonUserTerminated + ": User initiated shutdown"}
	out := &terminateReply{}
	for _, i := range list {
		was := c.stateOf(i)
		now := state.Want(c.tx, *i, cloud.WishTerminated, why, c.Now())
		out.Instances = append(out.Instances, stateChange{string(i.ID), stateReplyOf(c.stateOf(&now)), stateReplyOf(was)})
	}
	return out, nil
}

// instancesToChange are those named, each with the right to act on it.
func (c *call) instancesToChange(ids []string) ([]*cloud.Instance, error) {
	list, err := c.instances(ids)
	if err != nil {
		return nil, err
	}
	for _, i := range list {
		if err := c.may(c.arn(i.Account, "instance", string(i.ID))); err != nil {
			return nil, err
		}
	}
	return list, nil
}

type rebootInput struct {
	common
	InstanceID []string `wire:"InstanceId,required,max=1000"`
}

// rebootInstances asks the guests to start anew. Those that end or have ended
// are passed over.
func rebootInstances(c *call, in *rebootInput) (*reply, error) {
	list, err := c.instancesToChange(in.InstanceID)
	if err != nil {
		return nil, err
	}
	for _, i := range list {
		if i.Wish == cloud.WishRunning {
			state.Reboot(c.tx, *i)
		}
	}
	return accepted()
}
