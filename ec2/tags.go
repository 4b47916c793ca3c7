package ec2

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// Limits of tags, as EC2 has them; lengths are in characters.
const (
	maxTags     = 50 // on one resource
	maxTagKey   = 127
	maxTagValue = 255
)

// tag in a request, and in a reply.
type tag struct {
	Key   string `wire:"Key" xml:"key"`
	Value string `wire:"Value" xml:"value"`
}

// tagSpecification asks for tags on what is being made.
type tagSpecification struct {
	ResourceType string
	Tag          []tag
}

// tagged is embedded by the inputs that take tags for what they make.
type tagged struct {
	TagSpecification []tagSpecification
}

func (t *tagged) tagSpecifications() []tagSpecification { return t.TagSpecification }

type taggedInput interface{ tagSpecifications() []tagSpecification }

// checkTags refuses tags for what the action doesn't make.
func (c *call) checkTags() error {
	for _, s := range c.tags {
		if s.ResourceType == "" {
			return wire.MissingParameter("TagSpecification.N.ResourceType")
		}
		if !slices.Contains(c.action.taggable, s.ResourceType) {
			return wire.InvalidParameterValue("TagSpecification.N.ResourceType", s.ResourceType, "%s makes only %s.", c.action.name, strings.Join(c.action.taggable, ", "))
		}
		if err := checkTags(s.Tag); err != nil {
			return err
		}
	}
	return nil
}

// tagNew gives what was just made the tags that were asked for.
func (c *call) tagNew(kind, id string) error {
	var all []tag
	for _, s := range c.tags {
		if s.ResourceType == kind {
			all = append(all, s.Tag...)
		}
	}
	return c.setTags(resource{c.account(), kind, id}, all)
}

// setTags adds tags to those that a resource has.
func (c *call) setTags(r resource, tags []tag) error {
	if len(tags) == 0 {
		return nil
	}
	set := maps.Clone(c.tagsOf(r.id))
	if set == nil {
		set = map[string]string{}
	}
	for _, t := range tags {
		set[t.Key] = t.Value
	}
	if len(set) > maxTags {
		return wire.Errorf("TagLimitExceeded", "The resource %s would have %d tags; at most %d are allowed", r.id, len(set), maxTags)
	}
	c.putTags(r, set)
	return c.toldAnew(r, set)
}

// putTags of a resource; they belong to its account, whoever sets them.
func (c *call) putTags(r resource, tags map[string]string) {
	state.TagSets.Put(c.tx, cloud.TagSet{Account: r.account, Resource: r.id, Type: r.kind, Tags: tags})
}

// tagsOf a resource. They are shared: not to be changed.
func (c *call) tagsOf(id string) map[string]string {
	set, _, ok := state.TagSets.Get(c.read, id)
	if !ok {
		return nil
	}
	return set.Tags
}

// tagSet for a reply.
func (c *call) tagSet(id string) []tag {
	set := c.tagsOf(id)
	if len(set) == 0 {
		return nil
	}
	tags := make([]tag, 0, len(set))
	for k, v := range set {
		tags = append(tags, tag{k, v})
	}
	slices.SortFunc(tags, func(a, b tag) int { return cmp.Compare(a.Key, b.Key) })
	return tags
}

// checkTags refuses keys and values that EC2 refuses, and a key that comes
// twice.
func checkTags(tags []tag) error {
	seen := map[string]bool{}
	for _, t := range tags {
		if seen[t.Key] {
			return wire.InvalidParameterValue("Tag.N.Key", t.Key, "The key is given twice.")
		}
		seen[t.Key] = true
		if err := checkTag(t); err != nil {
			return err
		}
	}
	return nil
}

func checkTag(t tag) error {
	if t.Key == "" {
		return wire.InvalidParameterValue("Tag.N.Key", t.Key, "A tag's key is not empty.")
	}
	if utf8.RuneCountInString(t.Key) > maxTagKey {
		return wire.InvalidParameterValue("Tag.N.Key", t.Key, "A tag's key has at most %d characters.", maxTagKey)
	}
	if utf8.RuneCountInString(t.Value) > maxTagValue {
		return wire.InvalidParameterValue("Tag.N.Value", t.Value, "A tag's value has at most %d characters.", maxTagValue)
	}
	if strings.ContainsFunc(t.Key+t.Value, unprintable) {
		return wire.InvalidParameterValue("Tag.N", t.Key+"="+t.Value, "Control characters are not allowed.")
	}
	return checkReserved(t.Key)
}

