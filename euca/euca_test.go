package euca

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// run the command line, and return what it printed and said.
func run(t *testing.T, in string, args ...string) (out, said string, err error) {
	t.Helper()
	root := Command(&cobra.Command{Use: "up"})
	var o, e bytes.Buffer
	root.SetIn(strings.NewReader(in))
	root.SetOut(&o)
	root.SetErr(&e)
	root.SetArgs(args)
	err = root.ExecuteContext(t.Context())
	return o.String(), e.String(), err
}

func TestVersion(t *testing.T) {
	if out, _, err := run(t, "", "version"); out != "mallee dev\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	out, _, err := run(t, "", "version", "--output", "json")
	var v map[string]string
	if json.Unmarshal([]byte(out), &v) != nil || v["version"] != "dev" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

// What is said of a command line that can't be followed.
func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ line, want string }{
		{"nonsense", `unknown command "nonsense" for "mallee"`},
		{"version --output xml", "--output xml: text and json are known"},
		{"version more", `unknown command "more" for "mallee version"`},
		{"image install", "accepts 1 arg(s), received 0"},
		{"image install giant --data " + dir, `no image "giant" in the catalogue; it has tiny, tiny-pv`},
		{"image install tiny --data " + dir, "no cloud is running on " + dir + ": start it by `mallee up --data " + dir + "`"},
		{"down --data " + dir, "there is no cloud in " + dir},
		{"down --destroy --yes --data " + dir, "there is no cloud in " + dir},
	} {
		out, _, err := run(t, "", strings.Fields(c.line)...)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || out != "" {
			t.Errorf("%s: printed %q, error %v", c.line, out, err)
		}
	}
}

func TestDestroyAsks(t *testing.T) {
	for answer, want := range map[string]bool{"yes\n": true, "yes": true, "y\n": false, "no\n": false, "\n": false, "": false} {
		dir := filepath.Join(t.TempDir(), "cloud")
		fill(t, dir, contents...)
		_, said, err := run(t, answer, "down", "--destroy", "--data", dir)
		_, gone := os.Stat(dir)
		if !strings.Contains(said, "Type yes") || (err == nil) != want || os.IsNotExist(gone) != want {
			t.Errorf("%q: %q, %v, %v", answer, said, err, gone)
		}
	}
}

// A folder that holds something else is not taken away with it.
func TestDestroyTakesOnlyTheClouds(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, contents...)
	fill(t, dir, "thesis.tex", "eucarc.new")
	_, said, err := run(t, "", "down", "--destroy", "--yes", "--data", dir)
	if err != nil || !strings.Contains(said, "not the cloud's") {
		t.Errorf("%q, %v", said, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 || left[0].Name() != "thesis.tex" {
		t.Errorf("left: %v", left)
	}
}

// Down without --destroy keeps everything.
func TestDownKeeps(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, contents...)
	if _, _, err := run(t, "", "down", "--data", dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != len(contents) {
		t.Errorf("left: %v", left)
	}
}

func fill(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(dir, 0o700)
		if err == nil && filepath.Ext(name) == "" && name != "lock" && name != "eucarc" {
			path, err = filepath.Join(path, "file"), os.MkdirAll(path, 0o700)
		}
		if err == nil {
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// asHolder is set for this binary where it is to be a process that runs a cloud.
const asHolder = "MALLEE_TEST_HOLDS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asHolder); dir != "" {
		os.Exit(hold(Folder(dir)))
	}
	os.Exit(m.Run())
}

// hold the folder until SIGTERM, as `mallee up` does.
func hold(f Folder) int {
	root := &cobra.Command{Use: "up", RunE: func(cmd *cobra.Command, _ []string) error {
		lock, err := f.Lock()
		if err != nil {
			return err
		}
		defer lock.Release()
		if err := lock.Tell(Holder{PID: os.Getpid(), Listen: "127.0.0.1:1"}); err != nil {
			return err
		}
		os.Stdout.WriteString("holding\n")
		<-cmd.Context().Done()
		return nil
	}}
	root.SetArgs(nil)
	return Main(root)
}

// holder is a process that runs the cloud of the folder.
func holder(t *testing.T, f Folder) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), asHolder+"="+string(f))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if n, err := out.Read(make([]byte, 100)); n == 0 {
		t.Fatal("the holder said nothing", err)
	}
	return cmd
}

// Down ends the process that runs the cloud, and waits until it has.
func TestDownEndsTheHolder(t *testing.T) {
	f := Folder(t.TempDir())
	cmd := holder(t, f)
	if _, _, err := run(t, "", "down", "--data", string(f)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, _, err := run(t, "", "down", "--data", string(f)); err != nil {
		t.Errorf("again: %v", err)
	}
}

// Who dies without a word holds nothing.
func TestLockOfTheDead(t *testing.T) {
	f := Folder(t.TempDir())
	cmd := holder(t, f)
	var held *HeldError
	if _, err := f.Lock(); !asHeld(err, &held) || held.Holder.PID != cmd.Process.Pid {
		t.Errorf("while it lives: %v", err)
	}
	cmd.Process.Signal(syscall.SIGKILL)
	cmd.Wait()
	lock, err := f.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}
