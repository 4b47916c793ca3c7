package euca

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestPrivateKeyIsOnesOwn(t *testing.T) {
	p := newPlayer(t)
	p.use()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(strings.Repeat("an older key", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _, err := typed(t, "euca-create-keypair me -f "+file)
	if out != "KEYPAIR\tme\t1f:51:ae\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	text, err := os.ReadFile(file)
	if string(text) != "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n" || err != nil {
		t.Errorf("the file holds %q, %v", text, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v, %v", info.Mode(), err)
	}
}

// No key is made that can't be kept, and no file for a key that wasn't made.
func TestKeyThatIsNotMade(t *testing.T) {
	p := newPlayer(t)
	p.use()
	if _, _, err := typed(t, "euca-create-keypair me -f /nowhere/key"); err == nil || len(p.asked) > 0 {
		t.Errorf("%v, and the cloud was asked %q", err, p.asked)
	}
	p.replies = []string{"refused"}
	file := filepath.Join(t.TempDir(), "key")
	if _, _, err := typed(t, "euca-create-keypair me -f "+file); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file is there: %v", err)
	}
}

// openssl and ssh-keygen make the same fingerprints of fresh keys.
func TestFingerprints(t *testing.T) {
	for _, tool := range []string{"openssl", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not there")
		}
	}
	dir := t.TempDir()
	shell := func(line string) string {
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", line)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return strings.TrimSpace(string(out))
	}
	shell("ssh-keygen -q -t rsa -b 2048 -m PEM -N '' -f rsa; ssh-keygen -q -t ed25519 -N '' -f ed; ssh-keygen -q -t ecdsa -N '' -f ec")
	for file, by := range map[string]string{
		"rsa":     "openssl pkcs8 -in rsa -nocrypt -topk8 -outform DER | openssl sha1 -c | sed 's/.*= *//'",
		"rsa.pub": "openssl rsa -in rsa -pubout -outform DER 2>/dev/null | openssl md5 -c | sed 's/.*= *//'",
		"ed":      "ssh-keygen -l -f ed | cut -d' ' -f2 | sed 's/SHA256://'",
		"ed.pub":  "ssh-keygen -l -f ed.pub | cut -d' ' -f2 | sed 's/SHA256://'",
	} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		got, err := fingerprint(text)
		if want := shell(by); strings.TrimRight(got, "=") != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", file, got, err, want)
		}
	}
	for _, file := range []string{"ec", "ec.pub"} {
		text, _ := os.ReadFile(filepath.Join(dir, file))
		if got, err := fingerprint(text); err == nil {
			t.Errorf("%s has the fingerprint %s", file, got)
		}
	}
}
