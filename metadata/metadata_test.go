package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/network"
)

var epoch = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

// paravirtual has all there is; hvm the least.
func paravirtual() Instance {
	return Instance{
		Instance: cloud.Instance{
			ID: "i-0a1b2c3d", Reservation: "r-01020304", Account: "000123456789", LaunchIndex: 1, LaunchedAt: epoch,
			Image:  cloud.ImageRef{ID: "emi-11111111", Location: "images/tiny.manifest.xml"},
			Kernel: &cloud.ImageRef{ID: "eki-22222222"}, Ramdisk: &cloud.ImageRef{ID: "eri-33333333"},
			Architecture: "x86_64", Virtualization: cloud.Paravirtual, RootDevice: "/dev/sda1",
			Type: "m1.small", Zone: "default", MAC: "d0:0d:0a:1b:2c:3d",
			Local: netip.MustParseAddr("172.31.0.10"), Public: netip.MustParseAddr("127.5.6.7"),
			KeyName: "mykey", PublicKey: "ssh-ed25519 AAAA mykey",
			UserData: []byte("#!/bin/sh\x00\xff\n"),
			Groups:   []cloud.Group{{ID: "sg-00000001", Name: "default"}, {ID: "sg-00000002", Name: "web"}},
		},
		Region: "us-east-1", Subnet: netip.MustParsePrefix("172.31.0.0/16"),
	}
}

func hvm() Instance {
	i := paravirtual()
	i.ID, i.Virtualization, i.RootDevice = "i-0a1b2c3e", cloud.HVM, "/dev/vda"
	i.Kernel, i.Ramdisk, i.KeyName, i.PublicKey, i.UserData, i.Groups = nil, nil, "", "", nil, nil
	i.Public = netip.Addr{}
	return i
}

// world is a service whose guests are instances, by id.
type world struct {
	http.Handler
	now time.Time
}

func newWorld(instances ...Instance) *world {
	w := &world{now: epoch}
	w.Handler = Handler(Options{
		Lookup: func(_ context.Context, port string) (Instance, bool) {
			for _, i := range instances {
				if string(i.ID) == port {
					return i, true
				}
			}
			return Instance{}, false
		},
		Now:    func() time.Time { return w.now },
		Secret: []byte("0123456789abcdef0123456789abcdef"),
		Signer: signer(), Log: slog.New(slog.DiscardHandler),
	})
	return w
}

// do a request as an instance; header holds names and values.
func (w *world) do(as cloud.InstanceID, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://169.254.169.254"+path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	reply := httptest.NewRecorder()
	w.ServeHTTP(reply, r.WithContext(network.WithCaller(r.Context(), string(as))))
	return reply
}

