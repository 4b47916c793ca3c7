package image

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// aPackage is a .deb with a file from the future and one from the past.
func aPackage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"DEBIAN/control":  "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: a test\n",
		"usr/share/a/new": strings.Repeat("new ", 1000),
		"usr/share/a/old": "old",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	os.Chtimes(filepath.Join(dir, "usr/share/a/new"), epoch.AddDate(1, 0, 0), epoch.AddDate(1, 0, 0))
	os.Chtimes(filepath.Join(dir, "usr/share/a/old"), epoch.AddDate(-5, 0, 0), epoch.AddDate(-5, 0, 0))
	os.Chmod(dir, 0o755)
	os.Chmod(filepath.Join(dir, "DEBIAN"), 0o755)
	file := filepath.Join(t.TempDir(), "a_1_all.deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", dir, file).CombinedOutput(); err != nil {
		t.Skipf("dpkg-deb can't build a package: %v: %s", err, out)
	}
	return file
}

// What repack writes is a package to dpkg-deb, with the same files, no compression, and no time after the image's.
func TestRepack(t *testing.T) {
	from, to := aPackage(t), filepath.Join(t.TempDir(), "a.deb")
	if err := repack(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	members, err := os.ReadFile(to)
	if err != nil || !bytes.Contains(members, []byte("control.tar ")) || !bytes.Contains(members, []byte("data.tar ")) {
		t.Errorf("members of the archive: %v", err)
	}
	if out, err := exec.Command("dpkg-deb", "--field", to, "Package").Output(); err != nil || string(out) != "a\n" {
		t.Errorf("dpkg-deb reads the package %q, %v", out, err)
	}
	out, err := exec.Command("dpkg-deb", "--fsys-tarfile", to).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]time.Time{"./usr/share/a/new": epoch, "./usr/share/a/old": epoch.AddDate(-5, 0, 0)}
	for archive := tar.NewReader(bytes.NewReader(out)); ; {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if at, ok := want[h.Name]; ok && !h.ModTime.Equal(at) {
			t.Errorf("%s is from %s, want %s", h.Name, h.ModTime, at)
		}
		delete(want, h.Name)
	}
	if len(want) > 0 {
		t.Errorf("lost %v", want)
	}
	again := filepath.Join(t.TempDir(), "b.deb")
	if err := repack(t.Context(), to, again); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(again); err != nil || !bytes.Equal(data, members) {
		t.Errorf("repacked again it is another package (%v)", err)
	}
	if err := repack(t.Context(), "system_test.go", filepath.Join(t.TempDir(), "c.deb")); err == nil {
		t.Error("a text was repacked")
	}
}

// systemTar is an archive of such headers, as the machine that installs writes one.
func systemTar(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Format = tar.FormatPAX
		if h.Typeflag == tar.TypeReg {
			h.Size = 5
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			w.Write([]byte("hello"))
		}
	}
	w.Close()
	// The archive is followed by what else the disk holds.
	b.Write(make([]byte, 1<<20))
	return &b
}

func TestReadSystem(t *testing.T) {
	r := systemTar(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeDir, Name: "./usr/", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeDir, Name: "./var/", Mode: 0o2775, Gid: 8},
		tar.Header{Typeflag: tar.TypeReg, Name: "./usr/ping", Mode: 0o4755, ModTime: epoch.AddDate(0, 0, 3),
			PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}},
		tar.Header{Typeflag: tar.TypeReg, Name: "./usr/old", Mode: 0o640, Uid: 3, Gid: 42, ModTime: epoch.AddDate(-1, 0, 0)},
		tar.Header{Typeflag: tar.TypeLink, Name: "./usr/same", Linkname: "./usr/old"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "./bin", Linkname: "usr/bin"},
	)
	tr, err := readSystem(r, filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	ping, old := tr["usr/ping"], tr["usr/old"]
	switch {
	case len(tr) != 6:
		t.Errorf("read %q", tr.names())
	case unixMode(ping.mode) != 0o104755 || !ping.time.Equal(epoch) || ping.attrs["security.capability"] != "\x01\x00\x00\x02":
		t.Errorf("read %+v", ping)
	case unixMode(old.mode) != 0o100640 || old.uid != 3 || old.gid != 42 || !old.time.Equal(epoch.AddDate(-1, 0, 0)):
		t.Errorf("read %+v", old)
	case tr["usr/same"] != old:
		t.Errorf("a hard link is %+v", tr["usr/same"])
	case unixMode(tr["var"].mode) != 0o042775 || tr["var"].gid != 8:
		t.Errorf("read %+v", tr["var"])
	case tr["bin"].link != "usr/bin" || tr["bin"].mode&fs.ModeSymlink == 0:
		t.Errorf("read %+v", tr["bin"])
	}
	if data, err := os.ReadFile(old.from); err != nil || string(data) != "hello" {
		t.Errorf("its content is %q, %v", data, err)
	}
	// Written out, links stay links of one file.
	dir := filepath.Join(filepath.Dir(filepath.Dir(old.from)), "out")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := tr.write(dir); err != nil {
		t.Fatal(err)
	}
	a, errA := os.Stat(filepath.Join(dir, "usr/old"))
	b, errB := os.Stat(filepath.Join(dir, "usr/same"))
	if errA != nil || errB != nil || !os.SameFile(a, b) || !a.ModTime().Equal(epoch.AddDate(-1, 0, 0)) {
		t.Errorf("written as %v and %v (%v, %v)", a, b, errA, errB)
	}
}

