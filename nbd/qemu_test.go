package nbd

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func needs(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed (apt-get install qemu-utils)", program)
	}
}

func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	var stderr bytes.Buffer
	command := exec.CommandContext(t.Context(), name, args...)
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return out
}

func TestQEMUReadsAndWrites(t *testing.T) {
	needs(t, "qemu-io")
	dir := t.TempDir()
	path := filepath.Join(dir, "a socket+with %odd&signs")
	all := newDisks(t)
	serve(t, path, all)
	uri := URI(path, "rw")

	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal(run(t, "qemu-img", "info", "-f", "raw", "--output=json", uri), &info); err != nil || info.Size != 4<<20 {
		t.Errorf("qemu-img info says %+v, %v", info, err)
	}
	var extents []struct {
		Start, Length int64
		Zero          bool
	}
	if err := json.Unmarshal(run(t, "qemu-img", "map", "-f", "raw", "--output=json", uri), &extents); err != nil {
		t.Fatal(err)
	}
	if len(extents) != 5 || !extents[0].Zero || extents[0].Length != 8192 || extents[1].Zero || extents[1].Length != 16384 {
		t.Errorf("qemu-img map says %+v", extents)
	}

	out := string(run(t, "qemu-io", "-f", "raw", "-t", "none",
		"-c", "write -P 0x5a 12345 1000000", "-c", "write -z 20000 5000", "-c", "discard 2M 1M", "-c", "write -f -P 1 3M 512", "-c", "flush",
		"-c", "read -P 0x5a 12345 7655", "-c", "read -P 0 20000 5000", "-c", "read -P 0 2M 1M", "-c", "read -P 1 3M 512", uri))
	if strings.Contains(strings.ToLower(out), "fail") {
		t.Errorf("qemu-io says %s", out)
	}
	raw := filepath.Join(dir, "raw")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", uri, raw)
	if got, err := os.ReadFile(raw); err != nil || !bytes.Equal(got, all.all["rw"].data) {
		t.Errorf("converted: other bytes, %v", err)
	}
	if out, err := exec.CommandContext(t.Context(), "qemu-io", "-f", "raw", "-c", "write 0 512", URI(path, "ro")).CombinedOutput(); err == nil {
		t.Errorf("a read-only export was opened for writing: %s", out)
	}
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "info", URI(path, "none")).CombinedOutput(); err == nil || !strings.Contains(string(out), `export "none"`) {
		t.Errorf("an export that is not there: %v, %s", err, out)
	}
}
