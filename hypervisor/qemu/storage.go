package qemu

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"mallee/block"
	"mallee/hypervisor"
)

// Disks lists the disks. One that the guest has given back is closed here, and
// then no longer listed. See hypervisor.Storage.
func (h *Hypervisor) Disks(ctx context.Context, dir string) ([]string, error) {
	var open []string
	err := h.onDisks(ctx, dir, func(m *machine, s *storage) error {
		for _, serial := range s.serials() {
			if m.keeper || s.devices[diskPrefix+serial] {
				open = append(open, serial)
				continue
			}
			closed, err := m.release(ctx, s, serial)
			if err != nil {
				return err
			}
			if !closed {
				open = append(open, serial)
			}
		}
		return m.sweep(ctx, s)
	})
	if errors.Is(err, errAbsent) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the disks of the machine in %s: %w", dir, err)
	}
	return open, nil
}

// onDisks looks at the machine's disks and does something.
func (h *Hypervisor) onDisks(ctx context.Context, dir string, do func(*machine, *storage) error) error {
	m, err := h.await(ctx, dir)
	if err != nil {
		return err
	}
	s, err := m.storage(ctx)
	if err != nil && m.process.dead() {
		return errAbsent
	}
	if err != nil {
		return err
	}
	return do(m, s)
}

// release closes a disk that no device has. While it is copied it has to stay
// open: QEMU (7.2) aborts at its end where a node's last name is taken under a
// job. A filling ends here, and goes on wherever the disk is next.
func (m *machine) release(ctx context.Context, s *storage, serial string) (closed bool, err error) {
	for _, j := range s.jobs {
		if j.serial == serial && j.mark == "" {
			if err := m.endFilling(ctx, j); err != nil {
				return false, err
			}
		} else if j.serial == serial && !j.ended() {
			return false, nil
		}
	}
	err = m.closeNode(ctx, diskPrefix+serial)
	if err != nil {
		return false, err
	}
	return true, m.forgetParts(ctx, serial)
}

// closeNode closes a node whose device is gone; QEMU lets go of it a moment later.
func (m *machine) closeNode(ctx context.Context, name string) error {
	return until(ctx, func(ctx context.Context) (bool, error) {
		err := m.order(ctx, "blockdev-del", arguments{"node-name": name}, nil)
		if refused := (*commandError)(nil); errors.As(err, &refused) && strings.Contains(refused.Desc, "in use") {
			return false, nil
		}
		return true, err
	})
}

// forgetParts removes a disk's source and objects, of which only some may be there.
func (m *machine) forgetParts(ctx context.Context, serial string) error {
	err := m.attempt(ctx,
		step{"blockdev-del", arguments{"node-name": sourcePrefix + serial}},
		step{"object-del", arguments{"id": limitPrefix + serial}},
		step{"object-del", arguments{"id": keyPrefix + serial}},
	)
	if refused := (*commandError)(nil); errors.As(err, &refused) {
		return nil
	}
	return err
}