// Nothing that an archive says leads out of the folder, or to what isn't a file.
func TestReadSystemRefuses(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"nothing":              {},
		"through a link":       {{Typeflag: tar.TypeSymlink, Name: "./etc", Linkname: "/etc"}, {Typeflag: tar.TypeReg, Name: "./etc/passwd"}},
		"below a file":         {{Typeflag: tar.TypeReg, Name: "./etc"}, {Typeflag: tar.TypeReg, Name: "./etc/passwd"}},
		"in no folder":         {{Typeflag: tar.TypeReg, Name: "./etc/passwd"}},
		"a link to nothing":    {{Typeflag: tar.TypeLink, Name: "./x", Linkname: "/etc/passwd"}},
		"a link to a folder":   {{Typeflag: tar.TypeDir, Name: "./d"}, {Typeflag: tar.TypeLink, Name: "./x", Linkname: "./d"}},
		"a device":             {{Typeflag: tar.TypeBlock, Name: "./sda", Devmajor: 8}},
		"a pipe":               {{Typeflag: tar.TypeFifo, Name: "./pipe"}},
		"a folder's own shape": {{Typeflag: tar.TypeReg, Name: "../../x/y"}},
	} {
		if tr, err := readSystem(systemTar(t, headers...), filepath.Join(t.TempDir(), "x")); err == nil {
			t.Errorf("%s: read %q", name, tr.names())
		}
	}
	if _, err := readSystem(strings.NewReader("no archive"), filepath.Join(t.TempDir(), "x")); err == nil {
		t.Error("a text was read")
	}
}

func TestSystemCheck(t *testing.T) {
	s := system{release: "12."}
	for version, right := range map[string]bool{"12.4+deb12u13": true, "13.8": false, "12ubuntu4": false} {
		err := s.check([]deb{{Name: "apt", File: "apt_12.1_amd64.deb"}, {Name: "base-files", File: "base-files_" + version + "_amd64.deb"}})
		if (err == nil) != right {
			t.Errorf("base-files %s: %v", version, err)
		}
	}
	if s.check(nil) == nil {
		t.Error("a system without base-files")
	}
}

// The machine's console is progress, and says why where it doesn't end well.
func TestMachineArguments(t *testing.T) {
	m := machine{kernel: "/k", ramdisk: "/r", memory: 64, disks: []string{`/a,b"c`}}
	args, err := m.arguments()
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Join(args, " ")
	for _, want := range []string{"-sandbox on,", "-net none", "-m 64", `"filename":"/a,b\"c"`, "-accel tcg"} {
		if !strings.Contains(line, want) {
			t.Errorf("QEMU isn't told %s: %s", want, line)
		}
	}
}

func TestWatch(t *testing.T) {
	for script, want := range map[string]string{
		"echo 'Unpacking a (1) ...'; echo 'Setting up a (1) ...'; echo 'mallee-build: done'": "",
		"echo 'Unpacking a'; echo 'E: broken'; echo 'mallee-build: failed: packing'":         "it failed: packing; the last it said:\nUnpacking a\nE: broken",
		"echo 'Kernel panic'": "it ended too early; the last it said:\nKernel panic",
		"exit 3":              "exit status 3",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+":/usr/bin:/bin")
		var done, total int64
		b := &bench{inputs: inputs{system: []deb{{}}}, progress: func(_ string, d, t int64) { done, total = d, t }}
		err := b.watch(t.Context(), machine{})
		switch {
		case want == "" && (err != nil || done != 2 || total != 2):
			t.Errorf("%s: %d of %d, %v", script, done, total, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", script, err, want)
		}
	}
}
