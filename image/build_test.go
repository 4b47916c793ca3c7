package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// built is the catalogue as this test process built it, each image once.
var built struct {
	sync.Mutex
	dir  string // removed by TestMain
	done map[string]Artifacts
}

func TestMain(m *testing.M) {
	if addr := os.Getenv(forwardVariable); addr != "" {
		forward(addr) // a guest's connection to the metadata service; see boot_test.go
		return
	}
	dir, err := os.MkdirTemp("", "mallee-image-")
	if err != nil {
		panic(err)
	}
	built.dir, built.done = dir, map[string]Artifacts{}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// artifacts builds an image of the catalogue. Where apt can't deliver, a developer's machine skips
// and CI fails.
func artifacts(t *testing.T, name string) Artifacts {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if a, ok := built.done[name]; ok {
		return a
	}
	r, err := FindRecipe(name)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Build(t.Context(), r, built.dir, Quiet)
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("apt can't deliver what the image needs: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	built.done[name] = a
	return a
}

// slow marks a test that takes many minutes: it runs where it is asked for, as `make slow` does.
func slow(t *testing.T) {
	t.Helper()
	if os.Getenv("MALLEE_SLOW") == "" {
		t.Skip("takes many minutes: set MALLEE_SLOW=1, or make slow")
	}
}

func (a Artifacts) files() map[string]string {
	return map[string]string{"disk": a.Disk, "kernel": a.Kernel, "ramdisk": a.Ramdisk, "root": a.Root}
}

func digests(t *testing.T, a Artifacts) map[string]string {
	t.Helper()
	all := map[string]string{}
	for role, file := range a.files() {
		if file == "" {
			continue
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		all[role] = hex.EncodeToString(h.Sum(nil))
	}
	return all
}

func TestBuildIsRepeatable(t *testing.T) {
	if testing.Short() {
		t.Skip("builds or boots a whole image")
	}
	for _, r := range Catalog {
		t.Run(r.Name, func(t *testing.T) {
			if r.system != nil {
				slow(t)
			}
			t.Parallel()
			first := artifacts(t, r.Name)
			dir := t.TempDir()
			// Only the download is shared.
			if err := os.Symlink(filepath.Join(built.dir, "packages"), filepath.Join(dir, "packages")); err != nil {
				t.Fatal(err)
			}
			second, err := Build(t.Context(), r, dir, Quiet)
			if err != nil {
				t.Fatal(err)
			}
			if first.Version != second.Version {
				t.Fatalf("versions %s and %s of the same packages", first.Version, second.Version)
			}
			want, got := digests(t, first), digests(t, second)
			if len(got) == 0 || len(got) != len(want) {
				t.Fatalf("built %v, then %v", want, got)
			}
			for role, sum := range want {
				if got[role] != sum {
					t.Errorf("%s: %s, then %s", role, sum, got[role])
				}
			}
		})
	}
}

func TestBuildIsCached(t *testing.T) {
	if testing.Short() {
		t.Skip("builds or boots a whole image")
	}
	first := artifacts(t, "tiny-pv")
	before, err := os.Stat(first.Root)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := FindRecipe("tiny-pv")
	var steps []string
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			again, err := Build(t.Context(), r, built.dir, Quiet)
			if err != nil || again != first {
				t.Errorf("building again: %+v, %v; want %+v", again, err, first)
			}
		})
	}
	all.Wait()
	if _, err := Build(t.Context(), r, built.dir, func(step string, _, _ int64) { steps = append(steps, step) }); err != nil {
		t.Fatal(err)
	}
	if s := strings.Join(steps, ","); strings.Contains(s, "building") || strings.Contains(s, "downloading") {
		t.Errorf("a cached build did %s", s)
	}
	after, err := os.Stat(first.Root)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the cached file was replaced (%v)", err)
	}
}

func TestBuildMendsDamage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds or boots a whole image")
	}
	source := artifacts(t, "tiny-pv")
	dir := t.TempDir()
	damaged := filepath.Join(dir, filepath.Base(filepath.Dir(source.Root)))
	if err := os.CopyFS(damaged, os.DirFS(filepath.Dir(source.Root))); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(damaged, rootName), 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := readRecord(damaged); err == nil || !strings.Contains(err.Error(), rootName) {
		t.Fatalf("reading the record of a damaged build: %v, want an error about %s", err, rootName)
	}
	// What a killed build left goes when the next one begins.
	stale := filepath.Join(dir, ".build-tiny-pv+123")
	if err := os.Mkdir(stale, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(built.dir, "packages"), filepath.Join(dir, "packages")); err != nil {
		t.Fatal(err)
	}
	r, _ := FindRecipe("tiny-pv")
	mended, err := Build(t.Context(), r, dir, Quiet)
	if err != nil {
		t.Fatal(err)
	}
	if want, got := digests(t, source), digests(t, mended); want["root"] != got["root"] {
		t.Errorf("mended root has digest %s, want %s", got["root"], want["root"])
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("the killed build's folder is still there: %v", err)
	}
}

