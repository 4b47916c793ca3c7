package task

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mallee/bundle"
	"mallee/cloud"
)

func TestImportsFromTheStore(t *testing.T) {
	r := newRig(t)
	raw := disk(3 << 20)
	r.objects.all["b/disk"] = converted(t, raw, "qcow2")
	said := r.do(cloud.Task{ID: "import-ami-1", Kind: cloud.ImportImage, Sources: []cloud.DiskFile{{Bucket: "b", Key: "disk", Format: "QCOW2"}, {Snapshot: "snap-1", Size: 7}}})
	if said.Phase != cloud.TaskDone || len(said.Result.Contents) != 2 || said.Result.Contents[1] != (cloud.Content{}) {
		t.Fatalf("%+v", said)
	}
	if !bytes.Equal(r.bytesOf(said.Result.Contents[0]), raw) {
		t.Error("the content is not the disk")
	}
	if said.Result.Sizes[0] != int64(len(r.objects.all["b/disk"])) {
		t.Errorf("sizes: %v", said.Result.Sizes)
	}
	if journals, _ := r.Contents.Journals(); len(journals) != 1 {
		t.Errorf("until the cloud has it a journal keeps the content: %q", journals)
	}
	r.nothingLeft()
}

func TestImportsFromAnAddress(t *testing.T) {
	r := newRig(t)
	raw := disk(1 << 20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/disk.raw" {
			http.NotFound(w, q)
			return
		}
		w.Write(raw)
	}))
	defer server.Close()
	said := r.do(cloud.Task{ID: "import-snap-1", Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{URL: server.URL + "/disk.raw"}}})
	if said.Phase != cloud.TaskDone || !bytes.Equal(r.bytesOf(said.Result.Contents[0]), raw) {
		t.Errorf("%+v", said)
	}
	r.nothingLeft()
}

// TestFailures each come with a reason, and leave nothing.
func TestFailures(t *testing.T) {
	backed := func(t *testing.T) []byte {
		data := converted(t, disk(1<<20), "qcow2")
		copy(data[8:], []byte{0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 11}) // a backing file's name, of 11 bytes at 4096
		return data
	}
	empty := httptest.NewServer(http.NotFoundHandler())
	defer empty.Close()
	for _, test := range []struct {
		name       string
		file       func(t *testing.T) []byte
		task       cloud.Task
		code, says string
	}{
		{"no object", nil, cloud.Task{Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{Bucket: "b", Key: "absent"}}}, "ClientError", "absent"},
		{"no server", nil, cloud.Task{Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{URL: "/absent"}}}, "ClientError", "404"},
		{"another format", func(t *testing.T) []byte { return converted(t, disk(1<<20), "qcow2") },
			cloud.Task{Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{Bucket: "b", Key: "disk", Format: "VMDK"}}}, "ClientError", "QCOW2"},
		{"a backing file", backed, cloud.Task{Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{Bucket: "b", Key: "disk"}}}, "ClientError", "backing"},
		{"no machine", func(*testing.T) []byte { return make([]byte, 1<<20) }, cloud.Task{Kind: cloud.ImportImage, Sources: []cloud.DiskFile{{Bucket: "b", Key: "disk"}}}, "ClientError", ""},
		{"too large", func(*testing.T) []byte { return disk(3 << 20) }, cloud.Task{Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{Bucket: "b", Key: "disk"}}}, "ClientError", "2097152"},
		{"an unknown kind", nil, cloud.Task{Kind: "dance"}, "ServerError", "dance"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.MaxSize = 2 << 20
			if test.file != nil {
				r.objects.all["b/disk"] = test.file(t)
			}
			test.task.ID = "import-1"
			for n, f := range test.task.Sources {
				if f.URL != "" {
					test.task.Sources[n].URL = empty.URL + f.URL
				}
			}
			said := r.do(test.task)
			if said.Phase != cloud.TaskFailed || said.Reason.Code != test.code || !strings.Contains(said.Reason.Message, test.says) {
				t.Errorf("%+v", said)
			}
			if left, _ := os.ReadDir(r.Dir); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
			r.nothingLeft()
		})
	}
}

