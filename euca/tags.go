package euca

import (
	"fmt"
	"strings"
)

// tagCommands put tags on resources.
func tagCommands() []command {
	return []command{
		{
			name: "create-tags", short: "Tag resources",
			takes: "RESOURCE...", as: "ResourceId",
			options: []option{list("tag", "KEY[=VALUE]", "a tag; without a value, its value is empty").required()},
			run: asking(func(s *session) error {
				for i, tag := range s.list("tag") {
					key, value, _ := strings.Cut(tag, "=")
					s.params.Set(fmt.Sprintf("Tag.%d.Key", i+1), key)
					s.params.Set(fmt.Sprintf("Tag.%d.Value", i+1), value)
				}
				return nil
			}, "CreateTags", printCreatedTags),
		},
		{
			name: "delete-tags", short: "Take tags off resources",
			takes: "RESOURCE...", as: "ResourceId",
			options: []option{list("tag", "KEY[=[VALUE]]", "a tag; with = only where it has that value, which may be empty").required()},
			run: asking(func(s *session) error {
				for i, tag := range s.list("tag") {
					key, value, valued := strings.Cut(tag, "=")
					s.params.Set(fmt.Sprintf("Tag.%d.Key", i+1), key)
					if valued {
						s.params.Set(fmt.Sprintf("Tag.%d.Value", i+1), value)
					}
				}
				return nil
			}, "DeleteTags", nil),
		},
		{
			name: "describe-tags", short: "Show the tags of one's resources",
			filters: true,
			run: calling("DescribeTags", func(s *session, reply *element) {
				for tag := range reply.each("tagSet") {
					s.line(append([]string{"TAG"}, tag.fields("resourceId", "resourceType", "key", "value")...)...)
				}
			}),
		},
	}
}

func printCreatedTags(s *session, _ *element) {
	for _, id := range s.args {
		for _, tag := range s.list("tag") {
			key, value, _ := strings.Cut(tag, "=")
			s.line("TAG", resourceType(id), id, key, value)
		}
	}
}

// printTags of a resource.
func printTags(s *session, resource *element, id string) {
	for tag := range resource.each("tagSet") {
		s.line("TAG", resourceType(id), id, tag.get("key"), tag.get("value"))
	}
}

// resourceType is EC2's name for what an id with that prefix names.
func resourceType(id string) string {
	prefix, _, _ := strings.Cut(strings.ToLower(id), "-")
	return resourceTypes[prefix]
}

var resourceTypes = map[string]string{
	"emi": "image", "eki": "image", "eri": "image", "ami": "image", "aki": "image", "ari": "image",
	"i": "instance", "vol": "volume", "snap": "snapshot", "key": "key-pair", "sg": "security-group", "r": "reservation",
	"bun": "bundle", "import": "conversion-task", "export": "export-task", "eni": "network-interface", "eipalloc": "allocation-id",
	"vpc": "vpc", "subnet": "subnet", "igw": "internet-gateway", "rtb": "route-table", "acl": "network-acl", "dopt": "dhcp-options",
}
