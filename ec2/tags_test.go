package ec2

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestTags(t *testing.T) {
	c := ready(t)
	id := c.run(c.user)[0]
	key := get[createKeyPairReply](c, c.user, "CreateKeyPair", "KeyName=mine", "KeyType=ed25519").KeyPairID
	group := get[describeGroupsReply](c, c.user, "DescribeSecurityGroups").Groups[0].ID
	get[reply](c, c.user, "CreateTags", "ResourceId.1="+strings.ToUpper(id[:1])+id[1:], "ResourceId.2="+key, "ResourceId.3="+privateImage, "ResourceId.4="+group,
		"Tag.1.Key=owner", "Tag.1.Value=me", "Tag.2.Key=empty")
	if n := len(get[describeTagsReply](c, c.user, "DescribeTags").Tags); n != 8 {
		t.Errorf("%d tags on four resources", n)
	}
	if n := len(get[describeTagsReply](c, c.admin, "DescribeTags").Tags); n != 0 {
		t.Errorf("another account sees %d tags", n)
	}
	byType := get[describeTagsReply](c, c.user, "DescribeTags", asked("resource-type=image", "key=own*")...).Tags
	if !slices.Equal(byType, []tagDescription{{privateImage, "image", tag{"owner", "me"}}}) {
		t.Errorf("chosen by filters: %v", byType)
	}
	if tags := get[describeTagsReply](c, c.user, "DescribeTags", asked("tag:owner=me", "resource-type=key-pair")...).Tags; len(tags) != 1 || tags[0].ResourceID != key {
		t.Errorf("chosen by tag:KEY: %v", tags)
	}
	get[reply](c, c.user, "CreateTags", "ResourceId.1="+id, "Tag.1.Key=owner", "Tag.1.Value=you")
	get[reply](c, c.user, "DeleteTags", "ResourceId.1="+id, "Tag.1.Key=owner", "Tag.1.Value=me") // not this value
	get[reply](c, c.user, "DeleteTags", "ResourceId.1="+id, "Tag.1.Key=empty", "Tag.1.Value=")
	left := get[describeInstancesReply](c, c.user, "DescribeInstances").Reservations[0].Instances[0].Tags
	if !slices.Equal(left, []tag{{"owner", "you"}}) {
		t.Errorf("left on the instance: %v", left)
	}
	get[reply](c, c.user, "DeleteTags", "ResourceId.1="+id)
	get[reply](c, c.user, "DeleteTags", "ResourceId.1="+id)
	if n := len(get[describeTagsReply](c, c.user, "DescribeTags", asked("resource-id="+id)...).Tags); n != 0 {
		t.Errorf("%d tags left", n)
	}
}

// TestTagsStayTheOwners when an administrator of the cloud sets and deletes
// some of another account's resource.
func TestTagsStayTheOwners(t *testing.T) {
	c := ready(t)
	id := c.run(c.user)[0]
	get[reply](c, c.user, "CreateTags", "ResourceId.1="+id, "Tag.1.Key=owner", "Tag.1.Value=me")
	for _, resource := range []string{id, privateImage} {
		get[reply](c, c.admin, "CreateTags", "ResourceId.1="+resource, "Tag.1.Key=seen", "Tag.2.Key=checked")
		get[reply](c, c.admin, "DeleteTags", "ResourceId.1="+resource, "Tag.1.Key=checked")
	}
	want := []tagDescription{{privateImage, "image", tag{"seen", ""}}, {id, "instance", tag{"owner", "me"}}, {id, "instance", tag{"seen", ""}}}
	if got := get[describeTagsReply](c, c.user, "DescribeTags").Tags; !slices.Equal(got, want) {
		t.Errorf("the owner sees %v", got)
	}
	if got := get[describeTagsReply](c, c.admin, "DescribeTags").Tags; len(got) != 0 {
		t.Errorf("the administrator has tags of his own: %v", got)
	}
	if found := get[describeInstancesReply](c, c.user, "DescribeInstances", asked("tag:owner=me")...).Reservations; len(found) != 1 {
		t.Errorf("the owner finds %d of his instances by the tag", len(found))
	}
	powerless := c.admin
	powerless.User = "somebody"
	arn := "arn:aws:ec2:mallee:" + string(ordinary) + ":instance/" + id
	if r := c.refused(powerless, "CreateTags", "ResourceId.1="+id, "Tag.1.Key=k"); r.Code != "UnauthorizedOperation" || !strings.Contains(r.Message, arn) {
		t.Errorf("the right that is asked for is not on %s: %+v", arn, r)
	}
}

func TestTagLimits(t *testing.T) {
	c := ready(t)
	id := c.run(c.user)[0]
	many := func(first, n int) []string {
		parameters := []string{"ResourceId.1=" + id}
		for i := range n {
			parameters = append(parameters, fmt.Sprintf("Tag.%d.Key=k%d", i+1, first+i), fmt.Sprintf("Tag.%d.Value=v", i+1))
		}
		return parameters
	}
	get[reply](c, c.user, "CreateTags", many(0, 30)...)
	get[reply](c, c.user, "CreateTags", many(10, 40)...) // 50 in all
	if r := c.refused(c.user, "CreateTags", many(49, 2)...); r.Code != "TagLimitExceeded" || !strings.Contains(r.Message, id) {
		t.Errorf("the 51st tag: %+v", r)
	}
	for name, tag := range map[string][]string{
		"Tag.N.Key":   {"Tag.1.Key=" + strings.Repeat("k", 128)},
		"Tag.N.Value": {"Tag.1.Key=k", "Tag.1.Value=" + strings.Repeat("v", 256)},
		"aws:":        {"Tag.1.Key=AWS:mine"},
		"euca:":       {"Tag.1.Key=euca:node"},
		"not empty":   {"Tag.1.Key=", "Tag.1.Value=v"},
		"Control":     {"Tag.1.Key=a\x00b"},
		"twice":       {"Tag.1.Key=k0", "Tag.1.Value=1", "Tag.2.Key=k0", "Tag.2.Value=2"},
	} {
		r := c.refused(c.user, "CreateTags", append(tag, "ResourceId.1="+id)...)
		if r.Code != "InvalidParameterValue" || !strings.Contains(r.Message, name) {
			t.Errorf("%.40v: %+v", tag, r)
		}
		specification := []string{"ImageId=" + hvmImage, "TagSpecification.1.ResourceType=instance"}
		for _, p := range tag {
			specification = append(specification, "TagSpecification.1."+p)
		}
		if r := c.refused(c.user, "RunInstances", specification...); r.Code != "InvalidParameterValue" || !strings.Contains(r.Message, name) {
			t.Errorf("at launch, %.40v: %+v", tag, r)
		}
	}
	get[reply](c, c.user, "DeleteTags", "ResourceId.1="+id)
	get[reply](c, c.user, "CreateTags", "ResourceId.1="+id, "Tag.1.Key="+strings.Repeat("日", 127), "Tag.1.Value="+strings.Repeat("本", 255))
}
