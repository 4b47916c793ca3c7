package ec2

import (
	"cmp"
	"encoding/base64"

	"mallee/cloud"
	"mallee/wire"
)

const (
	shutdownAttribute = "instanceInitiatedShutdownBehavior"
	userDataAttribute = "userData"
	sourceAttribute   = "sourceDestCheck"
)

// instanceChange are the attributes to change; one that isn't named is nil.
type instanceChange struct {
	shutdown *cloud.ShutdownBehavior
	userData *[]byte
}

// change reads the attributes in both forms.
func (in *modifyInstanceInput) change() (instanceChange, error) {
	var n instanceChange
	if in.Value != "" && in.Attribute == "" {
		return n, wire.InvalidParameterCombination("The parameter Value needs Attribute, which says what it is the value of")
	}
	behavior, data, source := in.InstanceInitiatedShutdownBehavior.Value, in.UserData.Value, in.SourceDestCheck.Value
	switch in.Attribute {
	case "", "blockDeviceMapping", "groupSet":
	case shutdownAttribute:
		behavior = cmp.Or(behavior, in.Value)
	case userDataAttribute:
		data = cmp.Or(data, &in.Value)
	case sourceAttribute:
		source = cmp.Or(source, in.Value)
	default:
		return n, wire.UnsupportedOperation("The value %s of the parameter Attribute is not supported by this cloud", wire.Shorten(in.Attribute))
	}
	return n, firstError(n.setShutdown(behavior), n.setUserData(data), checkSource(source))
}

func (n *instanceChange) setShutdown(behavior string) error {
	wanted := cloud.ShutdownBehavior(behavior)
	switch wanted {
	case "":
	case cloud.ShutdownStop, cloud.ShutdownTerminate:
		n.shutdown = &wanted
	default:
		return wire.InvalidParameterValue("InstanceInitiatedShutdownBehavior", behavior, "Expecting one of stop, terminate.")
	}
	return nil
}

func (n *instanceChange) setUserData(text *string) error {
	if text == nil {
		return nil
	}
	data, err := decodeUserData(*text)
	n.userData = &data
	return err
}

// checkSource: no instance may send or receive what isn't addressed from or to
// itself.
func checkSource(value string) error {
	if value != "" && value != "true" && value != "false" {
		return wire.InvalidParameterValue("SourceDestCheck", value, "Expecting true or false.")
	}
	return only("SourceDestCheck", value, "", "true")
}

// decodeUserData from a parameter UserData.
func decodeUserData(text string) ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, wire.Errorf("InvalidUserData.Malformed", "Invalid BASE64 encoding of the parameter UserData")
	}
	if len(data) > maxUserData {
		return nil, wire.Errorf("InvalidParameterValue", "User data may not exceed 16 KB: UserData has %d bytes", len(data))
	}
	return data, nil
}

// apply to an instance that was checked by checkChange.
func (n *instanceChange) apply(i *cloud.Instance) {
	if n.shutdown != nil {
		i.Shutdown = *n.shutdown
	}
	if n.userData != nil {
		i.UserData = *n.userData
	}
}

// checkChange against how the instance stands.
func (c *call) checkChange(i *cloud.Instance, n instanceChange) error {
	s := c.stateOf(i)
	switch {
	case i.Wish == cloud.WishTerminated:
		return wire.Errorf("IncorrectInstanceState", "The instance '%s' is not in a state in which it can be changed: it is '%s'.", i.ID, s)
	case n.shutdown != nil && *n.shutdown == cloud.ShutdownStop && !i.EBS:
		return wire.InvalidParameterCombination("The instance '%s' does not have an 'ebs' root device type and cannot be stopped: its InstanceInitiatedShutdownBehavior is terminate", i.ID)
	case n.userData != nil && s != cloud.Stopped:
		return wire.Errorf("IncorrectInstanceState", "The instance '%s' is not in the 'stopped' state, in which its userData can be changed: it is '%s'.", i.ID, s)
	}
	return nil
}
