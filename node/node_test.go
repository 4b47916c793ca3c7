package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mallee/block"
	"mallee/cloud"
	"mallee/link"
)

func TestAcceptTakesOnlyNewer(t *testing.T) {
	r := newRig(t)
	for _, step := range []struct {
		name       string
		generation int64
		node       cloud.NodeID
		want       int64
		fails      bool
	}{
		{"the first", 5, "node-1", 5, false},
		{"an older one", 4, "node-1", 5, false},
		{"the same again", 5, "node-1", 5, false},
		{"another node's", 9, "node-2", 5, true},
		{"a newer one", 6, "node-1", 6, false},
	} {
		a := link.Assignment{Node: step.node, Generation: step.generation, Instances: []cloud.Instance{instance(int(step.generation))}}
		if err := r.Accept(a); (err != nil) != step.fails {
			t.Errorf("%s: %v", step.name, err)
		}
		if got, _ := r.Report(); got.Generation != step.want {
			t.Errorf("%s: generation %d, want %d", step.name, got.Generation, step.want)
		}
		r.open()
		if got, _ := r.Report(); got.Generation != step.want {
			t.Errorf("%s: generation %d after a restart, want %d", step.name, got.Generation, step.want)
		}
	}
}

// What can't be made durable is not known either: rule 3 of package link.
func TestAcceptIsDurableFirst(t *testing.T) {
	r := newRig(t)
	r.assign()
	if err := os.Remove(r.assignmentPath()); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(r.assignmentPath(), "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := r.Accept(link.Assignment{Node: r.ID, Generation: 9, Instances: []cloud.Instance{instance(1)}})
	if err == nil || !strings.Contains(err.Error(), "assignment 9") {
		t.Errorf("error %v", err)
	}
	if got, _ := r.Report(); got.Generation != 1 || len(got.Machines) != 0 {
		t.Errorf("it is known all the same: %+v", got)
	}
}

func TestReportNamesAssignedAndLeft(t *testing.T) {
	r := newRig(t)
	for _, d := range []string{"i-0000000a-root", "i-0000000b-ephemeral0", "stray", "i-0000000c", "i-0000000d-other", "x-0000000e-root"} {
		if _, err := r.disks.Ensure(t.Context(), block.Disk{Name: d, Size: 512}); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"i-0000000f", "lost+found", "I-00000010"} {
		if err := os.Mkdir(filepath.Join(r.dir, "machines", d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, "machines", "i-00000011"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.open()
	_, changed := r.Report()
	r.assign(instance(1))
	select {
	case <-changed:
	default:
		t.Error("an assignment is no news")
	}
	report, _ := r.Report()
	var names []string
	for _, m := range report.Machines {
		names = append(names, string(m.Instance))
	}
	if got := strings.Join(names, " "); got != "i-00000001 i-0000000a i-0000000b i-0000000f" {
		t.Errorf("reported: %s", got)
	}
	r.step()
	disks, _ := r.disks.List(t.Context())
	if got := strings.Join(disks, " "); got != "i-00000001-root i-0000000c i-0000000d-other stray x-0000000e-root" {
		t.Errorf("disks: %s", got)
	}
	folders, _ := os.ReadDir(filepath.Join(r.dir, "machines"))
	if len(folders) != 4 {
		t.Errorf("folders: %v", folders)
	}
}

// A node that lost its assignment must not take that for an empty one.
func TestNothingIsDoneBeforeAnAssignment(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	r.wantPhase(cloud.PhaseUp)
	if err := os.Remove(r.assignmentPath()); err != nil {
		t.Fatal(err)
	}
	r.open()
	if m := r.step(); m.Instance != "i-00000001" || len(r.world.Machines()) != 1 {
		t.Errorf("reported %+v, machines %v", m, r.world.Machines())
	}
	r.assign()
	r.step()
	r.wantNothing()
}

func TestDamagedAssignment(t *testing.T) {
	for _, garbage := range []string{"", "{", `[]`, "\x00\x00\x00", `{"generation":"x"}`} {
		r := newRig(t)
		if err := os.WriteFile(r.assignmentPath(), []byte(garbage), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), r.options())
		if err == nil || !strings.Contains(err.Error(), r.assignmentPath()) || !strings.Contains(err.Error(), "move the file away") {
			t.Errorf("%q: error %v", garbage, err)
		}
	}
}

func TestAssignmentSurvivesAsItIs(t *testing.T) {
	r := newRig(t)
	want := instance(1)
	want.UserData, want.Kernel = []byte{0, 0xff}, &cloud.ImageRef{ID: "eki-00000001"}
	r.assign(want)
	r.open()
	got, ok := r.Assigned(want.ID)
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if !ok || string(a) != string(b) {
		t.Errorf("assigned %s, want %s", a, b)
	}
	if _, ok := r.Assigned("i-00000002"); ok {
		t.Error("an instance that is not assigned")
	}
}

func TestConsole(t *testing.T) {
	r := newRig(t)
	if _, err := r.Console(t.Context(), "i-00000001"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("console of nobody: %v", err)
	}
	r.assign(instance(1))
	r.wantPhase(cloud.PhaseUp)
	c, err := r.Console(t.Context(), "i-00000001")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 100)
	n, _ := c.Read(b)
	if got := string(b[:n]); got != "i-00000001 login: \n" {
		t.Errorf("console %q", got)
	}
}

// On a full disk the assignment that ends an instance gets through, for it is
// what frees the disk.
func TestAcceptOnAFullDisk(t *testing.T) {
	dir := smallDisk(t, 8<<20)
	r := newRig(t)
	r.dir = dir
	r.open()
	r.assign(instance(1))
	fill := filepath.Join(dir, "full")
	if err := os.WriteFile(fill, make([]byte, 64<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk isn't full: %v", err)
	}
	if _, err := os.Stat(r.reservePath()); err != nil {
		t.Fatal(err)
	}
	before, _ := r.Report()
	r.assign()
	after, _ := r.Report()
	if after.Generation <= before.Generation {
		t.Errorf("generation %d after %d", after.Generation, before.Generation)
	}
}

// smallDisk is a file system of that many bytes; only root can make one.
func smallDisk(t *testing.T, size int) string {
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}