// TestCancelled work stops, and says so.
func TestCancelled(t *testing.T) {
	r := newRig(t)
	begun, hold := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Write([]byte("some"))
		w.(http.Flusher).Flush()
		close(begun)
		select {
		case <-hold:
		case <-q.Context().Done():
		}
	}))
	defer server.Close()
	defer close(hold)
	task := cloud.Task{ID: "import-snap-1", Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{URL: server.URL}}}
	r.Accept([]cloud.Task{task})
	<-begun
	task.CancelledAt = time.Unix(1, 0)
	r.Accept([]cloud.Task{task})
	if said := r.until(ended); said.Phase != cloud.TaskFailed || said.Reason.Code != ReasonCancelled {
		t.Errorf("%+v", said)
	}
	r.nothingLeft()
}

// TestRestarts: what was done is not done again, what wasn't begins anew.
func TestRestarts(t *testing.T) {
	r := newRig(t)
	raw := disk(1 << 20)
	r.objects.all["b/disk"] = raw
	done := cloud.Task{ID: "import-snap-1", Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{Bucket: "b", Key: "disk"}}}
	first := r.do(done)
	r.stop()
	delete(r.objects.all, "b/disk")
	r.open(r.Options)
	if again := r.do(done); again.Phase != cloud.TaskDone || again.Result.Contents[0] != first.Result.Contents[0] {
		t.Errorf("%+v", again)
	}
	r.stop()

	broken := cloud.Task{ID: "import-snap-2", Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{Bucket: "b", Key: "disk"}}}
	if err := os.MkdirAll(filepath.Join(r.Dir, "import-snap-2", "0"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "import-snap-2", "0", "source"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.objects.all["b/disk"] = raw
	r.open(r.Options)
	r.Accept([]cloud.Task{broken})
	if said := r.until(ended); said.Phase != cloud.TaskDone || !bytes.Equal(r.bytesOf(said.Result.Contents[0]), raw) {
		t.Errorf("%+v", said)
	}
	r.nothingLeft()
}

// TestExports are read back by QEMU's own tool.
func TestExports(t *testing.T) {
	for _, format := range []string{"RAW", "VMDK", "VHD", "QCOW2", "VHDX"} {
		t.Run(format, func(t *testing.T) {
			r := newRig(t)
			raw := disk(4 << 20)
			r.objects.all["b/disk"] = raw
			in := r.do(cloud.Task{ID: "import-snap-1", Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{Bucket: "b", Key: "disk"}}})
			r.nothingLeft()
			said := r.do(cloud.Task{ID: "export-ami-1", Kind: cloud.ExportImage, Image: "emi-1", Contents: in.Result.Contents, Target: &cloud.DiskFile{Bucket: "out", Key: "exports/", Format: format}})
			if said.Phase != cloud.TaskDone || said.Result.Manifest != "exports/export-ami-1."+strings.ToLower(format) {
				t.Fatalf("%+v", said)
			}
			r.nothingLeft()
			back := r.do(cloud.Task{ID: "import-snap-2", Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{Bucket: "out", Key: said.Result.Manifest, Format: format}}})
			if back.Phase != cloud.TaskDone || !bytes.Equal(r.bytesOf(back.Result.Contents[0]), raw) {
				t.Errorf("read back: %+v", back)
			}
		})
	}
}

// TestHalfAnExport leaves nothing in the bucket.
func TestHalfAnExport(t *testing.T) {
	r := newRig(t)
	r.objects.all["b/disk"] = disk(1 << 20)
	r.objects.fail = "exports/export-ami-1.raw"
	in := r.do(cloud.Task{ID: "import-snap-1", Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{Bucket: "b", Key: "disk"}}})
	r.nothingLeft()
	said := r.do(cloud.Task{ID: "export-ami-1", Kind: cloud.ExportImage, Contents: in.Result.Contents, Target: &cloud.DiskFile{Bucket: "out", Key: "exports/", Format: "RAW"}})
	if said.Phase != cloud.TaskFailed || !strings.Contains(said.Reason.Message, "on fire") {
		t.Errorf("%+v", said)
	}
	if keys := r.objects.keys("out/"); len(keys) != 0 {
		t.Errorf("left: %q", keys)
	}
}

