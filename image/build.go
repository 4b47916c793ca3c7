package image

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Artifacts are the files of a built image. They are complete and never change; another build may
// be beside them.
type Artifacts struct {
	Recipe  string // the recipe's name
	Version string // digest of everything that went in; equal versions are equal bytes

	Disk string // HVM: the raw bootable disk

	Kernel  string // paravirtual: the kernel image (EKI), a bzImage
	Ramdisk string // paravirtual: the ramdisk image (ERI), a compressed cpio
	Root    string // paravirtual: the root file system (EMI), ext4
}

// The names of a built image's files in its folder.
const (
	diskName    = "disk.raw"
	kernelName  = "vmlinuz"
	ramdiskName = "initrd.gz"
	rootName    = "root.ext4"
	recordName  = "build.json"
)

// A record says how a folder of the cache was made. It is the last file written.
type record struct {
	Recipe   string           `json:"recipe"`
	Version  string           `json:"version"`
	Built    time.Time        `json:"built"`
	Packages []deb            `json:"packages"`
	Files    map[string]int64 `json:"files"` // name: bytes
}

// bench is where one build works.
type bench struct {
	dir      string // gets the finished files
	scratch  string // gets the rest
	debs     string // the folder of packages
	inputs   inputs
	packages tree // what the recipe needs of the packages
	tools    tools
	progress Progress
}

//go:embed guest
var guestFiles embed.FS

