package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTreeFollow(t *testing.T) {
	tr := tree{}
	tr.file("usr/lib/real.so.1.2", 0o644, []byte("library"))
	tr.symlink("usr/lib/real.so.1", "real.so.1.2")
	tr.symlink("lib", "usr/lib")
	tr.symlink("lib64/absolute", "/usr/lib/real.so.1")
	tr.symlink("loop", "loop")
	tr.symlink("outside", "../../../usr/lib/real.so.1")
	for _, name := range []string{"usr/lib/real.so.1.2", "usr/lib/real.so.1", "lib/real.so.1", "lib64/absolute", "outside"} {
		if data, err := tr.follow(name); err != nil || string(data) != "library" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	for _, name := range []string{"loop", "lib", "missing", "lib/missing", "usr/lib/real.so.1/below"} {
		if data, err := tr.follow(name); err == nil {
			t.Errorf("%s: %q", name, data)
		}
	}
}

func TestTreePutStaysInside(t *testing.T) {
	tr := tree{}
	tr.file("../../etc/passwd", 0o644, nil)
	tr.file("/", 0o644, nil)
	if got := strings.Join(tr.names(), " "); got != "etc etc/passwd" {
		t.Errorf("names %q", got)
	}
}

func TestTreeWrite(t *testing.T) {
	dir := t.TempDir()
	if err := exampleTree().write(dir); err != nil {
		t.Fatal(err)
	}
	for name, n := range exampleTree() {
		info, err := os.Lstat(filepath.Join(dir, name))
		if n.mode&fs.ModeDevice != 0 {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: a device was made (%v)", name, err)
			}
			continue
		}
		if err != nil || info.Mode().Type() != n.mode.Type() {
			t.Errorf("%s: %v, %v", name, info, err)
			continue
		}
		if n.mode.Type() != fs.ModeSymlink && !info.ModTime().Equal(epoch) {
			t.Errorf("%s has time %v", name, info.ModTime())
		}
	}
}

func tarOf(t testing.TB, headers ...*tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
	}
	w.Close()
	return b.Bytes()
}

func TestReadTar(t *testing.T) {
	b := tarOf(t,
		&tar.Header{Name: "./usr/bin/tool", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 3},
		&tar.Header{Name: "./usr/bin/same", Typeflag: tar.TypeLink, Linkname: "./usr/bin/tool", Mode: 0o755},
		&tar.Header{Name: "./usr/bin/other", Typeflag: tar.TypeSymlink, Linkname: "tool"},
		&tar.Header{Name: "./usr/share/doc", Typeflag: tar.TypeReg, Mode: 0o644, Size: 2},
		&tar.Header{Name: "./usr/bin/../../../up", Typeflag: tar.TypeReg, Mode: 0o644, Size: 1})
	got := tree{}
	if err := readTar(got, bytes.NewReader(b), func(name string) bool { return !strings.Contains(name, "doc") }); err != nil {
		t.Fatal(err)
	}
	want := tree{}
	want.file("usr/bin/tool", 0o755, []byte("xxx"))
	want.file("usr/bin/same", 0o755, []byte("xxx"))
	want.symlink("usr/bin/other", "tool")
	want.file("up", 0o644, []byte("x"))
	sameTree(t, got, want)
}

func FuzzReadTar(f *testing.F) {
	f.Add(tarOf(f, &tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644, Size: 3}, &tar.Header{Name: "b", Typeflag: tar.TypeLink, Linkname: "a"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := tree{}
		readTar(got, bytes.NewReader(b), func(string) bool { return true })
		for name := range got {
			if !fs.ValidPath(name) && !strings.ContainsAny(name, "\x00") && strings.HasPrefix(name, "..") {
				t.Fatalf("%q leads outside", name)
			}
		}
	})
}

func TestVerify(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.deb")
	if err := os.WriteFile(file, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	const right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	tests := []struct {
		sum string
		ok  bool
	}{{"SHA256:" + right, true}, {"SHA256:" + strings.Repeat("0", 64), false}, {"MD5Sum:00", false}, {"", false}}
	for _, test := range tests {
		if err := (deb{Name: "p", Sum: test.sum}).verify(file); (err == nil) != test.ok {
			t.Errorf("%q: %v", test.sum, err)
		}
	}
	if err := (deb{Sum: "SHA256:" + right}).verify(file + "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestReadDebSaysWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bad.deb")
	if err := os.WriteFile(file, []byte("not an archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := readDeb(t.Context(), tree{}, file, needed); err == nil || !strings.Contains(err.Error(), "bad.deb") {
		t.Errorf("a broken package: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if err := readDeb(t.Context(), tree{}, file, needed); !isMissingTool(err) {
		t.Errorf("without dpkg-deb: %v", err)
	}
}

// The guest's scripts are there, executable, and nothing of them is writable by others.
func TestGuestFiles(t *testing.T) {
	tr := tree{}
	if err := addGuest(tr, "guest/root"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc/mallee/boot", "etc/mallee/dhcp", "etc/acpi/PWRF/00000080"} {
		if n := tr[name]; n == nil || n.mode.Perm() != 0o755 {
			t.Errorf("%s: %+v", name, n)
		}
	}
	if n := tr["etc/shadow"]; n == nil || n.mode.Perm() != 0o600 || !strings.HasPrefix(string(n.data), "root:*:") {
		t.Errorf("etc/shadow lets a password in: %+v", n)
	}
	if strings.Contains(string(tr["etc/inittab"].data), "getty") || strings.Contains(string(tr["etc/inittab"].data), "askfirst") {
		t.Error("the console has a shell")
	}
}
