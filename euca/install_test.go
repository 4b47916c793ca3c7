package euca

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestInstallCommands(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin")
	for range 2 { // again is the same
		out, _, err := run(t, "", "install-commands", dir)
		if err != nil || !strings.HasSuffix(out, " commands in "+dir+"\n") {
			t.Errorf("%q, %v", out, err)
		}
	}
	links, err := os.ReadDir(dir)
	if err != nil || len(links) != len(eucaCommands()) {
		t.Errorf("%d links, %v", len(links), err)
	}
	exe, _ := os.Executable()
	for _, l := range links {
		if to, err := os.Readlink(filepath.Join(dir, l.Name())); to != exe || !strings.HasPrefix(l.Name(), "euca-") {
			t.Errorf("%s leads to %s, %v", l.Name(), to, err)
		}
	}
}

// Who has euca2ools in the folder keeps them.
func TestInstallLeavesFiles(t *testing.T) {
	dir := t.TempDir()
	theirs := filepath.Join(dir, "euca-run-instances")
	if err := os.WriteFile(theirs, []byte("#!/usr/bin/python\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := run(t, "", "install-commands", dir)
	if err == nil || !strings.Contains(err.Error(), theirs+" exists and is no link") {
		t.Errorf("it said %v", err)
	}
	if text, _ := os.ReadFile(theirs); string(text) != "#!/usr/bin/python\n" {
		t.Errorf("it holds %q", text)
	}
}

// Links beside the program follow it where the folder goes.
func TestInstallBeside(t *testing.T) {
	dir := t.TempDir()
	if _, err := installCommands(dir, filepath.Join(dir, "mallee")); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(filepath.Join(dir, "euca-version")); to != "mallee" {
		t.Errorf("it leads to %s, %v", to, err)
	}
}

func TestCommandLine(t *testing.T) {
	root := Command(&cobra.Command{Use: "up"})
	for _, c := range []struct{ argv, want string }{
		{"/usr/bin/mallee down --data x", "down --data x"},
		{"mallee", ""},
		{"/x/euca-version", "euca-version"},
		{"mallee euca-run-instances --instance-c 3 --user-data=x -t y emi-1", "euca-run-instances --instance-count 3 --user-data=x -t y emi-1"},
		{"mallee --data d euca-register --desc=x --root /dev/sda -- --desc", "euca-register --data d --description=x --root-device-name /dev/sda -- --desc"},
		{"euca-run-instances --user-data-f x --s", "euca-run-instances --user-data-f x --s"}, // could be several
		{"euca-nothing x", "euca-nothing x"},
	} {
		if got := strings.Join(commandLine(root, strings.Fields(c.argv)), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.argv, got, c.want)
		}
	}
}

func TestListOfCommands(t *testing.T) {
	out, _, err := run(t, "", "euca-commands")
	if err != nil || strings.Count(out, "\n") != len(eucaCommands()) || !strings.Contains(out, "euca-describe-images ") {
		t.Errorf("%v\n%s", err, out)
	}
}
