package ec2

import (
	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

type attachInput struct {
	common
	VolumeID   string `wire:"VolumeId,required"`
	InstanceID string `wire:"InstanceId,required"`
	Device     string `wire:"Device,required"`
}

type attachmentReply struct {
	Volume              string     `xml:"volumeId"`
	Instance            string     `xml:"instanceId"`
	Device              string     `xml:"device"`
	State               string     `xml:"status"`
	At                  *wire.Time `xml:"attachTime"`
	DeleteOnTermination bool       `xml:"deleteOnTermination"`
}

func (c *call) attachmentReply(v *cloud.Volume) attachmentReply {
	a := v.Attachment
	return attachmentReply{string(v.ID), string(a.Instance), a.Device, string(c.attachmentState(v)), wire.At(a.At), a.DeleteOnTermination}
}

// attachmentState of a volume that has one.
func (c *call) attachmentState(v *cloud.Volume) cloud.AttachmentState {
	i, _, ok := state.Instances.Get(c.read, v.Attachment.Instance)
	return v.Attachment.State(c.volumeSeen(v.ID), ok && i.Wish == cloud.WishRunning)
}

// attachVolume wishes for an available volume to be in the machine of an instance
// that runs or is stopped, in the same zone.
func attachVolume(c *call, in *attachInput) (*attachmentReply, error) {
	i, err := c.instance(in.InstanceID)
	if err != nil {
		return nil, err
	}
	v, err := c.volumeToChange(in.VolumeID)
	if err != nil {
		return nil, err
	}
	if err := c.may(c.arn(i.Account, "instance", string(i.ID))); err != nil {
		return nil, err
	}
	if err := firstError(c.attachable(v, i), c.freeDevice(i, in.Device), c.within(v, i)); err != nil {
		return nil, err
	}
	attached := state.Attach(c.tx, *v, cloud.Attachment{Instance: i.ID, Device: in.Device, At: c.Now()})
	out := c.attachmentReply(&attached)
	return &out, nil
}

// attachable says why the volume can't be attached to the instance.
func (c *call) attachable(v *cloud.Volume, i *cloud.Instance) error {
	at, running := c.volumeState(v), c.stateOf(i)
	switch {
	case v.Account != i.Account:
		return wire.Errorf("InvalidVolume.NotFound", "The volume '%s' does not exist.", v.ID)
	case v.Attachment != nil:
		return wire.Errorf("VolumeInUse", "%s is already attached to an instance", v.ID)
	case at != cloud.VolumeAvailable:
		return wire.Errorf("IncorrectState", "%s is not 'available': it is '%s'.", v.ID, at)
	case running != cloud.Running && running != cloud.Stopped:
		return wire.Errorf("IncorrectState", "Instance '%s' is not 'running': it is '%s'.", i.ID, running)
	case v.Zone != i.Zone:
		return wire.Errorf("InvalidVolume.ZoneMismatch", "The volume '%s' is not in the same availability zone as instance '%s'", v.ID, i.ID)
	}
	return nil
}

// within says why the machine can't have the volume: nodes share no storage. A
// stopped instance that has no other volume will start where this one is.
func (c *call) within(v *cloud.Volume, i *cloud.Instance) error {
	if v.Node == i.Node || i.Vacated && len(state.VolumesOf(c.read, i.ID)) == 0 {
		return nil
	}
	return wire.UnsupportedOperation("The volume '%s' is kept by another machine of the zone than the one that the instance '%s' is on, and they share no storage", v.ID, i.ID)
}

// freeDevice says why nothing can be attached under that name.
func (c *call) freeDevice(i *cloud.Instance, device string) error {
	if !cloud.IsDevice(device) {
		return wire.InvalidParameterValue("Device", device, "It is not a valid EBS device name; expecting one such as /dev/sdf.")
	}
	taken := !i.EBS && cloud.Slot(device) == cloud.Slot(i.RootDevice)
	for _, m := range i.Mappings {
		taken = taken || m.VirtualName != "" && cloud.Slot(device) == cloud.Slot(m.Device)
	}
	for _, v := range state.VolumesOf(c.read, i.ID) {
		taken = taken || cloud.Slot(device) == cloud.Slot(v.Attachment.Device)
	}
	if taken {
		return wire.InvalidParameterValue("Device", device, "Attachment point %s is already in use: %s already has a device there.", wire.Shorten(device), i.ID)
	}
	return nil
}

type detachInput struct {
	common
	VolumeID   string `wire:"VolumeId,required"`
	InstanceID string `wire:"InstanceId"`
	Device     string
	Force      bool
}

// detachVolume wishes that the machine gives the volume back. The root of a
// running instance isn't given back.
func detachVolume(c *call, in *detachInput) (*attachmentReply, error) {
	v, err := c.volumeToChange(in.VolumeID)
	if err != nil {
		return nil, err
	}
	if v.Attachment == nil {
		return nil, wire.Errorf("IncorrectState", "Volume '%s' is in the '%s' state.", v.ID, c.volumeState(v))
	}
	if err := c.checkDetach(in, v); err != nil {
		return nil, err
	}
	detached := state.Detach(c.tx, *v, in.Force, c.Now())
	out := c.attachmentReply(&detached)
	return &out, nil
}

func (c *call) checkDetach(in *detachInput, v *cloud.Volume) error {
	if in.InstanceID != "" {
		i, err := c.instance(in.InstanceID)
		if err != nil {
			return err
		}
		if i.ID != v.Attachment.Instance {
			return wire.Errorf("InvalidAttachment.NotFound", "The volume '%s' is not attached to instance '%s'.", v.ID, i.ID)
		}
	}
	if in.Device != "" && in.Device != v.Attachment.Device {
		return wire.Errorf("InvalidAttachment.NotFound", "The volume '%s' is not attached as device '%s'.", v.ID, wire.Shorten(in.Device))
	}
	i, _, ok := state.Instances.Get(c.read, v.Attachment.Instance)
	if !ok {
		return nil
	}
	if err := c.may(c.arn(i.Account, "instance", string(i.ID))); err != nil {
		return err
	}
	if isRoot(i, v) && c.stateOf(i) != cloud.Stopped {
		return wire.Errorf("OperationNotPermitted", "Unable to detach root volume '%s' from instance '%s'", v.ID, i.ID)
	}
	return nil
}

// isRoot says whether an attached volume is what the instance boots from.
func isRoot(i *cloud.Instance, v *cloud.Volume) bool {
	return i.EBS && cloud.Slot(v.Attachment.Device) == cloud.Slot(i.RootDevice)
}