func checkReserved(key string) error {
	lower := strings.ToLower(key)
	if strings.HasPrefix(lower, "aws:") || strings.HasPrefix(lower, "euca:") {
		return wire.InvalidParameterValue("Tag.N.Key", key, "Tag keys starting with 'aws:' and 'euca:' are reserved for internal use.")
	}
	return nil
}

// unprintable characters have no business in names; most of them XML can't hold.
func unprintable(r rune) bool { return r < ' ' || r == 0x7f || r == 0xFFFE || r == 0xFFFF }

type createTagsInput struct {
	common
	ResourceID []string `wire:"ResourceId,required,max=1000"`
	Tag        []tag    `wire:"Tag,required"`
}

func createTags(c *call, in *createTagsInput) (*reply, error) {
	if err := checkTags(in.Tag); err != nil {
		return nil, err
	}
	resources, err := c.ownResources(in.ResourceID)
	if err != nil {
		return nil, err
	}
	for _, r := range resources {
		if err := c.setTags(r, in.Tag); err != nil {
			return nil, err
		}
	}
	return accepted()
}

type deleteTagsInput struct {
	common
	ResourceID []string `wire:"ResourceId,required,max=1000"`
	Tag        []struct {
		Key   string
		Value *string // deletes only a tag of that value, which may be empty
	} `wire:"Tag"`
}

// deleteTags without tags deletes all of a resource's.
func deleteTags(c *call, in *deleteTagsInput) (*reply, error) {
	for _, t := range in.Tag {
		if t.Key == "" {
			return nil, wire.MissingParameter("Tag.N.Key")
		}
		if err := checkReserved(t.Key); err != nil {
			return nil, err
		}
	}
	resources, err := c.ownResources(in.ResourceID)
	if err != nil {
		return nil, err
	}
	for _, r := range resources {
		set := maps.Clone(c.tagsOf(r.id))
		maps.DeleteFunc(set, func(key, value string) bool { return in.deletes(key, value) })
		if len(set) == 0 {
			state.TagSets.Delete(c.tx, r.id)
		} else {
			c.putTags(r, set)
		}
		if err := c.toldAnew(r, set); err != nil {
			return nil, err
		}
	}
	return accepted()
}

func (in *deleteTagsInput) deletes(key, value string) bool {
	if len(in.Tag) == 0 {
		return true
	}
	for _, t := range in.Tag {
		if t.Key == key && (t.Value == nil || *t.Value == value) {
			return true
		}
	}
	return false
}

type describeTagsInput struct {
	common
	selection
}

type describeTagsReply struct {
	Tags      []tagDescription `xml:"tagSet>item"`
	NextToken string           `xml:"nextToken,omitempty"`
}

type tagDescription struct {
	ResourceID   string `xml:"resourceId"`
	ResourceType string `xml:"resourceType"`
	tag
}

// tagKind lists tags. To the filter tag:KEY each is its own only one.
var tagKind = kind[cloud.Tag]{
	tags: func(_ *call, t cloud.Tag) map[string]string { return map[string]string{t.Key: t.Value} },
	key:  func(t cloud.Tag) string { return t.Resource + "/" + t.Key },
	fields: fields[cloud.Tag]{
		"key":           text(func(t cloud.Tag) string { return t.Key }),
		"resource-id":   text(func(t cloud.Tag) string { return t.Resource }),
		"resource-type": text(func(t cloud.Tag) string { return t.Type }),
		"value":         func(_ *call, t cloud.Tag) []string { return []string{t.Value} },
	},
}

func describeTags(c *call, in *describeTagsInput) (*describeTagsReply, error) {
	p, err := tagKind.page(c, &in.selection, c.everyTag())
	if err != nil {
		return nil, err
	}
	out := &describeTagsReply{NextToken: p.next}
	for _, t := range p.items {
		out.Tags = append(out.Tags, tagDescription{t.Resource, t.Type, tag{t.Key, t.Value}})
	}
	return out, nil
}

// everyTag of the account, by resource and key.
func (c *call) everyTag() iter.Seq[cloud.Tag] {
	return func(yield func(cloud.Tag) bool) {
		for set := range state.TagSetsByAccount.By(c.read, c.account()) {
			for _, key := range slices.Sorted(maps.Keys(set.Tags)) {
				if !yield(cloud.Tag{Account: set.Account, Resource: set.Resource, Type: set.Type, Key: key, Value: set.Tags[key]}) {
					return
				}
			}
		}
	}
}