// sweep removes what stood in for disks that were taken by force, when the
// guest has let go of them.
func (m *machine) sweep(ctx context.Context, s *storage) error {
	for name := range s.nodes {
		if serial, ok := strings.CutPrefix(name, gonePrefix); ok && !s.devices[diskPrefix+serial] {
			if err := m.closeNode(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Plug gives a disk to a machine. See hypervisor.Storage.
func (h *Hypervisor) Plug(ctx context.Context, dir string, d hypervisor.Disk) error {
	err := checkDisk(d)
	if err == nil {
		err = h.onDisks(ctx, dir, func(m *machine, s *storage) error { return m.plug(ctx, s, d) })
	}
	if err != nil {
		return fmt.Errorf("plugging the disk %s into the machine in %s: %w", d.Serial, dir, err)
	}
	return nil
}

func (m *machine) plug(ctx context.Context, s *storage, d hypervisor.Disk) error {
	if err := m.runs(ctx); err != nil {
		return err
	}
	_, open := s.nodes[dataPrefix+d.Serial]
	held := s.devices[diskPrefix+d.Serial]
	switch {
	case open && (held || m.keeper):
		return nil
	case held:
		return errors.New("the guest has not let go yet of the disk that was taken from it; it does so when it is reset")
	case open: // a program died in between, or the guest has just given it back
		if closed, err := m.release(ctx, s, d.Serial); err != nil || !closed {
			return errors.Join(err, errors.New("it is still being copied since it was unplugged"))
		}
	}
	if err := m.forgetParts(ctx, d.Serial); err != nil {
		return err
	}
	err := m.open(ctx, d)
	if err == nil && !m.keeper {
		err = m.addDevice(ctx, s, d)
	}
	if err != nil {
		undo := m.attempt(ctx, step{"blockdev-del", arguments{"node-name": diskPrefix + d.Serial}})
		if refused := (*commandError)(nil); errors.As(undo, &refused) {
			undo = nil // it may not have come that far
		}
		return errors.Join(err, undo, m.forgetParts(ctx, d.Serial))
	}
	return nil
}

// runs refuses a machine that is Exited.
func (m *machine) runs(ctx context.Context) error {
	if m.keeper {
		return nil
	}
	state, err := m.state(ctx)
	if err == nil && state == stateShutdown {
		err = errors.New("its guest has powered off")
	}
	return err
}

// open opens a disk's file.
func (m *machine) open(ctx context.Context, d hypervisor.Disk) error {
	steps := []step{{"object-add", limiter(d)}}
	if key := d.Attachment.Key; len(key) > 0 {
		steps = append(steps, step{"object-add", secret(d, arguments{"data": block.Passphrase(key)})})
	}
	if d.Attachment.Source.Socket != "" {
		steps = append(steps, step{"blockdev-add", sourceNode(d)})
	}
	return m.orders(ctx, append(steps, step{"blockdev-add", blockdev(d)})...)
}

// addDevice shows an open disk to the guest.
func (m *machine) addDevice(ctx context.Context, s *storage, d hypervisor.Disk) error {
	slot, err := m.freeSlot(ctx, s)
	if err != nil {
		return err
	}
	return m.order(ctx, "device_add", deviceArguments(inSlot(device(d), slot)), nil)
}

// freeSlot finds a place on the bridge that no disk has.
func (m *machine) freeSlot(ctx context.Context, s *storage) (int, error) {
	const functions = 8 // a PCI address has so many for each place
	var taken [lastSlot + 1]bool
	for id := range s.devices {
		if !strings.HasPrefix(id, diskPrefix) {
			continue
		}
		var bus string
		if err := m.property(ctx, id, "parent_bus", &bus); err != nil {
			return 0, err
		}
		var address int
		if err := m.property(ctx, id, "addr", &address); err != nil {
			return 0, err
		}
		if slot := address / functions; strings.HasSuffix(bus, "/"+slotsBridge) && slot >= 0 && slot <= lastSlot {
			taken[slot] = true
		}
	}
	for slot := 1; slot <= lastSlot; slot++ {
		if !taken[slot] {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("it has %d disks already, and no place for another", lastSlot)
}

// property reads a device's.
func (m *machine) property(ctx context.Context, id, name string, value any) error {
	return m.order(ctx, "qom-get", arguments{"path": peripheral + "/" + id, "property": name}, value)
}

// Unplug asks for a disk, or takes it. See hypervisor.Storage.
func (h *Hypervisor) Unplug(ctx context.Context, dir, serial string, force bool) error {
	err := h.onDisks(ctx, dir, func(m *machine, s *storage) error {
		_, open := s.nodes[dataPrefix+serial]
		held := s.devices[diskPrefix+serial]
		switch {
		case !open && !held:
			return nil
		case !held:
			_, err := m.release(ctx, s, serial)
			return err
		case open && force:
			return m.take(ctx, s, serial)
		}
		return m.ask(ctx, serial)
	})
	if err != nil && !errors.Is(err, errAbsent) {
		return fmt.Errorf("unplugging the disk %s of the machine in %s: %w", serial, dir, err)
	}
	return nil
}

// ask tells the guest to give a disk back. It may be asked again.
func (m *machine) ask(ctx context.Context, serial string) error {
	err := m.order(ctx, "device_del", arguments{"id": diskPrefix + serial}, nil)
	refused := (*commandError)(nil)
	if errors.As(err, &refused) && (refused.Class == "DeviceNotFound" || strings.Contains(refused.Desc, "already in the process of unplug")) {
		return nil
	}
	return err
}

// take puts a node in the disk's place at which everything fails, so that the
// guest keeps a device but not the disk, and closes the disk. QEMU first waits
// for what the guest has under way.
func (m *machine) take(ctx context.Context, s *storage, serial string) error {
	gone := gonePrefix + serial
	var policy string
	err := m.property(ctx, diskPrefix+serial, "rerror", &policy)
	if _, there := s.nodes[gone]; err == nil && !there {
		err = m.order(ctx, "blockdev-add", failing(gone, s.nodes[dataPrefix+serial].Image.Size), nil)
	}
	if err == nil {
		err = m.order(ctx, "qom-set", arguments{"path": peripheral + "/" + diskPrefix + serial, "property": "drive", "value": gone}, nil)
	}
	if err == nil {
		_, err = m.release(ctx, s, serial)
	}
	if err != nil {
		return err
	}
	if err := m.ask(ctx, serial); err != nil {
		m.log.DebugContext(ctx, "a device without a disk stays", "dir", m.dir, "serial", serial, "err", err)
	}
	if policy == "stop" {
		return m.eject(ctx, serial)
	}
	return nil
}

// failing describes a node of a size at which every request fails.
func failing(name string, size int64) arguments {
	return arguments{
		"driver":    "blkdebug",
		"node-name": name,
		"image":     arguments{"driver": "null-co", "size": size},
		"inject-error": []arguments{
			{"event": "none", "errno": 5}, // EIO
		},
	}
}

// eject takes the device too, as its guest would when it gives it back. It is
// for a disk whose failed reads pause its guest: one that has gone must not. The
// registers are ACPI's for PCI hot-plug: which bus, and which of its places
// (QEMU's docs/specs/acpi_pci_hotplug.rst). All disks that can go are on one bus, so
// that we don't disturb a guest that is using them now.
func (m *machine) eject(ctx context.Context, serial string) error {
	const bus, places = 0xcd0, 0xcc8
	var address, selector int
	err := m.property(ctx, diskPrefix+serial, "addr", &address)
	if err == nil {
		err = m.property(ctx, slotsBridge+"/"+slotsBridge, "acpi-pcihp-bsel", &selector)
	}
	if err != nil {
		return err
	}
	return m.monitorLines(ctx,
		fmt.Sprintf("o /4 %#x %d", bus, selector),
		fmt.Sprintf("o /4 %#x %s", places, strconv.FormatUint(1<<(address/8), 10)))
}

// Adjust grows and limits a disk. See hypervisor.Storage.
func (h *Hypervisor) Adjust(ctx context.Context, dir, serial string, size int64, l hypervisor.Limits) error {
	err := h.onDisks(ctx, dir, func(m *machine, s *storage) error {
		if err := m.runs(ctx); err != nil {
			return err
		}
		n, open := s.nodes[dataPrefix+serial]
		if !open {
			return errNoDisk
		}
		limit := arguments{"path": "/objects/" + limitPrefix + serial, "property": "limits", "value": limits(l)}
		if err := m.order(ctx, "qom-set", limit, nil); err != nil || size <= n.Image.Size {
			return err
		}
		if err := m.endFillings(ctx, s, serial); err != nil {
			return err
		}
		return m.order(ctx, "block_resize", arguments{"node-name": diskPrefix + serial, "size": size}, nil)
	})
	if err != nil {
		return fmt.Errorf("adjusting the disk %s of the machine in %s: %w", serial, dir, err)
	}
	return nil
}
