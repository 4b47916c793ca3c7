package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mallee/block"
	"mallee/cloud"
)

// used names what must stay.
func used(names ...string) func() (map[string]bool, error) {
	set := map[string]bool{}
	for _, n := range names {
		set[n] = true
	}
	return func() (map[string]bool, error) { return set, nil }
}

// holding writes so many blocks of data.
func holding(blocks int) func(*os.File) error {
	return func(f *os.File) error {
		_, err := f.Write([]byte(strings.Repeat("x", blocks*4096)))
		return err
	}
}

// stepping is a clock that goes a second further at each look.
func stepping() func() time.Time {
	var n atomic.Int64
	return func() time.Time { return time.Unix(1_800_000_000+n.Add(1), 0) }
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

func TestCacheSweepsHalves(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b" + halfMade, "c-paravirtual-5" + halfMade} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := openCache(dir, 0, time.Now); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "a" {
		t.Errorf("left: %s", got)
	}
}

func TestCacheBuildsOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c, err := openCache(dir, 1<<30, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		var builds atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				path, err := c.ensure("k", used("k"), func(f *os.File) error {
					builds.Add(1)
					time.Sleep(time.Second) // the others come meanwhile
					return holding(1)(f)
				})
				if info, statErr := os.Stat(path); err != nil || statErr != nil || info.Size() != 4096 {
					t.Errorf("%s: %v, %v", path, err, statErr)
				}
			})
		}
		all.Wait()
		if builds.Load() != 1 {
			t.Errorf("built %d times", builds.Load())
		}
	})
}

func TestCacheKeepsNothingOfAFailure(t *testing.T) {
	c, err := openCache(t.TempDir(), 1<<30, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	wrong := errors.New("part 7 is wrong")
	_, err = c.ensure("k", used("k"), func(f *os.File) error { return errors.Join(holding(3)(f), wrong) })
	if !errors.Is(err, wrong) {
		t.Errorf("error %v", err)
	}
	if got := names(t, c.dir); got != "" {
		t.Errorf("left: %s", got)
	}
	if _, err := c.ensure("k", used("k"), holding(1)); err != nil {
		t.Errorf("the next attempt: %v", err)
	}
}

func TestCacheEvictsTheLeastRecentlyUsed(t *testing.T) {
	c, err := openCache(t.TempDir(), 3*4096, stepping())
	if err != nil {
		t.Fatal(err)
	}
	need := func(key string, inUse ...string) {
		t.Helper()
		if _, err := c.ensure(key, used(append(inUse, key)...), holding(1)); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ key, inUse, want string }{
		{"a", "", "a"}, {"b", "", "a b"}, {"c", "", "a b c"},
		{"a", "", "a b c"},    // used again: b is the oldest now
		{"d", "", "a c d"},    // b went
		{"e", "c", "c d e"},   // c is in use, a went
		{"f", "c d", "c d f"}, // a new entry is never its own victim
	} {
		need(step.key, strings.Fields(step.inUse)...)
		if got := names(t, c.dir); got != step.want {
			t.Errorf("after %s: %s, want %s", step.key, got, step.want)
		}
	}
}

// A full disk is what it says, and the next attempt has the room of all that
// nobody uses.
func TestCacheOnAFullDisk(t *testing.T) {
	c, err := openCache(t.TempDir(), 1<<30, stepping())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b"} {
		if _, err := c.ensure(key, used("b"), holding(1)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.ensure("k", used("b", "k"), func(*os.File) error {
		return &fs.PathError{Op: "write", Path: "k", Err: syscall.ENOSPC}
	})
	var full *block.NoSpaceError
	if !errors.As(err, &full) {
		t.Errorf("error %v", err)
	}
	if got := names(t, c.dir); got != "b" {
		t.Errorf("left: %s", got)
	}
}

// The memos on disk say what is in use, of machines that this program has not
// looked at yet too.
func TestBasesInUse(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	r.wantPhase(cloud.PhaseUp)
	if err := os.Mkdir(r.machineDir("i-00000002"), 0o700); err != nil { // a crash before its memo
		t.Fatal(err)
	}
	r.open()
	got, err := r.basesInUse()
	if err != nil || fmt.Sprint(got) != "map[abc-_:true]" {
		t.Errorf("in use: %v, %v", got, err)
	}
}

// A crash between the memo and the base: the next program builds it.
func TestCrashBetweenMemoAndBase(t *testing.T) {
	r := newRig(t)
	r.assign(instance(1))
	r.fail["unpack"] = errors.New("the program dies here")
	r.step()
	memo, err := os.ReadFile(r.memoPath("i-00000001"))
	if err != nil || !strings.Contains(string(memo), `"abc-_"`) || !strings.Contains(string(memo), `"up":false`) {
		t.Errorf("memo %s, %v", memo, err)
	}
	r.fail["unpack"] = nil
	r.open()
	r.wantPhase(cloud.PhaseUp)
}
