package euca

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// workshop is a working folder with an image, keys and a cloud whose object store is
// in memory.
type workshop struct {
	t   *testing.T
	p   *player
	dir string

	mu      sync.Mutex // guards what follows, and the shelf's objects
	objects map[string]string
	fail    int // how many uploads fail before the next that doesn't
	asked   []string
}

func newWorkshop(t *testing.T) *workshop {
	r := &workshop{t: t, dir: t.TempDir(), objects: map[string]string{}}
	r.p = newPlayer(t)
	r.p.use()
	store := httptest.NewServer(http.HandlerFunc(r.store))
	t.Cleanup(store.Close)
	t.Setenv("S3_URL", store.URL+"/s3")
	t.Setenv("EC2_USER_ID", "123456789012")
	t.Setenv("TMPDIR", r.dir)
	identityFiles(t, r.dir)
	t.Chdir(r.dir)
	t.Setenv("EUCALYPTUS_CERT", "cloud-cert.pem")
	t.Setenv("EC2_CERT", "user-cert.pem")
	t.Setenv("EC2_PRIVATE_KEY", "user-pk.pem")
	r.file("image.raw", picture(150_000))
	return r
}

// store is the object store; it tells of what changes it.
func (r *workshop) store(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	path := strings.TrimPrefix(q.URL.Path, "/s3/")
	if q.Method == http.MethodPut || q.Method == http.MethodDelete || q.Method == http.MethodPost {
		line := q.Method + " " + path
		if acl := q.Header.Get("X-Amz-Acl"); acl != "" {
			line += " " + acl
		}
		r.asked = append(r.asked, line)
	}
	switch {
	case q.Method == http.MethodPut && r.fail > 0 && strings.Contains(path, "/"):
		r.fail--
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "<Error><Code>SlowDown</Code><Message>later</Message></Error>")
	case q.Method == http.MethodPost:
		r.form(w, q, path)
	case q.URL.Query().Get("X-Amz-Signature") != "":
		r.p.t.Errorf("a presigned address is for the cloud, not for us: %s", q.URL)
	default:
		shelf{r.t, r.objects}.ServeHTTP(w, q)
	}
}

func (r *workshop) form(w http.ResponseWriter, q *http.Request, bucket string) {
	if err := q.ParseMultipartForm(1 << 20); err != nil {
		r.t.Error(err)
	}
	f, _, err := q.FormFile("file")
	if err != nil {
		r.t.Fatal(err)
	}
	body, err := io.ReadAll(f)
	if err != nil {
		r.t.Error(err)
	}
	for _, name := range []string{"policy", "signature", "AWSAccessKeyId", "acl"} {
		if q.FormValue(name) == "" {
			r.t.Errorf("the form has no %s: %v", name, q.Form)
		}
	}
	r.objects[bucket+"/"+q.FormValue("key")] = string(body)
	w.WriteHeader(http.StatusNoContent)
}

func (r *workshop) file(name string, data []byte) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), data, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *workshop) read(name string) []byte {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return data
}

// files of the working folder, but those that every workshop has.
func (r *workshop) files() (all []string) {
	r.t.Helper()
	err := filepath.WalkDir(r.dir, func(path string, d os.DirEntry, err error) error {
		name, _ := filepath.Rel(r.dir, path)
		if err == nil && name != "." && name != "image.raw" && !strings.HasSuffix(name, ".pem") {
			all = append(all, name)
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// do a command that has to succeed without a word on standard error.
func (r *workshop) do(line string) string {
	r.t.Helper()
	out, said, err := typed(r.t, line)
	if err != nil || said != "" {
		r.t.Fatalf("%s: %v, said %q", line, err, said)
	}
	return out
}

// refused is a command that has to fail for a reason with these words, and to
// leave the folder as it was.
func (r *workshop) refused(line string, words ...string) {
	r.t.Helper()
	before := r.files()
	_, _, err := typed(r.t, line)
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "\n") {
			r.t.Errorf("%s: %v, want %q", line, err, word)
		}
	}
	if after := r.files(); !slices.Equal(before, after) {
		r.t.Errorf("%s: the folder had %q and has %q", line, before, after)
	}
}

// picture is an image of noise, text and zeros.
func picture(size int) []byte {
	image := make([]byte, size)
	random := mathrand.NewChaCha8([32]byte{3})
	for at := 0; at < size; at += 30000 {
		stretch := image[at:min(at+30000, size)]
		switch at / 30000 % 3 {
		case 0:
			random.Read(stretch)
		case 1:
			copy(stretch, bytes.Repeat([]byte("many stems "), 3000))
		}
	}
	return image
}

var testKeys = sync.OnceValue(func() map[string]*rsa.PrivateKey {
	keys := map[string]*rsa.PrivateKey{}
	for _, name := range []string{"cloud", "user", "stranger"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[name] = key
	}
	return keys
})

// identityFiles writes a key in each of the two forms that keys come in, and certificates.
func identityFiles(t *testing.T, dir string) {
	t.Helper()
	for name, key := range testKeys() {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Unix(1<<33, 0)}
		cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
		if name == "cloud" {
			der, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			block = &pem.Block{Type: "PRIVATE KEY", Bytes: der}
		}
		for file, b := range map[string]*pem.Block{"-pk.pem": block, "-cert.pem": {Type: "CERTIFICATE", Bytes: cert}} {
			if err := os.WriteFile(filepath.Join(dir, name+file), pem.EncodeToMemory(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestBundleTranscripts are those of TestTranscripts in a working folder, with an
// object store, of which "> PUT …" and the like tell.
func TestBundleTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/bundles/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			r := newWorkshop(t)
			r.file("policy.json", []byte(`{"expiration":"2030-01-01T00:00:00Z","conditions":[{"bucket":"mine"},{"acl":"ec2-bundle-read"},["starts-with","$key",""]]}`))
			var got strings.Builder
			for _, e := range exchanges(string(text)) {
				r.play(e, &got)
			}
			if *update {
				if err := os.WriteFile(filepath.Join(r.p.here, file), []byte(got.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got.String() != string(text) && !*update {
				t.Errorf("%s tells otherwise; see -update. It is:\n%s", file, got.String())
			}
		})
	}
}

// play an exchange. What parts are uploaded beside each other is sorted.
func (r *workshop) play(e exchange, to *strings.Builder) {
	r.asked = nil
	var one strings.Builder
	r.p.play(e, &one)
	slices.Sort(r.asked)
	var told strings.Builder
	for _, line := range r.asked {
		fmt.Fprintf(&told, "> %s\n", line)
	}
	command := "$ " + e.line + "\n"
	text := strings.Replace(one.String(), command, command+told.String(), 1)
	if len(e.before) > 0 && to.Len() > 0 {
		text = "\n" + text
	}
	to.WriteString(random.ReplaceAllString(strings.ReplaceAll(text, r.dir, "DIR"), "<random>"))
}

// random words in what is printed.
var random = regexp.MustCompile(`bundle-[0-9]+|\.new-[0-9]+|\b[A-Z2-7]{26}\b|X-Amz-[A-Za-z]+=[^ &]+`)
