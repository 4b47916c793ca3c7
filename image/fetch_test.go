package image

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A site serves one file, and misbehaves as a test wants.
type site struct {
	mu       sync.Mutex // guards what follows
	data     []byte
	tag      string
	breaks   int  // connections that break off after a third of what is left
	ranges   bool // whether parts can be asked for
	requests []string
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.Header.Get("Range"))
	w.Header().Set("ETag", s.tag)
	if !s.ranges {
		r.Header.Del("Range")
	}
	if s.breaks > 0 {
		s.breaks--
		w = &breaking{ResponseWriter: w, left: len(s.data) / 3}
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.data))
}

// breaking breaks the connection off.
type breaking struct {
	http.ResponseWriter
	left int
}

func (b *breaking) Write(p []byte) (int, error) {
	n, err := b.ResponseWriter.Write(p[:min(b.left, len(p))])
	if b.left -= n; b.left <= 0 {
		b.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func serve(t *testing.T, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// fetched runs a download without pauses.
func fetched(t *testing.T, address, file string, opts FetchOptions) (int64, error) {
	t.Helper()
	if opts.Limit == 0 {
		opts.Limit = 1 << 20
	}
	r, err := newRetrieval(address, file, opts)
	if err != nil {
		return 0, err
	}
	defer r.client.CloseIdleConnections()
	r.pause = time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return r.all(ctx)
}

func payload() []byte {
	return bytes.Repeat([]byte("0123456789abcdef"), 20000)
}

func TestFetch(t *testing.T) {
	s := &site{data: payload(), tag: `"one"`, ranges: true}
	url := serve(t, s)
	sum := sha512.Sum512(s.data)
	for _, digest := range []string{"", "sha256:" + hexSum(s.data), "SHA512:" + hex.EncodeToString(sum[:])} {
		file := filepath.Join(t.TempDir(), "file")
		n, err := fetched(t, url+"/x", file, FetchOptions{Reach: Anywhere, Digest: digest})
		if err != nil || n != int64(len(s.data)) || !bytes.Equal(read(t, file), s.data) {
			t.Errorf("%s: %d, %v", digest, n, err)
		}
		if left, _ := filepath.Glob(file + ".*"); left != nil {
			t.Errorf("left behind: %q", left)
		}
	}
}

func TestFetchGoesOn(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		s := &site{data: payload(), tag: `"one"`, breaks: 2, ranges: ranges}
		file := filepath.Join(t.TempDir(), "file")
		_, err := fetched(t, serve(t, s), file, FetchOptions{Reach: Anywhere, Digest: "sha256:" + hexSum(s.data)})
		if err != nil {
			t.Fatal(err)
		}
		if len(s.requests) != 3 || s.requests[0] != "" || !strings.HasPrefix(s.requests[1], "bytes=") {
			t.Errorf("requests for %q", s.requests)
		}
	}
}

// A call that ended in the middle is gone on with by the next one, unless the file is another by then.
func TestFetchGoesOnInAnotherCall(t *testing.T) {
	for _, changed := range []bool{false, true} {
		s := &site{data: payload(), tag: `"one"`, breaks: 1, ranges: true}
		file := filepath.Join(t.TempDir(), "file")
		url := serve(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := Fetch(ctx, url+"?secret", file, FetchOptions{Reach: Anywhere, Limit: 1 << 20, Progress: func(string, int64, int64) { cancel() }})
		if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "secret") {
			t.Fatal(err)
		}
		part := int64(len(read(t, file+".part")))
		if part == 0 {
			t.Fatal("nothing is kept")
		}
		s.mu.Lock()
		if changed {
			s.data, s.tag = bytes.ToUpper(s.data), `"two"`
		}
		s.requests, s.breaks = nil, 0
		s.mu.Unlock()
		if _, err := fetched(t, url, file, FetchOptions{Reach: Anywhere}); err != nil || !bytes.Equal(read(t, file), s.data) {
			t.Errorf("changed %t: %v", changed, err)
		}
		if want := fmt.Sprintf("bytes=%d-", part); s.requests[0] != want {
			t.Errorf("asked for %q, want %q", s.requests, want)
		}
	}
}

func TestFetchRefuses(t *testing.T) {
	s := &site{data: payload(), tag: `"one"`, ranges: true}
	mux := http.NewServeMux()
	mux.Handle("/file", s)
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) { io.CopyN(w, endless('x'), 8<<20) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	url := serve(t, mux)
	tests := []struct {
		address string
		opts    FetchOptions
		want    string
	}{
		{url + "/file", FetchOptions{}, "isn't downloaded from"},
		{strings.Replace(url, "127.0.0.1", "localhost", 1) + "/file", FetchOptions{}, "isn't downloaded from"},
		{"http://169.254.169.254/latest/meta-data/", FetchOptions{}, "isn't downloaded from"},
		{"http://[::ffff:127.0.0.1]:80/", FetchOptions{}, "isn't downloaded from"},
		{url + "/file", FetchOptions{Reach: Anywhere, Limit: 1000}, "the limit is 1000"},
		{url + "/endless", FetchOptions{Reach: Anywhere}, "the limit"},
		{url + "/file", FetchOptions{Reach: Anywhere, Digest: "sha256:" + strings.Repeat("0", 64)}, "it should have 000"},
		{url + "/file", FetchOptions{Reach: Anywhere, Digest: "sha256:00"}, "neither"},
		{url + "/file", FetchOptions{Reach: Anywhere, Digest: "md5:" + strings.Repeat("0", 32)}, "neither"},
		{url + "/none", FetchOptions{Reach: Anywhere}, "404"},
		{url + "/loop", FetchOptions{Reach: Anywhere}, "on and on"},
		{url + "/away", FetchOptions{Reach: Anywhere}, "isn't as safe"},
		{"file:///etc/passwd", FetchOptions{Reach: Anywhere}, "no http"},
		{"ftp://host/", FetchOptions{Reach: Anywhere}, "no http"},
		{"http://", FetchOptions{Reach: Anywhere}, "no http"},
	}
	for _, test := range tests {
		dir := t.TempDir()
		_, err := fetched(t, test.address, filepath.Join(dir, "file"), test.opts)
		refused(t, err, test.want)
		none(t, dir)
	}
}

// A name may lead to a good address first, and a page there to a bad one.
func TestFetchAsksAboutRedirects(t *testing.T) {
	inner := serve(t, &site{data: payload(), tag: `"one"`})
	outer := serve(t, http.RedirectHandler(inner, http.StatusFound))
	var asked []netip.AddrPort
	_, err := fetched(t, outer, filepath.Join(t.TempDir(), "file"), FetchOptions{Reach: func(at netip.AddrPort) error {
		if asked = append(asked, at); len(asked) > 1 {
			return refuse("not there")
		}
		return nil
	}})
	refused(t, err, "not there")
}

func TestFetchGivesUp(t *testing.T) {
	requests := 0
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	_, err := fetched(t, url, filepath.Join(t.TempDir(), "file"), FetchOptions{Reach: Anywhere})
	var bad *BadImageError
	if err == nil || errors.As(err, &bad) || requests != fetchAttempts {
		t.Errorf("after %d requests: %v", requests, err)
	}
}

func TestFetchWithoutHTTPS(t *testing.T) {
	plain := serve(t, &site{data: payload()})
	secure := httptest.NewTLSServer(http.RedirectHandler(plain, http.StatusFound))
	defer secure.Close()
	_, err := fetched(t, secure.URL, filepath.Join(t.TempDir(), "file"), FetchOptions{Reach: Anywhere, Transport: secure.Client().Transport.(*http.Transport)})
	refused(t, err, "isn't as safe")
}

func TestPublicOnly(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255",
		"::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fd00:ec2::254"} {
		if PublicOnly(netip.AddrPortFrom(netip.MustParseAddr(address), 80)) == nil {
			t.Errorf("%s passes as public", address)
		}
	}
	for _, address := range []string{"8.8.8.8", "93.184.216.34", "2606:4700::1111"} {
		if err := PublicOnly(netip.AddrPortFrom(netip.MustParseAddr(address), 443)); err != nil {
			t.Error(err)
		}
	}
}

func TestFetchKeepsTheOldFileUntilTheNewIsRight(t *testing.T) {
	url := serve(t, &site{data: payload(), tag: `"one"`})
	file := saved(t, []byte("old"))
	_, err := fetched(t, url, file, FetchOptions{Reach: Anywhere, Digest: "sha256:" + strings.Repeat("0", 64)})
	refused(t, err, "digest")
	if string(read(t, file)) != "old" {
		t.Error("the old file is gone")
	}
	if _, err := os.Stat(file + ".part"); err == nil {
		t.Error("the wrong file is still there")
	}
}