// TestNoRoom: a task ends before the disk is full, and says nothing of the host.
func TestNoRoom(t *testing.T) {
	for _, task := range []cloud.Task{
		{ID: "import-snap-1", Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{URL: "/"}}},
		{ID: "import-vol-1", Kind: cloud.ImportVolume, CreatedAt: time.Now(), Sources: []cloud.DiskFile{{URL: "/manifest"}}},
	} {
		r := newRig(t)
		var server *httptest.Server
		server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/manifest" {
				io.WriteString(w, manifestOf(server.URL, 1000, 500))
				return
			}
			<-q.Context().Done() // the rest would come for ever
		}))
		defer server.Close()
		r.Reserve = 1 << 62
		task.Sources[0].URL = server.URL + task.Sources[0].URL
		if said := r.do(task); said.Phase != cloud.TaskFailed || said.Reason.Message != "ServerError: "+errNoRoom.Error() {
			t.Errorf("%+v", said)
		}
		r.nothingLeft()
	}
}

// TestReasonsKeepPaths to themselves.
func TestReasonsKeepPaths(t *testing.T) {
	r := newRig(t)
	for want, err := range map[string]error{
		"ServerError: open 0/source: file does not exist": &fs.PathError{Op: "open", Path: filepath.Join(r.Dir, "import-1", "0", "source"), Err: fs.ErrNotExist},
		"ServerError: " + errNoRoom.Error():               &fs.PathError{Op: "write", Path: "/somewhere", Err: syscall.ENOSPC},
		"ClientError: it is no disk":                      fmt.Errorf("%w", &SourceError{errors.New("it is no disk")}),
	} {
		if got := r.reasonOf(t.Context(), "import-1", err).Message; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestForgottenWhileItWorks: a task that isn't named any more is not reported, and
// nothing of it is left when it has ended.
func TestForgottenWhileItWorks(t *testing.T) {
	r := newRig(t)
	begun, hold := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		close(begun)
		select {
		case <-hold:
		case <-q.Context().Done():
		}
	}))
	defer server.Close()
	defer close(hold)
	r.Accept([]cloud.Task{{ID: "import-snap-1", Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{URL: server.URL}}}})
	<-begun
	for range 3 {
		r.Accept(nil)
		if said := r.Report(); len(said) != 0 {
			t.Errorf("reported: %+v", said)
		}
	}
	r.nothingLeft()
}

// TestLostRights count when the task comes to use them, not when it was made.
func TestLostRights(t *testing.T) {
	r := newRig(t)
	r.objects.all["b/disk"] = disk(1 << 20)
	in := r.do(cloud.Task{ID: "import-snap-1", Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{Bucket: "b", Key: "disk"}}})
	r.nothingLeft()
	r.objects.deny = "b"
	for _, task := range []cloud.Task{
		{ID: "import-snap-1", Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{Bucket: "b", Key: "disk"}}},
		{ID: "export-ami-1", Kind: cloud.ExportImage, Contents: in.Result.Contents, Target: &cloud.DiskFile{Bucket: "b", Key: "exports/", Format: "RAW"}},
	} {
		if said := r.do(task); said.Phase != cloud.TaskFailed || said.Reason.Code != "ClientError" || !strings.Contains(said.Reason.Message, "permission denied") {
			t.Errorf("%+v", said)
		}
		r.nothingLeft()
	}
	if keys := r.objects.keys("b/"); len(keys) != 1 {
		t.Errorf("the bucket has %q", keys)
	}
}

// root stores a disk as the root of any instance.
type root struct {
	*rig
	data []byte
}

func (s root) StoreRoot(ctx context.Context, name string, _ cloud.InstanceID) (cloud.Content, error) {
	w, err := s.Contents.Write(ctx, name, int64(len(s.data)), nil)
	if err != nil {
		return cloud.Content{}, err
	}
	if err := w.WriteAt(ctx, s.data, 0); err != nil {
		return cloud.Content{}, err
	}
	c, err := w.Commit(ctx)
	return c, errors.Join(err, w.Close())
}

