package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"mallee/block"
	"mallee/hypervisor"
)

// The nodes and objects of a disk are named by its serial, so that any later
// program finds them in QEMU and nowhere else:
//
//	device disk-S, in a machine with a guest
//	   │
//	disk-S, throttle ── object limit-S
//	   │
//	data-S, qcow2 or raw; the marks are its dirty bitmaps ── object key-S
//	   │        │
//	file-S   source-S, nbd, as long as the disk stands on a source
const (
	diskPrefix   = "disk-"
	dataPrefix   = "data-"
	filePrefix   = "file-"
	sourcePrefix = "source-"
	limitPrefix  = "limit-"
	keyPrefix    = "key-"
	filledPrefix = "filled-" // an object that means: its filling has ended well
	// The node that a device has in place of a disk that was taken by force.
	gonePrefix = "gone-"

	// The bridge that takes disks while the guest runs, in its 31 places. One bridge
	// costs a boot less than a PCI Express port for each.
	slotsBridge = "slots"
	lastSlot    = 31

	// How long a guest's reads wait for a source's server that is away. Longer
	// than it takes to start us anew; shorter than storageTimeout, for QEMU's monitor
	// may have to wait too. Then the guest is paused.
	reconnectSeconds = 10
)

// validSerial is what fits into the names of nodes, of which QEMU takes 31
// bytes, and of jobs, whose parts a dot parts.
var validSerial = regexp.MustCompile(`^[A-Za-z0-9-]{1,20}$`)

// checkDisk refuses a disk that QEMU would misunderstand.
func checkDisk(d hypervisor.Disk) error {
	a := d.Attachment
	switch {
	case !validSerial.MatchString(d.Serial):
		return fmt.Errorf("disk serial %q: want 1 to 20 bytes of A-Z, a-z, 0-9 and -", d.Serial)
	case a.Format != "qcow2" && a.Format != "raw":
		return fmt.Errorf("disk %s of format %q: want qcow2 or raw", where(a), a.Format)
	case a.RBD.Image == "" && !filepath.IsAbs(a.Path):
		return fmt.Errorf("disk %q: want an absolute path", a.Path)
	case a.RBD.Image != "" && a.Path != "":
		return fmt.Errorf("disk %q is %s too: want one of them", a.Path, a.RBD)
	case a.Format == "raw" && (len(a.Key) > 0 || a.Source.Socket != ""):
		return fmt.Errorf("disk %s is raw, and has a key or a source: want qcow2", where(a))
	}
	if err := checkLimits(d.Limits); err != nil {
		return fmt.Errorf("disk %s: %w", where(a), err)
	}
	return nil
}

// checkLimits refuses what QEMU would, with words that say which.
func checkLimits(l hypervisor.Limits) error {
	switch {
	case min(l.IOPS, l.BurstIOPS, l.BurstSeconds) < 0 || min(l.BytesPerSecond, l.BurstBytesPerSecond, l.OperationBytes) < 0:
		return fmt.Errorf("limits %+v: want none below zero", l)
	case l.BurstIOPS > 0 && (l.IOPS == 0 || l.BurstIOPS < l.IOPS), l.BurstBytesPerSecond > 0 && (l.BytesPerSecond == 0 || l.BurstBytesPerSecond < l.BytesPerSecond):
		return fmt.Errorf("limits %+v: want a burst of at least the limit", l)
	case (l.BurstIOPS > 0 || l.BurstBytesPerSecond > 0) != (l.BurstSeconds > 0):
		return fmt.Errorf("limits %+v: want a burst and its seconds, or neither", l)
	}
	return nil
}

// where a disk is, in errors.
func where(a block.Attachment) string { return a.Path + a.RBD.String() }

func checkDisks(disks []hypervisor.Disk) error {
	seen := map[string]bool{}
	for _, d := range disks {
		if err := checkDisk(d); err != nil {
			return err
		}
		if seen[d.Serial] {
			return fmt.Errorf("two disks with the serial %s", d.Serial)
		}
		seen[d.Serial] = true
	}
	return nil
}

// blockdev describes the disk's nodes. The host's page cache stays on:
// instances share their base in it, and a guest's flush still syncs the file.
// What a guest discards goes back to the host. Locking makes QEMU refuse a
// disk that another machine writes.
func blockdev(d hypervisor.Disk) arguments {
	data := dataNode(d.Attachment.Format, d.Serial, len(d.Attachment.Key) > 0)
	data["file"] = fileNode(d)
	if d.Attachment.Source.Socket != "" {
		data["backing"] = sourcePrefix + d.Serial
	}
	return arguments{
		"driver":         "throttle",
		"node-name":      diskPrefix + d.Serial,
		"discard":        "unmap",
		"throttle-group": limitPrefix + d.Serial,
		"file":           data,
	}
}

// fileNode describes the node of the disk's bytes. Ceph's has no locking. Its cache
// on the host is written through at each of the guest's flushes.
func fileNode(d hypervisor.Disk) arguments {
	n := arguments{"node-name": filePrefix + d.Serial, "discard": "unmap"}
	if r := d.Attachment.RBD; r.Image != "" {
		n["driver"], n["conf"], n["user"] = "rbd", r.Conf, r.User
		n["pool"], n["namespace"], n["image"] = r.Pool, r.Namespace, r.Image
		return n
	}
	n["driver"], n["filename"], n["locking"] = "file", d.Attachment.Path, "on"
	return n
}

