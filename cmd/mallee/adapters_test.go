package main

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/iam"
	"mallee/state"
	"mallee/walrus"
)

const (
	anna cloud.AccountID = "111111111111"
	bert cloud.AccountID = "222222222222"
)

// store is a Walrus of two accounts and the system's.
func store(t *testing.T) (*walrus.Walrus, *state.Store, iam.Principal) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	states, err := state.OpenMemory(t.Context(), state.NewMemory(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { states.Close() })
	users, err := iam.Open(t.Context(), iam.Options{Store: states, Dir: t.TempDir(), Now: time.Now, Rand: rand.Reader, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	err = states.Update(t.Context(), func(tx *state.Tx) error {
		for _, id := range []cloud.AccountID{anna, bert} {
			state.Accounts.Put(tx, cloud.Account{ID: id})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := walrus.Open(walrus.Options{Dir: t.TempDir(), Identity: keyring{users}, Region: iam.Region, Elsewhere: http.NotFoundHandler(), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { objects.Close() })
	admin, err := users.SystemAdmin()
	if err != nil {
		t.Fatal(err)
	}
	system, _, _ := users.Principal(admin.AccessKey)
	return objects, states, system
}

// TestWhoGetsBytes: the bytes of an object are its account's, and those that it
// was shared with by name; a bundle that the cloud may use stays what it is.
func TestWhoGetsBytes(t *testing.T) {
	w, states, system := store(t)
	ctx := t.Context()
	if err := w.MakeBucket(ctx, string(anna), "annas"); err != nil {
		t.Fatal(err)
	}
	for _, acl := range []string{"private", "aws-exec-read"} {
		if err := w.Put(ctx, "annas", acl, acl, strings.NewReader("bytes"), 5); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Put(ctx, "annas", "public-read", "public-read", strings.NewReader("bytes"), 5); err == nil {
		t.Error("a bucket of the cloud's making, where ACLs are off, takes a public object")
	}
	o, tasks := objects{w}, taskObjects{w, states}
	for _, test := range []struct {
		who       iam.Principal
		key       string
		use, have bool
	}{
		{iam.Principal{Account: anna}, "private", true, true},
		{iam.Principal{Account: bert}, "private", false, false},
		{iam.Principal{Account: bert}, "aws-exec-read", true, false},
		{system, "private", true, true},
	} {
		denied := func(what string, err error, may bool) {
			t.Helper()
			if errors.Is(err, fs.ErrPermission) == may || err != nil && !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%s of %s for %s: %v", what, test.key, test.who.Account, err)
			}
		}
		_, err := o.ReadObject(ctx, test.who, "annas", test.key, 10)
		denied("registering", err, test.use)
		_, err = o.StatObject(ctx, test.who, "annas", test.key)
		denied("importing", err, test.have)
		body, _, err := tasks.OpenFor(ctx, test.who.Account, "annas", test.key)
		denied("a task's reading", err, test.have)
		if err == nil {
			if data, err := io.ReadAll(body); string(data) != "bytes" || err != nil {
				t.Errorf("%q, %v", data, err)
			}
			body.Close()
		}
	}
	if _, _, err := tasks.OpenFor(ctx, "333333333333", "annas", "private"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("an account that is no more reads: %v", err)
	}
}

// TestWhoWrites: tasks write and delete where their account may by then.
func TestWhoWrites(t *testing.T) {
	w, states, _ := store(t)
	ctx := t.Context()
	tasks := taskObjects{w, states}
	if err := w.MakeBucket(ctx, string(anna), "annas"); err != nil {
		t.Fatal(err)
	}
	if err := tasks.PutFor(ctx, anna, "annas", "key", "private", strings.NewReader("bytes"), 5); err != nil {
		t.Fatal(err)
	}
	if err := tasks.PutFor(ctx, bert, "annas", "key", "private", strings.NewReader("other"), 5); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("another account writes: %v", err)
	}
	if err := tasks.PutFor(ctx, anna, "nowhere", "key", "private", strings.NewReader("bytes"), 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a bucket that is gone: %v", err)
	}
	for _, err := range []error{tasks.DeleteFor(ctx, bert, "annas", "key"), tasks.DeleteFor(ctx, anna, "nowhere", "key")} {
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := w.Stat(ctx, "annas", "key"); err != nil {
		t.Errorf("another account has deleted it: %v", err)
	}
	if err := tasks.DeleteFor(ctx, anna, "annas", "key"); err != nil {
		t.Error(err)
	}
	if _, err := w.Stat(ctx, "annas", "key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	for who, want := range map[cloud.AccountID]error{anna: nil, bert: fs.ErrPermission} {
		if err := (objects{w}).OwnBucket(ctx, iam.Principal{Account: who}, "annas"); !errors.Is(err, want) {
			t.Errorf("annas for %s: %v", who, err)
		}
	}
}

// TestReach: downloads go to public addresses and the cloud's own door, and to no
// other of its host's.
func TestReach(t *testing.T) {
	for endpoint, reached := range map[string]map[string]bool{
		"http://127.0.0.1:8773": {"127.0.0.1:8773": true, "[::ffff:127.0.0.1]:8773": true, "127.0.0.1:22": false, "127.0.0.2:8773": false, "169.254.169.254:80": false, "10.0.0.1:8773": false, "1.1.1.1:443": true},
		"http://cloud.internal": {"127.0.0.1:80": false, "1.1.1.1:443": true},
	} {
		for at, want := range reached {
			if err := reach(endpoint)(netip.MustParseAddrPort(at)); (err == nil) != want {
				t.Errorf("%s from %s: %v", at, endpoint, err)
			}
		}
	}
}
