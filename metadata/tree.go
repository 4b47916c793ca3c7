package metadata

import (
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"mallee/cloud"
)

// folder holds leaves (string, or []byte for what is no text) and folders by
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
func root(i Instance) folder {
	f := folder{
		"meta-data": metaData(i),
		"dynamic":   folder{"instance-identity": folder{"document": document(i)}},
	}
	if len(i.UserData) > 0 {
		f["user-data"] = i.UserData
	}
	return f
}

func metaData(i Instance) folder {
	f := folder{
		"ami-id":               string(i.Image.ID),
		"ami-launch-index":     strconv.Itoa(i.LaunchIndex),
		"ami-manifest-path":    manifestPath(i),
		"block-device-mapping": devices(i),
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
	if i.KeyName != "" {
		f["public-keys"] = folder{"0": labelled{folder{"openssh-key": i.PublicKey}, i.KeyName}}
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

// devices as the guest is told of them; names as Eucalyptus has them.
func devices(i Instance) folder {
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
		f["public-hostname"] = i.Public.String()
	}
	return f
}

// document is the instance's identity; it isn't signed yet, and so no
// signature is listed beside it.
func document(i Instance) string {
	orNull := func(r *cloud.ImageRef) *cloud.ImageID {
		if r == nil {
			return nil
		}
		return &r.ID
	}
	data, err := json.MarshalIndent(struct {
		AccountID        cloud.AccountID  `json:"accountId"`
		Architecture     string           `json:"architecture"`
		AvailabilityZone string           `json:"availabilityZone"`
		ImageID          cloud.ImageID    `json:"imageId"`
		InstanceID       cloud.InstanceID `json:"instanceId"`
		InstanceType     cloud.TypeName   `json:"instanceType"`
		KernelID         *cloud.ImageID   `json:"kernelId"`
		PendingTime      string           `json:"pendingTime"`
		PrivateIP        string           `json:"privateIp"`
		RamdiskID        *cloud.ImageID   `json:"ramdiskId"`
		Region           string           `json:"region"`
		Version          string           `json:"version"`
	}{
		i.Account, i.Architecture, i.Zone, i.Image.ID, i.ID, i.Type, orNull(i.Kernel),
		i.LaunchedAt.UTC().Format(time.RFC3339), i.Local.String(), orNull(i.Ramdisk), i.Region, "2017-09-30",
	}, "", "  ")
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(data)
}
