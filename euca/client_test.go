package euca

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mallee/bundle"
	"mallee/cloud"
	"mallee/image"
	"mallee/wire/sigv4"
)

func TestServiceError(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"EC2", `<?xml version="1.0"?><Response><Errors><Error><Code>InvalidAMIID.NotFound</Code><Message>The image id 'emi-1' does not exist</Message></Error></Errors><RequestID>r</RequestID></Response>`, "error (InvalidAMIID.NotFound): The image id 'emi-1' does not exist"},
		{"IAM", `<ErrorResponse xmlns="x"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`, "error (AccessDenied): no"},
		{"S3", `<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>`, "error (NoSuchBucket): The specified bucket does not exist"},
		{"a page", "<html><body><h1>It works!</h1></body></html>", "error (502 Bad Gateway): <html><body><h1>It works!</h1></body></html>"},
		{"text", "not\nready\n", "error (502 Bad Gateway): not ready"},
		{"nothing", "", "error (502 Bad Gateway): "},
		{"bytes", "\xff\x00", "error (502 Bad Gateway): \uFFFD\x00"},
		{"very much", strings.Repeat("x", 1<<20), "error (502 Bad Gateway): " + strings.Repeat("x", maxQuote)},
	} {
		if got := serviceError("502 Bad Gateway", []byte(c.body)).Error(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// shop is a cloud that takes what an installation sends, and believes no
// signature that doesn't verify.
type shop struct {
	*testing.T
	*httptest.Server

	mu         sync.Mutex // guards what follows
	objects    map[string][]byte
	acls       map[string]string
	registered []string // name, location, kernel, ramdisk
	fail       string   // a path whose requests fail
}

func newShop(t *testing.T) *shop {
	s := &shop{T: t, objects: map[string][]byte{}, acls: map[string]string{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *shop) client() *Client {
	return &Client{Credentials: sigv4.Credentials{AccessKey: "AKIX", Secret: "secret"}, Region: "r", EC2: s.URL + "/ec2", S3: s.URL + "/s3", Account: "123456789012"}
}

func (s *shop) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	service := r.URL.Path[1:4]
	if service == "s3/" {
		service = "s3"
	}
	lookup := func(key, _ string) (string, bool) { return "secret", key == "AKIX" }
	if _, err := sigv4.Verify(r, body, lookup, time.Now(), sigv4.Options{Services: []string{service}}); err != nil {
		s.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != "" && strings.Contains(r.URL.Path, s.fail) {
		w.WriteHeader(http.StatusInsufficientStorage)
		io.WriteString(w, "<Error><Code>EntityTooLarge</Code><Message>the disk is full</Message></Error>")
		return
	}
	if service == "s3" {
		s.store(w, r, body)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	switch r.FormValue("Action") {
	case "DescribeImages":
		fmt.Fprint(w, "<DescribeImagesResponse><imagesSet>")
		for n, image := range s.registered {
			if strings.HasPrefix(image, r.FormValue("Filter.1.Value.1")+" ") {
				fmt.Fprintf(w, "<item><imageId>emi-%08x</imageId></item>", n)
			}
		}
		fmt.Fprint(w, "</imagesSet></DescribeImagesResponse>")
	case "RegisterImage":
		fmt.Fprintf(w, "<RegisterImageResponse><imageId>emi-%08x</imageId></RegisterImageResponse>", len(s.registered))
		s.registered = append(s.registered, strings.Join([]string{r.FormValue("Name"), r.FormValue("ImageLocation"), r.FormValue("KernelId"), r.FormValue("RamdiskId")}, " "))
	}
}

func (s *shop) store(w http.ResponseWriter, r *http.Request, body []byte) {
	key := strings.TrimPrefix(r.URL.Path, "/s3/")
	switch {
	case r.Method == http.MethodDelete:
		delete(s.objects, key)
	case strings.Contains(key, "/"):
		s.objects[key], s.acls[key] = body, r.Header.Get("X-Amz-Acl")
	case s.objects[key] != nil:
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, "<Error><Code>BucketAlreadyOwnedByYou</Code></Error>")
	default:
		s.objects[key] = []byte{}
	}
}

// newSecrets, in files as eucarc names them.
func newSecrets(t *testing.T) map[string]string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return map[string]string{
		"EUCALYPTUS_CERT": write("cloud", "CERTIFICATE", cert), "EC2_CERT": write("cert", "CERTIFICATE", cert),
		"EC2_PRIVATE_KEY": write("pk", "PRIVATE KEY", pk),
	}
}

func TestSecretsThatCannotBeRead(t *testing.T) {
	good := newSecrets(t)
	for name := range good {
		for _, path := range []string{filepath.Join(t.TempDir(), "none"), "client_test.go", ""} {
			vars := map[string]string{}
			for k, v := range good {
				vars[k] = v
			}
			vars[name] = path
			if _, err := readSecrets(vars); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s is %q: %v", name, path, err)
			}
		}
	}
	good["EC2_PRIVATE_KEY"] = good["EC2_CERT"]
	if _, err := readSecrets(good); err == nil {
		t.Error("a certificate was taken for a key")
	}
}

// trio is a built paravirtual image of three small files.
func trio(t *testing.T) image.Artifacts {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Repeat([]byte(name), 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return image.Artifacts{Version: "v1", Kernel: file("k"), Ramdisk: file("r"), Root: file("root")}
}

// An image is installed once, however often it is asked for; what broke off in
// the middle is finished.
func TestInstall(t *testing.T) {
	s := newShop(t)
	secrets, err := readSecrets(newSecrets(t))
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	in := installer{
		client: s.client(), secrets: secrets, show: newProgress(&said),
		parcel: parcel{name: "tiny-pv", version: "v1", arch: "x86_64", virtualization: cloud.Paravirtual, files: trio(t)},
	}
	s.fail = "tiny-pv-ramdisk"
	var refused *ServiceError
	if _, err := in.all(t.Context()); !errors.As(err, &refused) || refused.Message != "the disk is full" || !strings.Contains(err.Error(), "upload mallee-catalog/tiny-pv-ramdisk-v1/") {
		t.Errorf("error %v", err)
	}
	s.fail = ""
	for range 2 {
		ids, err := in.all(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := ids.String(); got != "IMAGE\temi-00000000\nIMAGE\temi-00000001\nIMAGE\temi-00000002" {
			t.Errorf("printed %s", got)
		}
	}
	want := []string{
		"tiny-pv-kernel-v1 mallee-catalog/tiny-pv-kernel-v1/tiny-pv-kernel.manifest.xml  ",
		"tiny-pv-ramdisk-v1 mallee-catalog/tiny-pv-ramdisk-v1/tiny-pv-ramdisk.manifest.xml  ",
		"tiny-pv-v1 mallee-catalog/tiny-pv-v1/tiny-pv.manifest.xml emi-00000000 emi-00000001",
	}
	if strings.Join(s.registered, "\n") != strings.Join(want, "\n") {
		t.Errorf("registered %q", s.registered)
	}
	for key, acl := range s.acls {
		if acl != execRead {
			t.Errorf("%s has the ACL %q", key, acl)
		}
	}
	manifest, err := bundle.ParseManifest(s.objects["mallee-catalog/tiny-pv-v1/tiny-pv.manifest.xml"])
	if err != nil || len(manifest.Parts) != 1 || s.objects["mallee-catalog/tiny-pv-v1/"+manifest.Parts[0].Name] == nil {
		t.Errorf("manifest %+v, %v", manifest, err)
	}
	if strings.Contains(said.String(), "\r") || strings.Count(said.String(), "register tiny-pv\n") != 1 {
		t.Errorf("said in a pipe: %q", said.String())
	}
}

func TestConnect(t *testing.T) {
	f := Folder(t.TempDir())
	if _, _, err := Connect(f); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody there: %v", err)
	}
	lock, err := f.Lock()
	if err == nil {
		defer lock.Release()
		err = lock.Tell(Holder{PID: os.Getpid(), Listen: "x:1"})
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Connect(f); err == nil || !strings.Contains(err.Error(), "eucarc") {
		t.Errorf("no eucarc: %v", err)
	}
	if err := os.WriteFile(f.Path("eucarc"), []byte("export EC2_URL='http://x/ec2'\nexport AWS_SECRET_ACCESS_KEY='it'\\''s'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := Connect(f)
	if err != nil || c.EC2 != "http://x/ec2" || c.Credentials.Secret != "it's" {
		t.Errorf("%+v, %v", c, err)
	}
}

// A cloud that is gone, that answers nonsense, and a user who has had enough.
func TestQueryFails(t *testing.T) {
	s := newShop(t)
	c := s.client()
	if err := c.Query(t.Context(), "Nonsense", nil, &struct{}{}); err == nil || !strings.Contains(err.Error(), "Nonsense: the reply can't be read") {
		t.Errorf("an empty reply: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Query(ctx, "DescribeImages", nil, &struct{}{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	s.Close()
	if err := c.Query(t.Context(), "DescribeImages", nil, &struct{}{}); err == nil || !strings.HasPrefix(err.Error(), "DescribeImages: ") {
		t.Errorf("nobody there: %v", err)
	}
}
