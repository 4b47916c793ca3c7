package front

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"mallee/blob/mem"
	"mallee/cloud"
	"mallee/ebs"
	"mallee/ec2"
	"mallee/iam"
	"mallee/snapshot"
	"mallee/state"
	"mallee/wire"
	"mallee/wire/sigv4"
)

func now() time.Time { return time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC) }

// door is a front with real rooms behind it, and a mark where S3 would be.
type door struct {
	*testing.T
	*Front
	log  bytes.Buffer
	keys sigv4.Credentials
}

type nothing struct{}

func (nothing) StatObject(context.Context, iam.Principal, string, string) (int64, error) {
	return 0, fs.ErrNotExist
}

func (nothing) KeysOf(context.Context, iam.Principal, string, string, bool) ([]string, error) {
	return nil, fs.ErrNotExist
}

func (nothing) OwnBucket(context.Context, iam.Principal, string) error { return fs.ErrPermission }

func (nothing) ReadObject(context.Context, iam.Principal, string, string, int64) ([]byte, error) {
	return nil, fs.ErrNotExist
}

func (nothing) Screenshot(context.Context, cloud.InstanceID, bool) ([]byte, error) {
	return nil, fs.ErrNotExist
}

func (nothing) Console(context.Context, cloud.InstanceID) (io.ReadSeekCloser, error) {
	return nil, fs.ErrNotExist
}