// dataNode describes the node that knows the disk's format, but for what it
// stands on.
func dataNode(format, serial string, encrypted bool) arguments {
	data := arguments{"driver": format, "node-name": dataPrefix + serial, "discard": "unmap"}
	if encrypted {
		data["encrypt"] = arguments{"format": "luks", "key-secret": keyPrefix + serial}
	}
	return data
}

// sourceNode describes what a disk stands on. It is a node by itself, for QEMU (7.2)
// mixes the description of one inside with what the disk's header says of it.
func sourceNode(d hypervisor.Disk) arguments {
	s := d.Attachment.Source
	return export(sourcePrefix+d.Serial, s.Socket, s.Export, arguments{"read-only": true})
}

// export describes a node that is an export of an NBD server.
func export(node, socket, name string, more arguments) arguments {
	n := arguments{
		"driver":          "nbd",
		"node-name":       node,
		"server":          arguments{"type": "unix", "path": socket},
		"export":          name,
		"reconnect-delay": reconnectSeconds,
	}
	for k, v := range more {
		n[k] = v
	}
	return n
}

// limiter describes the object that bounds a disk.
func limiter(d hypervisor.Disk) arguments {
	return arguments{"qom-type": "throttle-group", "id": limitPrefix + d.Serial, "limits": limits(d.Limits)}
}

// limits as QEMU has them. Its bucket holds max times max-length, leaks as fast as
// the limit, and is filled by what the guest does, at most as fast as max: EC2's
// bucket of credits, seen from the other side. Each is always named: what isn't
// stays as it was.
func limits(l hypervisor.Limits) arguments {
	operations, operationsFor := burst(int64(l.BurstIOPS), l.BurstSeconds)
	bytes, bytesFor := burst(l.BurstBytesPerSecond, l.BurstSeconds)
	size := l.OperationBytes
	if l.IOPS == 0 {
		size = 0 // QEMU refuses it where operations aren't counted
	}
	return arguments{
		"iops-total": l.IOPS, "iops-total-max": operations, "iops-total-max-length": operationsFor, "iops-size": size,
		"bps-total": l.BytesPerSecond, "bps-total-max": bytes, "bps-total-max-length": bytesFor,
	}
}

// burst and how long it may last; QEMU has no length of none.
func burst(most int64, seconds int) (int64, int) {
	if most == 0 {
		return 0, 1
	}
	return most, seconds
}

// secret describes the object that has a disk's key, from a file that QEMU
// reads at once.
func secret(d hypervisor.Disk, more arguments) arguments {
	o := arguments{"qom-type": "secret", "id": keyPrefix + d.Serial}
	for k, v := range more {
		o[k] = v
	}
	return o
}

// device describes what the guest sees. A read from a source that fails, and a
// write that needs one, pauses the guest rather than tell it: the data is
// there, only not now. Otherwise the guest is paused only while the host's disk
// is full, which is QEMU's default.
func device(d hypervisor.Disk) []option {
	options := []option{
		{"driver", "virtio-blk-pci"},
		{"id", diskPrefix + d.Serial},
		{"drive", diskPrefix + d.Serial},
		{"serial", d.Serial},
	}
	if d.Attachment.Source.Socket != "" {
		options = append(options, option{"rerror", "stop"}, option{"werror", "stop"})
	}
	return options
}

// inSlot has a device sit in a place of the bridge, numbered from one.
func inSlot(options []option, slot int) []option {
	return append(options, option{"bus", slotsBridge}, option{"addr", fmt.Sprintf("%#x", slot)})
}

// option is one of a device, for the command line or for the monitor.
type option struct{ name, value string }

func commandOption(options []option) string {
	parts := make([]string, len(options))
	for i, o := range options {
		parts[i] = o.name + "=" + escape(o.value)
	}
	return strings.TrimPrefix(strings.Join(parts, ","), "driver=")
}

func deviceArguments(options []option) arguments {
	a := arguments{}
	for _, o := range options {
		a[o.name] = o.value
	}
	return a
}

// diskOptions has the disks opened at the start. A key comes by a file
// descriptor, from firstKeyFD on, one for each disk that has one.
func diskOptions(disks []hypervisor.Disk) []string {
	var args []string
	key := firstKeyFD
	for _, d := range disks {
		args = append(args, "--object", text(limiter(d)))
		if len(d.Attachment.Key) > 0 {
			args = append(args, "--object", text(secret(d, arguments{"file": fmt.Sprintf("/dev/fd/%d", key)})))
			key++
		}
		if d.Attachment.Source.Socket != "" {
			args = append(args, "--blockdev", text(sourceNode(d)))
		}
		args = append(args, "--blockdev", text(blockdev(d)))
	}
	return args
}

func text(a arguments) string {
	t, err := json.Marshal(a)
	if err != nil {
		panic("hypervisor/qemu: strings and numbers always marshal: " + err.Error())
	}
	return string(t)
}

// passphrases are the keys that diskOptions speaks of, in its order.
func passphrases(disks []hypervisor.Disk) []string {
	var all []string
	for _, d := range disks {
		if key := d.Attachment.Key; len(key) > 0 {
			all = append(all, block.Passphrase(key))
		}
	}
	return all
}

var errNoDisk = errors.New("the machine has no such disk")
