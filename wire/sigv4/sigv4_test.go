package sigv4

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"pgregory.net/rapid"

	"mallee/wire"
)

const (
	testKey    = "AKIAIOSFODNN7EXAMPLE"
	testSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

var (
	testTime = time.Date(2026, 11, 22, 23, 55, 0, 0, time.UTC)
	allow    = Options{Services: []string{"ec2", "iam", "sts"}}
)

// keys is a Lookup with one lasting access key, and one of a session.
func keys(accessKey, token string) (string, bool) {
	switch {
	case accessKey == testKey && token == "":
		return testSecret, true
	case accessKey == "ASIASESSION" && token == "to/ken+==":
		return testSecret, true
	}
	return "", false
}

// arrive sends a request through net/http's own writer and reader, as a server would
// see it.
func arrive(t rapidOrTest, r *http.Request) (*http.Request, []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatalf("write the request: %v", err)
	}
	got, body, err := read(b.Bytes())
	if err != nil {
		t.Fatalf("read %q: %v", b.Bytes(), err)
	}
	return got, body
}

type rapidOrTest interface {
	Helper()
	Fatalf(format string, args ...any)
}

func read(text []byte) (*http.Request, []byte, error) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(r.Body)
	return r, body, err
}

func newRequest(t rapidOrTest, method, target, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		t.Fatalf("%v", err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r
}

func checkCode(t *testing.T, what string, err error, code string, status int, message string) {
	t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) || e.Code != code || e.Status != status || !strings.Contains(e.Message, message) {
		t.Errorf("%s:\ngot  %v\nwant %d %s: … %s …", what, err, status, code, message)
	}
}

func TestSignAndVerify(t *testing.T) {
	for _, test := range []struct {
		name, method, target, service, body string
		c                                   Credentials
	}{
		{"post", "POST", "http://127.0.0.1:8773/services/compute", "ec2", "Action=DescribeImages&Version=2016-11-15", Credentials{testKey, testSecret, ""}},
		{"get", "GET", "http://host/?b=2&a=%2f+x&a=1&flag", "sts", "", Credentials{testKey, testSecret, ""}},
		{"session", "POST", "http://host//a/../b%20c", "iam", "A=1", Credentials{"ASIASESSION", testSecret, "to/ken+=="}},
		{"s3", "PUT", "http://host/bucket/a//b/../%E1%88%B4$+?acl", "s3", "bytes", Credentials{testKey, testSecret, ""}},
	} {
		r := newRequest(t, test.method, test.target, test.body)
		if err := Sign(r, []byte(test.body), test.c, "mallee", test.service, testTime); err != nil {
			t.Fatal(err)
		}
		r, body := arrive(t, r)
		got, err := Verify(r, body, keys, testTime.Add(time.Second), Options{Services: []string{test.service}})
		want := Identity{AccessKey: test.c.AccessKey, Token: test.c.Token, Region: "mallee", Service: test.service, SignedAt: testTime, Expires: testTime.Add(MaxSkew)}
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", test.name, got, err, want)
		}
		if got := ServiceOf(r); got != test.service {
			t.Errorf("%s: ServiceOf says %q", test.name, got)
		}
	}
}

// What stands in for a missing secret is public, and must open nothing.
func TestNoSecretOpensNothing(t *testing.T) {
	empty := func(string, string) (string, bool) { return "", true }
	for _, test := range []struct {
		name, secret string
		lookup       Lookup
	}{
		{"the stand-in for an unknown key", nobody, func(string, string) (string, bool) { return "", false }},
		{"the stand-in for an unknown key with a secret", nobody, func(string, string) (string, bool) { return testSecret, false }},
		{"the stand-in for an empty secret", nobody, empty},
		{"an empty secret", "", empty},
	} {
		r := newRequest(t, "GET", "http://host/", "")
		if err := Sign(r, nil, Credentials{testKey, test.secret, ""}, "r", "ec2", testTime); err != nil {
			t.Fatal(err)
		}
		_, err := Verify(r, nil, test.lookup, testTime, allow)
		checkCode(t, test.name, err, "AuthFailure", 401, testKey)
	}
}

