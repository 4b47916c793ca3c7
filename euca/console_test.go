package euca

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const consoleID = "i-0123abcd"

// consoleFolder is a cloud's, with a machine that has said something.
func consoleFolder(t *testing.T, said string) Folder {
	t.Helper()
	folder := Folder(t.TempDir())
	dir := folder.Path("node", "machines", consoleID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "console.log"), []byte(said), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

// TestConsoleIsLeft by the escape key, what comes after it unread, and with what
// was said shown.
func TestConsoleIsLeft(t *testing.T) {
	serial, err := openConsole(consoleFolder(t, "login: "), consoleID)
	if err != nil {
		t.Fatal(err)
	}
	var out shown
	out.after = func() { out.keys <- "\x1dx" }
	out.keys = make(chan string, 1)
	if err := sit(t.Context(), serial, &out, &out); err != nil || out.text.String() != "login: " {
		t.Errorf("the console shows %q, %v", out.text.String(), err)
	}
}

// shown is a terminal, at which keys are pressed after it has shown something.
type shown struct {
	text  bytes.Buffer
	keys  chan string
	after func()
}

func (s *shown) Write(p []byte) (int, error) {
	defer s.after()
	return s.text.Write(p)
}

func (s *shown) Read(p []byte) (int, error) { return copy(p, <-s.keys), nil }

func TestNoConsole(t *testing.T) {
	folder := consoleFolder(t, "")
	for id, want := range map[string]string{"i-99999999": "no instance i-99999999 runs on this machine", "../" + consoleID: "is no instance's id", "": "is no instance's id"} {
		if _, err := openConsole(folder, id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", id, err, want)
		}
	}
}

func TestReadKeys(t *testing.T) {
	for typed, want := range map[string]string{"abc": "abc", "ab\x1dc": "ab", "\x1d": "", "\x03\x04": "\x03\x04"} {
		keys, escaped := make(chan []byte, 10), false
		readKeys(context.Background(), strings.NewReader(typed), keys, func() { escaped = true })
		var got []byte
		for k := range keys {
			got = append(got, k...)
		}
		if string(got) != want || escaped != strings.Contains(typed, "\x1d") {
			t.Errorf("%q gives %q, escaped %t", typed, got, escaped)
		}
	}
}

const aHostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"

func TestHostKeys(t *testing.T) {
	console := "boot\r\n-----BEGIN SSH HOST KEY KEYS-----\r\n" + aHostKey + " root@tiny\r\n-----END SSH HOST KEY KEYS-----\r\nssh-rsa nonsense\r\nhost key: " + aHostKey + "\r\n"
	got := hostKeys(consoleID, console)
	want := consoleID + " " + aHostKey + "\n"
	if !slices.Equal(got, []string{want, want}) {
		t.Errorf("the host keys are %q", got)
	}
}

// TestMovedTo: a port is where the machine's folder says, at the same address.
func TestMovedTo(t *testing.T) {
	folder := consoleFolder(t, "")
	at := netip.MustParseAddrPort("127.1.2.3:22")
	if got := movedTo(folder, consoleID, at); got != at {
		t.Errorf("without a file it is at %s", got)
	}
	file := folder.Path("node", "machines", consoleID, "ports.json")
	if err := os.WriteFile(file, []byte(`[{"port":22,"listen":"127.1.2.3:10022"},{"port":80,"listen":"127.1.2.3:10080"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := movedTo(folder, consoleID, at); got.String() != "127.1.2.3:10022" {
		t.Errorf("it is at %s", got)
	}
	other := netip.MustParseAddrPort("127.9.9.9:22")
	if got := movedTo(folder, consoleID, other); got != other {
		t.Errorf("another address is at %s", got)
	}
}

func TestSSHOptions(t *testing.T) {
	got := strings.Join(sshOptions(consoleID, netip.MustParseAddrPort("127.1.2.3:10022"), "/a b/k", true), " ")
	for _, want := range []string{"-p 10022", "HostKeyAlias=" + consoleID, `UserKnownHostsFile="/a b/k"`, "StrictHostKeyChecking=yes"} {
		if !strings.Contains(got, want) {
			t.Errorf("ssh is called with %s, want %s", got, want)
		}
	}
}
