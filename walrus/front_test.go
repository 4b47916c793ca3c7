package walrus

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

func TestOwns(t *testing.T) {
	for path, want := range map[string]bool{
		"/services/objectstorage": true, "/services/objectstorage/": true, "/services/objectstorage/b/k": true,
		"/services/Walrus/b": true, "/services/objectstorages": false, "/services/compute": false, "/": false,
		"/bucket/services/objectstorage": false,
	} {
		if got := Owns(path); got != want {
			t.Errorf("Owns(%q) = %v", path, got)
		}
	}
}

// signed makes a request signed for a service.
func (c *cloud) signed(method, path, service, body string) *http.Request {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte(body)))
	r.Header.Set("X-Amz-Content-Sha256", hash)
	creds := aws.Credentials{AccessKeyID: "AKIANNA", SecretAccessKey: "anna-secret"}
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hash, service, "us-east-1", time.Now()); err != nil {
		c.t.Fatal(err)
	}
	return r
}

// One connection may carry requests for all services, in any order.
func TestOneConnectionForAllServices(t *testing.T) {
	c := start(t, t.TempDir())
	c.bucket(c.anna(), "bucket")
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxConnsPerHost: 1}}
	reused := 0
	send := func(r *http.Request, status int, want string) {
		t.Helper()
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
			if i.Reused {
				reused++
			}
		}}
		out, err := client.Do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Body.Close()
		body, err := io.ReadAll(out.Body)
		if err != nil || out.StatusCode != status || !strings.Contains(string(body), want) {
			t.Errorf("%s %s: %d %.200s, %v; want %d with %q", r.Method, r.URL, out.StatusCode, body, err, status, want)
		}
	}
	ec2 := "Action=DescribeInstances&Version=2016-11-15"
	for range 2 { // the first time round the front has the connection, the second time Walrus
		send(c.signed("POST", "/", "ec2", ec2), 200, "<front>ec2 / "+ec2)
		send(c.signed("PUT", "/bucket/key", "s3", "body"), 200, "")
		send(c.signed("GET", "/bucket/key", "s3", ""), 200, "body")
		send(c.signed("POST", "/services/compute", "ec2", ec2), 200, "<front>ec2 /services/compute")
		anonymous, err := http.NewRequestWithContext(t.Context(), "GET", c.url+"/bucket/key", nil)
		if err != nil {
			t.Fatal(err)
		}
		send(anonymous, 403, "AccessDenied")
		health, err := http.NewRequestWithContext(t.Context(), "GET", c.url+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		send(health, 200, "<front> /healthz")
		send(c.signed("GET", "/services/objectstorage/bucket/key", "s3", ""), 200, "body")
	}
	if reused != 13 {
		t.Errorf("of 14 requests %d came on a used connection, want 13", reused)
	}
}

func TestPortOfItsOwn(t *testing.T) {
	c := start(t, t.TempDir())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Serve(ln) }()
	s := clientAt("http://"+ln.Addr().String(), "AKIANNA", "anna-secret")
	c.bucket(s, "bucket")
	c.put(s, "bucket", "key", "body")
	c.stop()
	if err := <-done; err != nil {
		t.Errorf("serve ended with %v", err)
	}
}

// A client that waits for leave to send its body gets it from whoever has the
// connection.
func TestExpectContinue(t *testing.T) {
	c := start(t, t.TempDir())
	c.bucket(c.anna(), "bucket")
	r := c.signed("PUT", "/bucket/key", "s3", "body")
	r.Header.Set("Expect", "100-continue")
	got := false
	trace := &httptrace.ClientTrace{Got100Continue: func() { got = true }}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{ExpectContinueTimeout: 20 * time.Second}}
	out, err := client.Do(r.WithContext(httptrace.WithClientTrace(t.Context(), trace)))
	if err != nil {
		t.Fatal(err)
	}
	out.Body.Close()
	if !got || out.StatusCode != 200 {
		t.Errorf("leave given: %v, status %d", got, out.StatusCode)
	}
}

func TestHeadIsReplayed(t *testing.T) {
	raw := "PUT /a%20b?x=%2F&y HTTP/1.1\r\nHost: h:1\r\nContent-Length: 2\r\nX-Amz-Meta-A: 1\r\nX-Amz-Meta-A: 2\r\nExpect: 100-continue\r\n\r\n"
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	again, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(requestHead(r))))
	if err != nil {
		t.Fatal(err)
	}
	if again.RequestURI != r.RequestURI || again.Host != r.Host || fmt.Sprint(again.Header) != fmt.Sprint(r.Header) || again.ContentLength != 2 {
		t.Errorf("sent %q, replayed as %q", raw, requestHead(r))
	}
}

func TestOnlyOneStoreInAProcess(t *testing.T) {
	c := start(t, t.TempDir())
	if _, err := Open(Options{Dir: t.TempDir(), Identity: c.keys}); err != ErrOpen {
		t.Errorf("a second store: %v, want %v", err, ErrOpen)
	}
}
