package euca

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// mappingOption is the one by which devices are mapped.
var mappingOption = list("b,block-device-mapping", "DEVICE=MAPPED",
	"map a device to none, ephemeral0 to ephemeral3, or [SNAPSHOT]:[GiB]:[true|false]:[TYPE[:IOPS]], where true is to delete the volume with the instance")

// mapping of a device: its parameters below BlockDeviceMapping.N., "DeviceName" and the like.
type mapping map[string]string

// parseMapping reads DEVICE=MAPPED.
func parseMapping(text string) (mapping, error) {
	device, mapped, ok := strings.Cut(text, "=")
	if !ok || device == "" || mapped == "" {
		return nil, fmt.Errorf("block device mapping %q is not DEVICE=MAPPED; %s=none takes a mapping away", text, device)
	}
	m := mapping{"DeviceName": device}
	switch {
	case strings.EqualFold(mapped, "none"):
		m["NoDevice"] = "true"
		return m, nil
	case strings.HasPrefix(mapped, "ephemeral"):
		m["VirtualName"] = mapped
		return m, nil
	case strings.HasPrefix(mapped, "snap-"), strings.HasPrefix(mapped, ":"):
		return m, m.volume(mapped)
	}
	return nil, fmt.Errorf("block device mapping %q maps to none of none, ephemeral0 to ephemeral3, [SNAPSHOT]:[GiB]:[true|false]:[TYPE[:IOPS]]", text)
}

// volume reads [SNAPSHOT]:[GiB]:[true|false]:[TYPE[:IOPS]].
func (m mapping) volume(mapped string) error {
	names := []string{"Ebs.SnapshotId", "Ebs.VolumeSize", "Ebs.DeleteOnTermination", "Ebs.VolumeType", "Ebs.Iops"}
	parts := strings.Split(mapped, ":")
	if len(parts) > len(names) {
		return fmt.Errorf("block device mapping %q has more parts than [SNAPSHOT]:[GiB]:[true|false]:[TYPE[:IOPS]]", mapped)
	}
	for i, part := range parts {
		if part != "" {
			m[names[i]] = part
		}
	}
	if len(m) == 1 {
		return fmt.Errorf("block device mapping %q says nothing of the volume; none takes a mapping away", mapped)
	}
	for _, name := range []string{"Ebs.VolumeSize", "Ebs.Iops"} {
		if _, err := strconv.ParseUint(m[name], 10, 31); err != nil && m[name] != "" {
			return fmt.Errorf("block device mapping %q: %q is not a whole number", mapped, m[name])
		}
	}
	if d := strings.ToLower(m["Ebs.DeleteOnTermination"]); d != "" {
		if d != "true" && d != "false" {
			return fmt.Errorf("block device mapping %q: %q is neither true nor false", mapped, d)
		}
		m["Ebs.DeleteOnTermination"] = d
	}
	if m["Ebs.Iops"] != "" && m["Ebs.VolumeType"] == "standard" {
		return fmt.Errorf("block device mapping %q: a volume of type standard has no IOPS to choose", mapped)
	}
	return nil
}

// parseMappings of a command's -b.
func (s *session) parseMappings() ([]mapping, error) {
	var all []mapping
	for _, text := range s.list("block-device-mapping") {
		m, err := parseMapping(text)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// addMappings to a request.
func addMappings(params url.Values, all []mapping) {
	for i, m := range all {
		for name, value := range m {
			params.Set(fmt.Sprintf("BlockDeviceMapping.%d.%s", i+1, name), value)
		}
	}
}

// mapDevices is the prepare of commands that have only to add -b to the request.
func mapDevices(s *session) error {
	all, err := s.parseMappings()
	addMappings(s.params, all)
	return err
}

// printMappings of an image.
func printMappings(s *session, image *element) {
	for m := range image.each("blockDeviceMapping") {
		if virtual := m.get("virtualName"); virtual != "" {
			s.line("BLOCKDEVICEMAPPING", "EPHEMERAL", m.get("deviceName"), virtual)
			continue
		}
		s.line(append([]string{"BLOCKDEVICEMAPPING", "EBS"}, m.fields("deviceName",
			"ebs/snapshotId", "ebs/volumeSize", "ebs/deleteOnTermination", "ebs/volumeType", "ebs/iops")...)...)
	}
}
