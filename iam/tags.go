package iam

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"mallee/policy"
	"mallee/wire"
)

// Limits of tags, as IAM has them; lengths are in characters.
const (
	maxTags     = 50
	maxTagKey   = 128
	maxTagValue = 256
)

type tag struct {
	Key   string `wire:"Key,required"`
	Value string
}

// tagged is embedded by inputs that give tags.
type tagged struct {
	Tags []tag
}

// request is what policies know of the tags that are asked for.
func (t *tagged) request() policy.Context {
	c := policy.Context{}
	for _, tag := range t.Tags {
		c.Set("aws:RequestTag/"+tag.Key, tag.Value)
		c.Add("aws:TagKeys", tag.Key)
	}
	return c
}

// tagMap adds tags to those that are there.
func tagMap(had map[string]string, tags []tag) (map[string]string, error) {
	out := map[string]string{}
	maps.Copy(out, had)
	for _, t := range tags {
		switch {
		case utf8.RuneCountInString(t.Key) > maxTagKey || strings.HasPrefix(strings.ToLower(t.Key), "aws:"):
			return nil, wire.Errorf("InvalidInput", "The tag key %s must have at most %d characters and not begin with aws:.", wire.Shorten(t.Key), maxTagKey)
		case utf8.RuneCountInString(t.Value) > maxTagValue:
			return nil, wire.Errorf("InvalidInput", "The value of the tag %s must have at most %d characters.", wire.Shorten(t.Key), maxTagValue)
		}
		out[t.Key] = t.Value
	}
	if len(out) > maxTags {
		return nil, tooMany("TagsPerResource", maxTags)
	}
	return out, nil
}

func tagList(m map[string]string) []tag {
	list := []tag{}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		list = append(list, tag{key, m[key]})
	}
	return list
}

// tagsOf has the tags of what an input names, and a way to change them.
type bearer interface {
	tagsOf(*call) (map[string]string, func(map[string]string), error)
}

func bear[T any](k kind[T], c *call, v *T, err error) (map[string]string, func(map[string]string), error) {
	if err != nil {
		return nil, nil, err
	}
	return k.of(v).Tags, func(tags map[string]string) { k.edit(c, v, func(v *T) { k.of(v).Tags = tags }) }, nil
}

type untagged struct {
	TagKeys []string `wire:"TagKeys,required,max=50"`
}

func (u *untagged) keys() []string { return u.TagKeys }
func (t *tagged) given() []tag     { return t.Tags }
func (p *paged) asked() paged      { return *p }

func tagIt[P interface {
	bearer
	given() []tag
}](c *call, in P) (*none, error) {
	had, set, err := in.tagsOf(c)
	if err != nil {
		return nil, err
	}
	tags, err := tagMap(had, in.given())
	if err == nil {
		set(tags)
	}
	return &none{}, err
}

func untagIt[P interface {
	bearer
	keys() []string
}](c *call, in P) (*none, error) {
	had, set, err := in.tagsOf(c)
	if err != nil {
		return nil, err
	}
	tags := maps.Clone(had)
	for _, key := range in.keys() {
		delete(tags, key)
	}
	set(tags)
	return &none{}, nil
}

type tagsReply struct {
	Tags []tag `xml:"Tags>member"`
	page
}

func listTags[P interface {
	bearer
	asked() paged
}](c *call, in P) (*tagsReply, error) {
	tags, _, err := in.tagsOf(c)
	if err != nil {
		return nil, err
	}
	list, p, err := cut(in.asked(), tagList(tags), func(t tag) string { return t.Key })
	return &tagsReply{list, p}, err
}

// Inputs of the actions on tags: what they name, and what is done.
type (
	tagUser struct {
		ofUser
		tagged
	}
	untagUser struct {
		ofUser
		untagged
	}
	userTags struct {
		ofUser
		paged
	}
	tagRole struct {
		ofRole
		tagged
	}
	untagRole struct {
		ofRole
		untagged
	}
	roleTags struct {
		ofRole
		paged
	}
	tagPolicy struct {
		ofPolicy
		tagged
	}
	untagPolicy struct {
		ofPolicy
		untagged
	}
	policyTags struct {
		ofPolicy
		paged
	}
	tagProfile struct {
		ofProfile
		tagged
	}
	untagProfile struct {
		ofProfile
		untagged
	}
	profileTags struct {
		ofProfile
		paged
	}
	tagServer struct {
		ofServer
		tagged
	}
	untagServer struct {
		ofServer
		untagged
	}
	serverTags struct {
		ofServer
		paged
	}
	tagProvider struct {
		ofProvider
		tagged
	}
	untagProvider struct {
		ofProvider
		untagged
	}
	providerTags struct {
		ofProvider
		paged
	}
)
