package euca

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool of e2fsprogs, which test/packages.sh installs.
func e2fs(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "LC_ALL=C")
	if path, err := exec.LookPath(filepath.Join("/usr/sbin", name)); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// plant a folder of files of all kinds that an ordinary user can make.
func plant(t *testing.T, dir string) {
	t.Helper()
	old := time.Unix(1_500_000_000, 0)
	for name, text := range map[string]string{
		"etc/fstab": "the old one", "etc/passwd": "root", "usr/bin/tool": "a tool", `odd/na"me with 'quotes' and $x`: "odd",
		"tmp/rubbish": "x", "root/.ssh/authorized_keys": "secret", "root/.ssh/known": "", "var/lib/left/out": "y", "var/lib/left/in": "z", "empty": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err == nil {
		_, err = sparse.WriteAt([]byte("end"), 6<<20)
	}
	if err == nil {
		err = sparse.Close()
	}
	for _, err := range []error{err, os.Symlink("../usr/bin/tool", filepath.Join(dir, "etc/link to a tool")), os.Symlink(strings.Repeat("long/", 40), filepath.Join(dir, "etc/long")),
		os.Link(filepath.Join(dir, "usr/bin/tool"), filepath.Join(dir, "usr/bin/same")), mkfifo(filepath.Join(dir, "pipe")),
		os.Chmod(filepath.Join(dir, "usr/bin/tool"), 0o755|os.ModeSetuid), os.Mkdir(filepath.Join(dir, "lost+found"), 0o700), os.Mkdir(filepath.Join(dir, "proc"), 0o555)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// dumped are the files of a file system in a folder.
func dumped(t *testing.T, image string) string {
	t.Helper()
	if out := e2fs(t, "e2fsck", "-fn", image); !strings.Contains(out, "files") {
		t.Errorf("e2fsck: %s", out)
	}
	dir := t.TempDir()
	e2fs(t, "debugfs", "-R", "rdump / "+dir, image)
	return dir
}

// TestBundleVolume: a folder becomes a file system that a checker finds nothing
// wrong with, with what belongs into it.
func TestBundleVolume(t *testing.T) {
	r := newWorkshop(t)
	plant(t, filepath.Join(r.dir, "vol"))
	r.do("euca-bundle-vol -r x86_64 -v vol -d out -s 64 --no-inherit -e /var/lib/left -e '' -i /var/lib/left -p vol --generate-fstab --kernel eki-0a1b2c3d")
	r.do("euca-unbundle -m out/vol.manifest.xml -s out -d out")
	got := dumped(t, "out/vol")
	for name, want := range map[string]string{
		"etc/fstab.bak": "the old one", "usr/bin/tool": "a tool", "usr/bin/same": "a tool", `odd/na"me with 'quotes' and $x`: "odd",
		"etc/passwd": "root", "var/lib/left/in": "z", "empty": "", "sparse": strings.Repeat("\x00", 6<<20) + "end",
	} {
		if text, err := os.ReadFile(filepath.Join(got, name)); string(text) != want || err != nil {
			t.Errorf("%s has %d bytes, %v", name, len(text), err)
		}
	}
	if fstab, err := os.ReadFile(filepath.Join(got, "etc/fstab")); !strings.HasPrefix(string(fstab), "UUID=") || !strings.Contains(e2fs(t, "debugfs", "-R", "stats", "out/vol"), strings.Fields(string(fstab))[0][5:]) {
		t.Errorf("fstab: %s, %v", fstab, err)
	}
	for _, name := range []string{"tmp/rubbish", "root/.ssh/authorized_keys"} {
		if _, err := os.Lstat(filepath.Join(got, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	for name, want := range map[string]string{"etc/link to a tool": "../usr/bin/tool", "etc/long": strings.Repeat("long/", 40)} {
		if target, err := os.Readlink(filepath.Join(got, name)); target != want || err != nil {
			t.Errorf("%s leads to %q, %v", name, target, err)
		}
	}
	for name, want := range map[string][]string{
		"/usr/bin/tool": {"Mode:  04755", "Links: 2", "mtime: 0x59682f00"}, "/etc/passwd": {"Mode:  0640", "Links: 1"},
		"/proc": {"Mode:  0555", "Type: directory"}, "/pipe": {"Type: FIFO"}, "/sparse": {"Blockcount: 8"},
	} {
		stat := e2fs(t, "debugfs", "-R", "stat "+name, "out/vol")
		for _, word := range want {
			if !strings.Contains(stat, word) {
				t.Errorf("%s has no %q:\n%s", name, word, stat)
			}
		}
	}
	if files := r.files(); len(files) == 0 || strings.Contains(strings.Join(files, " "), "volume-") {
		t.Errorf("left: %q", files)
	}
}

// A disk is bundled as it is.
func TestBundleDisk(t *testing.T) {
	r := newWorkshop(t)
	r.do("euca-bundle-vol -r x86_64 -v image.raw -d out --no-inherit")
	r.do("euca-unbundle -m out/image.manifest.xml -s out -d out")
	if string(r.read("out/image")) != string(r.read("image.raw")) {
		t.Error("another disk came out")
	}
}

func TestBundleVolumeRefuses(t *testing.T) {
	r := newWorkshop(t)
	plant(t, filepath.Join(r.dir, "vol"))
	r.file("vol/big", picture(9<<20))
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	for line, word := range map[string]string{
		"-v vol -s 2":                       "choose a larger one by -s",
		"-v nowhere":                        "-v/--volume",
		"-v pipe":                           "pipe",
		"-v vol -P mbr":                     "boot loader",
		"-v vol --script x":                 "nothing is mounted",
		"-v vol --fstab x --generate-fstab": "not allowed",
		"-v vol --fstab nowhere":            "nowhere",
		"-v vol -e [":                       "pattern",
		"-v vol -s 100000000000":            "MiB",
		"-v vol --inherit --metadata-url " + nobody.URL:    "--no-inherit",
		"-v vol --no-inherit --kernel true --ramdisk true": "kernel",
	} {
		if !strings.Contains(line, "inherit") {
			line += " --no-inherit"
		}
		r.refused("euca-bundle-vol -r x86_64 -d out "+line, word)
	}
}

// What an instance inherits is in the manifest.
func TestBundleVolumeInherits(t *testing.T) {
	r := newWorkshop(t)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		text, ok := map[string]string{
			"/kernel-id": "eki-11111111", "/ramdisk-id": "eri-22222222", "/block-device-mapping/": "ami\nebs1\nephemeral0\nroot",
			"/block-device-mapping/ami": "sda1", "/block-device-mapping/ephemeral0": "sdb", "/block-device-mapping/root": "/dev/sda1",
		}[q.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		w.Write([]byte(text))
	}))
	defer service.Close()
	r.do("euca-bundle-vol -r x86_64 -v image.raw -d out -p a --ramdisk eri-33333333 --metadata-url " + service.URL)
	text := string(r.read("out/a.manifest.xml"))
	for _, want := range []string{"<kernel_id>eki-11111111<", "<ramdisk_id>eri-33333333<", "<virtual>ephemeral0</virtual><device>sdb<", "<virtual>root</virtual>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the manifest has no %s: %s", want, text)
		}
	}
	if strings.Contains(text, "ebs1") || strings.Contains(text, "product_code") {
		t.Errorf("the manifest has too much: %s", text)
	}
}

// What goes away while it is copied is no failure; what debugfs says else is.
func TestComplaints(t *testing.T) {
	gone, err := complaints("debugfs 1.47.0 (5-Feb-2023)\ndo_write_internal: No such file or directory while opening \"/x\" to copy\nwrite: No such file or directory \n/x: File not found by ext2_lookup \n")
	if gone != 1 || err != nil {
		t.Errorf("%d, %v", gone, err)
	}
	for _, text := range []string{"/x: File not found by ext2_lookup", "write: Could not allocate block in ext2 filesystem", "debugfs: Unknown request \"x\""} {
		if _, err := complaints("debugfs 1.47.0\n" + text); err == nil {
			t.Errorf("%s is no complaint", text)
		}
	}
}

func TestNamed(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"/tmp/*", "/tmp/a", true}, {"/tmp/*", "/tmp", false}, {"/tmp/*", "/var/tmp/a", false}, {"var/*", "/var/lib", true},
		{"*.swp", "/a/b.swp", true}, {"*.swp", "/a/b.swp.x", false}, {"/etc/", "/etc", true},
	} {
		if named(c.pattern, c.path) != c.want {
			t.Errorf("%s and %s", c.pattern, c.path)
		}
	}
}