// A session's key needs its token, and a lasting key takes none.
func TestTokenReachesLookup(t *testing.T) {
	for _, c := range []Credentials{{"ASIASESSION", testSecret, ""}, {"ASIASESSION", testSecret, "other"}, {testKey, testSecret, "to/ken+=="}} {
		r := newRequest(t, "GET", "http://host/", "")
		if err := Sign(r, nil, c, "r", "sts", testTime); err != nil {
			t.Fatal(err)
		}
		_, err := Verify(r, nil, keys, testTime, allow)
		checkCode(t, c.AccessKey+" "+c.Token, err, "InvalidClientTokenId", 403, "session token")
	}
}

func TestCanonicalQuery(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "",
		"a=2&a=1&a=":                  "a=&a=1&a=2",
		"a=1&a-b=1&A=1":               "A=1&a=1&a-b=1", // by name, not by name=value
		"a=%62/&a=b-":                 "a=b%2F&a=b-",   // after encoding
		"flag&&x=%2b+%20;y=z":         "flag=&x=%2B%20%20%3By%3Dz",
		"b=1&X-Amz-Signature=x&a=~-_": "a=~-_&b=1",
	} {
		params, err := parseQuery(in)
		if got := canonicalQuery(params); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}

// drawRequest makes requests as wild as net/http lets them out.
func drawRequest(t *rapid.T, service string) (*http.Request, []byte) {
	text := rapid.StringOf(rapid.OneOf(rapid.RuneFrom([]rune("ab/.%+ ~=&;:@!$'()*,é ሴ𝄞")), rapid.Rune()))
	path := "/" + text.Draw(t, "path")
	query := url.Values{}
	for _, name := range rapid.SliceOfN(text, 0, 4).Draw(t, "names") {
		for _, value := range rapid.SliceOfN(text, 1, 3).Draw(t, "values") {
			query.Add(name+"x", value)
		}
	}
	body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
	r, err := http.NewRequest(rapid.SampledFrom([]string{"GET", "POST", "PUT"}).Draw(t, "method"), "http://host:8773/", bytes.NewReader(body))
	if err != nil {
		t.Fatalf("%v", err)
	}
	r.URL.Path, r.URL.RawQuery = path, query.Encode()
	if service == "s3" {
		r.URL.RawPath = escape(path, true) // as the SDK's S3 client does
	}
	for _, name := range []string{"Content-Type", "My-Header", "X-Amz-Meta-X"} {
		for _, value := range rapid.SliceOfN(rapid.StringMatching(`[a-z]( {0,3}[!-~]){0,4} ?`), 0, 2).Draw(t, name) {
			r.Header.Add(name, value)
		}
	}
	return r, body
}

// sdkSigned is a request signed by AWS's SDK, in either form.
func sdkSigned(t *rapid.T, service string, presign bool) *http.Request {
	r, body := drawRequest(t, service)
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
	c := aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret}
	if rapid.Bool().Draw(t, "session") {
		c.AccessKeyID, c.SessionToken = "ASIASESSION", "to/ken+=="
	}
	ctx, bodyHash := context.Background(), hash(body)
	if !presign {
		if err := signer.SignHTTP(ctx, c, r, bodyHash, service, "us-east-1", testTime); err != nil {
			t.Fatalf("sign: %v", err)
		}
		return r
	}
	r.URL.RawQuery += "&X-Amz-Expires=60"
	target, signed, err := signer.PresignHTTP(ctx, c, r, bodyHash, service, "us-east-1", testTime)
	if err != nil {
		t.Fatalf("presign: %v", err)
	}
	if r.URL, err = url.Parse(target); err != nil {
		t.Fatalf("parse %s: %v", target, err)
	}
	delete(signed, "Host")
	r.Header = signed
	return r
}

// Whatever AWS's SDK signs, we verify.
func TestVerifyWhatTheSDKSigns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		service := rapid.SampledFrom([]string{"ec2", "s3"}).Draw(t, "service")
		presign := rapid.Bool().Draw(t, "presign")
		r, body := arrive(t, sdkSigned(t, service, presign))
		id, err := Verify(r, body, keys, testTime.Add(time.Minute), Options{Services: []string{service}})
		if err != nil || id.Presigned != presign || id.Service != service {
			t.Fatalf("%s %s: %+v, %v", r.Method, r.URL, id, err)
		}
	})
}

