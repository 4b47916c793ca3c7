package euca

import (
	"bytes"
	"encoding/binary"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mallee/wire/sigv4"
)

// imported asks for an import, and returns the address of its manifest.
func (r *workshop) imported(line string) string {
	r.t.Helper()
	r.p.asked = nil
	r.do(line)
	found := regexp.MustCompile(`ImportManifestUrl=(\S+)`).FindStringSubmatch(strings.Join(r.p.asked, "\n"))
	if found == nil {
		r.t.Fatalf("%s asks for %q", line, r.p.asked)
	}
	return found[1]
}

// keys of the store that end so.
func (r *workshop) keys(suffix string) (all []string) {
	for key := range r.objects {
		if strings.Contains(key, "/") && strings.HasSuffix(key, suffix) {
			all = append(all, key)
		}
	}
	slices.Sort(all)
	return all
}

// TestImportVolume: a manifest whose parts are where it says, upload of what is
// missing, and the end of it all.
func TestImportVolume(t *testing.T) {
	r := newWorkshop(t)
	big := picture(21 << 20)
	r.file("disk.raw", big)
	r.p.address = r.imported("euca-import-volume disk.raw -f raw -z local -b mine --prefix disks/")
	manifest := r.keys(".manifest.xml")
	if len(manifest) != 1 || !strings.HasPrefix(manifest[0], "mine/disks/") || !strings.Contains(r.p.address, manifest[0]) {
		t.Fatalf("the manifest is %q, at %s", manifest, r.p.address)
	}
	if u, err := url.Parse(r.p.address); err != nil || u.Query().Get("X-Amz-Expires") != "604800" {
		t.Errorf("%s is good for another time: %v", r.p.address, err)
	}
	up := importUpload{bucket: "mine", key: strings.TrimPrefix(manifest[0], "mine/")}
	m, err := parseImportManifest([]byte(r.objects[manifest[0]]), filepath.Dir(up.key))
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, p := range m.Import.Parts.List {
		all = append(all, r.objects["mine/"+p.Key]...)
		for _, address := range []string{p.Head, p.Get, p.Delete} {
			if !strings.Contains(address, p.Key+"?") || !strings.Contains(address, "X-Amz-Signature=") {
				t.Errorf("address of part %d: %s", p.Index, address)
			}
		}
	}
	if !bytes.Equal(all, big) || m.Import.Size != int64(len(big)) || m.Import.VolumeSize != 1 || m.Version != "2010-11-15" || len(m.Import.Parts.List) != 3 {
		t.Errorf("the parts have %d bytes, the manifest is %+v", len(all), m)
	}

	part := r.keys(".part.1")[0]
	delete(r.objects, part)
	r.objects[r.keys(".part.2")[0]] = "half"
	r.asked, r.p.replies = nil, []string{"conversion"}
	r.do("euca-resume-import disk.raw -t import-vol-01234567")
	if len(r.asked) != 2 || !strings.Contains(r.asked[0], part) {
		t.Errorf("resumed by %q", r.asked)
	}
	r.p.replies = []string{"conversion"}
	r.refused("euca-resume-import image.raw -t import-vol-01234567", "began with a file of 22020096 bytes, and this one has 150000")
	r.p.replies = []string{"conversion"}
	r.refused("euca-delete-disk-image -t import-vol-01234567", "is active")
	r.p.replies = []string{"conversion"}
	r.do("euca-delete-disk-image -t import-vol-01234567 --ignore-active-task")
	if left := r.keys(""); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// Without the upload at first: the manifest is there, and resuming sends all.
func TestImportLater(t *testing.T) {
	r := newWorkshop(t)
	r.p.address = r.imported("euca-import-volume image.raw -f raw -z local -b mine --no-upload -x 2 -s 3")
	if parts := r.keys(".part.0"); len(parts) != 0 {
		t.Errorf("uploaded: %q", parts)
	}
	r.p.replies = []string{"conversion"}
	r.do("euca-resume-import image.raw -t import-vol-01234567")
	again := r.imported("euca-import-volume image.raw -f raw -z local --manifest-url " + r.p.address)
	if again != r.p.address || len(r.keys("")) != 2 {
		t.Errorf("with its address: %s, %q", again, r.keys(""))
	}
	r.do("euca-delete-disk-image -u " + r.p.address)
	if left := r.keys(""); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestImportInstance(t *testing.T) {
	r := newWorkshop(t)
	vmdk := append([]byte("KDMV"), make([]byte, 1020)...)
	binary.LittleEndian.PutUint64(vmdk[12:], 3<<21)
	r.file("disk.vmdk", vmdk)
	r.imported("euca-import-instance disk.vmdk -f vmdk -t m1.small -a x86_64 -p Linux -b mine -g web --user-data hello -z local -d mine")
	asked := regexp.MustCompile(`http\S+`).ReplaceAllString(r.p.asked[0], "URL")
	want := "ImportInstance Description=mine DiskImage.1.Image.Bytes=3221225472 DiskImage.1.Image.Format=VMDK DiskImage.1.Image.ImportManifestUrl=URL " +
		"DiskImage.1.Volume.Size=3 LaunchSpecification.Architecture=x86_64 LaunchSpecification.GroupName.1=web LaunchSpecification.InstanceType=m1.small " +
		"LaunchSpecification.Placement.AvailabilityZone=local LaunchSpecification.UserData.Data=aGVsbG8= Platform=Linux"
	if asked != want {
		t.Errorf("asked  %s\nwanted %s", asked, want)
	}
}

func TestImportRefuses(t *testing.T) {
	r := newWorkshop(t)
	r.file("empty", nil)
	for line, word := range map[string]string{
		"euca-import-volume image.raw -f raw -z local":                                           "one of the arguments --bucket --manifest-url",
		"euca-import-volume image.raw -f vmdk -z local -b mine":                                  "--image-size",
		"euca-import-volume image.raw -f vhd -z local -b mine":                                   "--image-size",
		"euca-import-volume empty -f raw -z local -b mine":                                       "empty",
		"euca-import-volume nowhere -f raw -z local -b mine":                                     "nowhere",
		"euca-import-volume image.raw -f raw -z local -b mine -x 0":                              "0 days",
		"euca-import-volume image.raw -f raw -z local -b mine -o AKIB":                           "belong together",
		"euca-import-volume image.raw -f raw -z local --manifest-url http://other.example/m.xml": "not in the object store",
		"euca-delete-disk-image":                                                                 "one of the arguments",
		"euca-delete-disk-image -u http://x/y --ignore-active-task":                              "only with -t",
		"euca-import-instance image.raw -f raw -t m1.small -p Linux -b m":                        "-a/--architecture is required",
		"euca-import-instance image.raw -f raw -a i386 -p BeOS -t m1.tiny":                       "none of Windows, Linux",
	} {
		r.refused(line, word)
	}
	if left := r.keys(""); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	r.p.replies = []string{"refused"}
	r.refused("euca-import-volume image.raw -f raw -z local -b mine", "error (")
	if left := r.keys(""); len(left) != 0 {
		t.Errorf("left of what the cloud refused: %q", left)
	}
}

// An import manifest is no way to have other objects overwritten or deleted, and
// has to make sense.
func TestParseImportManifest(t *testing.T) {
	d := &disk{name: "disk", format: "RAW", size: 25, virtual: 25, gib: 1}
	up := &importUpload{client: &Client{S3: "http://host/s3", Credentials: sigv4.Credentials{AccessKey: "A", Secret: "B"}}, bucket: "mine", key: "f/m.xml"}
	m, err := up.compose(d, 3600e9, 10)
	if err != nil || len(m.Import.Parts.List) != 3 || m.Import.Parts.size() != 25 {
		t.Fatalf("%+v, %v", m, err)
	}
	good := `<manifest><import><size>20</size><parts count="2"><part index="0"><byte-range start="0" end="9"/><key>f/a</key></part><part index="1"><byte-range start="10" end="19"/><key>f/b</key></part></parts></import></manifest>`
	if _, err := parseImportManifest([]byte(good), "f"); err != nil {
		t.Fatal(err)
	}
	for old, bad := range map[string]string{
		"f/b": "other/b", "<key>f/b": "<key>f/../x", `count="2"`: `count="3"`, `index="1"`: `index="2"`, `start="10"`: `start="11"`, `end="19"`: `end="9"`, "</manifest>": "",
	} {
		if m, err := parseImportManifest([]byte(strings.Replace(good, old, bad, 1)), "f"); err == nil {
			t.Errorf("with %s for %s: %+v", bad, old, m)
		}
	}
	if _, err := parseImportManifest(make([]byte, maxImportManifest+1), "f"); err == nil {
		t.Error("a long one is read")
	}
}

// Sizes that disks tell themselves.
func TestVirtualSize(t *testing.T) {
	vhd := make([]byte, 1024)
	copy(vhd[512:], "conectix")
	binary.BigEndian.PutUint64(vhd[512+48:], 7<<30)
	path := filepath.Join(t.TempDir(), "disk")
	for _, c := range []struct {
		format string
		data   []byte
		want   int64
	}{{"VHD", vhd, 7 << 30}, {"RAW", vhd, 1024}, {"VMDK", vhd, 0}, {"VHD", vhd[:100], 0}, {"QCOW2", vhd, 0}} {
		if err := os.WriteFile(path, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := virtualSize(f, c.format, int64(len(c.data)))
		f.Close()
		if got != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%s of %d bytes: %d, %v", c.format, len(c.data), got, err)
		}
	}
}
