package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
	"mallee/test/emi"
)

// imageFile is an image that says helloLine, and has some more bytes behind it.
func imageFile(t *testing.T, more int) (path string, image []byte) {
	t.Helper()
	image = append(emi.Hello(helloLine, 1<<20), someBytes(more)...)
	path = filepath.Join(t.TempDir(), "image.raw")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, image
}

// same bytes in a file.
func same(t *testing.T, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes that are others than the %d wanted, %v", path, len(got), len(want), err)
	}
}

// says polls the console of an instance until its guest has said helloLine.
func (e euca) says(t *testing.T, id string) {
	t.Helper()
	err := cloud.Poll(within(t, bootTime), "the guest's word", func() error {
		out, said, _ := e.run(t, "euca-get-console-output", id)
		if strings.Contains(out, helloLine) {
			return nil
		}
		return fmt.Errorf("the console says %q, %s", out, said)
	})
	if err != nil {
		t.Error(err)
	}
}

// TestEucaBundling is the way of an image by hand: bundled, uploaded, registered,
// run, and taken out again as it was.
func TestEucaBundling(t *testing.T) {
	w := theWorld(t)
	e := eucaOf(t, w.Cloud)
	path, image := imageFile(t, 3<<20)
	dir, folder := t.TempDir(), "euca-bundles/"+folderOf(t)

	manifest := filepath.Join(dir, "hand.manifest.xml")
	if out := e.records(t, "euca-bundle-image", "-i", path, "-r", "x86_64", "-p", "hand", "-d", dir, "--part-size", "1m"); out[0][0] != "Wrote manifest "+manifest {
		t.Errorf("bundle-image printed %q", out)
	}
	location := folder + "/hand.manifest.xml"
	if out := e.records(t, "euca-upload-bundle", "-b", folder, "-m", manifest); out[0][0] != "Uploaded "+location {
		t.Errorf("upload-bundle printed %q", out)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	id := one(t, e.records(t, "euca-register", location, "-n", folderOf(t), "--virtualization-type", "hvm"), "IMAGE")[1]
	i := one(t, e.records(t, "euca-run-instances", id, "-t", "m1.small"), "INSTANCE")[1]
	t.Cleanup(func() { terminate(t, w.Cloud, i) })
	await(t, w.Cloud, types.InstanceStateNameRunning, i)
	e.says(t, i)

	back := filepath.Join(t.TempDir(), "back.raw")
	if out := e.records(t, "euca-download-and-unbundle", "-b", folder, "-p", "hand", "-d", back); out[0][0] != "Wrote "+back {
		t.Errorf("download-and-unbundle printed %q", out)
	}
	same(t, back, image)
	dir = t.TempDir()
	e.records(t, "euca-download-bundle", "-b", folder, "-p", "hand", "-d", dir)
	e.records(t, "euca-unbundle", "-m", filepath.Join(dir, "hand.manifest.xml"), "-s", dir, "-d", dir)
	same(t, filepath.Join(dir, "hand"), image)
	if out, said, status := e.run(t, "euca-download-and-unbundle", "-b", folder, "-p", "hand", "-d", "-"); status != 0 || out != string(image) {
		t.Errorf("to standard output: %d bytes, %d, %s", len(out), status, said)
	}
}

// TestEucaInstallImage: all in one, from a file and from standard input; and
// what has lost its bundle starts nothing.
func TestEucaInstallImage(t *testing.T) {
	w := theWorld(t)
	nothingHalfMade(t, w.Cloud)
	e := eucaOf(t, w.Cloud)
	path, image := imageFile(t, 1<<20)
	folder := "euca-bundles/" + folderOf(t)
	id := one(t, e.records(t, "euca-install-image", "-i", path, "-b", folder, "-n", folderOf(t), "-r", "x86_64", "-p", "whole", "--virtualization-type", "hvm"), "IMAGE")[1]
	if shown := one(t, e.records(t, "euca-describe-images", id), "IMAGE"); shown[4] != "available" || shown[12] != "hvm" {
		t.Errorf("installed: %q", shown)
	}
	e.records(t, "euca-delete-bundle", "-b", folder, "-p", "whole")
	launchFails(t, w.Cloud, id, "whole.manifest.xml")

	cmd := exec.CommandContext(within(t, soon), filepath.Join(e.dir, "euca-bundle-and-upload-image"), "-i", "-", "-b", folder, "-r", "x86_64", "-p", "piped", "--image-size", fmt.Sprint(len(image)))
	cmd.Env, cmd.Stdin = e.env, bytes.NewReader(image)
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "Uploaded "+folder+"/piped.manifest.xml\n" {
		t.Fatalf("%v: %s", err, out)
	}
	back := filepath.Join(t.TempDir(), "back.raw")
	e.records(t, "euca-download-and-unbundle", "-b", folder, "-m", "piped.manifest.xml", "-d", back)
	same(t, back, image)
	e.records(t, "euca-delete-bundle", "-b", folder, "-p", "piped")
	_, said, status := e.run(t, "euca-download-bundle", "-b", folder, "-p", "piped", "-d", t.TempDir())
	if status != 1 || !strings.HasPrefix(said, "euca-download-bundle: error (NoSuchKey): ") {
		t.Errorf("of a bundle that is deleted: %d, %s", status, said)
	}
}

// TestEucaImport: a disk is uploaded in parts, some of them later, and becomes a volume.
func TestEucaImport(t *testing.T) {
	w := theWorld(t)
	e := eucaOf(t, w.Cloud)
	path, _ := imageFile(t, 11<<20)
	zone := one(t, e.records(t, "euca-describe-availability-zones"), "AVAILABILITYZONE")[1]
	value := func(record []string, name string) string {
		for n, field := range record[:len(record)-1] {
			if field == name {
				return record[n+1]
			}
		}
		t.Fatalf("no %s in %q", name, record)
		return ""
	}
	task := value(e.records(t, "euca-import-volume", path, "-f", "raw", "-z", zone, "-b", "euca-imports", "--prefix", "disks", "--no-upload")[0], "TaskId")
	if _, said, status := e.run(t, "euca-delete-disk-image", "-t", task); status != 1 || !strings.Contains(said, "is active") {
		t.Errorf("deleting what is needed: %d, %s", status, said)
	}
	e.records(t, "euca-resume-import", path, "-t", task)
	var shown []string
	err := cloud.Poll(within(t, bootTime), "the import", func() error {
		lines := e.records(t, "euca-describe-conversion-tasks", task)
		shown = lines[len(lines)-1]
		if status := value(lines[0], "Status"); status != "completed" {
			return fmt.Errorf("it is %s: %q", status, lines)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	volume := value(shown, "VolumeId")
	if v := one(t, e.records(t, "euca-describe-volumes", volume), "VOLUME"); v[2] != "1" || v[4] != zone {
		t.Errorf("the volume is %q", v)
	}
	e.records(t, "euca-delete-disk-image", "-t", task)
	if _, said, status := e.run(t, "euca-delete-disk-image", "-t", task); status != 1 || !strings.Contains(said, "NoSuchKey") {
		t.Errorf("deleting it again: %d, %s", status, said)
	}
	e.records(t, "euca-delete-volume", volume)
}