func TestLeaves(t *testing.T) {
	i := paravirtual()
	mac := "meta-data/network/interfaces/macs/" + i.MAC
	w := newWorld(i)
	for path, want := range map[string]string{
		"":          "dynamic\nmeta-data\nuser-data",
		"user-data": string(i.UserData),

		"meta-data/ami-id":                      "emi-11111111",
		"meta-data/ami-launch-index":            "1",
		"meta-data/ami-manifest-path":           "images/tiny.manifest.xml",
		"meta-data/block-device-mapping":        "ami\nemi\nephemeral0\nroot\nswap",
		"meta-data/block-device-mapping/ami":    "sda1",
		"meta-data/block-device-mapping/root":   "/dev/sda1",
		"meta-data/block-device-mapping/swap":   "sda3",
		"meta-data/hostname":                    "ip-172-31-0-10.ec2.internal",
		"meta-data/instance-id":                 "i-0a1b2c3d",
		"meta-data/instance-type":               "m1.small",
		"meta-data/kernel-id":                   "eki-22222222",
		"meta-data/local-hostname":              "ip-172-31-0-10.ec2.internal",
		"meta-data/local-ipv4":                  "172.31.0.10",
		"meta-data/mac":                         "d0:0d:0a:1b:2c:3d",
		"meta-data/placement/":                  "availability-zone\nregion",
		"meta-data/placement/availability-zone": "default",
		"meta-data/placement/region":            "us-east-1",
		"meta-data/public-hostname":             "127.5.6.7",
		"meta-data/public-ipv4":                 "127.5.6.7",
		"meta-data/public-keys":                 "0=mykey",
		"meta-data/public-keys/":                "0=mykey",
		"meta-data/public-keys/0":               "openssh-key",
		"meta-data/public-keys/0/":              "openssh-key",
		"meta-data/public-keys/0/openssh-key":   "ssh-ed25519 AAAA mykey",
		"meta-data/ramdisk-id":                  "eri-33333333",
		"meta-data/reservation-id":              "r-01020304",
		"meta-data/security-groups":             "default\nweb",
		"meta-data/services/domain":             "amazonaws.com",
		"meta-data/network/interfaces/macs":     i.MAC + "/",
		mac + "/device-number":                  "0",
		mac + "/local-ipv4s":                    "172.31.0.10",
		mac + "/mac":                            i.MAC,
		mac + "/owner-id":                       "000123456789",
		mac + "/public-ipv4s":                   "127.5.6.7",
		mac + "/security-group-ids":             "sg-00000001\nsg-00000002",
		mac + "/subnet-ipv4-cidr-block":         "172.31.0.0/16",
		mac + "/ipv4-associations/":             "127.5.6.7",
		mac + "/ipv4-associations/127.5.6.7":    "172.31.0.10",
		"dynamic/":                              "fws/\ninstance-identity/",
		"dynamic/fws/instance-monitoring":       "disabled",
		"dynamic/instance-identity":             "document\npkcs7\nrsa2048\nsignature",
		"meta-data/events/maintenance/":         "history\nscheduled",
		"meta-data/events/maintenance/history":  "[]",
		"meta-data/hibernation/configured":      "false",
	} {
		for _, version := range []string{"latest", "1.0", "2009-04-04", "2021-03-23"} {
			reply := w.do(i.ID, "GET", "/"+version+"/"+path)
			if got := reply.Body.String(); reply.Code != 200 || got != want {
				t.Errorf("%s/%s: %d %q, want %q", version, path, reply.Code, got, want)
			}
		}
	}
}

func TestWhatIsNotThere(t *testing.T) {
	least := hvm()
	w := newWorld(least)
	for _, path := range []string{
		"/1999-01-01/meta-data/", "/favicon.ico", "/latest/meta-data/nothing", "/latest/meta-data/instance-id/deeper",
		"/latest/user-data", "/latest/meta-data/public-keys/", "/latest/meta-data/public-keys/0/openssh-key",
		"/latest/meta-data/kernel-id", "/latest/meta-data/ramdisk-id", "/latest/meta-data/public-ipv4",
		"/latest/meta-data/public-hostname", "/latest/meta-data/block-device-mapping/swap",
		"/latest/meta-data/iam/info", "/latest/meta-data/iam/security-credentials/", "/latest/meta-data/spot/instance-action",
		"/latest/meta-data/tags/instance", "/latest/meta-data/events/recommendations/rebalance",
		"/latest/dynamic/instance-identity/nothing", "/latest/dynamic/instance-identity/signature/deeper", "/latest/api", "/latest/meta-data/network/interfaces/macs/d0:0d:00:00:00:00/mac",
		"/latest/../latest/meta-data/nothing",
	} {
		if reply := w.do(least.ID, "GET", path); reply.Code != 404 {
			t.Errorf("%s: %d %q", path, reply.Code, reply.Body)
		}
	}
}

// TestCrawl walks the tree as cloud-init does: what is listed has to be there.
func TestCrawl(t *testing.T) {
	for _, i := range []Instance{paravirtual(), hvm()} {
		w := newWorld(i)
		versions := w.do(i.ID, "GET", "/").Body.String()
		for version := range strings.Lines(versions) {
			base := "/" + strings.TrimSpace(version) + "/"
			if n := crawl(t, w, i.ID, base+"meta-data/"); n < 25 {
				t.Errorf("%s: %s has but %d leaves", i.ID, version, n)
			}
			crawl(t, w, i.ID, base+"dynamic/instance-identity")
		}
	}
}

