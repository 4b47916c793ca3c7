package iam

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/euca"
	"mallee/state"
	"mallee/wire"
)

func start() time.Time { return time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC) }

func options(t *testing.T, m *state.Memory, dir string) Options {
	t.Helper()
	store, err := state.OpenMemory(t.Context(), m, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return Options{Store: store, Dir: dir, Now: start, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)}
}

func open(t *testing.T, o Options) (*IAM, Credentials) {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.SystemAdmin()
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// keyed is a folder of keys, which take long to make.
func keyed(t *testing.T) (*state.Memory, string, Credentials) {
	t.Helper()
	m, dir := state.NewMemory(), filepath.Join(t.TempDir(), "keys")
	_, c := open(t, options(t, m, dir))
	return m, dir, c
}

func TestFirstStartAndSecond(t *testing.T) {
	m, dir, first := keyed(t)
	if !regexp.MustCompile(`^[1-9][0-9]{11}$`).MatchString(string(first.Account)) ||
		!regexp.MustCompile(`^AKIA[A-Z2-7]{16}$`).MatchString(first.AccessKey) ||
		!regexp.MustCompile(`^[A-Za-z0-9]{40}$`).MatchString(first.Secret) {
		t.Errorf("credentials %+v", first)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Fatalf("keys %v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of keys has mode %v", info.Mode())
	}
	s, second := open(t, options(t, m, dir))
	if first != second {
		t.Errorf("the second start made %+v of %+v", second, first)
	}
	certs, err := s.SigningCertificates(first.Account)
	if err != nil || len(certs) != 1 || certs[0].NotAfter.Sub(start()) < 19*365*24*time.Hour {
		t.Fatalf("signing certificates %v, %v", certs, err)
	}
	file, _ := os.ReadFile(first.CertPath)
	if block, _ := pem.Decode(file); block == nil || string(block.Bytes) != string(certs[0].Raw) {
		t.Error("the admin's certificate is not the one in the state")
	}
	if !s.CloudKey().PublicKey.Equal(s.CloudCertificate().PublicKey) {
		t.Error("the cloud's key is not its certificate's")
	}
}

// A crash leaves the first files of some; the next start makes the others, and
// the account.
func TestCrashInTheFirstStart(t *testing.T) {
	_, whole, _ := keyed(t)
	files := []string{"cloud-pk.pem", "cloud-cert.pem", "admin-pk.pem", "admin-cert.pem"}
	for n := range files {
		dir := t.TempDir()
		for _, name := range files[:n+1] {
			data, err := os.ReadFile(filepath.Join(whole, name))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		_, c := open(t, options(t, state.NewMemory(), dir))
		for _, name := range files[:n+1] {
			was, _ := os.ReadFile(filepath.Join(whole, name))
			if now, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(was) != string(now) {
				t.Errorf("%s was made anew after a crash behind %s", name, files[n])
			}
		}
		if c.Account == "" {
			t.Error("no account")
		}
	}
}

func TestCrashBeforeTheTransaction(t *testing.T) {
	m, dir := state.NewMemory(), t.TempDir()
	m.Interrupt = func(state.Moment) error { return errors.New("the process dies") }
	if _, err := Open(t.Context(), options(t, m, dir)); err == nil {
		t.Fatal("opened without an account")
	}
	m.Interrupt = nil
	open(t, options(t, m, dir))
}

func TestDamagedKeys(t *testing.T) {
	m, dir, _ := keyed(t)
	_, other, _ := keyed(t)
	swap, err := os.ReadFile(filepath.Join(other, "cloud-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, file, words string
		content           []byte
	}{
		{"no PEM", "cloud-pk.pem", "cloud-pk.pem is not a PEM file", []byte("x")},
		{"another thing", "cloud-pk.pem", "cloud-pk.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})},
		{"another's certificate", "cloud-cert.pem", "is not the certificate of", swap},
		{"gone", "cloud-pk.pem", "put it back from a backup", nil},
		{"gone too", "secrets.key", "put it back from a backup", nil},
		{"short", "secrets.key", "has 1 bytes", []byte("x")},
	} {
		path := filepath.Join(dir, c.file)
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if c.content == nil {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, c.content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), options(t, m, dir)); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := os.WriteFile(path, was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, options(t, m, dir))
}

func TestPrincipal(t *testing.T) {
	m, dir, admin := keyed(t)
	s, _ := open(t, options(t, m, dir))
	err := s.Store.Update(t.Context(), func(tx *state.Tx) error {
		state.Accounts.Put(tx, cloud.Account{ID: "222222222222", Alias: "tenant"})
		for _, k := range []cloud.AccessKey{ // as an older mallee kept them
			{ID: "AKIACTIVE", Secret: "s", Account: "222222222222", User: "admin", Active: true},
			{ID: "AKIINACTIVE", Secret: "s", Account: "222222222222", User: "admin"},
			{ID: "AKIORPHAN", Secret: "s", Account: "333333333333", User: "admin", Active: true},
		} {
			state.AccessKeys.Put(tx, k)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := s.Principal("AKIACTIVE"); ok {
		t.Error("a secret that isn't encrypted counts")
	}
	s, _ = open(t, options(t, m, dir))
	for k := range state.AccessKeys.All(s.Store.View()) {
		if k.Secret != "" || len(k.Sealed) == 0 {
			t.Errorf("the start left the secret of %s as it was", k.ID)
		}
	}
	for key, want := range map[string]struct{ known, system bool }{
		admin.AccessKey: {true, true}, "AKIACTIVE": {true, false}, "AKIINACTIVE": {}, "AKIORPHAN": {}, "AKINOBODY": {}, "": {},
	} {
		p, secret, ok := s.Principal(key)
		if ok != want.known || p.System != want.system || ok == (secret == "") || ok && p.AccessKey != key {
			t.Errorf("%q: %+v, secret %t, known %t", key, p, secret != "", ok)
		}
	}
	if p, _, _ := s.Principal(admin.AccessKey); p.ARN() != "arn:aws:iam::"+string(admin.Account)+":user/admin" || !strings.HasPrefix(p.UserID, "AIDA") {
		t.Errorf("%+v, %s", p, p.ARN())
	}
	if err := s.Authorize(Principal{User: "bob"}, "ec2:RunInstances", "*"); !errors.Is(err, ErrDenied) {
		t.Errorf("bob may: %v", err)
	}
}

// What eucarc says is what a shell takes from it, and mallee itself, whatever
// the folder is called.
func TestEucarc(t *testing.T) {
	for _, name := range []string{"plain", "with space", "it's", "q'", "'", "$HOME `id` \"x\" \\", "ünï"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "eucarc")
		if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		c := Credentials{
			Account: "123456789012", AccessKey: "AKIX", Secret: "secret",
			CertPath: filepath.Join(dir, "cert"), KeyPath: filepath.Join(dir, "pk"), CloudPath: filepath.Join(dir, "cloud"),
		}
		if err := c.WriteEucarc(path, "http://127.0.0.1:8773", "http://127.0.0.1:8773/services/objectstorage"); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		read, err := euca.Folder(dir).Eucarc()
		if err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]string{
			"EC2_URL": "http://127.0.0.1:8773/services/compute", "S3_URL": "http://127.0.0.1:8773/services/objectstorage",
			"EUARE_URL": "http://127.0.0.1:8773/services/Euare", "TOKEN_URL": "http://127.0.0.1:8773/services/Tokens",
			"AWS_ENDPOINT_URL": "http://127.0.0.1:8773", "AWS_ACCESS_KEY_ID": "AKIX", "AWS_SECRET_ACCESS_KEY": "secret",
			"AWS_DEFAULT_REGION": Region, "EC2_USER_ID": "123456789012", "EC2_ACCESS_KEY": "AKIX", "EC2_SECRET_KEY": "secret",
			"EC2_CERT": c.CertPath, "EC2_PRIVATE_KEY": c.KeyPath, "EUCALYPTUS_CERT": c.CloudPath,
		} {
			out, err := exec.Command("sh", "-c", `. "$1" && printenv "$2"`, "sh", path, key).Output()
			if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != want {
				t.Errorf("%s: a shell reads %s=%q, %v, want %q", name, key, got, err, want)
			}
			if read[key] != want {
				t.Errorf("%s: mallee reads %s=%q, want %q", name, key, read[key], want)
			}
		}
	}
	if err := (Credentials{}).WriteEucarc(filepath.Join(t.TempDir(), "none", "eucarc"), "", ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

func TestHandle(t *testing.T) {
	m, dir, admin := keyed(t)
	s, _ := open(t, options(t, m, dir))
	p, _, _ := s.Principal(admin.AccessKey)
	bob := Principal{Account: p.Account, User: "bob", UserID: "AIDBOB"}
	if err := s.Store.Update(context.Background(), func(tx *state.Tx) error {
		state.AccessKeys.Put(tx, cloud.AccessKey{ID: "AKIOLD", Account: p.Account, User: "admin"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	account := string(p.Account)
	for _, c := range []struct {
		who     Principal
		service string
		form    wire.Form
		status  int
		want    []string
	}{
		{p, ServiceSTS, wire.Form{"Action": "GetCallerIdentity"}, 200, []string{"<Arn>arn:aws:iam::" + account + ":user/admin</Arn>", "<UserId>AIDA", "<Account>" + account, "<RequestId>req-1</RequestId>", wire.STSNamespace}},
		{bob, ServiceSTS, wire.Form{"Action": "GetCallerIdentity"}, 200, []string{"user/bob"}},
		{p, ServiceSTS, wire.Form{"Action": "GetCallerIdentity", "X": "1"}, 400, []string{"<Code>UnknownParameter</Code>", "<Type>Sender</Type>"}},
		{p, ServiceIAM, wire.Form{"Action": "GetCallerIdentity"}, 400, []string{"<Code>InvalidAction</Code>", "of IAM"}},
		{p, ServiceIAM, wire.Form{"Action": "EnableMFADevice", "UserName": "x"}, 400, []string{"<Code>InvalidAction</Code>", "EnableMFADevice"}},
		{p, ServiceIAM, wire.Form{}, 400, []string{"<Code>MissingParameter</Code>", "Action"}},
		{p, ServiceIAM, wire.Form{"Action": "GetUser"}, 200, []string{"<UserName>admin</UserName>", "<Path>/</Path>", "<CreateDate>2026-11-22T00:00:00", wire.IAMNamespace}},
		{p, ServiceIAM, wire.Form{"Action": "GetUser", "UserName": "admin"}, 200, []string{"<UserName>admin"}},
		{p, ServiceIAM, wire.Form{"Action": "GetUser", "UserName": "<bob>"}, 404, []string{"<Code>NoSuchEntity</Code>", "&lt;bob&gt;"}},
		{bob, ServiceIAM, wire.Form{"Action": "GetUser"}, 403, []string{"<Code>AccessDenied</Code>", "user/bob", "iam:GetUser"}},
		{p, ServiceIAM, wire.Form{"Action": "ListAccessKeys"}, 200, []string{"<AccessKeyMetadata><member>", p.AccessKey, "<Status>Active", "AKIOLD", "<Status>Inactive", "<IsTruncated>false"}},
		{p, ServiceIAM, wire.Form{"Action": "ListAccessKeys", "UserName": "bob"}, 404, []string{"NoSuchEntity"}},
		{p, ServiceIAM, wire.Form{"Action": "ListAccountAliases"}, 200, []string{"<AccountAliases><member>eucalyptus</member>"}},
	} {
		w := httptest.NewRecorder()
		s.Handle(w, httptest.NewRequest("POST", "/", nil), c.service, c.form, c.who, "req-1")
		body := w.Body.String()
		if w.Code != c.status || strings.Contains(body, admin.Secret) {
			t.Errorf("%v: status %d: %s", c.form, w.Code, body)
		}
		for _, want := range c.want {
			if !strings.Contains(body, want) {
				t.Errorf("%v: no %s in %s", c.form, want, body)
			}
		}
	}
}
