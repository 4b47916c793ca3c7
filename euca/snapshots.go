package euca

// snapshotCommands keep what volumes hold at one time.
func snapshotCommands() []command {
	return []command{
		{
			name: "create-snapshot", short: "Keep what a volume holds now",
			takes: "VOLUME", as: "VolumeId",
			options: []option{text("d,description", "DESC", "what it is").to("Description")},
			run: calling("CreateSnapshot", func(s *session, snap *element) {
				s.line(append([]string{"SNAPSHOT"}, snap.fields("snapshotId", "volumeId", "status", "startTime", "ownerId", "volumeSize", "description")...)...)
			}),
		},
		{
			name: "delete-snapshot", short: "Delete a snapshot",
			takes: "SNAPSHOT", as: "SnapshotId",
			run: calling("DeleteSnapshot", func(s *session, _ *element) { s.line("SNAPSHOT", s.args[0]) }),
		},
		{
			name: "describe-snapshots", short: "Show snapshots: one's own and those shared with one, where none are named",
			takes: "[SNAPSHOT...]", as: "SnapshotId", filters: true,
			options: []option{
				toggle("a,all", "all that there are"),
				list("o,owner", "ACCOUNT", "those of an account, or self").to("Owner"),
				list("r,restorable-by", "ACCOUNT", "those of which an account, self or all may make volumes").to("RestorableBy"),
			},
			run: describeSnapshots,
		},
		{
			name: "describe-snapshot-attribute", short: "Show one attribute of a snapshot",
			takes: "SNAPSHOT", as: "SnapshotId",
			options: []option{
				toggle("c,create-volume-permission", "who may make volumes of it"),
				toggle("p,product-codes", "its product codes"),
			},
			run: asking(attributeOf(map[string]string{
				"create-volume-permission": "createVolumePermission", "product-codes": "productCodes",
			}), "DescribeSnapshotAttribute", func(s *session, reply *element) {
				id := reply.get("snapshotId")
				printPermissions(s, reply, "createVolumePermission", id)
				printProductCodes(s, reply, id)
			}),
		},
		{
			name: "modify-snapshot-attribute", short: "Change who may make volumes of a snapshot",
			takes: "SNAPSHOT", as: "SnapshotId",
			options: []option{
				toggle("c,create-volume-permission", "change who may, by -a and -r").required(),
				list("a,add", "ENTITY", "an account that may, or all"),
				list("r,remove", "ENTITY", "an account that may no longer, or all"),
			},
			run: asking(func(s *session) error { return s.grant("create-volume-permission", "CreateVolumePermission") },
				"ModifySnapshotAttribute", func(s *session, _ *element) { s.printChanges("createVolumePermission") }),
		},
		{
			name: "reset-snapshot-attribute", short: "Take back all permissions to make volumes of a snapshot",
			takes: "SNAPSHOT", as: "SnapshotId",
			options: []option{toggle("c,create-volume-permission", "who may make volumes of it").required()},
			run: asking(attributeOf(map[string]string{"create-volume-permission": "createVolumePermission"}), "ResetSnapshotAttribute",
				func(s *session, _ *element) { s.line("createVolumePermission", s.args[0], "RESET") }),
		},
	}
}

// describeSnapshots asks twice where nothing says which, as describeImages does.
func describeSnapshots(s *session) error {
	for _, one := range []string{"owner", "restorable-by"} {
		if err := s.together("all", one); err != nil {
			return err
		}
	}
	var reply *element
	var err error
	if len(s.args) > 0 || s.given("all") || s.given("owner") || s.given("restorable-by") {
		reply, err = s.call("DescribeSnapshots")
	} else {
		reply, err = s.both("DescribeSnapshots", "snapshotSet", "Owner.1", "RestorableBy.1")
		byID(reply.at("snapshotSet"), "snapshotId")
	}
	if err != nil {
		return err
	}
	return s.show(reply, func() {
		for snap := range reply.each("snapshotSet") {
			s.line(append([]string{"SNAPSHOT"}, snap.fields("snapshotId", "volumeId", "status", "startTime", "progress", "ownerId", "volumeSize", "description")...)...)
			printTags(s, snap, snap.get("snapshotId"))
		}
	})
}