// meaning is what a handler can learn from the signed part of a request, found
// without this package's help.
func meaning(r *http.Request, body []byte) string {
	var b strings.Builder
	b.WriteString(r.Method + " " + r.Host + " " + r.URL.Path + "\n" + r.URL.Query().Encode() + "\n" + string(body) + "\n")
	for _, name := range []string{"Content-Type", "My-Header", "X-Amz-Meta-X", "X-Amz-Date", "X-Amz-Security-Token", "Authorization"} {
		for _, value := range r.Header.Values(name) {
			b.WriteString(name + ":" + strings.Join(strings.Fields(value), " ") + "\n")
		}
	}
	return b.String()
}

// No byte of a signed request may change on the wire, unless it still means the same.
func TestVerifyRefusesEveryChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		service := rapid.SampledFrom([]string{"ec2", "s3"}).Draw(t, "service")
		var b bytes.Buffer
		if err := sdkSigned(t, service, rapid.Bool().Draw(t, "presign")).Write(&b); err != nil {
			t.Fatalf("%v", err)
		}
		text := b.Bytes()
		before, body, err := read(text)
		if err != nil {
			t.Fatalf("%v", err)
		}
		want := meaning(before, body)
		for range 20 {
			changed := slices.Clone(text)
			changed[rapid.IntRange(0, len(text)-1).Draw(t, "at")] ^= rapid.ByteRange(1, 255).Draw(t, "flip")
			r, body, err := read(changed)
			if err != nil || meaning(r, body) == want {
				continue
			}
			if id, err := Verify(r, body, keys, testTime, Options{Services: []string{service}}); err == nil {
				t.Fatalf("taken for %+v's:\n%q\nwas\n%q", id, changed, text)
			}
		}
	})
}

