package hypervisortest

import (
	"bytes"
	"errors"
	"image/png"
	"sync"
	"testing"

	"mallee/hypervisor"
)

// screenshot: a machine that runs has a screen, also for several who look at
// once; one that doesn't has none.
func screenshot(t *testing.T, b *bench) {
	m := b.started(Halts)
	var all sync.WaitGroup
	for n := range 3 {
		all.Go(func() { b.look(m.Dir, n == 0) })
	}
	all.Wait()
	b.must("Kill", b.Kill(t.Context(), m.Dir))
	if _, err := b.Screenshot(t.Context(), m.Dir, false); !errors.Is(err, hypervisor.ErrNoScreen) {
		t.Errorf("Screenshot of an absent machine: %v, want %v", err, hypervisor.ErrNoScreen)
	}
}

func (b *bench) look(dir string, wake bool) {
	data, err := b.Screenshot(b.t.Context(), dir, wake)
	if err != nil {
		b.t.Errorf("Screenshot: %v", err)
		return
	}
	if picture, err := png.Decode(bytes.NewReader(data)); err != nil || picture.Bounds().Empty() {
		b.t.Errorf("Screenshot is no picture: %v", err)
	}
}