// Build returns the recipe's image from the cache folder dir, which it makes where it isn't there,
// and builds it first where it is missing or the packages have new versions. Several at once of one
// recipe, in one process or in many, wait for each other. It needs apt, dpkg and an amd64 host, and no root.
func Build(ctx context.Context, r Recipe, dir string, progress Progress) (Artifacts, error) {
	if runtime.GOARCH != "amd64" || runtime.GOOS != "linux" {
		return Artifacts{}, fmt.Errorf("building %s: the catalogue is for amd64 Linux and builds on it; this is %s %s", r.Name, runtime.GOARCH, runtime.GOOS)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Artifacts{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Artifacts{}, fmt.Errorf("making the image cache: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(dir, "lock-"+r.Name), func() { progress(waiting, 0, 0) })
	if err != nil {
		return Artifacts{}, err
	}
	defer unlock()
	a, err := buildLocked(ctx, r, dir, progress)
	if err != nil {
		return Artifacts{}, fmt.Errorf("building image %s in %s: %w", r.Name, dir, err)
	}
	return a, nil
}

func buildLocked(ctx context.Context, r Recipe, dir string, progress Progress) (Artifacts, error) {
	in, err := collect(ctx, r, dir, progress)
	if err != nil {
		return fallBack(ctx, r, dir, err, progress)
	}
	rec := record{Recipe: r.Name, Version: version(r, in.all()), Built: time.Now().UTC(), Packages: in.all()}
	if built, err := readRecord(filepath.Join(dir, folderName(r.Name, rec.Version))); err == nil {
		return built.artifacts(dir), nil
	}
	return rec.make(ctx, r, in, dir, progress)
}

// collect asks apt for the recipe's packages, and downloads them where there is no build of them. Builds of
// all recipes share apt's folder and the packages', so one does this at a time.
func collect(ctx context.Context, r Recipe, dir string, progress Progress) (in inputs, err error) {
	unlock, err := lock(ctx, filepath.Join(dir, "lock"), func() { progress(waiting, 0, 0) })
	if err != nil {
		return in, err
	}
	defer unlock()
	removeAll(dir, "apt/download-*", "apt/.empty-*") // of who was killed: we hold the lock
	a := &apt{dir: filepath.Join(dir, "apt")}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return in, err
	}
	defer os.RemoveAll(a.cache()) // 70 MB that apt makes again in a second
	progress("resolving packages", 0, 1)
	if in, err = a.inputs(ctx, r, progress); err != nil {
		return in, err
	}
	progress("resolving packages", 1, 1)
	if _, err := readRecord(filepath.Join(dir, folderName(r.Name, version(r, in.all())))); err == nil {
		return in, nil
	}
	return in, gather(ctx, a, in.all(), filepath.Join(dir, "packages"), progress)
}

// fallBack returns the newest earlier build when apt couldn't tell or fetch what a new one needs.
func fallBack(ctx context.Context, r Recipe, dir string, why error, progress Progress) (Artifacts, error) {
	if ctx.Err() != nil {
		return Artifacts{}, why
	}
	var newest record
	folders, _ := filepath.Glob(filepath.Join(dir, r.Name+"-*"))
	for _, folder := range folders {
		if rec, err := readRecord(folder); err == nil && rec.Recipe == r.Name && rec.Built.After(newest.Built) {
			newest = rec
		}
	}
	if newest.Recipe == "" {
		return Artifacts{}, why
	}
	progress(fmt.Sprintf("using the build of %s: %v", newest.Built.Format(time.DateOnly), why), 1, 1)
	return newest.artifacts(dir), nil
}

// version is the digest of all that decides the image's bytes.
func version(r Recipe, debs []deb) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %d\n%s%s", r.Name, r.version, epoch.Unix(), r.config, mkfsConfig)
	fs.WalkDir(r.files, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			data, _ := r.files.ReadFile(name)
			fmt.Fprintf(h, "%s %d\n%s", name, len(data), data)
		}
		return err
	})
	for _, d := range debs {
		fmt.Fprintln(h, d.File, d.Sum)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func folderName(recipe, version string) string { return recipe + "-" + version }

// readRecord reads the record of a finished folder, and fails where a file of it is missing or
// has another size.
func readRecord(folder string) (record, error) {
	var rec record
	data, err := os.ReadFile(filepath.Join(folder, recordName))
	if err != nil {
		return rec, err
	}
	if err := json.Unmarshal(data, &rec); err != nil {
		return rec, fmt.Errorf("%s of %s: %w", recordName, folder, err)
	}
	if filepath.Base(folder) != folderName(rec.Recipe, rec.Version) || len(rec.Files) == 0 {
		return rec, fmt.Errorf("%s of %s is about something else", recordName, folder)
	}
	for name, size := range rec.Files {
		info, err := os.Stat(filepath.Join(folder, name))
		if err != nil {
			return rec, err
		}
		if info.Size() != size {
			return rec, fmt.Errorf("%s of %s has %d bytes, %d were built", name, folder, info.Size(), size)
		}
	}
	return rec, nil
}

func (rec record) artifacts(dir string) Artifacts {
	at := func(name string) string {
		if _, ok := rec.Files[name]; !ok {
			return ""
		}
		return filepath.Join(dir, folderName(rec.Recipe, rec.Version), name)
	}
	return Artifacts{Recipe: rec.Recipe, Version: rec.Version,
		Disk: at(diskName), Kernel: at(kernelName), Ramdisk: at(ramdiskName), Root: at(rootName)}
}

// gather brings the folder of packages to what is needed: what is missing is downloaded beside it and moved
// in whole, and everything is verified.
func gather(ctx context.Context, a *apt, debs []deb, dir string, progress Progress) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	missing := slices.DeleteFunc(slices.Clone(debs), func(d deb) bool { return d.verify(filepath.Join(dir, d.File)) == nil })
	if len(missing) == 0 {
		return nil
	}
	tmp, err := os.MkdirTemp(a.dir, "download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := a.download(ctx, missing, tmp, progress); err != nil {
		return err
	}
	for _, d := range missing {
		if err := d.verify(filepath.Join(tmp, d.File)); err != nil {
			return fmt.Errorf("downloaded package: %w", err)
		}
		if err := os.Rename(filepath.Join(tmp, d.File), filepath.Join(dir, d.File)); err != nil {
			return err
		}
	}
	return nil
}