func TestClock(t *testing.T) {
	post := newRequest(t, "POST", "http://host/", "A=1")
	if err := Sign(post, []byte("A=1"), Credentials{testKey, testSecret, ""}, "r", "ec2", testTime); err != nil {
		t.Fatal(err)
	}
	presigned := func(expires string) *http.Request {
		r := newRequest(t, "GET", "http://host/?X-Amz-Expires="+expires, "")
		signer, c := v4.NewSigner(), aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret}
		target, _, err := signer.PresignHTTP(t.Context(), c, r, hash(nil), "ec2", "r", testTime)
		if err != nil {
			t.Fatal(err)
		}
		return httptest.NewRequest("GET", target, nil)
	}
	for _, test := range []struct {
		name string
		r    *http.Request
		body string
		late time.Duration
		code string
	}{
		{"at once", post, "A=1", 0, ""},
		{"15 minutes late, over midnight", post, "A=1", MaxSkew, ""},
		{"just too late", post, "A=1", MaxSkew + 1, "RequestExpired"},
		{"15 minutes early", post, "A=1", -MaxSkew, ""},
		{"just too early", post, "A=1", -MaxSkew - 1, "RequestExpired"},
		{"a minute at its end", presigned("60"), "", time.Minute, ""},
		{"a minute past its end", presigned("60"), "", time.Minute + 1, "RequestExpired"},
		{"presigned in the future", presigned("60"), "", -MaxSkew - 1, "RequestExpired"},
		{"a week", presigned("604800"), "", MaxLifetime, ""},
		{"past a week", presigned("604800"), "", MaxLifetime + 1, "RequestExpired"},
		{"more than a week", presigned("604801"), "", 0, "IncompleteSignature"},
		{"no time", presigned("0"), "", 0, "IncompleteSignature"},
		{"negative", presigned("-1"), "", 0, "IncompleteSignature"},
		{"not a number", presigned("soon"), "", 0, "IncompleteSignature"},
	} {
		_, err := Verify(test.r, []byte(test.body), keys, testTime.Add(test.late), allow)
		if test.code != "" {
			checkCode(t, test.name, err, test.code, 400, "")
		} else if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	const body = "Action=X"
	replace := func(old, new string) func(r *http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, new, 1))
		}
	}
	set := func(name, value string) func(r *http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, test := range []struct {
		name    string
		change  func(r *http.Request)
		code    string
		status  int
		message string
	}{
		{"no signature", func(r *http.Request) { r.Header.Del("Authorization") }, "MissingAuthenticationToken", 403, ""},
		{"version 2", set("Authorization", "AWS "+testKey+":c2ln"), "IncompleteSignature", 400, "Version 2"},
		{"version 2 in the query", func(r *http.Request) {
			r.Header.Del("Authorization")
			r.URL.RawQuery = "Signature=x&SignatureVersion=2"
		}, "IncompleteSignature", 400, "Version 2"},
		{"version 4a", replace(algorithm, "AWS4-ECDSA-P256-SHA256"), "IncompleteSignature", 400, "AWS4-ECDSA-P256-SHA256"},
		{"version 4a in the query", func(r *http.Request) {
			r.Header.Del("Authorization")
			r.URL.RawQuery = "X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256"
		}, "IncompleteSignature", 400, "ECDSA"},
		{"bearer", set("Authorization", "Bearer x"), "IncompleteSignature", 400, "Bearer"},
		{"both forms", func(r *http.Request) { r.URL.RawQuery = "X-Amz-Signature=x" }, "IncompleteSignature", 400, "not both"},
		{"two headers", func(r *http.Request) { r.Header.Add("Authorization", "x") }, "IncompleteSignature", 400, "more than once"},
		{"twice in the query", func(r *http.Request) {
			r.Header.Del("Authorization")
			r.URL.RawQuery = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Algorithm=x"
		}, "IncompleteSignature", 400, "X-Amz-Algorithm more than once"},
		{"bad query", func(r *http.Request) { r.URL.RawQuery = "a=%zz" }, "MalformedQueryString", 400, "%zz"},
		{"no signature part", replace("Signature=", "Signatur="), "IncompleteSignature", 400, "Signatur="},
		{"twice a part", replace(", Signature", ", Credential=x, Signature"), "IncompleteSignature", 400, "Credential=x"},
		{"part missing", func(r *http.Request) {
			before, _, _ := strings.Cut(r.Header.Get("Authorization"), ", Signature")
			r.Header.Set("Authorization", before)
		}, "IncompleteSignature", 400, "lacks its Signature"},
		{"signature in capitals", func(r *http.Request) {
			before, after, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
			r.Header.Set("Authorization", before+"Signature="+strings.ToUpper("a"+after[1:]))
		}, "IncompleteSignature", 400, "lower case"},
		{"short credential", replace("/mallee/", "/"), "IncompleteSignature", 400, "REGION/SERVICE"},
		{"empty region", replace("/mallee/", "//"), "IncompleteSignature", 400, "REGION/SERVICE"},
		{"not the terminator", replace("aws4_request", "aws5_request"), "IncompleteSignature", 400, "aws4_request"},
		{"another day", replace("/20261122/", "/20261123/"), "IncompleteSignature", 400, "20261123"},
		{"no date", func(r *http.Request) { r.Header.Del("X-Amz-Date") }, "IncompleteSignature", 400, "Date"},
		{"bad date", set("X-Amz-Date", "2026-11-22"), "IncompleteSignature", 400, "2026-11-22"},
		{"headers out of order", replace("content-type;host", "host;content-type"), "IncompleteSignature", 400, "sorted"},
		{"header twice", replace("host;", "host;host;"), "IncompleteSignature", 400, "once"},
		{"header in capitals", replace("host;", "HOST;"), "IncompleteSignature", 400, "lower case"},
		{"host unsigned", replace("host;", ""), "IncompleteSignature", 400, "header host"},
		{"signed header absent", func(r *http.Request) { r.Header.Del("Content-Type") }, "IncompleteSignature", 400, "content-type"},
		{"x-amz unsigned", set("X-Amz-Target", "x"), "IncompleteSignature", 400, "x-amz-target"},
		{"another service", replace("/ec2/", "/s3/"), "SignatureDoesNotMatch", 403, "s3; expecting ec2 or iam or sts"},
		{"unknown key", replace(testKey, "AKIANOBODY"), "AuthFailure", 401, "AKIANOBODY"},
		{"unknown key of iam", func(r *http.Request) { replace(testKey, "AKIANOBODY")(r); replace("/ec2/", "/iam/")(r) }, "InvalidClientTokenId", 403, "AKIANOBODY"},
		{"another region", replace("/mallee/", "/eucalyptus/"), "AuthFailure", 401, testKey},
		{"wrong signature of sts", replace("/ec2/", "/sts/"), "SignatureDoesNotMatch", 403, testKey},
		{"another path", func(r *http.Request) { r.URL.Path = "/other" }, "AuthFailure", 401, testKey},
		{"another method", func(r *http.Request) { r.Method = "PUT" }, "AuthFailure", 401, testKey},
		{"another host", func(r *http.Request) { r.Host = "other" }, "AuthFailure", 401, testKey},
	} {
		r := newRequest(t, "POST", "http://host/", body)
		if err := Sign(r, []byte(body), Credentials{testKey, testSecret, ""}, "mallee", "ec2", testTime); err != nil {
			t.Fatal(err)
		}
		test.change(r)
		_, err := Verify(r, []byte(body), keys, testTime, allow)
		checkCode(t, test.name, err, test.code, test.status, test.message)
	}
}

