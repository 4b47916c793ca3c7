package ec2

import (
	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

type associateInput struct {
	common
	AllocationID       string `wire:"AllocationId"`
	PublicIP           string `wire:"PublicIp"`
	InstanceID         string `wire:"InstanceId"`
	NetworkInterfaceID string `wire:"NetworkInterfaceId"`
	PrivateIPAddress   string `wire:"PrivateIpAddress"`
	AllowReassociation *bool
}

type associateReply struct {
	ID string `xml:"associationId"`
}

// associateAddress with a running or stopped instance, which gives back the one
// that it has. The address leaves another instance for it, unless
// AllowReassociation is false.
func associateAddress(c *call, in *associateInput) (*associateReply, error) {
	a, err := c.address(in.AllocationID, in.PublicIP)
	if err != nil {
		return nil, err
	}
	i, err := c.associable(in)
	switch {
	case err != nil:
		return nil, err
	case a.Account != i.Account:
		return nil, wire.Errorf("InvalidAllocationID.NotFound", "The allocation ID '%s' does not exist in the account of %s", a.ID, i.ID)
	case a.Instance == i.ID:
		return &associateReply{string(a.Association)}, nil
	case a.Instance != "" && in.AllowReassociation != nil && !*in.AllowReassociation:
		return nil, wire.Errorf("Resource.AlreadyAssociated", "resource %s is already associated with associate-id %s", a.ID, a.Association)
	}
	if a.Instance != "" {
		if err := state.Disassociate(c.tx, c.Rand, c.Pools, *a); err != nil {
			return nil, err
		}
	}
	id, err := c.newID(cloud.PrefixAssociation, func(id string) bool {
		for range state.AddressesByAssociation.By(c.read, cloud.AssociationID(id)) {
			return true
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	state.Associate(c.tx, *a, *i, cloud.AssociationID(id))
	return &associateReply{id}, nil
}

// associable is the instance that is named, by its id or its interface's.
func (c *call) associable(in *associateInput) (i *cloud.Instance, err error) {
	switch {
	case in.InstanceID == "" && in.NetworkInterfaceID == "":
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter InstanceId or NetworkInterfaceId")
	case in.InstanceID == "":
		i, err = c.instanceOfInterface(in.NetworkInterfaceID)
	default:
		i, err = c.instance(in.InstanceID)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case in.NetworkInterfaceID != "" && in.NetworkInterfaceID != string(i.Interface()):
		return nil, wire.InvalidParameterCombination("The network interface %s is not one of the instance %s", wire.Shorten(in.NetworkInterfaceID), i.ID)
	case in.PrivateIPAddress != "" && in.PrivateIPAddress != i.Local.String():
		return nil, wire.InvalidParameterValue("PrivateIpAddress", in.PrivateIPAddress, "The address of %s is %s.", i.ID, i.Local)
	case i.Wish == cloud.WishTerminated:
		return nil, wire.Errorf("InvalidInstanceID", "The instance '%s' is not in a valid state for this operation: it is '%s'.", i.ID, c.stateOf(i))
	}
	return i, c.may(c.arn(i.Account, "instance", string(i.ID)))
}

// instanceOfInterface finds whose interface it is.
func (c *call) instanceOfInterface(id string) (*cloud.Instance, error) {
	parsed, ok := cloud.ParseID(id, cloud.PrefixInterface)
	if !ok {
		return nil, malformed("InvalidNetworkInterfaceId", id, cloud.PrefixInterface)
	}
	for i := range state.InstancesByInterface.By(c.read, cloud.InterfaceID(parsed)) {
		if c.owned(i.Account) && c.stateOf(i) != cloud.Terminated {
			return i, nil
		}
	}
	return nil, wire.Errorf("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", parsed)
}

type disassociateInput struct {
	common
	AssociationID string `wire:"AssociationId"`
	PublicIP      string `wire:"PublicIp"`
}

func disassociateAddress(c *call, in *disassociateInput) (*reply, error) {
	a, err := c.associated(in)
	if err != nil {
		return nil, err
	}
	if err := c.may(c.arn(a.Account, "elastic-ip", string(a.ID))); err != nil {
		return nil, err
	}
	if err := state.Disassociate(c.tx, c.Rand, c.Pools, *a); err != nil {
		return nil, err
	}
	return accepted()
}

// associated is the address of an association, named in one of two ways.
func (c *call) associated(in *disassociateInput) (*cloud.Address, error) {
	switch {
	case in.AssociationID != "" && in.PublicIP != "":
		return nil, wire.InvalidParameterCombination("You may specify the parameter AssociationId or PublicIp, not both")
	case in.AssociationID == "" && in.PublicIP == "":
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter AssociationId or PublicIp")
	case in.AssociationID == "":
		a, err := c.addressByIP(in.PublicIP)
		if err == nil && a.Instance == "" {
			err = wire.Errorf("InvalidAssociationID.NotFound", "The address %s is associated with nothing", a.IP)
		}
		return a, err
	}
	parsed, ok := cloud.ParseID(in.AssociationID, cloud.PrefixAssociation)
	for a := range state.AddressesByAssociation.By(c.read, cloud.AssociationID(parsed)) {
		if ok && c.owned(a.Account) {
			return a, nil
		}
	}
	return nil, wire.Errorf("InvalidAssociationID.NotFound", "The association ID '%s' does not exist", wire.Shorten(in.AssociationID))
}