// crawl counts the leaves below a folder.
func crawl(t *testing.T, w *world, as cloud.InstanceID, dir string) (leaves int) {
	t.Helper()
	dir = strings.TrimSuffix(dir, "/") + "/"
	reply := w.do(as, "GET", dir)
	if reply.Code != 200 || strings.HasSuffix(reply.Body.String(), "\n") {
		t.Errorf("list %s: %d %q", dir, reply.Code, reply.Body)
	}
	for name := range strings.SplitSeq(reply.Body.String(), "\n") {
		index, _, isKey := strings.Cut(name, "=")
		switch {
		case strings.HasSuffix(name, "/"):
			leaves += crawl(t, w, as, dir+name)
			continue
		case isKey:
			name = index + "/openssh-key"
		}
		leaf := w.do(as, "GET", dir+name)
		if leaf.Code != 200 || leaf.Header().Get("Content-Type") != "text/plain" || leaf.Header().Get("Server") != "EC2ws" {
			t.Errorf("%s%s: %d %v", dir, name, leaf.Code, leaf.Header())
		}
		leaves++
	}
	return leaves
}

func TestDocument(t *testing.T) {
	i := paravirtual()
	var got map[string]any
	body := newWorld(i).do(i.ID, "GET", "/latest/dynamic/instance-identity/document").Body.Bytes()
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"accountId": "000123456789", "architecture": "x86_64", "availabilityZone": "default", "imageId": "emi-11111111",
		"instanceId": "i-0a1b2c3d", "instanceType": "m1.small", "kernelId": "eki-22222222", "ramdiskId": "eri-33333333",
		"pendingTime": "2026-11-22T06:00:00Z", "privateIp": "172.31.0.10", "region": "us-east-1", "version": "2017-09-30",
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	least := hvm()
	body = newWorld(least).do(least.ID, "GET", "/latest/dynamic/instance-identity/document").Body.Bytes()
	if !bytes.Contains(body, []byte(`"kernelId": null`)) {
		t.Errorf("an instance without a kernel: %s", body)
	}
}

func TestUserDataIsBytes(t *testing.T) {
	i := paravirtual()
	for b := range 256 {
		i.UserData = append(i.UserData, byte(b))
	}
	reply := newWorld(i).do(i.ID, "GET", "/latest/user-data")
	if !bytes.Equal(reply.Body.Bytes(), i.UserData) || reply.Header().Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%v %q", reply.Header(), reply.Body)
	}
}

func TestMethods(t *testing.T) {
	i := hvm()
	w := newWorld(i)
	for _, test := range []struct {
		method, path string
		want         int
	}{
		{"HEAD", "/latest/meta-data/instance-id", 200},
		{"POST", "/latest/meta-data/instance-id", 405},
		{"PUT", "/latest/meta-data/instance-id", 405},
		{"DELETE", "/latest/user-data", 405},
		{"GET", "/latest/api/token", 405},
		{"POST", "/latest/api/token", 405},
	} {
		if got := w.do(i.ID, test.method, test.path, ttlHeader, "60").Code; got != test.want {
			t.Errorf("%s %s: %d, want %d", test.method, test.path, got, test.want)
		}
	}
}

func TestStrangers(t *testing.T) {
	w := newWorld(hvm())
	if got := w.do("i-ffffffff", "GET", "/latest/meta-data/instance-id").Code; got != 404 {
		t.Errorf("a port without an instance: %d", got)
	}
	reply := httptest.NewRecorder()
	w.ServeHTTP(reply, httptest.NewRequest("GET", "/latest/meta-data/instance-id", nil))
	if reply.Code != 404 {
		t.Errorf("nobody's request: %d", reply.Code)
	}
}

