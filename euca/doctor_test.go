package euca

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestTable(t *testing.T) {
	got := table([]finding{
		{"a tool", fine, "/bin/tool does it", ""},
		{"acceleration (KVM)", slower, "no /dev/kvm", "buy one"},
		{"x", lacking, "not there", "apt-get install x"},
	})
	want := `a tool              ok               /bin/tool does it
acceleration (KVM)  could be better  no /dev/kvm
                                     → buy one
x                   lacking          not there
                                     → apt-get install x`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestPrinter(t *testing.T) {
	findings := []finding{{"x", lacking, "not there", "get it"}, {"y", fine, "there", ""}}
	var b bytes.Buffer
	if err := (printer{&b, true}).print(findings, table(findings)); err != nil {
		t.Fatal(err)
	}
	var back []finding
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back) != 2 || back[0] != findings[0] {
		t.Errorf("%s, %v", b.String(), err)
	}
	if want := `[{"thing":"x","verdict":"lacking","detail":"not there","mend":"get it"},{"thing":"y","verdict":"ok","detail":"there"}]` + "\n"; b.String() != want {
		t.Errorf("%s", b.String())
	}
}

func TestExamineTool(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mallee-test-tool"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if f := examineTool("mallee-test-tool", "p", "does it", lacking); f.Verdict != fine || f.Mend != "" {
		t.Errorf("%+v", f)
	}
	if f := examineTool("mallee-test-none", "pkg", "does it", slower); f.Verdict != slower || f.Mend != "apt-get install pkg" {
		t.Errorf("%+v", f)
	}
}

// What the host has is looked at without a cloud, and before its folder is.
func TestExamineHost(t *testing.T) {
	host := []finding{examineMemory(), examineDisk(Folder(t.TempDir() + "/not/yet/there")), examinePorts(), examineLoopback()}
	for _, f := range append(host, examineCeph()...) {
		if f.Thing == "" || f.Detail == "" || f.Verdict == lacking || (f.Verdict == fine) != (f.Mend == "") {
			t.Errorf("%+v", f)
		}
	}
}

// Where the volumes are is found again, and what can't be read is not taken for nothing.
func TestFolderCeph(t *testing.T) {
	f := Folder(t.TempDir())
	if c, err := f.Ceph(); err != nil || c != (Ceph{}) {
		t.Errorf("%+v, %v", c, err)
	}
	if err := os.Mkdir(filepath.Dir(f.CephPath()), 0o700); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]Ceph{`{"pool":"p","namespace":"n"}`: {"p", "n"}, `{}`: {}, `{"po`: {}} {
		if err := os.WriteFile(f.CephPath(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := f.Ceph(); (err == nil) != (want != Ceph{}) || err == nil && c != want {
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
}
