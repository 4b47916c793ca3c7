package test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSandboxed: a guest that breaks out of its QEMU finds itself without the
// system calls to do much with that.
func TestSandboxed(t *testing.T) {
	w, g := theGuests(t)
	pid := qemus(t, w.Cloud)[*g.hvm[0].InstanceId]
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`(?m)^Seccomp:\s*2$`, `(?m)^NoNewPrivs:\s*1$`} {
		if !regexp.MustCompile(want).Match(status) {
			t.Errorf("QEMU's status is not %s:\n%s", want, status)
		}
	}
}

// secret is in the environment of the shared cloud's program.
const secret = "tell-nobody"

// TestSecretsAreNotInherited: what is in the environment of who starts the cloud
// is not in that of QEMU, nor are keys on its command line.
func TestSecretsAreNotInherited(t *testing.T) {
	w, g := theGuests(t)
	a, err := w.Access()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range g.all() {
		pid := qemus(t, w.Cloud)[*i.InstanceId]
		for _, file := range []string{"environ", "cmdline"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), a.Secret) || strings.Contains(string(text), secret) {
				t.Errorf("the %s of QEMU is %q", file, text)
			}
		}
	}
}

// TestFolderIsPrivate: nothing in it can be read by anybody else.
func TestFolderIsPrivate(t *testing.T) {
	w, _ := theGuests(t)
	err := filepath.WalkDir(w.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile
		}
		info, err := d.Info()
		if err != nil || info.Mode()&fs.ModeSymlink != 0 {
			return nil
		}
		if info.Mode().Perm()&0o077 != 0 && info.Mode()&fs.ModeSocket == 0 {
			t.Errorf("%s has the mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(w.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
}

// TestDoctor says what this host has; it can run instances, or no test would run.
func TestDoctor(t *testing.T) {
	w := theWorld(t)
	r, err := w.Succeed(within(t, bootTime), "doctor", "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	var findings []struct{ Thing, Verdict, Detail, Mend string }
	if err := json.Unmarshal([]byte(r.Out), &findings); err != nil {
		t.Fatalf("%v: %s", err, r.Out)
	}
	seen := map[string]bool{}
	for _, f := range findings {
		seen[f.Thing] = true
		if f.Detail == "" || f.Verdict != "ok" && f.Mend == "" {
			t.Errorf("it says of %s %q and %q, and %q mends it", f.Thing, f.Verdict, f.Detail, f.Mend)
		}
	}
	for _, thing := range []string{"qemu-system-x86_64", "mke2fs", "emulation (TCG)", "acceleration (KVM)", "memory", "disk", "public addresses"} {
		if !seen[thing] {
			t.Errorf("it says nothing of %s", thing)
		}
	}
}

// TestAcceleration: what guests run by is said once at the start, and why, where
// it isn't KVM.
func TestAcceleration(t *testing.T) {
	w, g := theGuests(t)
	found, err := w.QEMUs()
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Join(found[*g.pv[0].InstanceId][0].Args, " ")
	if strings.Contains(line, "-accel kvm") {
		return // a guest has proven it
	}
	said := regexp.MustCompile(`guests run by emulation \(TCG\)" why=("[^"]+"|\S+)`).FindAllString(w.Log(), -1)
	if len(said) == 0 {
		t.Errorf("guests are emulated, and the log does not say so:\n%s", w.LogTail(30))
	}
}
