package ec2

import (
	"encoding/base64"
	"strings"
	"testing"

	"mallee/cloud"
	"mallee/state"
)

// TestMetadataOptions: what is asked for is told, stays until it is changed, and is
// found by filters; its node hears of each change.
func TestMetadataOptions(t *testing.T) {
	c := ready(t)
	id := c.run(c.user, "MaxCount=1", "MetadataOptions.HttpTokens=required", "MetadataOptions.HttpPutResponseHopLimit=2")[0]
	generation := func() int64 {
		i, _ := launched(c, id)
		_, revision, _ := state.Nodes.Get(c.Store.View(), i.Node)
		return revision
	}
	want := func(want metadataOptions) {
		t.Helper()
		want.State, want.IPv6 = "applied", "disabled"
		if i := get[describeInstancesReply](c, c.user, "DescribeInstances", "InstanceId.1="+id).Reservations[0].Instances[0]; i.Metadata != want {
			t.Errorf("the options are %+v, want %+v", i.Metadata, want)
		}
	}
	want(metadataOptions{Tokens: "required", Hops: 2, Endpoint: "enabled", Tags: "disabled"})
	before := generation()
	out := get[modifyMetadataReply](c, c.user, "ModifyInstanceMetadataOptions", "InstanceId="+id, "HttpEndpoint=disabled", "InstanceMetadataTags=enabled")
	if out.Options.State != "pending" || out.Options.Endpoint != "disabled" {
		t.Errorf("the reply is %+v", out)
	}
	if generation() <= before {
		t.Error("the node doesn't hear of new options")
	}
	want(metadataOptions{Tokens: "required", Hops: 2, Endpoint: "disabled", Tags: "enabled"})
	for filter, n := range map[string]int{
		"metadata-options.http-tokens=required": 1, "metadata-options.http-tokens=optional": 0, "metadata-options.http-endpoint=disabled": 1,
		"metadata-options.http-put-response-hop-limit=2": 1, "metadata-options.instance-metadata-tags=enabled": 1,
	} {
		if got := get[describeInstancesReply](c, c.user, "DescribeInstances", asked(filter)...); len(got.Reservations) != n {
			t.Errorf("%s finds %d, want %d", filter, len(got.Reservations), n)
		}
	}
}

// TestToldTags: where the metadata tells tags, the node hears of each change, and
// a key that can't be told is refused.
func TestToldTags(t *testing.T) {
	c := ready(t)
	ids := c.run(c.user, "MaxCount=2", "MinCount=2")
	get[reply](c, c.user, "CreateTags", "ResourceId.1="+ids[0], "ResourceId.2="+ids[1], "Tag.1.Key=a b")
	enable := []string{"ModifyInstanceMetadataOptions", "InstanceId=" + ids[0], "InstanceMetadataTags=enabled"}
	if r := c.refused(c.user, enable[0], enable[1:]...); r.Code != "InvalidParameterValue" || !strings.Contains(r.Message, "'a b'") {
		t.Errorf("refused as %+v", r)
	}
	get[reply](c, c.user, "DeleteTags", "ResourceId.1="+ids[0])
	get[modifyMetadataReply](c, c.user, enable[0], enable[1:]...)
	if r := c.refused(c.user, "CreateTags", "ResourceId.1="+ids[0], "Tag.1.Key=a/b"); r.Code != "InvalidParameterValue" || !strings.Contains(r.Message, "'a/b'") {
		t.Errorf("refused as %+v", r)
	}
	i, _ := launched(c, ids[0])
	_, before, _ := state.Nodes.Get(c.Store.View(), i.Node)
	get[reply](c, c.user, "CreateTags", "ResourceId.1="+ids[0], "Tag.1.Key=ok")
	_, after, _ := state.Nodes.Get(c.Store.View(), i.Node)
	if after <= before {
		t.Error("the node doesn't hear of new tags")
	}
}

// TestChangeUserData of an instance that is stopped, in both forms of the call.
func TestChangeUserData(t *testing.T) {
	c := stocked(t)
	for _, parameters := range [][]string{{"UserData.Value=AP8="}, {"Attribute=userData", "Value=AP8="}, {"Attribute=userData", "Value="}} {
		get[reply](c, c.user, "ModifyInstanceAttribute", append(parameters, "InstanceId="+stoppedInstance)...)
		want := "AP8="
		if parameters[len(parameters)-1] == "Value=" {
			want = ""
		}
		out := get[instanceAttributeReply](c, c.user, "DescribeInstanceAttribute", "InstanceId="+stoppedInstance, "Attribute=userData")
		if out.UserData == nil || out.UserData.Value != want {
			t.Errorf("after %v the user data is %+v", parameters, out.UserData)
		}
	}
	long := base64.StdEncoding.EncodeToString(make([]byte, maxUserData+1))
	if r := c.refused(c.user, "ModifyInstanceAttribute", "InstanceId="+stoppedInstance, "UserData.Value="+long); !strings.Contains(r.Message, "16 KB") {
		t.Errorf("too long: %+v", r)
	}
	if r := c.refused(c.user, "ModifyInstanceAttribute", "InstanceId="+backedInstance, "UserData.Value=AP8="); r.Code != "IncorrectInstanceState" {
		t.Errorf("of an instance that runs: %+v", r)
	}
	get[reply](c, c.user, "ModifyInstanceAttribute", "InstanceId="+backedInstance, "SourceDestCheck.Value=true")
	if i, _, _ := state.Instances.Get(c.Store.View(), cloud.InstanceID(stoppedInstance)); len(i.UserData) != 0 {
		t.Errorf("the user data is %q", i.UserData)
	}
}