// TestDevicesOfAGuest as it was launched.
func TestDevicesOfAGuest(t *testing.T) {
	none := cloud.Mapping{Device: "/dev/sdb", NoDevice: true}
	elsewhere := cloud.Mapping{Device: "/dev/sdc", VirtualName: "ephemeral0"}
	for _, test := range []struct {
		name     string
		ebs      bool
		mappings []cloud.Mapping
		want     any
	}{
		{"as always", false, nil, "sdb"},
		{"suppressed", false, []cloud.Mapping{none}, nil},
		{"elsewhere", false, []cloud.Mapping{elsewhere}, "sdc"},
		{"beside a volume", true, []cloud.Mapping{elsewhere}, "sdc"},
		{"none beside a volume", true, nil, nil},
	} {
		i := Instance{Instance: cloud.Instance{Virtualization: cloud.HVM, RootDevice: "/dev/sda1", EBS: test.ebs, Mappings: test.mappings}}
		if got := devices(i); got["ephemeral0"] != test.want || got["root"] != "/dev/sda1" || got["ami"] != "sda1" {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// TestSwitchedOff: whoever is told nothing is told so, tokens included.
func TestSwitchedOff(t *testing.T) {
	i := hvm()
	i.MetadataOff = true
	w := newWorld(i)
	for _, test := range [][2]string{{"GET", "/latest/meta-data/instance-id"}, {"GET", "/"}, {"PUT", "/latest/api/token"}, {"GET", "/latest/user-data"}} {
		if got := w.do(i.ID, test[0], test[1], ttlHeader, "60").Code; got != 403 {
			t.Errorf("%s %s: %d, want 403", test[0], test[1], got)
		}
	}
}

func TestTags(t *testing.T) {
	i := hvm()
	i.MetadataTags, i.Tags = true, map[string]string{"Name": "web & co", "cost:of": ""}
	w := newWorld(i)
	for path, want := range map[string]string{"tags": "instance/", "tags/instance": "Name\ncost:of", "tags/instance/Name": "web & co", "tags/instance/cost:of": ""} {
		if reply := w.do(i.ID, "GET", "/latest/meta-data/"+path); reply.Code != 200 || reply.Body.String() != want {
			t.Errorf("%s: %d %q, want %q", path, reply.Code, reply.Body, want)
		}
	}
}

func TestVolumes(t *testing.T) {
	i := hvm()
	i.Volumes = []string{"/dev/sdf", "/dev/sdg"}
	w := newWorld(i)
	for path, want := range map[string]string{"": "ami\nebs1\nebs2\nemi\nephemeral0\nroot", "ebs1": "sdf", "ebs2": "sdg"} {
		if got := w.do(i.ID, "GET", "/latest/meta-data/block-device-mapping/"+path).Body.String(); got != want {
			t.Errorf("block-device-mapping/%s: %q, want %q", path, got, want)
		}
	}
}

// TestHopLimit: replies that carry a token are held to the instance's limit, and
// the others on the same connection are not.
func TestHopLimit(t *testing.T) {
	near, far := hvm(), paravirtual()
	far.HopLimit = 3
	w := newWorld(near, far)
	for _, test := range []struct {
		who          Instance
		method, path string
		want         int
	}{
		{near, "PUT", "/latest/api/token", 1}, {far, "PUT", "/latest/api/token", 3}, {far, "GET", leaf, 64},
	} {
		hops := 0
		r := httptest.NewRequest(test.method, test.path, nil)
		r.Header.Set(ttlHeader, "60")
		ctx := network.WithHops(network.WithCaller(r.Context(), string(test.who.ID)), func(n int) { hops = n })
		reply := httptest.NewRecorder()
		w.ServeHTTP(reply, r.WithContext(ctx))
		if reply.Code != 200 || hops != test.want {
			t.Errorf("%s %s of %s: %d, %d hops, want %d", test.method, test.path, test.who.ID, reply.Code, hops, test.want)
		}
	}
}
