package euca

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

func asHeld(err error, held **HeldError) bool { return errors.As(err, held) }

func TestOneHolder(t *testing.T) {
	f := Folder(t.TempDir() + "/made by the lock")
	if _, err := f.Holder(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a folder that isn't there: %v", err)
	}
	if _, err := os.Stat(string(f)); err == nil {
		t.Error("looking made the folder")
	}
	lock, err := f.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lock(); err == nil || !strings.Contains(err.Error(), "has not said yet who it is") {
		t.Errorf("before the holder has said who it is: %v", err)
	}
	me := Holder{PID: os.Getpid(), Listen: "127.0.0.1:8773"}
	for _, h := range []Holder{{PID: 123456789, Listen: "a much longer address than the other one:8773"}, me} {
		if err := lock.Tell(h); err != nil {
			t.Fatal(err)
		}
	}
	_, err = f.Lock()
	if want := fmt.Sprintf("the cloud of %s is run by process %d, at http://127.0.0.1:8773", f, os.Getpid()); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if h, err := f.Holder(); h != me || err != nil {
		t.Errorf("holder %+v, %v", h, err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Holder(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after it was released: %v", err)
	}
}

// A process to be ended is one process: no group of them, and not init.
func TestHolderIsBelievedWithinReason(t *testing.T) {
	for _, said := range []string{"", "{", "null", `{"pid":0}`, `{"pid":1}`, `{"pid":-1}`, `{"pid":-1234}`, `{"pid":"7"}`} {
		f := Folder(t.TempDir())
		lock, err := f.Lock()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.Path("lock"), []byte(said), 0o600); err != nil {
			t.Fatal(err)
		}
		if h, ok := told(lock.file); ok {
			t.Errorf("%s is believed: %+v", said, h)
		}
		lock.Release()
	}
}

// Those who only look don't keep a cloud from starting, and don't take what a
// dead one has said for the truth.
func TestLookingIsNoHold(t *testing.T) {
	f := Folder(t.TempDir())
	if err := os.WriteFile(f.Path("lock"), []byte(`{"pid":4194304,"listen":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var lookers sync.WaitGroup
	end := make(chan struct{})
	for range 4 {
		lookers.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					f.Holder()
				}
			}
		})
	}
	for range 20 {
		lock, err := f.Lock()
		var held *HeldError
		if asHeld(err, &held) {
			t.Errorf("held by %+v", held.Holder)
		}
		if err == nil {
			lock.Release()
		}
	}
	close(end)
	lookers.Wait()
}

func TestUnquote(t *testing.T) {
	for word, want := range map[string]string{
		"plain": "plain", "''": "", "'a b'": "a b", `'it'\''s'`: "it's", `'q'\'''`: "q'", `''\'''`: "'", `''\'''\'''`: "''",
	} {
		if got := unquote(word); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}

func TestOpenFolder(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/x/data")
	if f, err := OpenFolder(""); f != "/x/data/mallee" || err != nil {
		t.Errorf("%s, %v", f, err)
	}
	t.Setenv("XDG_DATA_HOME", "")
	t.Setenv("HOME", "/home/ann")
	if f, err := OpenFolder(""); f != "/home/ann/.local/share/mallee" || err != nil {
		t.Errorf("%s, %v", f, err)
	}
	if f, err := OpenFolder("rel"); !strings.HasPrefix(string(f), "/") || err != nil {
		t.Errorf("%s, %v", f, err)
	}
	if _, err := OpenFolder("/a\nb"); err == nil {
		t.Error("a name of two lines, which eucarc can't hold")
	}
}
