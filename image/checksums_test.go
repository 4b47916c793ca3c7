package image

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

var (
	sum256 = strings.Repeat("ab", 32)
	sum512 = strings.Repeat("cd", 64)
)

func TestFindSum(t *testing.T) {
	other := strings.Repeat("ef", 32)
	for name, c := range map[string]struct {
		list, hash, want string
	}{
		"coreutils":          {other + "  other.img\n" + sum256 + "  a.img\n", "sha256", sum256},
		"coreutils, binary":  {sum256 + " *a.img\r\n", "sha256", sum256},
		"coreutils, ./":      {sum256 + "  ./a.img", "sha256", sum256},
		"capitals":           {strings.ToUpper(sum256) + "  a.img\n", "sha256", sum256},
		"BSD":                {"# a.img: 5 bytes\nSHA256 (a.img) = " + sum256 + "\n", "sha256", sum256},
		"signed text":        {"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSHA256 (a.img) = " + sum256 + "\n-----BEGIN PGP SIGNATURE-----\nabc=\n", "sha256", sum256},
		"both hashes":        {sum256 + "  a.img\n" + sum512 + "  a.img\n", "sha512", sum512},
		"twice the same":     {sum256 + "  a.img\n" + sum256 + " *a.img\n", "sha256", sum256},
		"bare":               {sum512 + "\n", "sha512", sum512},
		"bare, another hash": {sum512, "sha256", ""},
		"not there":          {other + "  b.img\n", "sha256", ""},
		"a longer name":      {sum256 + "  xa.img\n" + sum256 + "  a.img.sig\n" + sum256 + "  dir/a.img\n", "sha256", ""},
		"short":              {sum256[:60] + "  a.img\n", "sha256", ""},
		"no digest":          {strings.Repeat("xy", 32) + "  a.img\n", "sha256", ""},
		"the wrong BSD hash": {"SHA512 (a.img) = " + sum256 + "\n", "sha256", ""},
		"two that differ":    {sum256 + "  a.img\n" + other + "  a.img\n", "sha256", ""},
		"a web page":         {"<html>404</html>", "sha256", ""},
		"nothing":            {"", "sha256", ""},
	} {
		got, err := findSum([]byte(c.list), c.hash, "a.img")
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}

func TestExpected(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/SUMS":
			w.Write([]byte(sum256 + "  a.img\n"))
		case "/down":
			http.Redirect(w, r, plain.URL+"/SUMS", http.StatusFound)
		case "/endless":
			w.Write(make([]byte, maxSumsBytes+1))
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	for path, want := range map[string]string{"/SUMS": "", "/down": "isn't https", "/endless": "more than", "/gone": "404"} {
		d := Download{URL: server.URL + "/a.img", Sums: server.URL + path, Hash: "sha256"}
		got, err := d.Expected(t.Context(), server.Client())
		switch {
		case want == "" && (err != nil || got != "sha256:"+sum256):
			t.Errorf("%s: %q, %v", path, got, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %q, %v; want an error with %q", path, got, err, want)
		}
	}
	fixed := Download{Digest: "sha512:" + strings.ToUpper(sum512)}
	if got, err := fixed.Expected(t.Context(), nil); err != nil || got != "sha512:"+sum512 {
		t.Errorf("a fixed digest: %q, %v", got, err)
	}
	if _, err := (Download{URL: "https://host/a", Sums: plain.URL, Hash: "sha256"}).Expected(t.Context(), plain.Client()); err == nil {
		t.Error("a list without https was fetched")
	}
}

func FuzzFindSum(f *testing.F) {
	f.Add([]byte(sum256 + "  a.img\n"))
	f.Add([]byte("SHA256 (a.img) = " + sum256))
	f.Add([]byte(sum256))
	f.Fuzz(func(t *testing.T, list []byte) {
		if sum, err := findSum(list, "sha256", "a.img"); err == nil && !isSum(sum, "sha256") {
			t.Errorf("%q gives the digest %q", list, sum)
		}
	})
}