// brokenApt puts commands of apt's names that fail in front of everything else.
func brokenApt(t *testing.T, message string) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho 'E: " + message + "' >&2\nexit 100\n"
	for _, name := range []string{"apt-get", "apt-cache"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestBuildWithoutApt(t *testing.T) {
	r, _ := FindRecipe("tiny-pv")
	t.Run("missing", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := Build(t.Context(), r, t.TempDir(), Quiet)
		if !isMissingTool(err) || !strings.Contains(err.Error(), "apt-get install apt") {
			t.Errorf("without apt: %v, want the package that has it", err)
		}
	})
	t.Run("offline, nothing built", func(t *testing.T) {
		brokenApt(t, "Temporary failure resolving the host")
		dir := t.TempDir()
		_, err := Build(t.Context(), r, dir, Quiet)
		if err == nil || !strings.Contains(err.Error(), "Temporary failure resolving the host") {
			t.Errorf("offline: %v, want apt's own words", err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "tiny*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("offline, built before", func(t *testing.T) {
		want := artifacts(t, "tiny-pv")
		brokenApt(t, "Temporary failure resolving the host")
		var said []string
		got, err := Build(t.Context(), r, built.dir, func(step string, _, _ int64) { said = append(said, step) })
		if err != nil || got != want {
			t.Errorf("offline: %+v, %v; want the earlier build %+v", got, err, want)
		}
		if all := strings.Join(said, "\n"); !strings.Contains(all, "Temporary failure") {
			t.Errorf("progress doesn't say why an earlier build is used: %s", all)
		}
	})
}

// A machine where nobody has ever run apt-get update: we fetch lists of our own.
func TestResolveWithoutLists(t *testing.T) {
	if testing.Short() {
		t.Skip("builds or boots a whole image")
	}
	artifacts(t, "tiny-pv") // or skip
	dir := t.TempDir()
	config := filepath.Join(dir, "apt.conf")
	if err := os.WriteFile(config, []byte("Dir::State::lists \""+t.TempDir()+"\";\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("APT_CONFIG", config)
	a := &apt{dir: dir}
	if _, err := a.ask(t.Context(), guestPackages); err == nil {
		t.Fatal("apt knows packages without lists")
	}
	var steps []string
	in, err := a.inputs(t.Context(), Recipe{packages: guestPackages}, func(step string, _, _ int64) { steps = append(steps, step) })
	if err != nil || len(in.build) < len(guestPackages) {
		t.Fatalf("resolved %d packages after %q: %v", len(in.build), steps, err)
	}
}

func TestBuildIsCancelled(t *testing.T) {
	r, _ := FindRecipe("tiny-pv")
	dir := t.TempDir()
	unlock, err := lock(t.Context(), filepath.Join(dir, "lock"), func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Build(ctx, r, dir, func(step string, _, _ int64) {
		if step == waiting {
			cancel()
		}
	})
	if err == nil || ctx.Err() == nil {
		t.Errorf("a build behind a lock, cancelled: %v", err)
	}
}

// A long build of one recipe keeps nobody from another, and nothing of it is taken for a dead build's.
func TestRecipesDontWaitForEachOther(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(t.Context(), filepath.Join(dir, "lock-debian-12"), func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	alive := filepath.Join(dir, ".build-debian-12+1")
	if err := os.Mkdir(alive, 0o700); err != nil {
		t.Fatal(err)
	}
	brokenApt(t, "nothing here")
	r, _ := FindRecipe("tiny")
	_, err = Build(t.Context(), r, dir, func(step string, _, _ int64) {
		if step == waiting {
			t.Error("tiny waits for debian-12")
		}
	})
	if err == nil || !strings.Contains(err.Error(), "nothing here") {
		t.Errorf("without apt: %v", err)
	}
	removeAll(dir, temporary("debian"), temporary("tiny"))
	if _, err := os.Stat(alive); err != nil {
		t.Errorf("the folder of a build under way: %v", err)
	}
}

func TestFindRecipeNamesWhatThereIs(t *testing.T) {
	_, err := FindRecipe("huge")
	if err == nil || !strings.Contains(err.Error(), "tiny, tiny-pv") {
		t.Errorf("FindRecipe(huge): %v, want the names there are", err)
	}
}

func TestParseURIs(t *testing.T) {
	if debs, err := parseURIs([]byte("'u' a_1_all.deb 1 \n")); err != nil || len(debs) != 1 || debs[0].verify("build_test.go") == nil {
		t.Errorf("without a checksum: %+v, %v", debs, err)
	}
	good := "'http://mirror/pool/z.deb' zlib1g_1%3a1.2.13_amd64.deb 86684 SHA256:d7dd\n" +
		"'http://mirror/pool/a.deb' a_1_all.deb 1 SHA256:00\n"
	debs, err := parseURIs([]byte(good))
	if err != nil || len(debs) != 2 || debs[1] != (deb{Name: "zlib1g", File: "zlib1g_1%3a1.2.13_amd64.deb", Size: 86684, Sum: "SHA256:d7dd"}) {
		t.Errorf("parsed %+v, %v", debs, err)
	}
	for _, bad := range []string{
		"'u' ../x_1_all.deb 5 SHA256:00",
		"'u' x_1_all.deb five SHA256:00",
		"'u' x_1_all.deb -5 SHA256:00",
		"'u' nounderscore 5 SHA256:00",
	} {
		if debs, err := parseURIs([]byte(bad)); err == nil {
			t.Errorf("%q parsed as %+v", bad, debs)
		}
	}
}
