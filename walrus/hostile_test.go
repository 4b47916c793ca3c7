package walrus

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Whatever comes in, the answer is the client's fault and nothing is left.
func TestHostileRequests(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir)
	c.bucket(c.anna(), "bucket")
	c.put(c.anna(), "bucket", "file", "x")
	long := strings.Repeat("n", 256)
	for _, r := range []struct {
		method, path, body string
		status             int
	}{
		{"PUT", "/bucket/a%00b", "x", 400},
		{"GET", "/bucket/a%00b", "", 400},
		{"PUT", "/bucket/" + long, "x", 400},
		{"GET", "/bucket/" + long, "", 400},
		{"PUT", "/bucket/" + strings.Repeat("a/", 600), "", 400},
		{"PUT", "/bucket/../../etc/passwd", "x", 400},
		{"PUT", "/bucket/%2e%2e/%2e%2e/etc", "x", 400},
		{"GET", "/bucket/%2e%2e/bucket/file", "", 400},
		{"PUT", "/bucket/.sgwtmp/x", "x", 400},
		{"PUT", "/bucket//.sgwtmp/x", "x", 400},
		{"PUT", "/bucket/a/./b", "x", 400},
		{"DELETE", "/bucket/.sgwtmp/multipart", "", 400},
		{"PUT", "/bucket/file/below", "x", 409},
		{"GET", "/bucket/file/below", "", 404},
		{"PUT", "/bucket/folder/", "data", 400},
		{"PUT", "/B!", "", 400},
		{"PUT", "/.vgwlocks", "", 400},
		{"GET", "/nosuch/key", "", 404},
		{"PUT", "/bucket?policy", "{", 400},
		{"PUT", "/bucket?tagging", "<Tagging>", 400},
		{"PUT", "/bucket?acl", "<AccessControlPolicy/>", 400},
		{"POST", "/bucket?delete", "not xml", 400},
		{"POST", "/bucket/key?uploadId=none", "<CompleteMultipartUpload/>", 400},
		{"POST", "/bucket/key?uploadId=none", completeOne, 404},
		{"PUT", "/bucket/key?partNumber=0&uploadId=none", "x", 400},
		{"PUT", "/bucket/key?partNumber=1&uploadId=../../..", "x", 404},
		{"PUT", "/bucket/key?partNumber=10001&uploadId=none", "x", 400},
		{"GET", "/bucket?max-keys=-1", "", 400},
		{"GET", "/bucket/file?versionId=nonsense", "", 400},
		{"PUT", "/bucket/key?partNumber=1&uploadId=../../../../other", "x", 404},
		{"GET", "/bucket/key?uploadId=../../..", "", 404},
		{"DELETE", "/bucket/key?uploadId=../../..", "", 404},
		{"POST", "/bucket/key?uploadId=../../..", completeOne, 404},
		{"BREW", "/bucket/file", "", 501},
	} {
		out := c.send(c.signed(r.method, r.path, "s3", r.body))
		if out.status != r.status {
			t.Errorf("%s %.60s: %d %.300s, want %d", r.method, r.path, out.status, out.body, r.status)
		}
	}
	c.wantOnly(dir, "bucket/file")
	if c.log.Len() > 0 {
		t.Errorf("logged: %s", c.log)
	}
}

const completeOne = `<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"x"</ETag></Part></CompleteMultipartUpload>`

