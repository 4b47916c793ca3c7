package euca

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"mallee/image"
)

// depot is a cloud that takes uploads in parts, imports them, and registers the snapshots.
type depot struct {
	*testing.T
	*httptest.Server

	mu        sync.Mutex // guards what follows
	parts     map[string][]byte
	objects   map[string][]byte
	snapshots map[string]string   // id: its tag
	imports   []string            // format and bytes of each
	polled    int                 // times that an import was asked for
	status    string              // of imports, once polled
	images    map[string][]string // name: id, snapshot
	forms     []string            // of registrations
	cancelled bool
	fails     string // an action, or a part, that fails
}

func newDepot(t *testing.T) *depot {
	d := &depot{T: t, parts: map[string][]byte{}, objects: map[string][]byte{}, snapshots: map[string]string{}, images: map[string][]string{}, status: "completed"}
	d.Server = httptest.NewServer(http.HandlerFunc(d.serve))
	t.Cleanup(d.Close)
	return d
}

func (d *depot) installer(p parcel) *installer {
	c := &Client{Region: "r", EC2: d.URL + "/ec2", S3: d.URL + "/s3", Account: "123456789012"}
	return &installer{client: c, parcel: p, show: newProgress(io.Discard)}
}

func (d *depot) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	d.mu.Lock()
	defer d.mu.Unlock()
	what := r.FormValue("Action") + r.FormValue("partNumber")
	if d.fails != "" && what == d.fails {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, "<Error><Code>NoLuck</Code><Message>today</Message></Error>")
		return
	}
	if strings.HasPrefix(r.URL.Path, "/s3/") {
		d.store(w, r, body)
		return
	}
	switch r.FormValue("Action") {
	case "DescribeSnapshots":
		fmt.Fprint(w, "<R><snapshotSet>")
		for id, tag := range d.snapshots {
			if tag == r.FormValue("Filter.1.Value.1") {
				fmt.Fprintf(w, "<item><snapshotId>%s</snapshotId><status>completed</status></item>", id)
			}
		}
		fmt.Fprint(w, "</snapshotSet></R>")
	case "ImportSnapshot":
		key := r.FormValue("DiskContainer.UserBucket.S3Bucket") + "/" + r.FormValue("DiskContainer.UserBucket.S3Key")
		d.imports = append(d.imports, fmt.Sprintf("%s %d", r.FormValue("DiskContainer.Format"), len(d.objects[key])))
		fmt.Fprint(w, "<R><importTaskId>import-snap-1</importTaskId><snapshotTaskDetail><status>active</status></snapshotTaskDetail></R>")
	case "DescribeImportSnapshotTasks":
		d.polled++
		fmt.Fprintf(w, "<R><importSnapshotTaskSet><item><importTaskId>import-snap-1</importTaskId><snapshotTaskDetail><status>%s</status><statusMessage>no disk</statusMessage><progress>50</progress><snapshotId>snap-1</snapshotId></snapshotTaskDetail></item></importSnapshotTaskSet></R>", d.status)
	case "CancelImportTask":
		d.cancelled = true
		fmt.Fprint(w, "<R/>")
	case "CreateTags":
		d.snapshots[r.FormValue("ResourceId.1")] = r.FormValue("Tag.1.Value")
		fmt.Fprint(w, "<R><return>true</return></R>")
	case "DescribeImages":
		if i := d.images[r.FormValue("Filter.1.Value.1")]; i != nil {
			fmt.Fprintf(w, "<R><imagesSet><item><imageId>%s</imageId><imageLocation>me/x</imageLocation><blockDeviceMapping><item><ebs><snapshotId>%s</snapshotId></ebs></item></blockDeviceMapping></item></imagesSet></R>", i[0], i[1])
			return
		}
		fmt.Fprint(w, "<R/>")
	case "RegisterImage":
		id := fmt.Sprintf("emi-%08d", len(d.images))
		d.images[r.FormValue("Name")] = []string{id, r.FormValue("BlockDeviceMapping.1.Ebs.SnapshotId")}
		d.forms = append(d.forms, r.Form.Encode())
		fmt.Fprintf(w, "<R><imageId>%s</imageId></R>", id)
	case "ModifyImageAttribute":
		fmt.Fprint(w, "<R><return>true</return></R>")
	default:
		d.Errorf("unexpected: %s", r.Form)
	}
}