// make builds the image in a temporary folder and gives it its name when it is on disk.
func (rec *record) make(ctx context.Context, r Recipe, in inputs, dir string, progress Progress) (Artifacts, error) {
	removeAll(dir, temporary(r.Name)) // of who was killed: we hold the recipe's lock
	tmp, err := os.MkdirTemp(dir, temporary(r.Name))
	if err != nil {
		return Artifacts{}, err
	}
	defer os.RemoveAll(tmp)
	b := &bench{dir: filepath.Join(tmp, "image"), scratch: filepath.Join(tmp, "scratch"),
		debs: filepath.Join(dir, "packages"), inputs: in, progress: progress}
	for _, d := range []string{b.dir, b.scratch} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return Artifacts{}, err
		}
	}
	if err := b.unpack(ctx); err != nil {
		return Artifacts{}, err
	}
	progress("building "+r.Name, 0, 1)
	if err := r.assemble(ctx, b); err != nil {
		return Artifacts{}, err
	}
	if err := rec.finish(b.dir); err != nil {
		return Artifacts{}, err
	}
	final := filepath.Join(dir, folderName(rec.Recipe, rec.Version))
	if err := os.RemoveAll(final); err != nil { // one whose record didn't hold
		return Artifacts{}, err
	}
	if err := os.Rename(b.dir, final); err != nil {
		return Artifacts{}, err
	}
	progress("building "+r.Name, 1, 1)
	return rec.artifacts(dir), syncPath(dir)
}

// waiting is the step of a build that another one goes before.
const waiting = "waiting for another build"

// temporary is the pattern of a recipe's folders that are being built. No recipe's name has a +.
func temporary(recipe string) string { return ".build-" + recipe + "+*" }

func removeAll(dir string, patterns ...string) {
	for _, pattern := range patterns {
		old, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, o := range old {
			os.RemoveAll(o)
		}
	}
}

// unpack reads the packages into memory, as far as any recipe needs them. Decompressing is most of
// a build's work, and the packages are independent.
func (b *bench) unpack(ctx context.Context) error {
	const step = "unpacking packages"
	debs := b.inputs.build
	parts := make([]tree, len(debs))
	unpacked := make(chan int)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	go func() {
		for i, d := range debs {
			group.Go(func() error {
				parts[i] = tree{}
				err := readDeb(ctx, parts[i], filepath.Join(b.debs, d.File), needed)
				unpacked <- i
				return err
			})
		}
	}()
	for i := range debs {
		b.progress(step, int64(i), int64(len(debs)))
		<-unpacked
	}
	if err := group.Wait(); err != nil {
		return err
	}
	b.progress(step, int64(len(debs)), int64(len(debs)))
	b.packages = tree{}
	for _, part := range parts {
		maps.Copy(b.packages, part)
	}
	return nil
}

// finish makes the folder durable and writes its record.
func (rec *record) finish(dir string) error {
	rec.Files = map[string]int64{}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			return err
		}
		rec.Files[f.Name()] = info.Size()
		if err := syncPath(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	data, err := json.MarshalIndent(rec, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, recordName), append(data, '\n'), 0o600); err != nil {
		return err
	}
	return errors.Join(syncPath(filepath.Join(dir, recordName)), syncPath(dir))
}

func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", name, err)
	}
	return nil
}

// needed tells the files that recipes use, by their path in a package.
func needed(name string) bool {
	switch {
	case isLibrary(name), strings.HasPrefix(name, "boot/vmlinuz-"), strings.HasPrefix(name, grubModules+"/"):
		return true
	case strings.HasPrefix(name, "lib/modules/"), strings.HasPrefix(name, "usr/lib/modules/"):
		return isGuestModule(name)
	}
	return slices.Contains(programs, name) || slices.Contains(programs, strings.TrimPrefix(name, "usr/"))
}
