package ec2

import (
	"regexp"
	"slices"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// metadataInput is how an instance's metadata service shall be; what is left out
// stays as it is, or is as EC2 has it.
type metadataInput struct {
	HttpTokens              string `wire:"HttpTokens,enum=optional|required"`
	HttpEndpoint            string `wire:"HttpEndpoint,enum=enabled|disabled"`
	HttpPutResponseHopLimit *int   `wire:"HttpPutResponseHopLimit,min=1,max=64"`
	InstanceMetadataTags    string `wire:"InstanceMetadataTags,enum=enabled|disabled"`
	HttpProtocolIpv6        string `wire:"HttpProtocolIpv6,enum=enabled|disabled"`
}

func (in *metadataInput) check(prefix string) error {
	return only(prefix+"HttpProtocolIpv6", in.HttpProtocolIpv6, "", "disabled")
}

// apply to an instance.
func (in *metadataInput) apply(i *cloud.Instance) {
	if in.HttpTokens != "" {
		i.TokensRequired = in.HttpTokens == "required"
	}
	if in.HttpEndpoint != "" {
		i.MetadataOff = in.HttpEndpoint == "disabled"
	}
	if in.HttpPutResponseHopLimit != nil {
		i.HopLimit = *in.HttpPutResponseHopLimit
	}
	if in.InstanceMetadataTags != "" {
		i.MetadataTags = in.InstanceMetadataTags == "enabled"
	}
}

// imageDefaults are what an image wants of the service: one that was made for
// tokens gets a hop more, for containers on it, as in EC2.
func imageDefaults(image *cloud.Image, i *cloud.Instance) {
	if image.IMDS == "v2.0" {
		i.TokensRequired, i.HopLimit = true, 2
	}
}

type metadataOptions struct {
	State    string `xml:"state"`
	Tokens   string `xml:"httpTokens"`
	Hops     int    `xml:"httpPutResponseHopLimit"`
	Endpoint string `xml:"httpEndpoint"`
	IPv6     string `xml:"httpProtocolIpv6"`
	Tags     string `xml:"instanceMetadataTags"`
}

func metadataOptionsOf(i *cloud.Instance) metadataOptions {
	return metadataOptions{
		State: "applied", Tokens: tokens(i), Hops: i.Hops(), Endpoint: enabled(!i.MetadataOff), IPv6: "disabled", Tags: enabled(i.MetadataTags),
	}
}

// tokens says whether the guest's programs need one for the metadata.
func tokens(i *cloud.Instance) string {
	if i.TokensRequired {
		return "required"
	}
	return "optional"
}

func enabled(is bool) string {
	if is {
		return "enabled"
	}
	return "disabled"
}

type modifyMetadataInput struct {
	common
	InstanceID string `wire:"InstanceId,required"`
	metadataInput
}

type modifyMetadataReply struct {
	InstanceID string          `xml:"instanceId"`
	Options    metadataOptions `xml:"instanceMetadataOptions"`
}

// modifyMetadataOptions of an instance in any state; the reply says pending, for
// its node has yet to hear of it.
func modifyMetadataOptions(c *call, in *modifyMetadataInput) (*modifyMetadataReply, error) {
	i, err := c.instance(in.InstanceID)
	if err != nil {
		return nil, err
	}
	if err := firstError(c.may(c.arn(i.Account, "instance", string(i.ID))), in.check("")); err != nil {
		return nil, err
	}
	switch {
	case in.metadataInput == metadataInput{}:
		return nil, wire.Errorf("MissingParameter", "The request must contain an option to change: HttpTokens, HttpEndpoint, HttpPutResponseHopLimit or InstanceMetadataTags")
	case i.Wish == cloud.WishTerminated:
		return nil, wire.Errorf("IncorrectInstanceState", "The instance '%s' is not in a state in which it can be changed: it is '%s'.", i.ID, c.stateOf(i))
	}
	changed := *i
	in.apply(&changed)
	if err := c.checkTold(&changed, c.tagsOf(string(i.ID))); err != nil {
		return nil, err
	}
	state.ChangeInstance(c.tx, changed)
	options := metadataOptionsOf(&changed)
	options.State = "pending"
	return &modifyMetadataReply{string(i.ID), options}, nil
}

// toldKey is a tag's key that can be a name in the metadata's tree.
var toldKey = regexp.MustCompile(`^[0-9a-zA-Z\-_+=,.@:]{1,255}$`)

// checkTold refuses tags of an instance that its metadata should tell and can't.
func (c *call) checkTold(i *cloud.Instance, tags map[string]string) error {
	if !i.MetadataTags {
		return nil
	}
	for key := range tags {
		if !toldKey.MatchString(key) || slices.Contains([]string{".", "..", "_index"}, key) {
			return wire.Errorf("InvalidParameterValue", "'%s' is not a valid tag key of an instance with InstanceMetadataTags. Tag keys must match pattern ([0-9a-zA-Z\\-_+=,.@:]{1,255}), and must not be a reserved name ('.', '..', '_index').", wire.Shorten(key))
		}
	}
	return nil
}

// toldAnew has the instance's node hear of tags that changed, where its guest can
// read them.
func (c *call) toldAnew(r resource, tags map[string]string) error {
	i, _, ok := state.Instances.Get(c.tx, cloud.InstanceID(r.id))
	if !ok || !i.MetadataTags {
		return nil
	}
	if err := c.checkTold(i, tags); err != nil {
		return err
	}
	state.ChangeInstance(c.tx, *i)
	return nil
}
