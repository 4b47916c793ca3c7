package euca

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// instanceCommands show and steer instances.
func instanceCommands() []command {
	return []command{
		{
			name: "describe-instances", short: "Show instances",
			takes: "[INSTANCE...]", as: "InstanceId", filters: true,
			run: calling("DescribeInstances", func(s *session, reply *element) {
				for r := range reply.each("reservationSet") {
					printReservation(s, r)
				}
			}),
		},
		steering("terminate-instances", "End instances for good", "TerminateInstances"),
		steering("start-instances", "Start stopped instances", "StartInstances"),
		steering("stop-instances", "Stop EBS-backed instances, which can be started again", "StopInstances",
			toggle("f,force", "don't wait for the guest, which may lose data").to("Force")),
		{
			name: "reboot-instances", short: "Reboot instances",
			takes: "INSTANCE...", as: "InstanceId",
			run: calling("RebootInstances", nil),
		},
		{
			name: "describe-instance-status", short: "Show whether instances are well",
			takes: "[INSTANCE...]", as: "InstanceId", filters: true,
			options: []option{
				toggle("hide-healthy", "leave out those of which all is well"),
				toggle("include-all-instances", "show instances that don't run too").to("IncludeAllInstances"),
			},
			run: calling("DescribeInstanceStatus", printStatuses),
		},
		{
			name: "get-console-output", short: "Show what an instance has said on its console",
			takes: "INSTANCE", as: "InstanceId",
			options: []option{toggle("r,raw-console-output", "show control characters as they are")},
			run:     consoleOutput,
		},
	}
}

// steering is a command that changes the state of instances.
func steering(name, short, action string, options ...option) command {
	return command{
		name: name, short: short, takes: "INSTANCE...", as: "InstanceId", options: options,
		run: calling(action, func(s *session, reply *element) {
			for i := range reply.each("instancesSet") {
				s.line("INSTANCE", i.get("instanceId"), i.get("previousState/name"), i.get("currentState/name"))
			}
		}),
	}
}

func printReservation(s *session, r *element) {
	var groups []string
	for g := range r.each("groupSet") {
		groups = append(groups, cmp.Or(g.get("groupName"), g.get("groupId")))
	}
	s.line("RESERVATION", r.get("reservationId"), r.get("ownerId"), strings.Join(groups, ", "))
	instances := slices.SortedStableFunc(r.each("instancesSet"), func(a, b *element) int {
		return cmp.Compare(a.get("launchTime"), b.get("launchTime"))
	})
	for _, i := range instances {
		printInstance(s, i)
	}
}

func printInstance(s *session, i *element) {
	monitoring := i.get("monitoring/state")
	if monitoring != "" {
		monitoring = "monitoring-" + monitoring
	}
	line := append([]string{"INSTANCE"}, i.fields("instanceId", "imageId", "dnsName", "privateDnsName", "instanceState/name", "keyName", "amiLaunchIndex")...)
	line = append(line, strings.Join(i.texts("productCodes", "productCode"), ","))
	line = append(line, i.fields("instanceType", "launchTime", "placement/availabilityZone", "kernelId", "ramdiskId", "platform")...)
	line = append(line, monitoring)
	line = append(line, i.fields("ipAddress", "privateIpAddress", "vpcId", "subnetId", "rootDeviceType", "instanceLifecycle", "spotInstanceRequestId")...)
	line = append(line, "") // the licence, of which EC2 says nothing
	line = append(line, i.fields("placement/groupName", "virtualizationType", "hypervisor", "clientToken")...)
	line = append(line, strings.Join(i.texts("groupSet", "groupId"), ","))
	line = append(line, i.fields("placement/tenancy", "ebsOptimized", "iamInstanceProfile/arn", "architecture")...)
	s.line(line...)
	for d := range i.each("blockDeviceMapping") {
		s.line(append([]string{"BLOCKDEVICE"}, d.fields("deviceName", "ebs/volumeId", "ebs/attachTime", "ebs/deleteOnTermination", "ebs/volumeType", "ebs/iops")...)...)
	}
	for n := range i.each("networkInterfaceSet") {
		printInterface(s, n)
	}
	printTags(s, i, i.get("instanceId"))
}

func printInterface(s *session, n *element) {
	s.line(append([]string{"NETWORKINTERFACE"}, n.fields("networkInterfaceId", "subnetId", "vpcId", "ownerId", "status",
		"privateIpAddress", "privateDnsName", "sourceDestCheck")...)...)
	if a := n.at("attachment"); a != nil {
		s.line(append([]string{"ATTACHMENT"}, a.fields("attachmentId", "deviceIndex", "status", "attachTime", "deleteOnTermination")...)...)
	}
	if a := n.at("association"); a != nil {
		s.line("ASSOCIATION", a.get("publicIp"), a.get("ipOwnerId"), n.get("privateIpAddress"))
	}
	for g := range n.each("groupSet") {
		s.line("GROUP", g.get("groupId"), g.get("groupName"))
	}
	for p := range n.each("privateIpAddressesSet") {
		primary := ""
		if p.get("primary") == "true" {
			primary = "primary"
		}
		s.line("PRIVATEIPADDRESS", p.get("privateIpAddress"), p.get("privateDnsName"), primary)
	}
}

func printStatuses(s *session, reply *element) {
	for i := range reply.each("instanceStatusSet") {
		if s.given("hide-healthy") && i.get("systemStatus/status") == "ok" && i.get("instanceStatus/status") == "ok" {
			continue
		}
		retirement, date := retiring(i)
		s.line(append(append([]string{"INSTANCE"}, i.fields("instanceId", "availabilityZone", "instanceState/name",
			"instanceState/code", "instanceStatus/status", "systemStatus/status")...), retirement, date)...)
		for _, of := range [][2]string{{"SYSTEMSTATUS", "systemStatus/details"}, {"INSTANCESTATUS", "instanceStatus/details"}} {
			for d := range i.each(of[1]) {
				s.line(append([]string{of[0]}, d.fields("name", "status", "impairedSince")...)...)
			}
		}
		for e := range i.each("eventsSet") {
			s.line(append([]string{"EVENT"}, e.fields("code", "notBefore", "notAfter", "description")...)...)
		}
	}
}

// retiring says whether something will be done to the instance, and when at the
// earliest. EC2's times sort as texts.
func retiring(i *element) (state, date string) {
	dates := i.texts("eventsSet", "notBefore")
	if len(dates) == 0 {
		return "active", ""
	}
	return "retiring", slices.Min(dates)
}

func consoleOutput(s *session) error {
	reply, err := s.call("GetConsoleOutput")
	if err != nil {
		return err
	}
	output, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(reply.get("output")), ""))
	if err != nil {
		return fmt.Errorf("the console's output is not base64: %w", err)
	}
	if text := reply.at("output"); text != nil {
		text.text = strings.ToValidUTF8(string(output), "\uFFFD") // for JSON
	}
	return s.show(reply, func() {
		s.out.WriteString(reply.get("instanceId") + "\n" + reply.get("timestamp") + "\n")
		if !s.given("raw-console-output") {
			output = []byte(visible(string(output), "\t\n\r")) // a guest has no power over the terminal
		}
		s.out.Write(output)
		s.out.WriteByte('\n')
	})
}
