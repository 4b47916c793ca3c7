package euca

import "errors"

// volumeCommands make volumes and attach them to instances.
func volumeCommands() []command {
	return []command{
		{
			name: "create-volume", short: "Make a volume, empty or of a snapshot",
			options: []option{
				text("z,availability-zone", "ZONE", "zone of the instances that can have it").to("AvailabilityZone").required(),
				whole("s,size", "GiB", "its size (required where no snapshot is named)").to("Size"),
				text("snapshot", "SNAPSHOT", "what it holds at first").to("SnapshotId"),
				text("t,type", "TYPE", "type of the volume").to("VolumeType"),
				whole("i,iops", "IOPS", "input and output operations a second").to("Iops"),
				whole("throughput", "MiB", "MiB a second").to("Throughput"),
				toggle("encrypted", "encrypt what it holds").to("Encrypted"),
			},
			run: asking(prepareVolume, "CreateVolume", func(s *session, v *element) {
				s.line(append([]string{"VOLUME"}, v.fields("volumeId", "size", "snapshotId", "availabilityZone", "status", "createTime")...)...)
			}),
		},
		{
			name: "delete-volume", short: "Delete a volume",
			takes: "VOLUME", as: "VolumeId",
			run: calling("DeleteVolume", func(s *session, _ *element) { s.line("VOLUME", s.args[0]) }),
		},
		{
			name: "describe-volumes", short: "Show volumes and what they are attached to",
			takes: "[VOLUME...]", as: "VolumeId", filters: true,
			run: calling("DescribeVolumes", func(s *session, reply *element) {
				for v := range reply.each("volumeSet") {
					printVolume(s, v)
				}
			}),
		},
		{
			name: "attach-volume", short: "Attach a volume to an instance",
			takes: "VOLUME", as: "VolumeId",
			options: []option{
				text("i,instance", "INSTANCE", "the instance").to("InstanceId").required(),
				text("d,device", "DEVICE", "the device that it becomes").to("Device").required(),
			},
			run: calling("AttachVolume", printAttachment),
		},
		{
			name: "detach-volume", short: "Detach a volume from its instance",
			takes: "VOLUME", as: "VolumeId",
			options: []option{
				text("i,instance", "INSTANCE", "the instance").to("InstanceId"),
				text("d,device", "DEVICE", "the device").to("Device"),
				toggle("f,force", "don't wait for the guest, which may lose data").to("Force"),
			},
			run: calling("DetachVolume", printAttachment),
		},
	}
}

func prepareVolume(s *session) error {
	switch {
	case !s.given("size") && !s.given("snapshot"):
		return errors.New("one of the arguments -s/--size --snapshot is required")
	case s.given("iops") && !s.given("type"):
		return errors.New("argument -i/--iops: -t/--type is required")
	case s.given("iops") && s.text("type") == "standard":
		return errors.New("argument -i/--iops: a volume of type standard has no IOPS to choose")
	}
	return nil
}

func printVolume(s *session, v *element) {
	kind := v.get("volumeType")
	if kind == "" {
		kind = "standard"
	}
	line := append([]string{"VOLUME"}, v.fields("volumeId", "size", "snapshotId", "availabilityZone", "status", "createTime")...)
	s.line(append(line, kind, v.get("iops"))...)
	for a := range v.each("attachmentSet") {
		printAttachment(s, a)
	}
	printTags(s, v, v.get("volumeId"))
}

func printAttachment(s *session, a *element) {
	s.line(append([]string{"ATTACHMENT"}, a.fields("volumeId", "instanceId", "device", "status", "attachTime")...)...)
}
