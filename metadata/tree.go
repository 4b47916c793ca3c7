package metadata

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"mallee/cloud"
)

// folder holds leaves (string, lazy, or []byte for what is no text) and folders by
// name. Empty leaves are left out where they mean that there is nothing.
type folder map[string]any

// list names what is in the folder, as EC2 does: sorted, folders with a slash.
func (f folder) list() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		switch v := f[name].(type) {
		case folder:
			name += "/"
		case labelled:
			name += "=" + v.label
		}
		names = append(names, name)
	}
	return names
}

// labelled is a folder that is listed as NAME=LABEL, as public keys are.
type labelled struct {
	folder
	label string
}

// find the leaf or the folder at a path; nil if there is none.
func (f folder) find(parts []string) any {
	if len(parts) == 0 {
		return f
	}
	switch v := f[parts[0]].(type) {
	case folder:
		return v.find(parts[1:])
	case labelled:
		return v.find(parts[1:])
	default:
		if len(parts) > 1 {
			return nil // a leaf has nothing below it
		}
		return v
	}
}

// set a leaf, if there is anything to say.
func (f folder) set(name, value string) {
	if value != "" {
		f[name] = value
	}
}

// root of everything that the instance can read in one version.
func (s *service) root(i Instance) folder {
	f := folder{
		"meta-data": metaData(i),
		"dynamic": folder{
			"instance-identity": s.Signer.identity(i),
			"fws":               folder{"instance-monitoring": "disabled"},
		},
	}
	if len(i.UserData) > 0 {
		f["user-data"] = i.UserData
	}
	return f
}

// metaData of the instance. Of EC2's categories those are missing that would have
// nothing true to say: system (the names of Amazon's hypervisors), product-codes,
// spot, autoscaling, elastic-gpus and identity-credentials; iam, until there are
// instance profiles; and in network subnet-id and vpc-id, until there are VPCs.
func metaData(i Instance) folder {
	f := folder{
		"ami-id":               string(i.Image.ID),
		"ami-launch-index":     strconv.Itoa(i.LaunchIndex),
		"ami-manifest-path":    manifestPath(i),
		"block-device-mapping": devices(i),
		"events":               folder{"maintenance": folder{"history": "[]", "scheduled": "[]"}},
		"hibernation":          folder{"configured": "false"},
		"hostname":             i.PrivateName(),
		"instance-action":      "none",
		"instance-id":          string(i.ID),
		"instance-life-cycle":  "on-demand",
		"instance-type":        string(i.Type),
		"local-hostname":       i.PrivateName(),
		"local-ipv4":           i.Local.String(),
		"mac":                  i.MAC,
		"network":              folder{"interfaces": folder{"macs": folder{i.MAC: networkInterface(i)}}},
		"placement":            folder{"availability-zone": i.Zone, "region": i.Region},
		"profile":              "default-" + string(i.Virtualization),
		"reservation-id":       string(i.Reservation),
		"security-groups":      groupNames(i),
		"services":             folder{"domain": "amazonaws.com", "partition": "aws"},
	}
	if i.Public.IsValid() {
		f["public-ipv4"] = i.Public.String()
		f["public-hostname"] = i.Public.String()
	}
	if i.Kernel != nil {
		f["kernel-id"] = string(i.Kernel.ID)
	}
	if i.Ramdisk != nil {
		f["ramdisk-id"] = string(i.Ramdisk.ID)
	}
	if i.MetadataTags {
		f["tags"] = folder{"instance": tags(i)}
	}
	if i.KeyName != "" {
		f["public-keys"] = folder{"0": labelled{folder{"openssh-key": i.PublicKey}, i.KeyName}}
	}
	return f
}

// tags of the instance, which its owner lets it see. The cloud refuses those whose
// keys can't be names here.
func tags(i Instance) folder {
	f := folder{}
	for key, value := range i.Tags {
		f[key] = value
	}
	return f
}

// manifestPath is where the image's bundle lies, without the bucket's slash.
func manifestPath(i Instance) string { return strings.TrimPrefix(i.Image.Location, "/") }

func groupNames(i Instance) string {
	var names []string
	for _, g := range i.Groups {
		names = append(names, g.Name)
	}
	return strings.Join(names, "\n")
}

// devices as the guest is told of them, its volumes but for the root numbered in
// the order of their names.
func devices(i Instance) folder {
	f := ownDevices(i)
	for n, device := range i.Volumes {
		f["ebs"+strconv.Itoa(n+1)] = path.Base(device)
	}
	return f
}

// ownDevices are those that are no volumes beside the root; names as Eucalyptus
// has them.
func ownDevices(i Instance) folder {
	if i.Virtualization == cloud.Paravirtual {
		return folder{"ami": "sda1", "emi": "sda1", "root": "/dev/sda1", "ephemeral0": "sda2", "swap": "sda3"}
	}
	f := folder{"ami": path.Base(i.RootDevice), "emi": path.Base(i.RootDevice), "root": i.RootDevice}
	if device := ephemeral(i); device != "" {
		f["ephemeral0"] = path.Base(device)
	}
	return f
}

// ephemeral is where an HVM instance has its ephemeral disk: where it was mapped,
// or beside an instance-store root if nothing was said.
func ephemeral(i Instance) string {
	for _, m := range i.Mappings {
		if m.VirtualName == cloud.Ephemeral0 {
			return m.Device
		}
	}
	if i.EBS || len(i.Mappings) > 0 {
		return ""
	}
	return "sdb"
}

func networkInterface(i Instance) folder {
	f := folder{
		"device-number":          "0",
		"interface-id":           "eni-" + strings.TrimPrefix(string(i.ID), "i-"),
		"local-hostname":         i.PrivateName(),
		"local-ipv4s":            i.Local.String(),
		"mac":                    i.MAC,
		"owner-id":               string(i.Account),
		"security-groups":        groupNames(i),
		"subnet-ipv4-cidr-block": i.Subnet.String(),
		"vpc-ipv4-cidr-block":    i.Subnet.String(),
		"vpc-ipv4-cidr-blocks":   i.Subnet.String(),
	}
	var ids []string
	for _, g := range i.Groups {
		ids = append(ids, string(g.ID))
	}
	f.set("security-group-ids", strings.Join(ids, "\n"))
	if i.Public.IsValid() {
		f["public-ipv4s"] = i.Public.String()
		f["ipv4-associations"] = folder{i.Public.String(): i.Local.String()}
		f["public-hostname"] = i.Public.String()
	}
	return f
}
