package ec2

// actions is the table of all that is answered, one line an action. It is made
// once; docs/adding-an-action.md says how a line comes to be.
var actions = table(
	// instances
	named("RunInstances", preparing(checkRun, runInstances)).on("instance").tags("instance", "volume").repeats(ranBefore),
	named("DescribeInstances", reading(describeInstances)).on("instance").chooses(instanceKind.names()).pages5(1000),
	named("DescribeInstanceStatus", reading(describeStatus)).on("instance").chooses(statusKind.names()).pages5(1000),
	named("DescribeInstanceAttribute", reading(describeInstanceAttribute)).on("instance"),
	named("TerminateInstances", writing(terminateInstances)).on("instance"),
	named("RebootInstances", writing(rebootInstances)).on("instance"),
	named("StartInstances", writing(startInstances)).on("instance"),
	named("StopInstances", writing(stopInstances)).on("instance"),
	named("ModifyInstanceAttribute", writing(modifyInstanceAttribute)).on("instance"),
	named("ModifyInstanceMetadataOptions", writing(modifyMetadataOptions)).on("instance"),
	named("GetConsoleOutput", reading(getConsoleOutput)).on("instance"),
	named("GetConsoleScreenshot", reading(getConsoleScreenshot)).on("instance"),
	named("GetPasswordData", reading(getPasswordData)).on("instance"),

	// volumes
	named("CreateVolume", writing(createVolume)).on("volume").tags("volume").repeats(createdBefore),
	named("DeleteVolume", writing(deleteVolume)).on("volume"),
	named("DescribeVolumes", reading(describeVolumes)).on("volume").chooses(volumeKind.names()).pages5(1000),
	named("DescribeVolumeStatus", reading(describeVolumeStatus)).on("volume").chooses(volumeStatusKind.names()).pages5(1000),
	named("DescribeVolumeAttribute", reading(describeVolumeAttribute)).on("volume"),
	named("ModifyVolumeAttribute", writing(modifyVolumeAttribute)).on("volume"),
	named("EnableVolumeIO", writing(enableVolumeIO)).on("volume"),
	named("ModifyVolume", writing(modifyVolume)).on("volume"),
	named("DescribeVolumesModifications", reading(describeModifications)).on("volume").chooses(modificationKind.names()).pages1(500),
	named("AttachVolume", writing(attachVolume)).on("volume"),
	named("DetachVolume", writing(detachVolume)).on("volume"),

	// snapshots
	named("CreateSnapshot", writing(createSnapshot)).on("snapshot").tags("snapshot").waits(awaitSnapshot),
	named("CreateSnapshots", writing(createSnapshots)).on("snapshot").tags("snapshot").waits(awaitSnapshots),
	named("CopySnapshot", writing(copySnapshot)).on("snapshot").tags("snapshot"),
	named("DeleteSnapshot", writing(deleteSnapshot)).on("snapshot"),
	named("DescribeSnapshots", reading(describeSnapshots)).on("snapshot").chooses(snapshotKind.names()).pages5(1000),
	named("DescribeSnapshotAttribute", reading(describeSnapshotAttribute)).on("snapshot"),
	named("ModifySnapshotAttribute", writing(modifySnapshotAttribute)).on("snapshot"),
	named("ResetSnapshotAttribute", writing(resetSnapshotAttribute)).on("snapshot"),

	// images
	named("RegisterImage", preparing(prepareRegister, registerImage)).on("image").tags("image"),
	named("CreateImage", preparing(checkCreateImage, createImage)).on("image").tags("image", "snapshot").waits(awaitImage),
	named("DeregisterImage", writing(deregisterImage)).on("image"),
	named("DescribeImages", reading(describeImages)).on("image").chooses(imageKind.names()).pages1(1000),
	named("DescribeImageAttribute", reading(describeImageAttribute)).on("image"),
	named("ModifyImageAttribute", writing(modifyImageAttribute)).on("image"),
	named("ResetImageAttribute", writing(resetImageAttribute)).on("image"),
	named("EnableImageDeprecation", writing(enableDeprecation)).on("image"),
	named("DisableImageDeprecation", writing(disableDeprecation)).on("image"),
	named("EnableImage", writing(enableImage)).on("image"),
	named("DisableImage", writing(disableImage)).on("image"),
	named("EnableImageDeregistrationProtection", writing(enableProtection)).on("image"),
	named("DisableImageDeregistrationProtection", writing(disableProtection)).on("image"),

	// tasks on images
	named("CopyImage", preparing(checkCopy, copyImage)).on("image").tags("image").repeats(copiedBefore),
	named("BundleInstance", preparing(checkBundling, bundleInstance)).on("bundle-task"),
	named("DescribeBundleTasks", reading(describeBundleTasks)).on("bundle-task").chooses(bundleKind.names()),
	named("CancelBundleTask", writing(cancelBundleTask)).on("bundle-task"),
	named("ImportImage", preparing(findDisks, importImage)).on("import-image-task").tags("import-image-task").repeats(importedImageBefore),
	named("DescribeImportImageTasks", reading(describeImportImageTasks)).on("import-image-task").chooses(taskKind.names()).pages5(1000),
	named("ImportSnapshot", preparing(findDisk, importSnapshot)).on("import-snapshot-task").tags("import-snapshot-task").repeats(importedSnapshotBefore),
	named("DescribeImportSnapshotTasks", reading(describeImportSnapshotTasks)).on("import-snapshot-task").chooses(taskKind.names()).pages5(1000),
	named("CancelImportTask", writing(cancelImportTask)).on("import-image-task"),
	named("ExportImage", preparing(checkExport, exportImage)).on("export-image-task").tags("export-image-task").repeats(exportedBefore),
	named("DescribeExportImageTasks", reading(describeExportImageTasks)).on("export-image-task").chooses(taskKind.names()).pages5(500),
	named("CancelExportTask", writing(cancelExportTask)).on("export-image-task"),
	named("ImportVolume", writing(importVolume)).on("conversion-task"),
	named("ImportInstance", writing(importInstance)).on("conversion-task"),
	named("DescribeConversionTasks", reading(describeConversionTasks)).on("conversion-task"),
	named("CancelConversionTask", writing(cancelConversionTask)).on("conversion-task"),

	// keys, tags
	named("CreateKeyPair", preparing(makeKey, createKeyPair)).on("key-pair").tags("key-pair"),
	named("ImportKeyPair", writing(importKeyPair)).on("key-pair").tags("key-pair"),
	named("DeleteKeyPair", writing(deleteKeyPair)).on("key-pair"),
	named("DescribeKeyPairs", reading(describeKeyPairs)).on("key-pair").chooses(keyPairKind.names()),
	named("CreateTags", writing(createTags)),
	named("DeleteTags", writing(deleteTags)),
	named("DescribeTags", reading(describeTags)).chooses(tagKind.names()).pages5(1000),

	// the default network
	named("DescribeVpcs", reading(describeVpcs)).on("vpc").chooses(vpcKind.names()).pages5(1000),
	named("DescribeVpcAttribute", reading(describeVpcAttribute)).on("vpc"),
	named("DescribeSubnets", reading(describeSubnets)).on("subnet").chooses(subnetKind.names()).pages5(1000),
	named("DescribeInternetGateways", reading(describeGateways)).on("internet-gateway").chooses(gatewayKind.names()).pages5(1000),
	named("DescribeRouteTables", reading(describeRouteTables)).on("route-table").chooses(routeTableKind.names()).pages5(100),
	named("DescribeNetworkAcls", reading(describeACLs)).on("network-acl").chooses(aclKind.names()).pages5(1000),
	named("DescribeDhcpOptions", reading(describeDhcpOptions)).on("dhcp-options").chooses(optionsKind.names()).pages5(1000),
	named("DescribeNetworkInterfaces", reading(describeInterfaces)).on("network-interface").chooses(interfaceKind.names()).pages5(1000),

	// addresses
	named("AllocateAddress", writing(allocateAddress)).on("elastic-ip").tags("elastic-ip"),
	named("AssociateAddress", writing(associateAddress)).on("elastic-ip"),
	named("DisassociateAddress", writing(disassociateAddress)).on("elastic-ip"),
	named("ReleaseAddress", writing(releaseAddress)).on("elastic-ip"),
	named("DescribeAddresses", reading(describeAddresses)).on("elastic-ip").chooses(addressKind.names()),

	// security groups
	named("CreateSecurityGroup", writing(createGroup)).on("security-group").tags("security-group"),
	named("DeleteSecurityGroup", writing(deleteGroup)).on("security-group"),
	named("DescribeSecurityGroups", reading(describeGroups)).on("security-group").chooses(groupKind.names()).pages5(1000),
	named("DescribeSecurityGroupRules", reading(describeGroupRules)).on("security-group-rule").chooses(ruleKind.names()).pages5(1000),
	named("AuthorizeSecurityGroupIngress", writing(authorizeIngress)).on("security-group").tags("security-group-rule"),
	named("AuthorizeSecurityGroupEgress", writing(authorizeEgress)).on("security-group").tags("security-group-rule"),
	named("RevokeSecurityGroupIngress", writing(revokeIngress)).on("security-group"),
	named("RevokeSecurityGroupEgress", writing(revokeEgress)).on("security-group"),
	named("ModifySecurityGroupRules", writing(modifyGroupRules)).on("security-group"),
	named("UpdateSecurityGroupRuleDescriptionsIngress", writing(updateDescriptionsIngress)).on("security-group"),
	named("UpdateSecurityGroupRuleDescriptionsEgress", writing(updateDescriptionsEgress)).on("security-group"),

	// the cloud
	named("DescribeInstanceTypes", reading(describeTypes)).chooses(typeKind.names()).pages5(100),
	named("DescribeInstanceTypeOfferings", reading(describeOfferings)).chooses(offeringKind.names()).pages5(1000),
	named("DescribeAvailabilityZones", reading(describeZones)).chooses(zoneKind.names()),
	named("DescribeRegions", reading(describeRegions)).chooses(regionKind.names()),
	named("DescribeAccountAttributes", reading(describeAccountAttributes)),
)

func table(lines ...*action) map[string]*action {
	byName := make(map[string]*action, len(lines))
	for _, a := range lines {
		byName[a.name] = a
	}
	return byName
}

func named(name string, a action) *action {
	a.name = name
	return &a
}

// on says what type of resource the action is about.
func (a *action) on(resource string) *action { a.resource = resource; return a }

// chooses says what filters it takes.
func (a *action) chooses(filters []string) *action { a.filters = filters; return a }

// pages5 and pages1 say how long its pages may be: from 5, EC2's usual, or 1.
func (a *action) pages5(most int) *action { a.pages = &bounds{5, most}; return a }
func (a *action) pages1(most int) *action { a.pages = &bounds{1, most}; return a }

// tags says what a TagSpecification of its may be for.
func (a *action) tags(types ...string) *action { a.taggable = types; return a }

// waits says what is done between the commit and the reply.
func (a *action) waits(then func(*call, any)) *action { a.then = then; return a }

// repeats says how a call with a known client token is answered.
func (a *action) repeats(again func(*call, string) (any, error)) *action { a.again = again; return a }
