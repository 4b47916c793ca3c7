package test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"golang.org/x/crypto/blake2b"
)

// minisigned is a signature over data as minisign writes it, and the key that it is verified by.
func minisigned(data []byte) (key, signature string) {
	secret := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, ed25519.SeedSize))
	digest := blake2b.Sum512(data)
	sum := ed25519.Sign(secret, digest[:])
	global := ed25519.Sign(secret, append(bytes.Clone(sum), "serial 1"...))
	line := func(parts ...[]byte) string { return base64.StdEncoding.EncodeToString(bytes.Join(parts, nil)) }
	key = line([]byte("Ed"), []byte("01234567"), secret.Public().(ed25519.PublicKey))
	return key, "untrusted comment: a test's\n" + line([]byte("ED"), []byte("01234567"), sum) + "\ntrusted comment: serial 1\n" + line(global) + "\n"
}

// tinyDisk is the disk of the tiny image, as it was built for these tests, in another format.
func tinyDisk(t *testing.T, format string) string {
	t.Helper()
	theWorld(t) // has built it
	dir, err := catalogDir()
	if err != nil {
		t.Fatal(err)
	}
	disks, err := filepath.Glob(filepath.Join(dir, "tiny-*", "disk.raw"))
	if err != nil || len(disks) == 0 {
		t.Fatalf("no tiny disk in %s: %v", dir, err)
	}
	file := filepath.Join(t.TempDir(), "tiny."+format)
	if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", format, disks[len(disks)-1], file).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	return file
}

// boots launches an instance of the image, logs in, and ends it.
func boots(t *testing.T, w *world, image, key string) {
	t.Helper()
	i := run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: &image, KeyName: aws.String(keyName)}).Instances[0]
	i = await(t, w.Cloud, "running", *i.InstanceId)[0]
	if got := in(t, login(t, w.Cloud, i, key), "echo here"); strings.TrimSpace(got) != "here" {
		t.Errorf("the guest says %q", got)
	}
	terminate(t, w.Cloud, *i.InstanceId)
}

// TestCatalogueOfOthers adds a signed catalogue, installs an image that it has for download, and boots it; then the
// same from a file.
func TestCatalogueOfOthers(t *testing.T) {
	w, g := theGuests(t)
	disk, err := os.ReadFile(tinyDisk(t, "qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	var cut atomic.Bool // the first answer breaks off in the middle
	files := map[string][]byte{}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		data, ok := files[r.URL.Path]
		switch {
		case !ok:
			http.NotFound(rw, r)
		case r.URL.Path == "/host.qcow2" && !cut.Swap(true):
			rw.Header().Set("ETag", `"one"`)
			rw.Header().Set("Content-Length", fmt.Sprint(len(data)))
			rw.Write(data[:len(data)/2])
			panic(http.ErrAbortHandler)
		default:
			rw.Header().Set("ETag", `"one"`)
			http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(data))
		}
	}))
	defer server.Close()
	entry := map[string]any{"name": "host", "version": "1", "description": "somebody else's", "architecture": "x86_64", "virtualization": "hvm",
		"boot": "legacy-bios", "size": 51380224, "download": map[string]any{
			"url": server.URL + "/host.qcow2", "format": "qcow2", "digest": fmt.Sprintf("sha256:%x", sha256.Sum256(disk))}}
	index, err := json.Marshal(map[string]any{"format": 1, "name": "others", "serial": 1, "expires": "2999-01-01T00:00:00Z", "entries": []any{entry}})
	if err != nil {
		t.Fatal(err)
	}
	key, signature := minisigned(index)
	files["/index.json"], files["/index.json.minisig"], files["/host.qcow2"] = index, []byte(signature), disk
	ctx := within(t, buildTime)
	if r, err := w.Succeed(ctx, "image", "catalog", "add", server.URL+"/index.json", "--key", key); err != nil || !strings.Contains(r.Out, "CATALOG\tothers\tserial 1") {
		t.Fatalf("added: %q, %v", r.Out, err)
	}
	defer w.Succeed(ctx, "image", "catalog", "remove", "others")
	ids, err := w.Install(ctx, "others/host")
	if err != nil || len(ids) != 1 {
		t.Fatalf("installed %q, %v", ids, err)
	}
	if again, err := w.Install(ctx, "others/host"); err != nil || len(again) != 1 || again[0] != ids[0] {
		t.Errorf("installed again as %q, %v; it was %q", again, err, ids)
	}
	boots(t, w, ids[0], g.key)

	r, err := w.Succeed(ctx, "image", "install", tinyDisk(t, "vmdk"), "--name", "from a file", "--description", "mine")
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(strings.TrimPrefix(r.Out, "IMAGE\t"))
	out, err := w.ec2(t).DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}})
	if err != nil || *out.Images[0].Name != "from a file" || aws.ToString(out.Images[0].Description) != "mine" {
		t.Fatalf("registered %+v, %v", out, err)
	}
	boots(t, w, id, g.key)
	volume := []string{"image", "install", tinyDisk(t, "qcow2"), "--ebs", "--name", "from a volume"}
	if r, err = w.Succeed(ctx, volume...); err != nil {
		t.Fatal(err)
	}
	id = strings.TrimSpace(strings.TrimPrefix(r.Out, "IMAGE\t"))
	if out, err = w.ec2(t).DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}}); err != nil || out.Images[0].RootDeviceType != "ebs" {
		t.Fatalf("registered %+v, %v", out, err)
	}
	if again, err := w.Succeed(ctx, volume...); err != nil || again.Out != r.Out {
		t.Errorf("installed again: %q, %v; it was %q", again.Out, err, r.Out)
	}
	boots(t, w, id, g.key)
}
