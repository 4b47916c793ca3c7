package sigv4

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// The example worked through in S3's API reference, "Authenticating requests: using
// query parameters".
func TestPresignDocumented(t *testing.T) {
	at := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	got, err := Presign(http.MethodGet, "https://examplebucket.s3.amazonaws.com/test.txt", Credentials{testKey, testSecret, ""}, "us-east-1", "s3", at, 24*time.Hour)
	want := "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256" +
		"&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z" +
		"&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
	if err != nil || got != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

func TestPresignAndVerify(t *testing.T) {
	for _, test := range []struct {
		name, method, address, service string
		c                              Credentials
	}{
		{"an object", "GET", "http://127.0.0.1:8773/services/objectstorage/bucket/a//b/%C3%A9%20$+", "s3", Credentials{testKey, testSecret, ""}},
		{"removing it", "DELETE", "http://host/bucket/key", "s3", Credentials{testKey, testSecret, ""}},
		{"with a query", "GET", "http://host/bucket?prefix=a%2Fb+c&acl", "s3", Credentials{testKey, testSecret, ""}},
		{"of a session", "HEAD", "http://host/bucket/key", "s3", Credentials{"ASIASESSION", testSecret, "to/ken+=="}},
		{"an action", "GET", "http://host/?Action=DescribeImages", "ec2", Credentials{testKey, testSecret, ""}},
	} {
		address, err := Presign(test.method, test.address, test.c, "mallee", test.service, testTime, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		r, body := arrive(t, newRequest(t, test.method, address, ""))
		options := Options{Services: []string{test.service}, UnsignedPayload: test.service == "s3"}
		got, err := Verify(r, body, keys, testTime.Add(time.Hour-time.Second), options)
		want := Identity{test.c.AccessKey, test.c.Token, "mallee", test.service, testTime, testTime.Add(time.Hour), true}
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", test.name, got, err, want)
		}
		if _, err := Verify(r, body, keys, testTime.Add(time.Hour+time.Second), options); err == nil {
			t.Errorf("%s: it outlives its time", test.name)
		}
		r.Method = "PUT"
		if _, err := Verify(r, body, keys, testTime, options); err == nil {
			t.Errorf("%s: it does for another method", test.name)
		}
	}
}

func TestPresignRefuses(t *testing.T) {
	for _, test := range []struct {
		address  string
		lifetime time.Duration
		want     string
	}{
		{"http://host/b/k", 0, "lifetime"},
		{"http://host/b/k", MaxLifetime + time.Second, "lifetime of 168h0m1s"},
		{"http://ho st/b/k", time.Hour, "presign GET"},
		{"http://host/?a=%zz", time.Hour, "percent"},
	} {
		if got, err := Presign("GET", test.address, Credentials{testKey, testSecret, ""}, "r", "s3", testTime, test.lifetime); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s for %v: %q, %v", test.address, test.lifetime, got, err)
		}
	}
}

// A signature over a hash is the one over the body that has it.
func TestSignHash(t *testing.T) {
	whole, hashed := newRequest(t, "PUT", "http://host/b/k", "body"), newRequest(t, "PUT", "http://host/b/k", "body")
	c := Credentials{testKey, testSecret, ""}
	if err := Sign(whole, []byte("body"), c, "r", "s3", testTime); err != nil {
		t.Fatal(err)
	}
	err := SignHash(hashed, "230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5", c, "r", "s3", testTime)
	if got, want := hashed.Header.Get("Authorization"), whole.Header.Get("Authorization"); err != nil || got != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}
