package image

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// A whole Debian system, unlike the tiny guest, is not only unpacked but installed: packages bring scripts that
// make users, caches and links, and the scripts want to be root on a Linux that has nothing of the host's.
// So dpkg runs in an emulated machine of its own (docs/adr/0009 says what else was considered):
//
//	packages ─ repack ─▶ first disk ─▶ QEMU: debian/init, debian/install ─▶ second disk: tar ─▶ tree ─▶ ext4
//
// The first disk is made like any image here: ext4 with the essential packages' files, so that there is a
// dpkg to run, and with all packages. The machine has no network, and no disk of the host's.

const (
	systemMemory  = 768     // MiB of the machine that installs
	systemDisk    = 4 << 30 // bytes; sparse
	systemTimeout = 2 * time.Hour
	buildID       = "6d616c6c-6565-4000-8000-6275696c6401" // the first disk's file system
)

// A system says what a Debian system is made of.
type system struct {
	packages []string // with what they depend on, and what is essential, installed
	release  string   // how the version of the package base-files begins, which is the release's
	files    string   // folder of debianFiles: scripts and files of our own
}

// check that apt's packages are the release's: apt knows those of the host's.
func (s system) check(debs []deb) error {
	for _, d := range debs {
		if d.Name != "base-files" {
			continue
		}
		_, version, _ := strings.Cut(strings.TrimSuffix(d.File, ".deb"), "_")
		if strings.HasPrefix(version, s.release) {
			return nil
		}
		return fmt.Errorf("this host's apt offers base-files %s, and the image is made of Debian's release whose base-files is %s…: "+
			"build it on such a host, or name a configuration with that release's sources in APT_CONFIG", version, s.release)
	}
	return errors.New("apt knows no package base-files: is this a Debian?")
}

// installed makes the system of the bench's packages and returns its files. Contents stay in the scratch folder.
func (s system) installed(ctx context.Context, b *bench) (tree, error) {
	ctx, cancel := context.WithTimeout(ctx, systemTimeout)
	defer cancel()
	first, second := filepath.Join(b.scratch, "system.raw"), filepath.Join(b.scratch, "system.tar")
	if err := s.prepare(ctx, b, first); err != nil {
		return nil, fmt.Errorf("preparing the installation: %w", err)
	}
	defer os.Remove(first)
	if err := createSparse(second, systemDisk); err != nil {
		return nil, err
	}
	defer os.Remove(second)
	m, err := b.builder(s, first, second)
	if err != nil {
		return nil, err
	}
	if err := b.watch(ctx, m); err != nil {
		return nil, err
	}
	f, err := os.Open(second)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := readSystem(f, filepath.Join(b.scratch, "system"))
	if err != nil {
		return nil, fmt.Errorf("reading the installed system: %w", err)
	}
	return t, nil
}

// prepare writes the first disk.
func (s system) prepare(ctx context.Context, b *bench, file string) error {
	b.progress("unpacking Debian packages", 0, 0)
	t, err := b.repacked(ctx)
	if err != nil {
		return err
	}
	if err := b.bootstrap(ctx, t); err != nil {
		return err
	}
	if err := addEmbedded(t, debianFiles, s.files, "mallee"); err != nil {
		return err
	}
	var essential, rest strings.Builder
	for _, d := range b.inputs.system {
		if slices.Contains(b.inputs.essential, d.Name) {
			fmt.Fprintln(&essential, d.File)
		} else {
			fmt.Fprintln(&rest, d.File)
		}
	}
	t.file("mallee/essential", 0o644, []byte(essential.String()))
	t.file("mallee/rest", 0o644, []byte(rest.String()))
	t.file("mallee/environment", 0o644, fmt.Appendf(nil, "export SOURCE_DATE_EPOCH=%d\n", epoch.Unix()))
	return extFS{label: "build", id: buildID, size: systemDisk, journal: 4, files: t}.write(ctx, b.tools, b.scratch, file)
}

// repacked is a tree with all of the system's packages, uncompressed, below mallee/packages.
func (b *bench) repacked(ctx context.Context) (tree, error) {
	dir := filepath.Join(b.scratch, "repacked")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	t := tree{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for _, d := range b.inputs.system {
		to := filepath.Join(dir, d.File)
		t.put("mallee/packages/"+d.File, &node{mode: 0o644, from: to})
		group.Go(func() error { return repack(ctx, filepath.Join(b.debs, d.File), to) })
	}
	return t, group.Wait()
}

// bootstrap adds the files of the essential packages, as in a Debian of today, whose programs are all in /usr.
func (b *bench) bootstrap(ctx context.Context, t tree) error {
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		t.dir("usr/"+dir, 0o755)
		t.symlink(dir, "usr/"+dir)
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp"} {
		t.dir(dir, 0o755)
	}
	for _, d := range b.inputs.system {
		if !slices.Contains(b.inputs.essential, d.Name) {
			continue
		}
		part := tree{}
		if err := readDeb(ctx, part, filepath.Join(b.debs, d.File), func(string) bool { return true }); err != nil {
			return err
		}
		for name, n := range part {
			if name = merged(name); t[name] == nil {
				t.put(name, n)
			}
		}
	}
	return nil
}

