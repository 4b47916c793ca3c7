package euca

import (
	"errors"
	"fmt"
	"strings"
)

// imageAttributeCommands show and change what an image says of itself, and who
// may launch it.
func imageAttributeCommands() []command {
	return []command{
		{
			name: "describe-image-attribute", short: "Show one attribute of an image",
			takes: "IMAGE", as: "ImageId",
			options: []option{
				toggle("l,launch-permission", "who may launch it"),
				toggle("p,product-codes", "its product codes"),
				toggle("B,block-device-mapping", "its device mappings"),
				toggle("kernel", "its kernel image"),
				toggle("ramdisk", "its ramdisk image"),
				toggle("description", "its description"),
			},
			run: asking(attributeOf(map[string]string{
				"launch-permission": "launchPermission", "product-codes": "productCodes", "block-device-mapping": "blockDeviceMapping",
				"kernel": "kernel", "ramdisk": "ramdisk", "description": "description",
			}), "DescribeImageAttribute", printImageAttribute),
		},
		{
			name: "modify-image-attribute", short: "Change who may launch an image, its description, or its product codes",
			takes: "IMAGE", as: "ImageId",
			options: []option{
				text("description", "DESC", "describe the image so").to("Description.Value"),
				list("p,product-code", "CODE", "add a product code").to("ProductCode"),
				toggle("l,launch-permission", "change who may launch it, by -a and -r"),
				list("a,add", "ENTITY", "an account that may, or all"),
				list("r,remove", "ENTITY", "an account that may no longer, or all"),
			},
			run: asking(modifiesImage, "ModifyImageAttribute", printModified),
		},
		{
			name: "reset-image-attribute", short: "Take back all permissions to launch an image",
			takes: "IMAGE", as: "ImageId",
			options: []option{toggle("l,launch-permission", "who may launch it").required()},
			run: asking(attributeOf(map[string]string{"launch-permission": "launchPermission"}), "ResetImageAttribute",
				func(s *session, _ *element) { s.line("launchPermission", s.args[0], "RESET") }),
		},
	}
}

// attributeOf finds the one attribute that the toggles name.
func attributeOf(names map[string]string) func(*session) error {
	return func(s *session) error {
		var chosen []string
		for toggle, attribute := range names {
			if s.given(toggle) {
				chosen = append(chosen, attribute)
			}
		}
		if len(chosen) != 1 {
			return fmt.Errorf("one attribute has to be named, and there are %d; see --help", len(chosen))
		}
		s.params.Set("Attribute", chosen[0])
		return nil
	}
}

func modifiesImage(s *session) error {
	if err := s.oneOf("description", "product-code", "launch-permission"); err != nil {
		return err
	}
	return s.grant("launch-permission", "LaunchPermission")
}

// grant what -a names, and revoke what -r names, where the toggle says so.
func (s *session) grant(toggle, param string) error {
	changes := s.changes()
	switch {
	case !s.given(toggle) && len(changes) > 0:
		return fmt.Errorf("arguments -a/--add and -r/--remove may only be used with --%s", toggle)
	case !s.given(toggle):
		return nil
	case len(changes) == 0:
		return errors.New("an account or all has to be named by -a/--add or -r/--remove")
	}
	count := map[string]int{}
	for _, c := range changes {
		count[c.way]++
		s.params.Set(fmt.Sprintf("%s.%s.%d.%s", param, c.way, count[c.way], c.field()), c.who)
	}
	return nil
}

// change of a permission.
type change struct{ way, who string } // Add or Remove; an account, or all

// field that says who.
func (c change) field() string {
	if c.who == "all" {
		return "Group"
	}
	return "UserId"
}

func (s *session) changes() (all []change) {
	for _, who := range s.list("add") {
		all = append(all, change{"Add", who})
	}
	for _, who := range s.list("remove") {
		all = append(all, change{"Remove", who})
	}
	return all
}

// printChanges of a permission to something.
func (s *session) printChanges(attribute string) {
	for _, c := range s.changes() {
		field := c.field()
		s.line(attribute, s.args[0], strings.ToUpper(c.way), strings.ToLower(field[:1])+field[1:], c.who)
	}
}

func printModified(s *session, _ *element) {
	if s.given("description") {
		s.line("description", s.args[0], "", s.text("description"))
	}
	for _, code := range s.list("product-code") {
		s.line("productcodes", s.args[0], "productCode", code)
	}
	s.printChanges("launchPermission")
}

func printImageAttribute(s *session, reply *element) {
	id := reply.get("imageId")
	printPermissions(s, reply, "launchPermission", id)
	printProductCodes(s, reply, id)
	for m := range reply.each("blockDeviceMapping") {
		from := m.get("virtualName")
		if from == "" {
			from = m.get("ebs/snapshotId")
		}
		s.line("blockDeviceMapping", id, "blockDeviceMap", m.get("deviceName")+": "+from)
	}
	for _, name := range []string{"kernel", "ramdisk", "description"} {
		if found := reply.at(name); found != nil {
			s.line(name, id, "", found.get("value"))
		}
	}
}

// printPermissions of an image or a snapshot: who may use it.
func printPermissions(s *session, reply *element, attribute, id string) {
	for permission := range reply.each(attribute) {
		for _, who := range permission.children {
			s.line(attribute, id, who.name, who.text)
		}
	}
}

func printProductCodes(s *session, reply *element, id string) {
	for code := range reply.each("productCodes") {
		text := code.get("productCode")
		if kind := code.get("type"); kind != "" {
			text = "[" + kind + ": " + text + "]"
		}
		s.line("productCodes", id, "productCode", text)
	}
}
