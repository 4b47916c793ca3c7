package qemu

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTryTCG(t *testing.T) {
	needsQEMU(t)
	if err := Try(t.Context(), "", TCG); err != nil {
		t.Error(err)
	}
}

// TestProbe holds on every host: whatever it says is right, quick, and kept.
func TestProbe(t *testing.T) {
	needsQEMU(t)
	begin := time.Now()
	proof := Probe(t.Context(), "", Proof{})
	t.Logf("%s in %v: %s", proof.Accel, time.Since(begin), proof.Why)
	if proof.Why == "" || strings.Contains(proof.Why, "\n") {
		t.Errorf("Why = %q, want one line", proof.Why)
	}
	if err := Try(t.Context(), "", proof.Accel); err != nil {
		t.Errorf("the proven acceleration fails: %v", err)
	}
	text, err := json.Marshal(proof)
	if err != nil {
		t.Fatal(err)
	}
	var kept Proof
	if err := json.Unmarshal(text, &kept); err != nil {
		t.Fatal(err)
	}
	kept.Why = "kept"
	if again := Probe(t.Context(), "", kept); again != kept {
		t.Errorf("with a kept proof: %+v, want it as it was: %+v", again, kept)
	}
}

// fakeQEMU is a program that stands in for QEMU.
func fakeQEMU(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTryFails(t *testing.T) {
	for _, test := range []struct{ name, script, want string }{
		{"aborts", "echo 'error: failed to set MSR' >&2; echo more >&2; kill -ABRT $$", "failed to set MSR"},
		{"hangs", "exec sleep 60", "hangs"},
		{"prints and goes on", "echo 'mallee runs'; exec sleep 60", "hangs"},
		{"prints and fails", "echo 'mallee runs'; exit 1", "exit status 1"},
		{"ends well but silent", "exit 33", `printed ""`},
	} {
		// Written before others fork: one that holds it open for writing would keep it from running.
		qemu := fakeQEMU(t, test.script)
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := Try(t.Context(), qemu, KVM)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Try: %v, want %q in it", err, test.want)
			}
		})
	}
	err := Try(t.Context(), "no-such-qemu", TCG)
	if err == nil || !strings.Contains(err.Error(), "apt-get install qemu-system-x86") {
		t.Errorf("without QEMU: %v, want the package", err)
	}
}
