package euca

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// imageCommands register, describe and make images.
func imageCommands() []command {
	return []command{
		{
			name: "register", short: "Register an image: a bundle's manifest, or a snapshot",
			takes: "[MANIFEST]", as: "ImageLocation",
			options: []option{
				text("n,name", "NAME", "name of the image").to("Name").required(),
				text("d,description", "DESC", "what it is").to("Description"),
				text("a,architecture", "ARCH", "what it runs on").to("Architecture").among("i386", "x86_64", "armhf", "arm64"),
				text("kernel", "KERNEL", "kernel image that it boots with").to("KernelId"),
				text("ramdisk", "RAMDISK", "ramdisk image that it boots with").to("RamdiskId"),
				text("root-device-name", "DEVICE", "device of the root (default /dev/sda1)").to("RootDeviceName"),
				text("s,snapshot", "SNAPSHOT", "snapshot of the root device"),
				mappingOption,
				text("virtualization-type", "TYPE", "hvm or paravirtual").to("VirtualizationType").among("paravirtual", "hvm"),
				text("platform", "windows", "what runs in it").to("Platform").among("windows"),
			},
			run: asking(prepareRegister, "RegisterImage", printImageID),
		},
		{
			name: "deregister", short: "Take an image out of the list; its bundle stays",
			takes: "IMAGE", as: "ImageId",
			run: calling("DeregisterImage", func(s *session, _ *element) { s.line("IMAGE", s.args[0]) }),
		},
		{
			name: "describe-images", short: "Show images: one's own and those shared with one, where none are named",
			takes: "[IMAGE...]", as: "ImageId", filters: true,
			options: []option{
				toggle("a,all", "all that there are"),
				list("o,owner", "ACCOUNT", "those of an account, or self").to("Owner"),
				list("x,executable-by", "ACCOUNT", "those that an account, self or all may launch").to("ExecutableBy"),
			},
			run: describeImages,
		},
		{
			name: "create-image", short: "Make an image of an EBS-backed instance",
			takes: "INSTANCE", as: "InstanceId",
			options: []option{
				text("n,name", "NAME", "name of the image").to("Name").required(),
				text("d,description", "DESC", "what it is").to("Description"),
				toggle("no-reboot", "leave the instance running, at the risk of what it hasn't written yet").to("NoReboot"),
				mappingOption,
			},
			run: asking(mapDevices, "CreateImage", printImageID),
		},
		{
			name: "copy-image", short: "Copy an image from a region into the one that is asked",
			options: []option{
				text("r,source-region", "REGION", "region of the image").to("SourceRegion").required(),
				text("s,source-ami-id", "IMAGE", "the image").to("SourceImageId").required(),
				text("n,name", "NAME", "name of the copy").to("Name"),
				text("d,description", "DESC", "what it is").to("Description"),
				text("c,client-token", "TOKEN", "makes a repeated request the same one").to("ClientToken"),
			},
			run: calling("CopyImage", printImageID),
		},
	}
}

func printImageID(s *session, reply *element) { s.line("IMAGE", reply.get("imageId")) }

// prepareRegister tells an image of a manifest from one of a snapshot.
func prepareRegister(s *session) error {
	mappings, err := s.parseMappings()
	if err != nil {
		return err
	}
	if len(s.args) == 0 {
		if mappings, err = mapRoot(s, mappings); err != nil {
			return err
		}
	}
	for _, alone := range []string{"root-device-name", "snapshot"} {
		if len(s.args) > 0 && s.given(alone) {
			return fmt.Errorf("argument --%s: not allowed with argument MANIFEST", alone)
		}
	}
	addMappings(s.params, mappings)
	return nil
}

// mapRoot adds the root device to mappings that lack it, from the snapshot.
func mapRoot(s *session, mappings []mapping) ([]mapping, error) {
	root, snapshot := cmp.Or(s.text("root-device-name"), "/dev/sda1"), s.text("snapshot")
	s.params.Set("RootDeviceName", root)
	for _, m := range mappings {
		if m["DeviceName"] != root {
			continue
		}
		if snapshot != "" && m["Ebs.SnapshotId"] != snapshot {
			return nil, fmt.Errorf("argument -s/--snapshot: %s is mapped to something else", root)
		}
		return mappings, nil
	}
	if snapshot == "" {
		return nil, errors.New("an image needs a manifest, or a snapshot of its root device (-s)")
	}
	return append(mappings, mapping{"DeviceName": root, "Ebs.SnapshotId": snapshot}), nil
}

// describeImages asks twice where nothing says which: for the images of the
// account's own, and for those that it may launch.
func describeImages(s *session) error {
	if s.given("all") {
		switch {
		case len(s.args) > 0:
			return errors.New("argument -a/--all: not allowed with a list of images")
		case s.given("owner") || s.given("executable-by"):
			return errors.Join(s.together("all", "owner"), s.together("all", "executable-by"))
		}
	}
	var reply *element
	var err error
	if len(s.args) > 0 || s.given("all") || s.given("owner") || s.given("executable-by") {
		reply, err = s.call("DescribeImages")
	} else {
		reply, err = s.both("DescribeImages", "imagesSet", "Owner.1", "ExecutableBy.1")
	}
	if err != nil {
		return err
	}
	byID(reply.at("imagesSet"), "imageId")
	return s.show(reply, func() {
		for image := range reply.each("imagesSet") {
			printImage(s, image)
		}
	})
}

// both are the lists of two requests, each with "self" for one parameter.
func (s *session) both(action, list, first, second string) (*element, error) {
	var replies [2]*element
	for i, param := range []string{first, second} {
		asked := *s
		asked.params = maps.Clone(s.params)
		asked.params.Set(param, "self")
		var err error
		if replies[i], err = asked.call(action); err != nil {
			return nil, err
		}
		s.client = asked.client
	}
	replies[0].extend(list, replies[1])
	return replies[0], nil
}

// byID sorts a list, and drops what is in it twice.
func byID(list *element, id string) {
	if list == nil {
		return
	}
	slices.SortStableFunc(list.children, func(a, b *element) int { return cmp.Compare(a.get(id), b.get(id)) })
	list.children = slices.CompactFunc(list.children, func(a, b *element) bool { return a.get(id) == b.get(id) })
}

func printImage(s *session, image *element) {
	location := image.get("imageLocation")
	if name := image.get("name"); name != "" {
		location = image.get("imageOwnerId") + "/" + name
	}
	visible := "private"
	if image.get("isPublic") == "true" {
		visible = "public"
	}
	s.line(append([]string{"IMAGE", image.get("imageId"), location,
		cmp.Or(image.get("imageOwnerAlias"), image.get("imageOwnerId")), image.get("imageState"), visible},
		image.fields("architecture", "imageType", "kernelId", "ramdiskId", "platform",
			"rootDeviceType", "virtualizationType", "hypervisor")...)...)
	printMappings(s, image)
	printTags(s, image, image.get("imageId"))
}
