package qemu

import (
	"fmt"

	"mallee/hypervisor"
)

// keeperCommandLine is that of the storage daemon, QEMU's block layer without a
// machine, for a machine without processors. Monitor, lock, pid and logs are as
// in a machine with a guest. It has no -sandbox of its own (7.2), and needs one
// less: no guest talks to it.
func keeperCommandLine(m hypervisor.Machine) []string {
	return append([]string{
		"--pidfile", keeperName,
		"--chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", listenFD),
		"--monitor", "chardev=qmp,mode=control",
	}, diskOptions(m.Disks)...)
}
