package qemu

import (
	"log/slog"
	"os/exec"
	"testing"
)

func needsQEMU(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath(defaultBinary); err != nil {
		t.Skipf("%s is not installed (apt-get install qemu-system-x86)", defaultBinary)
	}
}

// discard is a log that nobody reads.
var discard = slog.New(slog.DiscardHandler)
