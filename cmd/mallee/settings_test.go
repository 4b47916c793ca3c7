package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mallee/cloud"
	"mallee/euca"
)

// parse the command line of `mallee up`.
func parse(t *testing.T, line string) (settings, error) {
	t.Helper()
	up := upCommand()
	euca.Command(up) // gives it the flags of every command
	if err := up.ParseFlags(strings.Fields(line)); err != nil {
		return settings{}, err
	}
	return settingsOf(up)
}

func TestSettings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "up")
	s, err := parse(t, "--data "+dir)
	if err != nil || s.listen != "127.0.0.1:8773" || s.accel != "auto" || s.capacity != (cloud.Size{}) || s.public.IsValid() {
		t.Errorf("%+v, %v", s, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info, err)
	}
	s, err = parse(t, "--listen 127.0.0.1:0 --accel tcg --vcpus 4 --memory 2048 --disk 20 --public 127.31.9.9/16 --data "+dir)
	if err != nil || s.listen != "127.0.0.1:0" || s.accel != "tcg" || s.capacity != (cloud.Size{VCPUs: 4, MemoryMiB: 2048, DiskGiB: 20}) || s.public != netip.MustParsePrefix("127.31.0.0/16") {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestSettingsRefused(t *testing.T) {
	dir := t.TempDir()
	for line, want := range map[string]string{
		"--accel hvf":                     "--accel hvf: auto, kvm and tcg are known",
		"--accel=":                        "--accel : auto, kvm and tcg are known",
		"--vcpus -1":                      "can't be negative",
		"--memory -512":                   "can't be negative",
		"--disk -5":                       "can't be negative",
		"--disk much":                     "invalid argument",
		"--public 10.0.0.0/16":            "--public 10.0.0.0/16: want a range of 127.0.0.0/8",
		"--public 127.0.0.0/8":            "outside 127.0.0.0/16",
		"--public 127.0.0.0/24":           "outside 127.0.0.0/16",
		"--public 127.31.0.0/31":          "want a range",
		"--public 120.0.0.0/5":            "want a range",
		"--public 127.0.5.0/24":           "outside 127.0.0.0/16",
		"--public 127.31.0.1":             "want a range",
		"--public ::1/128":                "want a range",
		"--public ::ffff:127.1.0.0/120":   "want a range",
		"--public everything":             "want a range",
		"--ceph-pool p":                   "want both",
		"--ceph-conf /dev/null":           "want both",
		"--ceph-user me":                  "want both",
		"--ceph-conf /none --ceph-pool p": "/none",
	} {
		if _, err := parse(t, line+" --data "+dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestOffered(t *testing.T) {
	s := settings{folder: euca.Folder(t.TempDir())}
	got, err := s.offered()
	if err != nil || got.VCPUs < overcommit || got.MemoryMiB < 512 || got.DiskGiB < 1 {
		t.Errorf("%+v, %v", got, err)
	}
	s.capacity = cloud.Size{VCPUs: 3, MemoryMiB: 700, DiskGiB: 9}
	if got, err := s.offered(); err != nil || got != s.capacity {
		t.Errorf("%+v, %v", got, err)
	}
}

// A cloud's own range is the same at every start, and can be given out.
func TestPublicPool(t *testing.T) {
	seen := map[netip.Prefix]bool{}
	for _, account := range []cloud.AccountID{"123456789012", "999999999999", "100000000000", "555555555555"} {
		p := settings{}.publicPool(account)
		if again, err := parsePublic(p.String()); err != nil || again != p || p != (settings{}).publicPool(account) {
			t.Errorf("%s: %s, %v", account, p, err)
		}
		seen[p] = true
	}
	if len(seen) < 3 {
		t.Errorf("clouds of one host meet: %v", seen)
	}
	if named := netip.MustParsePrefix("127.31.0.0/16"); (settings{public: named}).publicPool("1") != named {
		t.Error("the range that was named is not taken")
	}
}

// Secrets outlive a restart, and one that was cut short is made anew.
func TestSecret(t *testing.T) {
	h := &house{settings: settings{folder: euca.Folder(t.TempDir())}}
	path := h.settings.folder.Path("keys", "x.key")
	if _, err := h.secret("x"); err == nil {
		t.Error("a secret where there is no folder")
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := h.secret("x")
	if err != nil || len(first) != 32 {
		t.Fatal(first, err)
	}
	if again, err := h.secret("x"); err != nil || string(again) != string(first) {
		t.Errorf("%x, %v", again, err)
	}
	if err := os.WriteFile(path, first[:7], 0o600); err != nil {
		t.Fatal(err)
	}
	if short, err := h.secret("x"); err != nil || len(short) != 32 || string(short) == string(first) {
		t.Errorf("%x, %v", short, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
