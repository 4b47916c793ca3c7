package euca

import (
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// runCommands start instances.
func runCommands() []command {
	return []command{{
		name: "run-instances", short: "Start instances of an image",
		takes: "IMAGE", as: "ImageId",
		options: []option{
			text("n,instance-count", "MIN[-MAX]", "how many; of a range as many as there is room for, but no fewer than MIN (default 1)"),
			list("g,group", "GROUP", "security group, by name or id"),
			text("k,key", "KEYPAIR", "key pair to log in with").to("KeyName"),
			text("d,user-data", "DATA", "what the instances can read as their user data"),
			text("user-data-force", "DATA", "the same, even where a file has that name"),
			text("f,user-data-file", "FILE", "file that holds the user data; - is standard input"),
			text("addressing", "public|private", "whether the instances have public addresses").to("AddressingType").among("public", "private"),
			text("t,instance-type", "TYPE", "type of the instances").to("InstanceType"),
			text("z,availability-zone", "ZONE", "zone they run in").to("Placement.AvailabilityZone"),
			text("kernel", "KERNEL", "kernel image, instead of the image's").to("KernelId"),
			text("ramdisk", "RAMDISK", "ramdisk image, instead of the image's").to("RamdiskId"),
			mappingOption,
			toggle("m,monitor", "monitor them in detail").to("Monitoring.Enabled"),
			toggle("disable-api-termination", "protect them from being terminated").to("DisableApiTermination"),
			text("instance-initiated-shutdown-behavior", "stop|terminate", "what happens when a guest powers off").to("InstanceInitiatedShutdownBehavior").among("stop", "terminate"),
			text("placement-group", "GROUP", "placement group").to("Placement.GroupName"),
			text("tenancy", "TENANCY", "default or dedicated").to("Placement.Tenancy").among("default", "dedicated"),
			text("client-token", "TOKEN", "makes a repeated request the same one").to("ClientToken"),
			text("s,subnet", "SUBNET", "subnet of the network interface"),
			toggle("associate-public-ip-address", "give the network interface a public address"),
			text("private-ip-address", "ADDRESS", "private address of the network interface"),
			list("secondary-address,secondary-private-ip-address", "ADDRESS", "further private address of the network interface"),
			whole("secondary-count,secondary-private-ip-address-count", "COUNT", "how many further private addresses it gets"),
			list("a,network-interface", "INTERFACE", "network interface: ENI:INDEX, or :INDEX:SUBNET:[DESCRIPTION]:[ADDRESS]:[GROUP,...]:[true|false]:[COUNT|:ADDRESS,...]"),
			text("p,iam-profile", "PROFILE", "instance profile, by name or ARN"),
			toggle("ebs-optimized", "give them their own way to their volumes").to("EbsOptimized"),
		},
		run: asking(prepareRun, "RunInstances", printReservation),
	}}
}

func prepareRun(s *session) error {
	for _, step := range []func(*session) error{runCount, userData, mapDevices, runNetwork} {
		if err := step(s); err != nil {
			return err
		}
	}
	if profile := s.text("iam-profile"); strings.HasPrefix(profile, "arn:") {
		s.params.Set("IamInstanceProfile.Arn", profile)
	} else if profile != "" {
		s.params.Set("IamInstanceProfile.Name", profile)
	}
	if !s.given("key") && s.access.KeyPair != "" {
		s.params.Set("KeyName", s.access.KeyPair)
	}
	return nil
}

// runCount reads MIN or MIN-MAX; the smaller of the two is MIN.
func runCount(s *session) error {
	text := s.text("instance-count")
	if text == "" {
		text = "1"
	}
	least, most, isRange := strings.Cut(text, "-")
	if !isRange {
		most = least
	}
	from, err1 := strconv.Atoi(least)
	to, err2 := strconv.Atoi(most)
	if err1 != nil || err2 != nil || from < 1 || to < 1 {
		return fmt.Errorf("argument -n/--instance-count: %q is neither a number such as 1 nor a range such as 1-2", text)
	}
	s.params.Set("MinCount", strconv.Itoa(min(from, to)))
	s.params.Set("MaxCount", strconv.Itoa(max(from, to)))
	return nil
}

// maxUserData is more than any cloud takes, in bytes.
const maxUserData = 1 << 20

func userData(s *session) error {
	if err := s.together("user-data", "user-data-force", "user-data-file"); err != nil {
		return err
	}
	data := []byte(s.text("user-data-force"))
	switch {
	case s.given("user-data"):
		data = []byte(s.text("user-data"))
		if info, err := os.Stat(string(data)); err == nil && !info.IsDir() {
			return fmt.Errorf("argument -d/--user-data: there is a file %s; send what it holds by -f, or its name by --user-data-force", data)
		}
	case s.given("user-data-file"):
		var err error
		if data, err = s.fileOrInput(s.text("user-data-file"), maxUserData); err != nil {
			return fmt.Errorf("argument -f/--user-data-file: %w", err)
		}
	}
	if len(data) > 0 {
		s.params.Set("UserData", base64.StdEncoding.EncodeToString(data))
	}
	return nil
}

// fileOrInput reads a small file, or standard input where its name is -.
func (s *session) fileOrInput(name string, limit int64) ([]byte, error) {
	from := s.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return data, err
}

// runNetwork adds groups and interfaces. Where there is an interface, all that is
// said of the network belongs to one; else groups are the instances' own.
func runNetwork(s *session) error {
	interfaces := s.list("network-interface")
	for i, text := range interfaces {
		nic, err := parseInterface(text)
		if err != nil {
			return err
		}
		addInterface(s.params, i+1, nic)
	}
	if s.given("subnet") || len(interfaces) > 0 {
		nic, err := s.ownInterface()
		if err == nil && len(nic) > 0 {
			nic["DeviceIndex"] = "0"
			addInterface(s.params, len(interfaces)+1, nic)
		}
		return err
	}
	for _, alone := range []string{"associate-public-ip-address", "private-ip-address", "secondary-address", "secondary-count"} {
		if s.given(alone) {
			return fmt.Errorf("argument --%s: only with -s/--subnet or -a/--network-interface", alone)
		}
	}
	ids, names := 0, 0
	for _, group := range s.list("group") {
		if strings.HasPrefix(group, "sg-") {
			ids++
			s.params.Set(fmt.Sprintf("SecurityGroupId.%d", ids), group)
		} else {
			names++
			s.params.Set(fmt.Sprintf("SecurityGroup.%d", names), group)
		}
	}
	return nil
}

// ownInterface is the one that options other than -a speak of.
func (s *session) ownInterface() (map[string]string, error) {
	if err := s.together("secondary-address", "secondary-count"); err != nil {
		return nil, err
	}
	nic := map[string]string{}
	for i, group := range s.list("group") {
		if !strings.HasPrefix(group, "sg-") {
			return nil, fmt.Errorf("argument -g/--group: %q is no group's id, which an interface's are", group)
		}
		nic[fmt.Sprintf("SecurityGroupId.%d", i+1)] = group
	}
	if s.given("associate-public-ip-address") {
		nic["AssociatePublicIpAddress"] = "true"
	}
	if count := s.text("secondary-count"); count != "" {
		nic["SecondaryPrivateIpAddressCount"] = count
	}
	if subnet := s.text("subnet"); subnet != "" {
		nic["SubnetId"] = subnet
	}
	addAddresses(nic, s.text("private-ip-address"), s.list("secondary-address"))
	return nic, nil
}

// addAddresses of an interface: the primary one, which may be "", and others.
func addAddresses(nic map[string]string, primary string, others []string) {
	all := others
	if primary != "" {
		all = append([]string{primary}, others...)
		nic["PrivateIpAddresses.1.Primary"] = "true"
	}
	for i, a := range all {
		nic[fmt.Sprintf("PrivateIpAddresses.%d.PrivateIpAddress", i+1)] = a
	}
}

func addInterface(params url.Values, n int, nic map[string]string) {
	for name := range maps.Keys(nic) {
		params.Set(fmt.Sprintf("NetworkInterface.%d.%s", n, name), nic[name])
	}
}

// parseInterface reads -a's nine parts:
// [ENI]:INDEX:[SUBNET]:[DESCRIPTION]:[ADDRESS]:[GROUP,...]:[true|false]:[COUNT|:ADDRESS,...]
func parseInterface(text string) (map[string]string, error) {
	parts := strings.Split(text, ":")
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("argument -a/--network-interface: %q: "+format, append([]any{text}, args...)...)
	}
	if len(parts) < 2 || len(parts) > 9 {
		return nil, wrong("it has %d parts instead of 2 to 9", len(parts))
	}
	parts = append(parts, make([]string, 9-len(parts))...)
	if _, err := strconv.ParseUint(parts[1], 10, 16); err != nil {
		return nil, wrong("its index %q is not a number", parts[1])
	}
	if d := parts[6]; d != "" && d != "true" && d != "false" {
		return nil, wrong("%q is neither true nor false", d)
	}
	if _, err := strconv.ParseUint(parts[7], 10, 16); err != nil && parts[7] != "" {
		return nil, wrong("its count of addresses %q is not a number", parts[7])
	}
	if parts[7] != "" && parts[8] != "" {
		return nil, wrong("it has both a count of addresses and addresses")
	}
	nic := map[string]string{}
	for i, name := range map[int]string{0: "NetworkInterfaceId", 1: "DeviceIndex", 2: "SubnetId", 3: "Description", 6: "DeleteOnTermination", 7: "SecondaryPrivateIpAddressCount"} {
		if parts[i] != "" {
			nic[name] = parts[i]
		}
	}
	for i, group := range listed(parts[5]) {
		if !strings.HasPrefix(group, "sg-") {
			return nil, wrong("%q is no group's id", group)
		}
		nic[fmt.Sprintf("SecurityGroupId.%d", i+1)] = group
	}
	addAddresses(nic, parts[4], listed(parts[8]))
	return nic, nil
}

// listed are the words between commas.
func listed(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}
