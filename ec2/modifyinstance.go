package ec2

import (
	"cmp"
	"slices"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// modifyInstanceInput has the forms of old and new clients: an attribute that is
// named, or one that is a parameter of its own.
type modifyInstanceInput struct {
	common
	InstanceID                        string `wire:"InstanceId,required"`
	Attribute                         string
	Value                             string
	InstanceInitiatedShutdownBehavior struct{ Value string }
	UserData                          struct{ Value *string }
	SourceDestCheck                   struct{ Value string }
	BlockDeviceMapping                []attachedDevice `wire:"BlockDeviceMapping,max=1000"`
	GroupID                           []string         `wire:"GroupId,max=1000"`
}

// attachedDevice says what becomes of a volume with the instance's end.
type attachedDevice struct {
	DeviceName string
	Ebs        struct {
		VolumeID            string `wire:"VolumeId"`
		DeleteOnTermination *bool
	}
}

// modifyInstanceAttribute changes what may be changed while an instance runs.
func modifyInstanceAttribute(c *call, in *modifyInstanceInput) (*reply, error) {
	i, err := c.instance(in.InstanceID)
	if err != nil {
		return nil, err
	}
	if err := c.may(c.arn(i.Account, "instance", string(i.ID))); err != nil {
		return nil, err
	}
	change, err := in.change()
	if err != nil {
		return nil, err
	}
	if len(in.BlockDeviceMapping)+len(in.GroupID) == 0 && !in.names() {
		return nil, wire.Errorf("MissingParameter", "The request must contain an attribute to change: InstanceInitiatedShutdownBehavior, UserData, SourceDestCheck, BlockDeviceMapping or GroupId")
	}
	if err := c.checkChange(i, change); err != nil {
		return nil, err
	}
	if change != (instanceChange{}) {
		changed := *i
		change.apply(&changed)
		state.Instances.Put(c.tx, changed)
		i = &changed
	}
	if err := c.changeGroups(i, in.GroupID); err != nil {
		return nil, err
	}
	for _, d := range in.BlockDeviceMapping {
		if err := c.changeAttached(i, d); err != nil {
			return nil, err
		}
	}
	return accepted()
}

// changeGroups puts a running or stopped instance into other groups of its account.
func (c *call) changeGroups(i *cloud.Instance, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	groups, err := c.instanceGroups(nil, ids)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if of, _, ok := state.SecurityGroups.Get(c.tx, g.ID); ok && of.Account != i.Account {
			return noGroup(g.ID)
		}
	}
	state.ChangeGroups(c.tx, *i, groups)
	return nil
}

// names says whether the request names an attribute, one that changes nothing included.
func (in *modifyInstanceInput) names() bool {
	return in.Attribute != "" || in.InstanceInitiatedShutdownBehavior.Value != "" || in.UserData.Value != nil || in.SourceDestCheck.Value != ""
}

func (c *call) changeAttached(i *cloud.Instance, d attachedDevice) error {
	if d.Ebs.DeleteOnTermination == nil {
		return wire.MissingParameter("BlockDeviceMapping.N.Ebs.DeleteOnTermination")
	}
	volumes := state.VolumesOf(c.read, i.ID)
	at := slices.IndexFunc(volumes, func(v *cloud.Volume) bool {
		return v.Attachment.Device == d.DeviceName || d.DeviceName == "" && string(v.ID) == d.Ebs.VolumeID
	})
	if at < 0 {
		return wire.Errorf("InvalidInstanceAttributeValue", "No device is currently mapped at %s", wire.Shorten(cmp.Or(d.DeviceName, d.Ebs.VolumeID)))
	}
	if d.Ebs.VolumeID != "" && d.Ebs.VolumeID != string(volumes[at].ID) {
		return wire.InvalidParameterValue("BlockDeviceMapping.N.Ebs.VolumeId", d.Ebs.VolumeID, "The volume %s is mapped at %s.", volumes[at].ID, d.DeviceName)
	}
	if v := *volumes[at]; v.Attachment.DeleteOnTermination != *d.Ebs.DeleteOnTermination {
		a := *v.Attachment
		a.DeleteOnTermination = *d.Ebs.DeleteOnTermination
		v.Attachment = &a
		state.ChangeVolume(c.tx, v)
	}
	return nil
}