func (d *depot) store(w http.ResponseWriter, r *http.Request, body []byte) {
	key := strings.TrimPrefix(r.URL.Path, "/s3/")
	query := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && query.Has("uploads"):
		fmt.Fprint(w, "<R><UploadId>u</UploadId></R>")
	case r.Method == http.MethodPut && query.Has("partNumber"):
		d.parts[query.Get("partNumber")] = body
		w.Header().Set("ETag", `"e`+query.Get("partNumber")+`"`)
	case r.Method == http.MethodPost:
		var list struct {
			Parts []uploadedPart `xml:"Part"`
		}
		if err := xml.Unmarshal(body, &list); err != nil {
			d.Error(err)
		}
		for _, p := range list.Parts {
			if p.ETag != fmt.Sprintf(`"e%d"`, p.Number) {
				d.Errorf("part %d has the ETag %s", p.Number, p.ETag)
			}
			d.objects[key] = append(d.objects[key], d.parts[fmt.Sprint(p.Number)]...)
		}
		d.parts = map[string][]byte{}
		fmt.Fprint(w, "<CompleteMultipartUploadResult/>")
	case r.Method == http.MethodDelete && query.Has("uploadId"):
		d.parts = map[string][]byte{}
	case r.Method == http.MethodDelete:
		delete(d.objects, key)
	}
}

func volumeParcel(t *testing.T, size int) parcel {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), size), 0o600); err != nil {
		t.Fatal(err)
	}
	return parcel{name: "some", version: "v1", registered: "some-v1-ebs", arch: "x86_64", virtualization: "hvm", boot: "legacy-bios",
		ebs: true, public: true, files: image.Artifacts{Disk: file}, upload: file, format: "RAW"}
}

// An EBS-backed image is made once; what an earlier call came to is used.
func TestInstallVolume(t *testing.T) {
	d := newDepot(t)
	p := volumeParcel(t, leastPart+1000)
	d.fails = "RegisterImage"
	if _, err := d.installer(p).all(t.Context()); err == nil || !strings.Contains(err.Error(), "NoLuck") {
		t.Errorf("a refused registration: %v", err)
	}
	d.fails = ""
	for range 2 {
		ids, err := d.installer(p).all(t.Context())
		if err != nil || ids.Image != "emi-00000000" || ids.Snapshot != "snap-1" {
			t.Errorf("installed %+v, %v", ids, err)
		}
	}
	if want := []string{fmt.Sprintf("RAW %d", leastPart+1000)}; !slices.Equal(d.imports, want) {
		t.Errorf("imported %q, want %q", d.imports, want)
	}
	if len(d.objects)+len(d.parts) > 0 {
		t.Errorf("the upload is still there")
	}
	if len(d.forms) != 1 || !strings.Contains(d.forms[0], "BlockDeviceMapping.1.DeviceName=%2Fdev%2Fsda1") || !strings.Contains(d.forms[0], "BootMode=legacy-bios") || strings.Contains(d.forms[0], "ImageLocation") {
		t.Errorf("registered %q", d.forms)
	}
	other := p
	other.version = "v2"
	if _, err := d.installer(other).all(t.Context()); err != nil { // another snapshot would be snap-1 again here
		t.Error(err)
	}
	d.images["some-v1-ebs"][1] = "snap-2"
	if _, err := d.installer(p).all(t.Context()); err == nil || !strings.Contains(err.Error(), "made of something else") {
		t.Errorf("a name that is taken: %v", err)
	}
}

func TestInstallVolumeFails(t *testing.T) {
	for what, want := range map[string]string{"2": "upload part 2", "ImportSnapshot": "NoLuck", "CreateTags": "NoLuck"} {
		d := newDepot(t)
		d.fails = what
		if _, err := d.installer(volumeParcel(t, leastPart+1)).all(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s fails: %v, want %q", what, err, want)
		}
		if len(d.objects)+len(d.parts)+len(d.images) > 0 {
			t.Errorf("%s failed and left %d objects, %d parts, %d images", what, len(d.objects), len(d.parts), len(d.images))
		}
	}
	d := newDepot(t)
	d.status = "error"
	if _, err := d.installer(volumeParcel(t, 10)).all(t.Context()); err == nil || !strings.Contains(err.Error(), "no disk") {
		t.Errorf("an import that fails: %v", err)
	}
}

// Who doesn't wait for the import any more cancels it.
func TestInstallVolumeCancelled(t *testing.T) {
	d := newDepot(t)
	d.status = "active"
	ctx, cancel := context.WithCancel(t.Context())
	in := d.installer(volumeParcel(t, 10))
	in.show = newProgress(writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "import") {
			cancel()
		}
		return len(p), nil
	}))
	if _, err := in.all(ctx); err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("cancelled: %v", err)
	}
	if !d.cancelled || len(d.objects) > 0 {
		t.Errorf("the import was cancelled: %v, and left %d objects", d.cancelled, len(d.objects))
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
