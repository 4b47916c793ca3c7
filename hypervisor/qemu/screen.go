package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"mallee/hypervisor"
)

const (
	// The display sits high on the first bus, out of the way of what is counted
	// from below: disks and interfaces are where they would be without it.
	displaySlot = "1e"
	// The display's memory, in MiB: room for 1920x1080 at 32 bits. The host gives
	// only what the guest writes to, and a text screen is 4000 bytes.
	displayMiB = 8
)

// display is what a guest without a monitor writes to, so that its screen can be
// looked at: firmware, boot loaders and kernels that don't use the serial line
// are seen nowhere else.
func display() []string {
	return []string{"-device", fmt.Sprintf("VGA,addr=%s,vgamem_mb=%d", displaySlot, displayMiB)}
}

// Screenshot takes a picture of the guest's screen. See hypervisor.Hypervisor.
func (h *Hypervisor) Screenshot(ctx context.Context, dir string, wake bool) ([]byte, error) {
	picture, err := h.screenshot(ctx, dir, wake)
	if errors.Is(err, errAbsent) {
		err = hypervisor.ErrNoScreen
	}
	if err != nil {
		return nil, fmt.Errorf("looking at the screen of the machine in %s: %w", dir, err)
	}
	return picture, nil
}

func (h *Hypervisor) screenshot(ctx context.Context, dir string, wake bool) ([]byte, error) {
	m, err := h.find(ctx, dir)
	if err != nil {
		return nil, err
	}
	if m.keeper {
		return nil, errAbsent
	}
	if wake {
		if err := m.pressKey(ctx); err != nil {
			return nil, err
		}
	}
	return m.shoot(ctx)
}

// pressKey that means nothing by itself: a screen that sleeps wakes up from it.
func (m *machine) pressKey(ctx context.Context) error {
	key := arguments{"type": "qcode", "data": "ctrl"}
	return m.execute(ctx, command{Name: "send-key", Arguments: arguments{"keys": []arguments{key}}}, nil)
}

// shoot has QEMU write the picture beside the machine, and takes it away. The file
// is made first: QEMU would make it readable to others.
func (m *machine) shoot(ctx context.Context) ([]byte, error) {
	m.shooting.Lock()
	defer m.shooting.Unlock()
	path := filepath.Join(m.dir, screenName)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(path) // or the next one writes over it
	c := command{Name: "screendump", Arguments: arguments{"filename": screenName, "format": "png"}}
	if err := m.execute(ctx, c, nil); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}
