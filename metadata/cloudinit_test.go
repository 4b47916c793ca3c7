package metadata

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mallee/network"
)

// cloudInit is Debian's, with what it stands on; nothing of it is installed.
var cloudInit = strings.Fields("cloud-init python3-configobj python3-six python3-yaml python3-requests python3-urllib3 python3-idna python3-certifi python3-chardet python3-charset-normalizer python3-oauthlib")

// TestCloudInit has cloud-init's own DataSourceEc2 crawl, which goes wrong where
// anything that is listed is not there, and asks by tokens alone.
func TestCloudInit(t *testing.T) {
	modules := unpackCloudInit(t)
	for _, i := range []Instance{paravirtual(), hvm()} {
		i.TokensRequired, i.MetadataTags, i.Tags = true, true, map[string]string{"Name": "web"}
		w := newWorld(i)
		server := httptest.NewServer(http.HandlerFunc(func(reply http.ResponseWriter, r *http.Request) {
			w.ServeHTTP(reply, r.WithContext(network.WithCaller(r.Context(), string(i.ID))))
		}))
		defer server.Close()
		crawl := exec.Command("/usr/bin/python3", "testdata/crawl.py", server.URL)
		crawl.Env = []string{"PYTHONPATH=" + modules, "PATH=" + os.Getenv("PATH"), "PYTHONDONTWRITEBYTECODE=1"}
		var said bytes.Buffer
		crawl.Stderr = &said
		out, err := crawl.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, said.String())
		}
		checkCrawled(t, i, out)
	}
}

func checkCrawled(t *testing.T, i Instance, out []byte) {
	t.Helper()
	var found struct {
		Version  string `json:"_metadata_api_version"`
		UserData string `json:"user-data"`
		MetaData struct {
			InstanceID string `json:"instance-id"`
			Hostname   string `json:"local-hostname"`
			Tags       struct{ Instance map[string]string }
			Keys       any `json:"public-keys"`
			Network    struct {
				Interfaces struct{ Macs map[string]map[string]any }
			}
		} `json:"meta-data"`
		Dynamic struct {
			Identity map[string]any `json:"instance-identity"`
		}
	}
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := found.MetaData
	if found.Version != "2021-03-23" || m.InstanceID != string(i.ID) || m.Hostname != i.PrivateName() || m.Tags.Instance["Name"] != "web" {
		t.Errorf("cloud-init finds %s", out)
	}
	if data, err := base64.StdEncoding.DecodeString(found.UserData); err != nil || !bytes.Equal(data, i.UserData) {
		t.Errorf("the user data is %q, %v, want %q", data, err, i.UserData)
	}
	if m.Network.Interfaces.Macs[i.MAC]["local-ipv4s"] != i.Local.String() {
		t.Errorf("the interfaces are %v", m.Network)
	}
	if len(found.Dynamic.Identity) != 4 {
		t.Errorf("the identity is %v", found.Dynamic.Identity)
	}
	if i.KeyName != "" && !strings.Contains(string(out), i.PublicKey) {
		t.Errorf("the key is %v", m.Keys)
	}
}

// unpackCloudInit where tests of this user find it again.
func unpackCloudInit(t *testing.T) (modules string) {
	t.Helper()
	if testing.Short() {
		t.Skip("downloads Debian's cloud-init")
	}
	for _, tool := range []string{"/usr/bin/python3", "apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("cloud-init can't be had here: %v (apt-get install python3)", err)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "mallee-test", "cloud-init")
	modules = filepath.Join(dir, "root", "usr", "lib", "python3", "dist-packages")
	if _, err := os.Stat(filepath.Join(dir, "whole")); err == nil {
		return modules
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	download := exec.Command("apt-get", append([]string{"download"}, cloudInit...)...)
	download.Dir = dir
	if out, err := download.CombinedOutput(); err != nil {
		t.Skipf("Debian's cloud-init can't be downloaded: %v: %s", err, out)
	}
	packages, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		if out, err := exec.Command("dpkg-deb", "-x", p, filepath.Join(dir, "root")).CombinedOutput(); err != nil {
			t.Fatalf("unpack %s: %v: %s", p, err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "whole"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return modules
}
