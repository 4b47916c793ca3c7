// Package hypervisor is the seam between a node and what really runs virtual
// machines: hypervisor/qemu in earnest, hypervisor/fake in simulations. Both
// pass hypervisor/hypervisortest.
//
// A machine lives in a folder of its own, which the caller makes and removes
// and which is the machine's whole identity: a hypervisor keeps there what it
// needs to find the machine again (sockets, pid, logs), and finds it by
// nothing else. Machines outlive the program that started them.
//
//	          Start                  guest powers off
//	Absent ──────────▶ Running ────────────────────────▶ Exited
//	   ▲                  │  │ Reset, PowerDown+Reset       │
//	   │   Kill, crash    │  └──▶ Running                   │ Reset ──▶ Running
//	   └──────────────────┴─────────────────────────────────┘ Kill
//
// A machine without processors is a keeper: it opens its disks, so that they can
// be copied and filled while no guest has them, and is Running until Kill.
package hypervisor

import (
	"context"
	"errors"
	"io"

	"mallee/block"
	"mallee/network"
)

// Machine is all that a hypervisor has to know to start a virtual machine.
type Machine struct {
	ID        string // the instance's id: names the machine to people
	Dir       string // absolute path of the machine's own folder, which exists
	VCPUs     int    // 0: a keeper, to which all but ID, Dir and Disks is nothing
	MemoryMiB int

	// Direct kernel boot, for paravirtual images; all empty boots by firmware
	// from the first disk.
	Kernel  string // path
	Ramdisk string // path
	Append  string // kernel command line

	Disks []Disk // in the order that the guest shall see them
	NICs  []NIC

	// How the machine shows itself by SMBIOS; guests recognise EC2 by UUID and
	// serial number that are equal and begin with ec2.
	UUID         string
	Manufacturer string
	Product      string // the instance type
}

// Disk is a block device of a machine.
type Disk struct {
	Serial     string // 1 to 20 of A-Z, a-z, 0-9 and -, shown to the guest; names the disk, unique in a machine
	Attachment block.Attachment
	Limits     Limits
}

// NIC is a network interface of a machine.
type NIC struct {
	MAC        string
	Attachment network.Attachment
}

// Status is what a hypervisor sees of a machine.
type Status string

const (
	Absent  Status = "absent"  // no process, or none that this folder owns
	Running Status = "running" // the virtual machine exists, booting or booted
	Exited  Status = "exited"  // the guest powered itself off; the process waits for Reset or Kill
)

// ErrNoScreen is Screenshot's answer where nothing is running that has a screen.
var ErrNoScreen = errors.New("there is no machine with a screen")

// Hypervisor runs machines. All methods may be called at once for different
// machines; calls for one machine are made one at a time. dir is Machine.Dir.
type Hypervisor interface {
	Storage

	// Start brings the machine to Running and returns when it is. Where it
	// fails, no process is left, and the error says what the hypervisor said.
	// Starting a machine that is not Absent is an error.
	Start(ctx context.Context, m Machine) error

	// Observe sees how the machine stands, also one that an earlier program
	// started. A machine that can't be talked to, but whose process lives, is
	// Running; so is one that waits for space on the host's disk, which observing
	// it lets try again.
	Observe(ctx context.Context, dir string) (Status, error)

	// PowerDown asks the guest to shut down (the ACPI power button) and returns
	// at once; a guest may ignore it, and one that is booting does. It comes to
	// Exited when it obeys. Absent is an error, Exited is none.
	PowerDown(ctx context.Context, dir string) error

	// Reset starts the guest anew from its firmware, disks and process kept.
	// Running or Exited before, Running after.
	Reset(ctx context.Context, dir string) error

	// Kill ends the machine at once and returns when its process is gone:
	// Absent, whatever it was before. Killing what is absent is no error.
	Kill(ctx context.Context, dir string) error

	// Console opens the serial console's log from its beginning: what the guest
	// has written since the machine's first start, of which all but the last
	// MiB may be gone. The machine need not run. An unwritten console is empty.
	Console(dir string) (io.ReadSeekCloser, error)

	// Screenshot is a picture of the guest's screen, a PNG file's bytes; wake
	// presses a key before, for a screen that sleeps. ErrNoScreen where the
	// machine is Absent or a keeper. It may be called beside other calls.
	Screenshot(ctx context.Context, dir string, wake bool) ([]byte, error)

	// Changes pokes when a machine that this program knows (started or
	// observed) may have changed by itself. A hint, never a promise: callers
	// observe on a timer too.
	Changes() <-chan struct{}

	// Close forgets the machines, and leaves them running.
	Close() error
}