func TestBodyHash(t *testing.T) {
	s3, unsigned := Options{Services: []string{"s3"}}, Options{Services: []string{"s3"}, UnsignedPayload: true}
	for _, test := range []struct {
		name, stated, body string
		opts               Options
		ok                 bool
	}{
		{"the body's", hash([]byte("body")), "body", s3, true},
		{"another body", hash([]byte("body")), "BODY", s3, false},
		{"another body where none need be signed", hash([]byte("body")), "BODY", unsigned, false},
		{"unsigned", unsignedPayload, "anything", unsigned, true},
		{"unsigned and not allowed", unsignedPayload, "anything", s3, false},
		{"streaming", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "x", unsigned, false},
		{"garbage", "x", "x", unsigned, false},
	} {
		r := newRequest(t, "PUT", "http://host/bucket/key", test.body)
		r.Header.Set("X-Amz-Content-Sha256", test.stated)
		c := aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret}
		if err := v4.NewSigner().SignHTTP(t.Context(), c, r, test.stated, "s3", "r", testTime); err != nil {
			t.Fatal(err)
		}
		r, body := arrive(t, r)
		_, err := Verify(r, body, keys, testTime, test.opts)
		if !test.ok {
			checkCode(t, test.name, err, "SignatureDoesNotMatch", 403, "x-amz-content-sha256")
		} else if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// FuzzVerify: no text that isn't signed with a known secret is taken, and each refusal
// is one that a client may see.
func FuzzVerify(f *testing.F) {
	r := newRequest(f, "POST", "http://host/x?a=b", "A=1")
	if err := Sign(r, []byte("A=1"), Credentials{testKey, "guess", ""}, "r", "ec2", testTime); err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("GET /?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + testKey + "%2F20261122%2Fr%2Fec2%2Faws4_request&X-Amz-Date=20261122T235500Z" +
		"&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=" + strings.Repeat("0", 64) + " HTTP/1.1\r\nHost: host\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, body, err := read(text)
		if err != nil {
			return
		}
		id, err := Verify(r, body, keys, testTime, allow)
		var e *wire.Error
		if !errors.As(err, &e) || e.Status < 400 || e.Status >= 500 || id != (Identity{}) {
			t.Fatalf("%q: %+v, %v", text, id, err)
		}
		_ = ServiceOf(r)
	})
}

func BenchmarkVerify(b *testing.B) {
	body := bytes.Repeat([]byte("Action=RunInstances&"), 50)
	r := newRequest(b, "POST", "http://127.0.0.1:8773/services/compute", string(body))
	if err := Sign(r, body, Credentials{testKey, testSecret, ""}, "mallee", "ec2", testTime); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Verify(r, body, keys, testTime, allow); err != nil {
			b.Fatal(err)
		}
	}
}
