package task

import (
	"bytes"
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

	"mallee/cloud"
	"mallee/image"
)

// manifestOf a disk in parts of a size, at a server.
func manifestOf(url string, size, part int) string {
	var parts strings.Builder
	count := 0
	for at := 0; at < size; at += part {
		fmt.Fprintf(&parts, `<part index="%d"><byte-range start="%d" end="%d"/><key>k</key><get-url>%s/part%d</get-url></part>`, count, at, min(at+part, size)-1, url, count)
		count++
	}
	return fmt.Sprintf(`<manifest><version>2010-11-15</version><file-format>RAW</file-format><import><size>%d</size><volume-size>1</volume-size><parts count="%d">%s</parts></import></manifest>`, size, count, &parts)
}

// TestUploads are waited for: the manifest is there first, and the parts come while
// the task runs.
func TestUploads(t *testing.T) {
	raw := disk(1<<20 + 512)
	const part = 300_000
	var server *httptest.Server
	var refused atomic.Int32
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/manifest" {
			fmt.Fprint(w, manifestOf(server.URL, len(raw), part))
			return
		}
		var n int
		fmt.Sscanf(q.URL.Path, "/part%d", &n)
		if n == 1 && refused.Add(1) == 1 {
			http.NotFound(w, q) // not there yet
			return
		}
		w.Write(raw[n*part : min((n+1)*part, len(raw))])
	}))
	defer server.Close()
	r := newRig(t)
	said := r.do(cloud.Task{ID: "import-vol-1", Kind: cloud.ImportVolume, CreatedAt: time.Now(), Sources: []cloud.DiskFile{{URL: server.URL + "/manifest", Format: "RAW"}}})
	if said.Phase != cloud.TaskDone || !bytes.Equal(r.bytesOf(said.Result.Contents[0]), raw) {
		t.Errorf("%+v", said)
	}
	if refused.Load() < 2 {
		t.Error("the part was not asked for again")
	}
	r.nothingLeft()
}

// TestUploadTooLate fails with a reason.
func TestUploadTooLate(t *testing.T) {
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/manifest" {
			fmt.Fprint(w, manifestOf(server.URL, 1000, 500))
			return
		}
		http.NotFound(w, q)
	}))
	defer server.Close()
	r := newRig(t)
	created := time.Now().Add(-uploadTime + 300*time.Millisecond)
	said := r.do(cloud.Task{ID: "import-vol-1", Kind: cloud.ImportVolume, CreatedAt: created, Sources: []cloud.DiskFile{{URL: server.URL + "/manifest"}}})
	if said.Phase != cloud.TaskFailed || said.Reason.Code != "ClientError" || !strings.Contains(said.Reason.Message, "in time") {
		t.Errorf("%+v", said)
	}
}

// TestPartsThatNeverCome end the import at once, where no waiting helps.
func TestPartsThatNeverCome(t *testing.T) {
	for name, test := range map[string]struct {
		part  int // bytes that each part has
		reach image.Reach
		gib   int
		says  string
	}{
		"a part that is longer":         {501, image.Anywhere, 1, "the limit is 500"},
		"a part that is shorter":        {499, image.Anywhere, 1, "it has 499 bytes"},
		"an address inside the network": {500, nil, 1, "not a public one"},
	} {
		t.Run(name, func(t *testing.T) {
			var server *httptest.Server
			server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				if q.URL.Path == "/manifest" {
					fmt.Fprint(w, manifestOf(server.URL, 1000, 500))
					return
				}
				w.Write(make([]byte, test.part))
			}))
			defer server.Close()
			r := newRig(t)
			r.Reach = test.reach
			said := r.do(cloud.Task{ID: "import-vol-1", Kind: cloud.ImportVolume, CreatedAt: time.Now(), Sources: []cloud.DiskFile{{URL: server.URL + "/manifest", VolumeGiB: test.gib}}})
			if said.Phase != cloud.TaskFailed || said.Reason.Code != "ClientError" || !strings.Contains(said.Reason.Message, test.says) {
				t.Errorf("%+v", said)
			}
			r.nothingLeft()
		})
	}
}

// TestUploadLargerThanItsVolume, which its header tells when it is there.
func TestUploadLargerThanItsVolume(t *testing.T) {
	r := newRig(t)
	r.MaxSize = 4 << 30
	data := converted(t, disk(1<<20), "vpc")
	path := filepath.Join(t.TempDir(), "large")
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-f", "qcow2", path, "2G").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	large, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for size, file := range map[string][]byte{"smaller": data, "larger": large} {
		var server *httptest.Server
		server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/manifest" {
				fmt.Fprint(w, manifestOf(server.URL, len(file), len(file)))
				return
			}
			w.Write(file)
		}))
		defer server.Close()
		said := r.do(cloud.Task{ID: "import-vol-1", Kind: cloud.ImportVolume, CreatedAt: time.Now(), Sources: []cloud.DiskFile{{URL: server.URL + "/manifest", VolumeGiB: 1}}})
		switch {
		case size == "smaller" && said.Phase != cloud.TaskDone:
			t.Errorf("%+v", said)
		case size == "larger" && (said.Reason.Code != "ClientError" || !strings.Contains(said.Reason.Message, "its volume of 1 GiB")):
			t.Errorf("%+v", said)
		}
		r.nothingLeft()
	}
}

func TestImportManifests(t *testing.T) {
	good := manifestOf("http://h", 1000, 300)
	if m, err := parseImportManifest([]byte(good), 1000); err != nil || m.Size != 1000 || len(m.Parts.List) != 4 {
		t.Fatalf("%+v, %v", m, err)
	}
	other := strings.NewReplacer("RAW", "VMDK", "<size>1000", "<size>900").Replace(good)
	if _, err := parseImportManifest([]byte(other), 1000); err != nil {
		t.Errorf("a VMDK whose disk has another size: %v", err)
	}
	for name, bad := range map[string]string{
		"no XML":               "manifest",
		"another document":     "<html/>",
		"a size of nothing":    strings.Replace(good, "<size>1000", "<size>0", 1),
		"larger than allowed":  manifestOf("http://h", 2000, 300),
		"a count that lies":    strings.Replace(good, `count="4"`, `count="3"`, 1),
		"a gap":                strings.Replace(good, `start="300"`, `start="301"`, 1),
		"an overlap":           strings.Replace(good, `start="300"`, `start="299"`, 1),
		"a part beyond":        strings.Replace(good, `end="999"`, `end="1000"`, 1),
		"a part too few":       strings.Replace(good, `end="999"`, `end="998"`, 1),
		"a part from behind":   strings.Replace(good, `end="599"`, `end="200"`, 1),
		"an index out of turn": strings.Replace(good, `index="1"`, `index="2"`, 1),
		"no address":           strings.Replace(good, "http://h/part2", "", 1),
		"no parts":             `<manifest><import><size>5</size><parts count="0"></parts></import></manifest>`,
		"entities":             `<!DOCTYPE m [<!ENTITY a "aaaa">]><manifest>&a;</manifest>`,
	} {
		if m, err := parseImportManifest([]byte(bad), 1000); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func FuzzImportManifest(f *testing.F) {
	f.Add([]byte(manifestOf("http://h", 1000, 300)))
	f.Add([]byte("<manifest>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseImportManifest(data, 1<<40)
		if err != nil {
			return
		}
		var sum int64
		for _, p := range m.Parts.List {
			sum += p.Range.End - p.Range.Start + 1
		}
		if sum <= 0 || sum > 1<<40 {
			t.Errorf("the parts have %d bytes", sum)
		}
	})
}