// merged is where a path of a package leads on a system whose /bin, /sbin and /lib are in /usr.
func merged(name string) string {
	top, _, _ := strings.Cut(name, "/")
	if slices.Contains([]string{"bin", "sbin", "lib", "lib64"}, top) {
		return "usr/" + name
	}
	return name
}

// builder is the machine that installs: the image's own kernel, and a ramdisk whose only program is BusyBox.
func (b *bench) builder(s system, disks ...string) (machine, error) {
	m := machine{kernel: filepath.Join(b.scratch, "build-"+kernelName), ramdisk: filepath.Join(b.scratch, "build-"+ramdiskName), memory: systemMemory, disks: disks}
	kernel, err := b.kernel()
	if err != nil {
		return m, err
	}
	if err := os.WriteFile(m.kernel, kernel, 0o600); err != nil {
		return m, err
	}
	t := tree{}
	busybox, err := b.packages.follow(guestBusybox)
	if err != nil {
		return m, err
	}
	t.file(guestBusybox, 0o755, busybox)
	for _, dir := range []string{"dev", "proc", "sys", "root"} {
		t.dir(dir, 0o755)
	}
	t.console("dev/console")
	if err := b.addModules(t, "ramdisk", ramdiskModules); err != nil {
		return m, err
	}
	first, err := debianFiles.ReadFile(path.Join(s.files, "init"))
	if err != nil {
		return m, err
	}
	t.file("init", 0o755, first)
	return m, writeRamdisk(m.ramdisk, t)
}

// What the machine's scripts say on the console, a line each, between what dpkg says.
const (
	buildSays   = "mallee-build: "
	buildDone   = buildSays + "done"
	buildFailed = buildSays + "failed: "
	buildStep   = buildSays + "step "

	consoleTail = 12 // lines of the console that an error quotes
)

// watch runs the machine to its end, and turns its console into progress.
func (b *bench) watch(ctx context.Context, m machine) error {
	const step = "installing Debian packages in an emulated machine"
	var tail []string
	done, ended := 0, ""
	total := 2 * int64(len(b.inputs.system)) // each is unpacked and set up
	b.progress(step, 0, total)
	err := m.run(ctx, func(line string) {
		line = strings.TrimSpace(line)
		switch {
		case line == buildDone, strings.HasPrefix(line, buildFailed):
			ended = line
			return
		case strings.HasPrefix(line, "Unpacking "), strings.HasPrefix(line, "Setting up "):
			done++
			b.progress(step, min(int64(done), total), total)
		}
		if line != "" && ended == "" {
			tail = append(tail, line)
			tail = tail[max(0, len(tail)-consoleTail):]
		}
	})
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w after %d of %d steps", step, context.Cause(ctx), done, total)
	case err != nil:
		return fmt.Errorf("%s: %w", step, err)
	case ended != buildDone:
		return fmt.Errorf("%s: it %s; the last it said:\n%s", step, cmp.Or(strings.TrimPrefix(ended, buildSays), "ended too early"), strings.Join(tail, "\n"))
	}
	b.progress(step, total, total)
	return nil
}

// readSystem reads the archive that the machine wrote. Contents go into files of the folder dir, so that memory
// holds only names.
func readSystem(r io.Reader, dir string) (tree, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	t := tree{}
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if name == "" {
			continue
		}
		n, err := systemNode(t, h, archive, filepath.Join(dir, fmt.Sprint(len(t))))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		// Nothing is ever written through a link.
		if up := t[path.Dir(name)]; path.Dir(name) != "." && (up == nil || !up.mode.IsDir()) {
			return nil, fmt.Errorf("%s is in no folder", name)
		}
		t[name] = n
	}
	if len(t) == 0 {
		return nil, errors.New("it is empty")
	}
	return t, nil
}

// systemNode reads one entry of the archive; a file's content goes to the new file content.
func systemNode(t tree, h *tar.Header, r io.Reader, content string) (*node, error) {
	n := &node{uid: h.Uid, gid: h.Gid, time: notAfter(h.ModTime, epoch), mode: h.FileInfo().Mode()}
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			if n.attrs == nil {
				n.attrs = map[string]string{}
			}
			n.attrs[name] = value
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
	case tar.TypeSymlink:
		n.mode, n.link = fs.ModeSymlink|0o777, h.Linkname
	case tar.TypeReg:
		n.from = content
		f, err := os.OpenFile(content, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(f, r)
		return n, errors.Join(err, f.Close())
	case tar.TypeLink:
		same := t[strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")]
		if same == nil || same.from == "" {
			return nil, fmt.Errorf("a link to %s, which is no file", h.Linkname)
		}
		return same, nil
	default:
		return nil, fmt.Errorf("an entry of type %q, which no installed system needs", h.Typeflag)
	}
	return n, nil
}