// withKeys has the cloud's.
func (r *rig) withKeys() *rsa.PrivateKey {
	r.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		r.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cloud"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		r.Fatal(err)
	}
	if r.CloudCert, err = x509.ParseCertificate(der); err != nil {
		r.Fatal(err)
	}
	r.CloudKey = key
	return key
}

// TestBundles of a whole disk and of a root partition hold the image, and copy.
func TestBundles(t *testing.T) {
	const size = 1<<20 + 512
	for name, header := range map[string]int{"hvm": 0, "paravirtual": cloud.DiskHeader * cloud.SectorSize} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			key := r.withKeys()
			image := disk(size)
			r.Roots = root{r, append(append(make([]byte, header), image...), make([]byte, 2<<20)...)}
			task := cloud.Task{ID: "bun-1", Kind: cloud.BundleInstance, Account: "123456789012", Instance: "i-1", Ref: &cloud.ImageRef{Size: size},
				Target: &cloud.DiskFile{Bucket: "b", Key: "images/mine"}, Params: map[string]string{cloud.ParamArchitecture: "x86_64"}}
			if header > 0 {
				task.Params[cloud.ParamKernel], task.Params[cloud.ParamRamdisk] = "eki-00000001", "eri-00000001"
			}
			said := r.do(task)
			if said.Phase != cloud.TaskDone || said.Result.Manifest != "images/mine.manifest.xml" {
				t.Fatalf("%+v", said)
			}
			r.nothingLeft()
			manifest := r.objects.all["b/images/mine.manifest.xml"]
			source := &bundle.Source{Objects: r.objects, Key: key}
			ref := cloud.ImageRef{ID: "emi-1", Location: "b/images/mine.manifest.xml", ManifestDigest: bundle.Pin(manifest), Size: size}
			var out bytes.Buffer
			if err := source.Unpack(t.Context(), ref, &out, func(int64, int64) {}); err != nil || !bytes.Equal(out.Bytes(), image) {
				t.Fatalf("unpacked %d bytes: %v", out.Len(), err)
			}
			said = r.do(cloud.Task{ID: "copy-1", Kind: cloud.CopyImage, Ref: &ref, Target: &cloud.DiskFile{Bucket: "copies", Key: "emi-2/mine.manifest.xml"}})
			if said.Phase != cloud.TaskDone {
				t.Fatalf("%+v", said)
			}
			ref.Location = "copies/emi-2/mine.manifest.xml"
			out.Reset()
			if err := source.Unpack(t.Context(), ref, &out, func(int64, int64) {}); err != nil || !bytes.Equal(out.Bytes(), image) {
				t.Errorf("of the copy %d bytes: %v", out.Len(), err)
			}
		})
	}
}

// TestCopyOfWhatChanged is refused, and nothing of it stays.
func TestCopyOfWhatChanged(t *testing.T) {
	r := newRig(t)
	r.withKeys()
	r.Roots = root{r, disk(1 << 20)}
	r.do(cloud.Task{ID: "bun-1", Kind: cloud.BundleInstance, Account: "123456789012", Ref: &cloud.ImageRef{Size: 1 << 20},
		Target: &cloud.DiskFile{Bucket: "b", Key: "mine"}, Params: map[string]string{cloud.ParamArchitecture: "x86_64"}})
	r.nothingLeft()
	ref := &cloud.ImageRef{Location: "b/mine.manifest.xml", ManifestDigest: bundle.Pin(r.objects.all["b/mine.manifest.xml"])}
	for _, what := range []string{"part.00", "manifest.xml"} {
		key := "b/mine." + what
		was := r.objects.all[key]
		changed := bytes.Clone(was)
		changed[len(was)-5] ^= 1
		r.objects.all[key] = changed
		said := r.do(cloud.Task{ID: "copy-1", Kind: cloud.CopyImage, Ref: ref, Target: &cloud.DiskFile{Bucket: "copies", Key: "x/mine.manifest.xml"}})
		if said.Phase != cloud.TaskFailed || said.Reason.Code != "ClientError" {
			t.Errorf("%s was changed: %+v", what, said)
		}
		if keys := r.objects.keys("copies/"); len(keys) != 0 {
			t.Errorf("%s was changed, and %q are left", what, keys)
		}
		r.nothingLeft()
		r.objects.all[key] = was
	}
}
