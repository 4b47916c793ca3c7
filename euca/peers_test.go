package euca

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestPeers are named, listed without their secrets, and forgotten.
func TestPeers(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		root := Command(&cobra.Command{Use: "up"})
		root.SetOut(&out)
		root.SetArgs(append([]string{"--data", dir, "peer"}, args...))
		err := root.Execute()
		return out.String(), err
	}
	for says, args := range map[string][]string{
		`region "../x"`:  {"add", "../x", "--endpoint", "http://h:1", "--key", "AK"},
		"--endpoint":     {"add", "far-1", "--endpoint", "ftp://h", "--key", "AK"},
		"access key":     {"add", "far-1", "--endpoint", "http://h:1", "--key", ""},
		"known as far-1": {"remove", "far-1"},
	} {
		if _, err := run(args...); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v, want %q", args, err, says)
		}
	}
	if _, err := run("add", "far-1", "--endpoint", "http://h:1/services/compute", "--key", "AK"); err != nil {
		t.Fatal(err)
	}
	peers := Folder(dir).Peers()
	c, err := peers.Get("far-1")
	if err != nil || c.Endpoint != "http://h:1" || c.Key != "AK" || c.Secret != "the-secret" {
		t.Fatalf("%+v, %v", c, err)
	}
	if info, err := os.Stat(filepath.Join(string(peers), "far-1.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its file: %v, %v", info, err)
	}
	for _, form := range []string{"text", "json"} {
		out, err := run("list", "--output", form)
		if err != nil || !strings.Contains(out, "http://h:1") || strings.Contains(out, "the-secret") {
			t.Errorf("listed: %q, %v", out, err)
		}
	}
	if _, err := run("remove", "far-1"); err != nil {
		t.Fatal(err)
	}
	for _, region := range []string{"far-1", "../far-1", ""} {
		if _, err := peers.Get(region); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("region %q: %v", region, err)
		}
	}
}
