package image

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
)

// A machine is an emulated one that does a piece of work on disks and then powers off. It always is emulated,
// whatever the host could do, so that it does the same everywhere.
type machine struct {
	kernel, ramdisk string
	memory          int      // MiB
	disks           []string // raw files: /dev/vda, /dev/vdb…
}

// run returns when the machine has powered off, having handed on every line of its console.
func (m machine) run(ctx context.Context, console func(line string)) error {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return &MissingToolError{Tool: "qemu-system-x86_64", Package: "qemu-system-x86"}
	}
	args, err := m.arguments()
	if err != nil {
		return err
	}
	return runLines(exec.CommandContext(ctx, qemu, args...), console)
}

func (m machine) arguments() ([]string, error) {
	args := []string{"-M", "q35", "-accel", "tcg,tb-size=256", "-m", strconv.Itoa(m.memory), "-smp", "1", "-nodefaults", "-no-user-config",
		"-display", "none", "-serial", "stdio", "-no-reboot", "-net", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-rtc", "base=" + epoch.Format("2006-01-02T15:04:05"),
		"-kernel", m.kernel, "-initrd", m.ramdisk, "-append", "console=ttyS0 panic=-1 " + TinyArguments}
	for i, file := range m.disks {
		// Nothing has to survive the loss of power: an installation that ended early is done again.
		node, err := json.Marshal(map[string]any{"driver": "raw", "node-name": fmt.Sprintf("d%d", i), "discard": "unmap", "detect-zeroes": "unmap",
			"cache": map[string]any{"no-flush": true}, "file": map[string]any{"driver": "file", "filename": file, "locking": "off"}})
		if err != nil {
			return nil, err
		}
		args = append(args, "-blockdev", string(node), "-device", fmt.Sprintf("virtio-blk-pci,drive=d%d", i))
	}
	return args, nil
}
