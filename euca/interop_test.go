package euca

import (
	"bytes"
	"compress/gzip"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }

func gzipZeros(t *testing.T, to io.Writer, n int) {
	t.Helper()
	w, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	for zeros := make([]byte, 1<<20); n > 0; n -= len(zeros) {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// shell runs a script that bundles or unbundles by openssl, tar, gzip, sha1sum
// and split alone. They are there wherever the tests are run: test/packages.sh
// and every Debian have them.
func (r *workshop) shell(script string, args ...string) {
	r.t.Helper()
	out, err := exec.CommandContext(r.t.Context(), filepath.Join(r.p.here, "..", "bundle", "testdata", script), args...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// TestShellBundles: bundles that were made without this program are taken apart,
// by the keys of their maker and of the cloud, from files and from a store.
func TestShellBundles(t *testing.T) {
	r := newWorkshop(t)
	image := r.read("image.raw")
	r.shell("bundle.sh", "image.raw", "golden", ".", "30313233343536373839616263646566", "66656463626139383736353433323130", "20000", "cloud-cert.pem", "user-cert.pem", "user-pk.pem")
	r.do("euca-upload-bundle -m golden.manifest.xml -b mine/there")
	r.file("joined", []byte(r.do("euca-download-bundle -b mine/there -p golden -d -")))
	for _, line := range []string{
		"euca-unbundle -m golden.manifest.xml",
		"euca-unbundle -m golden.manifest.xml -k cloud-pk.pem",
		"euca-download-and-unbundle -b mine/there -p golden",
		"euca-unbundle-stream -i joined -o golden --enc-key 30313233343536373839616263646566 --enc-iv 66656463626139383736353433323130 --image-size 150000",
	} {
		r.file("golden", nil)
		r.do(line)
		if !bytes.Equal(r.read("golden"), image) {
			t.Errorf("%s: another image came out", line)
		}
	}
	if out := r.do("euca-download-and-unbundle -b mine/there -p golden -d -"); out != string(image) {
		t.Errorf("on standard output: %d bytes", len(out))
	}
}

// TestShellUnbundles: ours are taken apart without this program.
func TestShellUnbundles(t *testing.T) {
	r := newWorkshop(t)
	image := r.read("image.raw")
	for _, size := range []string{"16k", "1m"} {
		r.do("euca-bundle-image -i image.raw -r x86_64 -d . -p ours --kernel eki-0a1b2c3d -B ephemeral0=sdb --part-size " + size)
		r.shell("unbundle.sh", "ours.manifest.xml", "unpacked", "cloud-pk.pem", "user-cert.pem")
		if !bytes.Equal(r.read("unpacked"), image) {
			t.Errorf("parts of %s: another image came out", size)
		}
	}
	r.do("euca-bundle-and-upload-image -i image.raw -r x86_64 -b mine -p streamed --part-size 16k")
	r.do("euca-download-bundle -b mine -p streamed")
	r.shell("unbundle.sh", "streamed.manifest.xml", "unpacked", "cloud-pk.pem", "user-cert.pem")
	if !bytes.Equal(r.read("unpacked"), image) {
		t.Error("uploaded: another image came out")
	}
}
