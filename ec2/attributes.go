package ec2

import (
	"encoding/base64"
	"slices"
	"strconv"

	"mallee/cloud"
	"mallee/wire"
)

type instanceAttributeInput struct {
	common
	InstanceID string `wire:"InstanceId,required"`
	Attribute  string `wire:"Attribute,required"`
}

// instanceAttributeReply has one of its attributes.
type instanceAttributeReply struct {
	ID            string         `xml:"instanceId"`
	Type          *attribute     `xml:"instanceType"`
	Kernel        *attribute     `xml:"kernel"`
	Ramdisk       *attribute     `xml:"ramdisk"`
	UserData      *attribute     `xml:"userData"`
	Shutdown      *attribute     `xml:"instanceInitiatedShutdownBehavior"`
	RootDevice    *attribute     `xml:"rootDeviceName"`
	NoTermination *attribute     `xml:"disableApiTermination"`
	NoStop        *attribute     `xml:"disableApiStop"`
	EBSOptimized  *attribute     `xml:"ebsOptimized"`
	Groups        *groupsReply   `xml:"groupSet"`
	Mappings      *mappingsReply `xml:"blockDeviceMapping"`
	SourceCheck   *attribute     `xml:"sourceDestCheck"`
}

type groupsReply struct {
	Items []groupRef `xml:"item"`
}

type mappingsReply struct {
	Items []instanceVolume `xml:"item"`
}

// attribute with its value; an absent one has none.
type attribute struct {
	Value string `xml:"value,omitempty"`
}

// instanceAttributes are those that are served, by name.
var instanceAttributes = map[string]func(*call, *instanceAttributeReply, *cloud.Instance){
	"instanceType": func(_ *call, r *instanceAttributeReply, i *cloud.Instance) { r.Type = &attribute{string(i.Type)} },
	"kernel":       func(_ *call, r *instanceAttributeReply, i *cloud.Instance) { r.Kernel = &attribute{refID(i.Kernel)} },
	"ramdisk":      func(_ *call, r *instanceAttributeReply, i *cloud.Instance) { r.Ramdisk = &attribute{refID(i.Ramdisk)} },
	shutdownAttribute: func(_ *call, r *instanceAttributeReply, i *cloud.Instance) {
		r.Shutdown = &attribute{string(i.Shutdown)}
	},
	"rootDeviceName":        func(_ *call, r *instanceAttributeReply, i *cloud.Instance) { r.RootDevice = &attribute{i.RootDevice} },
	"disableApiTermination": func(_ *call, r *instanceAttributeReply, _ *cloud.Instance) { r.NoTermination = falseAttribute() },
	"disableApiStop":        func(_ *call, r *instanceAttributeReply, _ *cloud.Instance) { r.NoStop = falseAttribute() },
	"ebsOptimized":          func(_ *call, r *instanceAttributeReply, _ *cloud.Instance) { r.EBSOptimized = falseAttribute() },
	sourceAttribute: func(_ *call, r *instanceAttributeReply, _ *cloud.Instance) {
		r.SourceCheck = &attribute{strconv.FormatBool(true)}
	},
	"groupSet": func(_ *call, r *instanceAttributeReply, i *cloud.Instance) {
		r.Groups = &groupsReply{groupRefs(i.Groups)}
	},
	"blockDeviceMapping": func(c *call, r *instanceAttributeReply, i *cloud.Instance) {
		r.Mappings = &mappingsReply{c.volumesReply(i)}
	},
	userDataAttribute: func(_ *call, r *instanceAttributeReply, i *cloud.Instance) {
		r.UserData = &attribute{base64.StdEncoding.EncodeToString(i.UserData)}
	},
}

func falseAttribute() *attribute { return &attribute{strconv.FormatBool(false)} }

func describeInstanceAttribute(c *call, in *instanceAttributeInput) (*instanceAttributeReply, error) {
	i, err := c.instance(in.InstanceID)
	if err != nil {
		return nil, err
	}
	set, ok := instanceAttributes[in.Attribute]
	if !ok {
		return nil, wire.InvalidParameterValue("Attribute", in.Attribute, "The attribute is not known, or not served by this cloud.")
	}
	out := &instanceAttributeReply{ID: string(i.ID)}
	set(c, out, i)
	return out, nil
}

type accountAttributesInput struct {
	common
	AttributeName []string `wire:"AttributeName,max=100"`
}

type accountAttributesReply struct {
	Attributes []accountAttribute `xml:"accountAttributeSet>item"`
}

type accountAttribute struct {
	Name   string           `xml:"attributeName"`
	Values []attributeValue `xml:"attributeValueSet>item"`
}

type attributeValue struct {
	Text string `xml:"attributeValue"`
}

// accountAttributes: instances are in the account's default VPC, and as many as
// there is room for.
func (c *call) accountAttributes() []accountAttribute {
	return []accountAttribute{
		{"supported-platforms", []attributeValue{{"VPC"}}},
		{"default-vpc", []attributeValue{{vpcOf(c.account())}}},
		{"max-instances", []attributeValue{{"100000"}}},
		{"max-elastic-ips", []attributeValue{{strconv.Itoa(maxAddresses)}}},
		{"vpc-max-elastic-ips", []attributeValue{{strconv.Itoa(maxAddresses)}}},
		{"vpc-max-security-groups-per-interface", []attributeValue{{strconv.Itoa(maxGroupsOfInstance)}}},
	}
}

func describeAccountAttributes(c *call, in *accountAttributesInput) (*accountAttributesReply, error) {
	out, all := &accountAttributesReply{}, c.accountAttributes()
	for _, name := range in.AttributeName {
		if !slices.ContainsFunc(all, func(a accountAttribute) bool { return a.Name == name }) {
			return nil, wire.InvalidParameterValue("AttributeName", name, "The attribute is not known, or not served by this cloud.")
		}
	}
	for _, a := range all {
		if len(in.AttributeName) == 0 || slices.Contains(in.AttributeName, a.Name) {
			out.Attributes = append(out.Attributes, a)
		}
	}
	return out, nil
}