// Keys that come in a body or a header don't lead into another's bucket.
func TestKeysThatLeadOut(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir)
	c.bucket(c.anna(), "annas")
	c.put(c.anna(), "annas", "key", "secret")
	c.bucket(c.bert(), "berts")
	c.put(c.bert(), "berts", "own", "x")
	out, err := c.bert().DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: aws.String("berts"), Delete: &types.Delete{
		Objects: []types.ObjectIdentifier{{Key: aws.String("../annas/key")}, {Key: aws.String("own")}, {Key: aws.String(".sgwtmp/x")}},
	}})
	if err != nil || len(out.Errors) != 2 || len(out.Deleted) != 1 {
		t.Errorf("delete by keys that lead out: %+v, %v", out, err)
	}
	for _, source := range []string{"berts/../annas/key", "berts/%2e%2e/annas/key", "annas/key"} {
		_, err := c.bert().CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("berts"), Key: aws.String("stolen"), CopySource: &source})
		if err == nil {
			t.Errorf("copied from %s", source)
		}
	}
	for _, prefix := range []string{"../annas/", "../", "/"} {
		list, err := c.bert().ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("berts"), Prefix: &prefix})
		if err == nil && len(list.Contents) > 0 {
			t.Errorf("prefix %s lists %v", prefix, list.Contents)
		}
	}
	c.wantOnly(dir, "annas/key")
}

type answer struct {
	status int
	body   string
}

func (c *cloud) send(r *http.Request) answer {
	c.t.Helper()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	out, err := client.Do(r)
	if err != nil {
		c.t.Fatalf("%s %.80s: %v", r.Method, r.URL, err)
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer{out.StatusCode, string(body)}
}

// wantOnly fails if the folder holds other files than these.
func (c *cloud) wantOnly(dir string, want ...string) {
	c.t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(dir, path)
			files = append(files, name)
		}
		return err
	})
	if err != nil || fmt.Sprint(files) != fmt.Sprint(want) {
		c.t.Errorf("the folder holds %q, %v; want %q", files, err, want)
	}
}

func TestBodiesThatLie(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir)
	c.bucket(c.anna(), "bucket")
	wrong := c.signed("PUT", "/bucket/key", "s3", "body")
	wrong.Body, wrong.ContentLength = io.NopCloser(strings.NewReader("bodX")), 4
	if out := c.send(wrong); out.status != 400 || !strings.Contains(out.body, "XAmzContentSHA256Mismatch") {
		t.Errorf("other bytes than signed: %+v", out)
	}
	digest := c.signed("PUT", "/bucket/key", "s3", "body")
	digest.Header.Set("Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA==")
	if out := c.send(digest); out.status != 400 || !strings.Contains(out.body, "BadDigest") {
		t.Errorf("a digest that doesn't match: %+v", out)
	}
	huge := c.signed("PUT", "/bucket?policy", "s3", "{}")
	huge.Body, huge.ContentLength = io.NopCloser(io.LimitReader(zeros{}, 1<<30)), 1<<30
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}
	if out, err := client.Do(huge); err == nil { // the server may hang up first
		out.Body.Close()
		if out.StatusCode != 400 {
			t.Errorf("a policy of 1 GiB: %d", out.StatusCode)
		}
	}
	c.wantOnly(dir)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A client that hangs up in the middle of a body leaves nothing.
func TestCutBody(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir)
	c.bucket(c.anna(), "bucket")
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	r := c.signed("PUT", "/bucket/key", "s3", strings.Repeat("x", 100_000))
	r.Body, r.ContentLength = http.NoBody, 0
	fmt.Fprintf(conn, "PUT /bucket/key HTTP/1.1\r\nHost: %s\r\nContent-Length: 100000\r\n", r.URL.Host)
	if err := r.Header.Write(conn); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "\r\n%s", strings.Repeat("x", 50_000))
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil { // until the server has given up
		t.Logf("reading the answer: %v", err)
	}
	conn.Close()
	_, err = c.get(c.anna(), "bucket", "key")
	wantCode(t, err, "NoSuchKey")
	c.wantOnly(dir)
}

func TestOverwriteShowsNoTemporaryName(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir)
	c.bucket(c.anna(), "bucket")
	for i := range 3 {
		c.put(c.anna(), "bucket", "key", fmt.Sprint(i))
	}
	list, err := c.anna().ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket")})
	if err != nil || len(list.Contents) != 1 {
		t.Errorf("listed %v, %v", list, err)
	}
	c.wantOnly(dir, "bucket/key")
}