func newDoor(t *testing.T) *door {
	t.Helper()
	d := &door{T: t}
	log := slog.New(slog.NewTextHandler(&d.log, nil))
	store, err := state.OpenMemory(t.Context(), state.NewMemory(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	users, err := iam.Open(t.Context(), iam.Options{Store: store, Dir: t.TempDir(), Now: now, Rand: rand.Reader, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := users.SystemAdmin()
	if err != nil {
		t.Fatal(err)
	}
	d.keys = sigv4.Credentials{AccessKey: admin.AccessKey, Secret: admin.Secret}
	api, err := ec2.New(ec2.Options{
		Store: store, IAM: users, Objects: nothing{}, Console: nothing{},
		Pools:  state.Pools{Local: netip.MustParsePrefix("172.31.0.0/16"), Public: netip.MustParsePrefix("127.20.0.0/16")},
		Region: iam.Region, Endpoint: "http://cloud", Now: now, Rand: rand.Reader, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	s3 := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "s3 "+r.URL.Path) })
	contents, err := snapshot.Open(mem.New(), t.TempDir(), snapshot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { contents.Close() })
	blocks := ebs.New(ebs.Options{Store: store, IAM: users, Contents: contents, Secret: []byte("secret"), Region: iam.Region, Now: now, Rand: rand.Reader, Log: log})
	d.Front = &Front{EC2: api, EBS: blocks, IAM: users, S3: s3, Ready: store.Err, Now: now, Log: log}
	return d
}

// request with a form, signed for the service unless that is "".
func (d *door) request(method, path, service, form string) *http.Request {
	d.Helper()
	var body []byte
	url := "http://cloud" + path
	if method == http.MethodPost {
		body = []byte(form)
	} else if form != "" {
		url += "?" + form
	}
	r := httptest.NewRequest(method, url, bytes.NewReader(body))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	}
	if service != "" {
		if err := sigv4.Sign(r, body, d.keys, iam.Region, service, now()); err != nil {
			d.Fatal(err)
		}
	}
	return r
}

func (d *door) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

const (
	regions  = "Action=DescribeRegions&Version=2016-11-15"
	identity = "Action=GetCallerIdentity&Version=2011-06-15"
	user     = "Action=GetUser&Version=2010-05-08"
)

// Who answers is told by the path, or by what the request is signed for.
func TestRouting(t *testing.T) {
	d := newDoor(t)
	for _, c := range []struct {
		method, path, service, form string
		status                      int
		want                        string
	}{
		{"POST", "/services/compute", "ec2", regions, 200, "<DescribeRegionsResponse"},
		{"POST", "/services/compute/", "ec2", regions, 200, "<DescribeRegionsResponse"},
		{"POST", "/services/Eucalyptus", "ec2", regions, 200, "<DescribeRegionsResponse"},
		{"GET", "/services/compute", "ec2", regions, 200, "<DescribeRegionsResponse"},
		{"POST", "/", "ec2", regions, 200, "<DescribeRegionsResponse"},
		{"GET", "/", "ec2", regions, 200, "<DescribeRegionsResponse"},
		{"POST", "/services/Euare", "iam", user, 200, "<GetUserResponse"},
		{"POST", "/", "iam", user, 200, "<GetUserResponse"},
		{"POST", "/services/Tokens", "sts", identity, 200, "<GetCallerIdentityResponse"},
		{"POST", "/", "sts", identity, 200, "<GetCallerIdentityResponse"},
		{"GET", "/services/objectstorage", "s3", "", 200, "s3 /services/objectstorage"},
		{"PUT", "/services/objectstorage/b/k", "s3", "", 200, "s3 /services/objectstorage/b/k"},
		{"GET", "/services/Walrus/b", "", "", 200, "s3 /services/Walrus/b"},
		{"GET", "/services/objectstorage/b", "ec2", "", 200, "s3 /services/objectstorage/b"}, // S3 refuses it itself
		{"GET", "/bucket/key", "s3", "", 200, "s3 /bucket/key"},
		{"GET", "/bucket/key", "", "", 200, "s3 /bucket/key"},
		{"GET", "/", "", "", 200, "s3 /"},
		{"GET", "/services/elsewhere", "", "", 200, "s3 /services/elsewhere"},

		{"POST", "/", "", regions, 403, "<Response><Errors><Error><Code>MissingAuthenticationToken"},
		{"GET", "/", "", regions, 403, "<Response><Errors><Error><Code>MissingAuthenticationToken"},
		{"POST", "/services/compute", "", regions, 403, "<Response><Errors><Error><Code>MissingAuthenticationToken"},
		{"POST", "/services/Euare", "", user, 403, `<ErrorResponse xmlns="` + wire.IAMNamespace},
		{"POST", "/services/Tokens", "", identity, 403, `<ErrorResponse xmlns="` + wire.STSNamespace},
		{"POST", "/services/compute", "s3", regions, 403, "<Response><Errors><Error><Code>SignatureDoesNotMatch"},
		{"POST", "/services/Euare", "ec2", user, 403, `<ErrorResponse xmlns="` + wire.IAMNamespace},
		{"POST", "/", "sqs", "Action=ListQueues", 403, "the service sqs, which this cloud does not have"},
		{"POST", "/services/compute", "ec2", "Action=Nonsense&Version=2016-11-15", 400, "<Code>InvalidAction</Code>"},
		{"POST", "/services/compute", "ec2", "", 400, "<Code>MissingParameter</Code>"},
		{"PUT", "/services/compute", "ec2", regions, 405, "<Code>MethodNotAllowed</Code>"},
		{"DELETE", "/services/Tokens", "sts", identity, 405, "<Code>MethodNotAllowed</Code>"},
	} {
		w := d.do(d.request(c.method, c.path, c.service, c.form))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s for %q: %d %s, want %d %s", c.method, c.path, c.service, w.Code, w.Body, c.status, c.want)
		}
	}
	if d.log.Len() > 0 {
		t.Errorf("a client's mistakes are in the log: %s", d.log.String())
	}
}

func TestHealth(t *testing.T) {
	d := newDoor(t)
	for _, path := range []string{"/healthz", "/healthz/"} {
		if w := d.do(d.request("GET", path, "", "")); w.Code != 200 || w.Body.String() != "ok\n" {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	d.Ready = func() error { return errors.New("the disk with the secret name is gone") }
	w := d.do(d.request("GET", "/healthz", "", ""))
	if w.Code != 503 || strings.Contains(w.Body.String(), "secret") || !strings.Contains(d.log.String(), "secret") {
		t.Errorf("%d %s, log %s", w.Code, w.Body, d.log.String())
	}
}

var requestID = regexp.MustCompile(`<(?i:requestid)>([0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})</`)

func TestRequestIDs(t *testing.T) {
	d := newDoor(t)
	seen := map[string]bool{}
	for _, r := range []*http.Request{
		d.request("POST", "/", "ec2", regions), d.request("POST", "/", "", regions),
		d.request("POST", "/services/Tokens", "sts", identity), d.request("POST", "/services/Tokens", "", identity),
	} {
		w := d.do(r)
		m := requestID.FindStringSubmatch(w.Body.String())
		if m == nil || seen[m[1]] {
			t.Fatalf("%s: no request id, or one that was used: %v", w.Body, m)
		}
		seen[m[1]] = true
		if h := w.Header().Get("X-Amzn-Requestid"); h != m[1] {
			t.Errorf("the header says %q, the reply %s", h, m[1])
		}
	}
}

// An internal failure tells the client its id alone, and the log the rest.
func TestFailuresAreLogged(t *testing.T) {
	d := newDoor(t)
	w := httptest.NewRecorder()
	d.refuse(w, serviceEC2, "id-7", errors.New("the disk with the secret name is gone"))
	if w.Code != 500 || strings.Contains(w.Body.String(), "secret") || !strings.Contains(w.Body.String(), "id-7") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if log := d.log.String(); !strings.Contains(log, "secret") || !strings.Contains(log, "request=id-7") {
		t.Errorf("log: %s", log)
	}
}

func TestHostileRequests(t *testing.T) {
	d := newDoor(t)
	large := strings.Repeat("x", wire.DefaultLimit+1)
	cut := httptest.NewRequest("POST", "/services/compute", io.MultiReader(strings.NewReader("Action="), broken{}))
	token := d.request("POST", "/services/compute", "", regions)
	keys := d.keys
	keys.Token = "a session"
	if err := sigv4.Sign(token, []byte(regions), keys, iam.Region, "ec2", now()); err != nil {
		t.Fatal(err)
	}
	old := d.request("POST", "/services/compute", "", regions)
	if err := sigv4.Sign(old, []byte(regions), d.keys, iam.Region, "ec2", now().Add(-24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	changed := d.request("POST", "/services/compute", "ec2", regions)
	changed.Body = io.NopCloser(strings.NewReader(strings.Replace(regions, "Regions", "Instances", 1)))
	stranger := d.request("POST", "/services/compute", "", regions)
	if err := sigv4.Sign(stranger, []byte(regions), sigv4.Credentials{AccessKey: "AKINOBODY", Secret: "s"}, iam.Region, "ec2", now()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		r      *http.Request
		status int
		code   string
	}{
		{"a body that is too large", d.request("POST", "/services/compute", "ec2", large), 413, "RequestEntityTooLarge"},
		{"a body that breaks off", cut, 400, "IncompleteBody"},
		{"a session token", token, 0, ""},
		{"an old signature", old, 0, ""},
		{"a changed body", changed, 0, ""},
		{"a stranger's key", stranger, 0, ""},
	} {
		w := d.do(c.r)
		if c.status == 0 && (w.Code < 400 || w.Code > 403) || c.status > 0 && w.Code != c.status || !strings.Contains(w.Body.String(), c.code) || strings.Contains(w.Body.String(), "DescribeRegionsResponse") {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A principal who was found and whose signature is wrong is nobody.
func TestNobodyIsLeftOfAWrongSignature(t *testing.T) {
	d := newDoor(t)
	d.keys.Secret = strings.Repeat("x", 40)
	_, who, err := d.authenticate(d.request("POST", "/services/compute", "ec2", regions), serviceEC2)
	if err == nil || who != (iam.Principal{}) {
		t.Errorf("%+v, %v", who, err)
	}
}

// block is a request of the EBS direct API, signed, with its body's digest or
// without.
func (d *door) block(method, path string, body []byte, unsigned bool) *http.Request {
	d.Helper()
	r := httptest.NewRequest(method, "http://cloud"+path, bytes.NewReader(body))
	sum := sha256.Sum256(body)
	payload := hex.EncodeToString(sum[:])
	if unsigned {
		payload = "UNSIGNED-PAYLOAD"
		r.Header.Set("X-Amz-Content-Sha256", payload)
	}
	r.Header.Set("X-Amz-Checksum", base64.StdEncoding.EncodeToString(sum[:]))
	r.Header.Set("X-Amz-Checksum-Algorithm", "SHA256")
	r.Header.Set("X-Amz-Data-Length", strconv.Itoa(len(body)))
	if err := sigv4.SignHash(r, payload, d.keys, iam.Region, ebs.Service, now()); err != nil {
		d.Fatal(err)
	}
	return r
}

// TestBlocks come by their own route, signed as a whole or without their bodies,
// whose digests are among the headers that are signed.
func TestBlocks(t *testing.T) {
	d := newDoor(t)
	w := d.do(d.block("POST", "/snapshots", []byte(`{"VolumeSize": 1}`), false))
	var started struct {
		SnapshotID string `json:"SnapshotId"`
		Status     string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &started); err != nil || w.Code != 201 || started.Status != "pending" {
		t.Fatalf("started: %d %s, %v", w.Code, w.Body, err)
	}
	path := "/snapshots/" + started.SnapshotID + "/blocks/"
	body := bytes.Repeat([]byte{7}, snapshot.BlockSize)
	for n, unsigned := range []bool{false, true} {
		if w := d.do(d.block("PUT", path+strconv.Itoa(n), body, unsigned)); w.Code != 201 {
			t.Errorf("unsigned %t: %d %s", unsigned, w.Code, w.Body)
		}
	}
	changed := d.block("PUT", path+"2", body, true)
	changed.Body = io.NopCloser(bytes.NewReader(bytes.Repeat([]byte{8}, snapshot.BlockSize)))
	headers := d.block("PUT", path+"2", body, true)
	headers.Header.Set("X-Amz-Checksum", "another")
	stranger := d.block("GET", path+"2", nil, false)
	stranger.Header.Set("Authorization", strings.Replace(stranger.Header.Get("Authorization"), d.keys.AccessKey, "AKIDNOBODY", 1))
	cut := d.block("PUT", path+"2", body, true)
	cut.Body = io.NopCloser(io.MultiReader(strings.NewReader("half"), broken{}))
	for _, c := range []struct {
		name   string
		r      *http.Request
		status int
		kind   string
	}{
		{"another body under the signature", changed, 400, "ValidationException"},
		{"another digest under the signature", headers, 403, "InvalidSignatureException"},
		{"a stranger", stranger, 403, "UnrecognizedClientException"},
		{"a body that is too long", d.block("PUT", path+"2", append(body, 1), true), 400, "ValidationException"},
		{"a body that breaks off", cut, 400, "ValidationException"},
		{"no snapshot", d.block("GET", "/snapshots/snap-99999999/blocks", nil, false), 404, "ResourceNotFoundException"},
		{"no such thing", d.block("DELETE", path+"2", nil, false), 400, "ValidationException"},
	} {
		w := d.do(c.r)
		var said struct{ Message string }
		if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || said.Message == "" {
			t.Errorf("%s: no JSON that says why: %s", c.name, w.Body)
		}
		if h := w.Header(); w.Code != c.status || h.Get("X-Amzn-Errortype") != c.kind || h.Get("X-Amzn-Requestid") == "" || h.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v %s", c.name, w.Code, h, w.Body)
		}
	}
	done := d.block("POST", "/snapshots/completion/"+started.SnapshotID, nil, false)
	done.Header.Del("X-Amz-Checksum")
	done.Header.Set("X-Amz-ChangedBlocksCount", "2")
	if err := sigv4.Sign(done, nil, d.keys, iam.Region, ebs.Service, now()); err != nil {
		t.Fatal(err)
	}
	if w := d.do(done); w.Code != 202 {
		t.Errorf("completed: %d %s", w.Code, w.Body)
	}
	if d.log.Len() > 0 {
		t.Errorf("a client's mistakes are in the log: %s", d.log.String())
	}
}

// TestBlocksWithoutASignature are S3's, whose door is the default: no path is the
// EBS direct API's by itself.
func TestBlocksWithoutASignature(t *testing.T) {
	d := newDoor(t)
	if w := d.do(httptest.NewRequest("GET", "http://cloud/snapshots/snap-1/blocks", nil)); w.Body.String() != "s3 /snapshots/snap-1/blocks" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
