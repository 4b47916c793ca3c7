package ec2

import (
	"errors"
	"strconv"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

type stopInput struct {
	common
	InstanceID     []string `wire:"InstanceId,required,max=1000"`
	Force          bool     // stops also one that isn't running yet
	Hibernate      bool
	SkipOsShutdown bool // a guest is always asked, whose volumes outlive its machine
}

// stopInstances ends the machines of EBS-backed instances, which keep their
// volumes and their private addresses. What an instance-store instance is would be
// lost.
func stopInstances(c *call, in *stopInput) (*terminateReply, error) {
	err := firstError(only("Hibernate", strconv.FormatBool(in.Hibernate), "false"), only("SkipOsShutdown", strconv.FormatBool(in.SkipOsShutdown), "false"))
	if err != nil {
		return nil, err
	}
	list, err := c.backedInstances(in.InstanceID, "stopped")
	if err != nil {
		return nil, err
	}
	why := cloud.Reason{Code: cloud.ReasonUserTerminated, Message: cloud.ReasonUserTerminated + ": User initiated shutdown"}
	out := &terminateReply{}
	for _, i := range list {
		was := c.stateOf(i)
		if was == cloud.Pending && !in.Force || i.Wish == cloud.WishTerminated {
			return nil, incorrectState(i, was, "stopped")
		}
		now := state.Want(c.tx, *i, cloud.WishStopped, why, c.Now())
		out.Instances = append(out.Instances, stateChange{string(i.ID), stateReplyOf(c.stateOf(&now)), stateReplyOf(was)})
	}
	return out, nil
}

func incorrectState(i *cloud.Instance, at cloud.InstanceState, what string) error {
	return wire.Errorf("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be %s: it is '%s'.", i.ID, what, at)
}

// backedInstances are those named, all of them EBS-backed.
func (c *call) backedInstances(ids []string, what string) ([]*cloud.Instance, error) {
	list, err := c.instancesToChange(ids)
	if err != nil {
		return nil, err
	}
	for _, i := range list {
		switch {
		case i.Wish == cloud.WishTerminated:
			return nil, incorrectState(i, c.stateOf(i), what)
		case !i.EBS:
			return nil, wire.UnsupportedOperation("The instance '%s' does not have an 'ebs' root device type and cannot be %s.", i.ID, what)
		}
	}
	return list, nil
}

type startInput struct {
	common
	InstanceID     []string `wire:"InstanceId,required,max=1000"`
	AdditionalInfo string   // of nobody's interest
}

// startInstances that are stopped, on the machine that keeps their volumes. Those
// that run are passed over.
func startInstances(c *call, in *startInput) (*terminateReply, error) {
	list, err := c.backedInstances(in.InstanceID, "started")
	if err != nil {
		return nil, err
	}
	out := &terminateReply{}
	for _, i := range list {
		was, now := c.stateOf(i), *i
		switch was {
		case cloud.Running, cloud.Pending:
		case cloud.Stopped:
			if now, err = c.start(i); err != nil {
				return nil, err
			}
		default:
			return nil, incorrectState(i, was, "started")
		}
		out.Instances = append(out.Instances, stateChange{string(i.ID), stateReplyOf(c.stateOf(&now)), stateReplyOf(was)})
	}
	return out, nil
}

func (c *call) start(i *cloud.Instance) (cloud.Instance, error) {
	id, err := c.keeperOf(i)
	if err != nil {
		return *i, err
	}
	n, _, ok := state.Nodes.Get(c.tx, id)
	if !ok {
		return *i, errors.New("the node " + string(id) + ", which keeps volumes, is not there")
	}
	if n.Fits(i.Size) < 1 {
		return *i, wire.Errorf("InsufficientInstanceCapacity", "Not enough resources (0 in %s < 1): vm instances.", n.Zone)
	}
	return state.Start(c.tx, c.Rand, c.Pools, *i, id, c.Now())
}

// keeperOf the instance's volumes: the node that it has to run on.
func (c *call) keeperOf(i *cloud.Instance) (node cloud.NodeID, err error) {
	hasRoot := false
	for _, v := range state.VolumesOf(c.read, i.ID) {
		switch {
		case !v.Attachment.Detaching.IsZero():
			continue
		case node != "" && node != v.Node:
			return "", wire.UnsupportedOperation("The volumes of the instance '%s' are kept by several machines of the zone, which share no storage", i.ID)
		}
		hasRoot, node = hasRoot || isRoot(i, v), v.Node
	}
	if !hasRoot {
		return "", noRoot(i)
	}
	return node, nil
}

func noRoot(i *cloud.Instance) error {
	return wire.Errorf("InvalidParameterValue", "Invalid value '%s' for instanceId. Instance does not have a volume attached at root (%s)", i.ID, i.RootDevice)
}
