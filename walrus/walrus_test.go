package walrus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"mallee/wire/sigv4"
)

// keyring is an Identity in memory.
type keyring struct {
	mu   sync.Mutex // guards keys
	keys map[string]Account
}

func (k *keyring) Lookup(access string) (Account, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a, ok := k.keys[access]
	return a, ok
}

func (k *keyring) Exists(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range k.keys {
		if a.ID == id {
			return true
		}
	}
	return false
}

func (k *keyring) disable(access string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, access)
}

const (
	adminID = "000000000001"
	annaID  = "000000000002"
	bertID  = "000000000003"
)

func testKeys() *keyring {
	return &keyring{keys: map[string]Account{
		"AKIADMIN":  {ID: adminID, Secret: "admin-secret", Admin: true},
		"AKIANNA":   {ID: annaID, Secret: "anna-secret"},
		"AKIANNATO": {ID: annaID, Secret: "anna-other-secret"},
		"AKIBERT":   {ID: bertID, Secret: "bert-secret"},
		"ASIATEMP":  {ID: annaID, Secret: "temp-secret", SessionToken: "token"},
	}}
}

// cloud is a Walrus behind a front as mallee has it: one port for everything.
type cloud struct {
	*Walrus
	t    *testing.T
	keys *keyring
	url  string
	log  *bytes.Buffer // what Walrus logged; read it after the last request
}

// start opens a Walrus on dir behind a front; it ends with the test.
func start(t *testing.T, dir string) *cloud {
	t.Helper()
	return startWith(t, dir, func(*Options) {})
}

// startWith is start with other options.
func startWith(t *testing.T, dir string, change func(*Options)) *cloud {
	t.Helper()
	c := &cloud{t: t, keys: testKeys(), log: &bytes.Buffer{}}
	front := &front{}
	var err error
	o := Options{
		Dir: dir, Identity: c.keys, Elsewhere: front,
		Logger: slog.New(slog.NewTextHandler(c.log, nil)),
	}
	change(&o)
	c.Walrus, err = Open(o)
	if err != nil {
		t.Fatal(err)
	}
	front.walrus = c.Handler()
	server := &http.Server{Handler: front, ReadHeaderTimeout: time.Minute}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	c.url = "http://" + ln.Addr().String()
	t.Cleanup(func() {
		server.Close()
		<-done
		if c.Walrus != nil {
			c.stop()
		}
	})
	return c
}

func (c *cloud) stop() {
	c.t.Helper()
	if err := c.Close(); err != nil {
		c.t.Errorf("close: %v", err)
	}
	c.Walrus = nil
}

// front answers EC2 and hands the rest to Walrus.
type front struct{ walrus http.Handler }

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	service := sigv4.ServiceOf(r)
	if service == "s3" || Owns(r.URL.Path) || service == "" && r.URL.Path != "/healthz" {
		f.walrus.ServeHTTP(w, r)
		return
	}
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, "<front>%s %s %s</front>", service, r.URL.Path, body)
}

// client is an S3 client of the SDK with a key, at the cloud's own address.
func (c *cloud) client(access, secret string) *s3.Client { return clientAt(c.url, access, secret) }

func (c *cloud) anna() *s3.Client  { return c.client("AKIANNA", "anna-secret") }
func (c *cloud) bert() *s3.Client  { return c.client("AKIBERT", "bert-secret") }
func (c *cloud) admin() *s3.Client { return c.client("AKIADMIN", "admin-secret") }

func clientAt(url, access, secret string) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: &url, Region: "us-east-1", UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: access, SecretAccessKey: secret}, nil
		}),
		HTTPClient: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}},
	})
}

func (c *cloud) bucket(s *s3.Client, name string) {
	c.t.Helper()
	if _, err := s.CreateBucket(c.t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		c.t.Fatalf("create bucket %s: %v", name, err)
	}
}

// bucketWithACLs makes a bucket whose objects may have ACLs: a new one's may not.
func (c *cloud) bucketWithACLs(s *s3.Client, name string) {
	c.t.Helper()
	_, err := s.CreateBucket(c.t.Context(), &s3.CreateBucketInput{Bucket: &name, ObjectOwnership: types.ObjectOwnershipObjectWriter})
	if err != nil {
		c.t.Fatalf("create bucket %s: %v", name, err)
	}
}

func (c *cloud) put(s *s3.Client, bucket, key, body string) {
	c.t.Helper()
	_, err := s.PutObject(c.t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(body)})
	if err != nil {
		c.t.Fatalf("put %s/%s: %v", bucket, key, err)
	}
}

func (c *cloud) get(s *s3.Client, bucket, key string) (string, error) {
	out, err := s.GetObject(c.t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return "", err
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	return string(body), err
}

// wantCode fails unless err is an S3 error with the code.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != code {
		t.Errorf("got %v, want S3 error %s", err, code)
	}
}

func wantBody(t *testing.T, got string, err error, want string) {
	t.Helper()
	if err != nil || got != want {
		t.Errorf("got %.40q (%d bytes), %v; want %.40q (%d bytes)", got, len(got), err, want, len(want))
	}
}
