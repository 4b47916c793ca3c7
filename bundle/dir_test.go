package bundle

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestDir(t *testing.T) {
	image, dir := testImage(300000), filepath.Join(t.TempDir(), "new", "folder")
	for range 2 { // the second time in place of the first
		m, path, err := WriteDir(t.Context(), dir, bytes.NewReader(image), int64(len(image)), testOptions())
		if err != nil {
			t.Fatal(err)
		}
		files := fileNames(t, dir)
		if path != filepath.Join(dir, "img.manifest.xml") || len(files) != len(m.Parts)+1 {
			t.Errorf("manifest %s, files %q", path, files)
		}
		read, xml, err := ReadManifestFile(path)
		if err != nil || Pin(xml) == "" {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := UnpackDir(t.Context(), read, dir, testKey, testIV, &got, nil); err != nil || !bytes.Equal(got.Bytes(), image) {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "img.part.00"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func fileNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// A bundling that fails leaves what was there before, and nothing else.
func TestWriteDirLeavesNothing(t *testing.T) {
	image, dir := testImage(300000), t.TempDir()
	if _, _, err := WriteDir(t.Context(), dir, bytes.NewReader(image), int64(len(image))+1, testOptions()); err == nil {
		t.Fatal("a source too short is bundled")
	}
	if files := fileNames(t, dir); len(files) > 0 {
		t.Errorf("left: %q", files)
	}
	if _, _, err := WriteDir(t.Context(), filepath.Join(dir, "a\x00"), bytes.NewReader(image), 1, testOptions()); err == nil {
		t.Error("an impossible folder is made")
	}
}

// What isn't a plain file inside the folder is not opened: a FIFO would hang, a link lead elsewhere.
func TestUnpackDirOddFiles(t *testing.T) {
	image, dir := testImage(300000), t.TempDir()
	m, _, err := WriteDir(t.Context(), dir, bytes.NewReader(image), int64(len(image)), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, m.Parts[1].Name)
	outside := filepath.Join(t.TempDir(), "part")
	if err := os.Rename(name, outside); err != nil {
		t.Fatal(err)
	}
	tests := map[string]func() error{
		"no such file":       func() error { return nil },
		"not a regular file": func() error { return syscall.Mkfifo(name, 0o600) },
		"escapes":            func() error { return os.Symlink(outside, name) },
		"regular":            func() error { return os.Mkdir(name, 0o700) },
	}
	for want, place := range tests {
		if err := place(); err != nil {
			t.Fatal(err)
		}
		err := UnpackDir(t.Context(), m, dir, testKey, testIV, io.Discard, nil)
		var part *PartError
		if !errors.As(err, &part) || part.Index != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("want part 1: %s, have %v", want, err)
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := UnpackDir(t.Context(), m, filepath.Join(dir, "none"), testKey, testIV, io.Discard, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

func TestReadManifestFile(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "bad"), []byte("<manifest/>"))
	writeFile(t, filepath.Join(dir, "big"), make([]byte, MaxManifestSize+10))
	for name, want := range map[string]error{"none": fs.ErrNotExist, "bad": ErrManifest, "big": ErrManifest, ".": nil} {
		_, _, err := ReadManifestFile(filepath.Join(dir, name))
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: have %v", name, err)
		}
	}
}

// tools are what the shell's way of bundling needs.
func tools(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s isn't installed", name)
		}
	}
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// A bundle made without this package is read by it.
func TestReadShellBundle(t *testing.T) {
	tools(t, "openssl", "tar", "gzip", "sha1sum", "split", "od")
	dir := t.TempDir()
	_, cloudCert := cloudID().files(t, dir, "cloud")
	userKey, userCert := userID().files(t, dir, "user")
	for _, size := range []int{1, 8704, 500000} {
		out, image := t.TempDir(), testImage(size)
		writeFile(t, filepath.Join(dir, "image"), image)
		run(t, "testdata/bundle.sh", filepath.Join(dir, "image"), "img", out,
			"30313233343536373839616263646566", "66656463626139383736353433323130", "65536", cloudCert, userCert, userKey)
		m, _, err := ReadManifestFile(filepath.Join(out, "img.manifest.xml"))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(RequireSignature, &userID().key.PublicKey); err != nil {
			t.Error(err)
		}
		key, iv, err := m.Keys(cloudID().key)
		if err != nil || !bytes.Equal(key, testKey) {
			t.Fatalf("key %q, %v", key, err)
		}
		if userKey, _, err := m.UserKeys(userID().key); err != nil || !bytes.Equal(key, userKey) {
			t.Errorf("user's key %q, %v", userKey, err)
		}
		var got bytes.Buffer
		if err := UnpackDir(t.Context(), m, out, key, iv, &got, nil); err != nil || !bytes.Equal(got.Bytes(), image) {
			t.Errorf("%d of %d bytes, %v", got.Len(), size, err)
		}
	}
}

// A bundle made by this package is read without it.
func TestShellReadsBundle(t *testing.T) {
	tools(t, "openssl", "tar", "gzip", "sha1sum", "sed")
	dir := t.TempDir()
	cloudKey, _ := cloudID().files(t, dir, "cloud")
	_, userCert := userID().files(t, dir, "user")
	for _, size := range []int{1, 8704, 500000, 3 << 20} {
		image := testImage(size)
		_, path, err := WriteDir(t.Context(), dir, bytes.NewReader(image), int64(size), testOptions())
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, "unpacked")
		run(t, "testdata/unbundle.sh", path, out, cloudKey, userCert)
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, image) {
			t.Errorf("%d of %d bytes, %v", len(got), size, err)
		}
	}
}
