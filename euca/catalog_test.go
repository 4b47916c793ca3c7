package euca

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/blake2b"

	"mallee/image"
)

// signed is a minisign signature over a file, and the key that made it.
func signed(data []byte) (key, signature string) {
	secret := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	id := []byte("12345678")
	digest := blake2b.Sum512(data)
	sum := ed25519.Sign(secret, digest[:])
	global := ed25519.Sign(secret, append(bytes.Clone(sum), "edition"...))
	b64 := base64.StdEncoding.EncodeToString
	key = b64(append(append([]byte("Ed"), id...), secret.Public().(ed25519.PublicKey)...))
	return key, "untrusted comment: x\n" + b64(append(append([]byte("ED"), id...), sum...)) + "\ntrusted comment: edition\n" + b64(global) + "\n"
}

func TestCatalogCommands(t *testing.T) {
	dir := t.TempDir()
	index := fmt.Sprintf(`{"format":1,"name":"acme","serial":2,"expires":"2999-01-01T00:00:00Z","entries":[{"name":"host","version":"5",
		"description":"a host","architecture":"x86_64","virtualization":"hvm","size":1073741824,"needs":["to run: luck"],
		"download":{"url":"https://h.example/host.img","format":"raw","digest":"sha256:%064x"}}]}`, 10)
	key, signature := signed([]byte(index))
	var serve atomic.Value
	serve.Store(index)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".minisig") {
			fmt.Fprint(w, signature)
			return
		}
		fmt.Fprint(w, serve.Load())
	}))
	defer server.Close()
	file := filepath.Join(dir, "acme.pub")
	if err := os.WriteFile(file, []byte("untrusted comment: acme\n"+key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ line, out, err string }{
		{"catalog", "NAME", ""},
		{"catalog update", "", ""},
		{"catalog add " + server.URL + "/i.json", "", "--key: name the minisign public key"},
		{"catalog add " + server.URL + "/i.json --key nonsense", "", "--key nonsense is neither a key"},
		{"catalog add " + server.URL + "/i.json --key " + file, "CATALOG\tacme\tserial 2\t1 images\tgood until 2999-01-01T00:00:00Z\tkey 3837363534333231\tedition\n", ""},
		{"catalog add " + server.URL + "/i.json --key " + key, "", "there is a catalogue acme already"},
		{"catalog", "sha256:000000000000…", ""},
		{"catalog", "to run: luck", ""},
		{"catalog update acme", "CATALOG\tacme", ""},
		{"catalog update emca", "", `no catalogue "emca" was added; there is acme`},
		{"install acme/nothing", "", `no image "acme/nothing" in the catalogue; it has tiny,`},
		{"catalog remove mallee", "", "can't be removed"},
		{"catalog remove acme", "REMOVED\tacme\n", ""},
		{"catalog remove acme", "", `no catalogue "acme": none was added`},
	} {
		out, _, err := run(t, "", append(strings.Fields("image "+step.line), "--data", dir)...)
		if (err == nil) != (step.err == "") || err != nil && !strings.Contains(err.Error(), step.err) || !strings.Contains(out, step.out) {
			t.Errorf("%s: printed %q, error %v; want %q, %q", step.line, out, err, step.out, step.err)
		}
	}
	serve.Store(strings.Replace(index, "a host", "a hosT", 1))
	if _, _, err := run(t, "", "image", "catalog", "add", server.URL+"/i.json", "--key", key, "--data", dir); err == nil || !strings.Contains(err.Error(), "bad signature") {
		t.Errorf("a changed index: %v", err)
	}
}

func TestCatalogAsJSON(t *testing.T) {
	out, _, err := run(t, "", "image", "catalog", "--output", "json", "--data", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var lines []struct {
		Catalog, Name, Version, Architecture, Virtualization, Source, Checksum, Problem string
		Size                                                                            int64
	}
	if err := json.Unmarshal([]byte(out), &lines); err != nil {
		t.Fatal(err)
	}
	if len(lines) != len(image.Shipped().Entries) {
		t.Errorf("%d lines for %d images", len(lines), len(image.Shipped().Entries))
	}
	for _, l := range lines {
		if l.Catalog != "mallee" || l.Name == "" || l.Version == "" || l.Architecture == "" || l.Virtualization == "" || l.Source == "" || l.Checksum == "" || l.Size == 0 || l.Problem != "" {
			t.Errorf("printed %+v", l)
		}
	}
}

func TestSizeOf(t *testing.T) {
	for bytes, want := range map[int64]string{1: "1 KiB", 1 << 20: "1 MiB", 49 << 20: "49 MiB", 1 << 30: "1 GiB", 3584 << 20: "3.5 GiB", 10 << 30: "10 GiB"} {
		if got := sizeOf(bytes); got != want {
			t.Errorf("%d bytes are %s, want %s", bytes, got, want)
		}
	}
}

func TestNameOf(t *testing.T) {
	for file, want := range map[string]string{
		"/a/b/debian-12.qcow2": "debian-12", "x.img.xz": "x", "my image (1).raw": "my-image--1", "noble-server.v1.2.img": "noble-server.v1.2",
		"": "image", "/": "image", ".qcow2": "qcow2", "...": "image", "ü.img": "image", strings.Repeat("a", 200): strings.Repeat("a", 60),
	} {
		if got := nameOf(file); got != want {
			t.Errorf("%q is called %q, want %q", file, got, want)
		}
	}
}

// What can't be meant is refused before anything is done.
func TestInstallOptions(t *testing.T) {
	dir := t.TempDir()
	for line, want := range map[string]string{
		"tiny --virtualization-type lxc":                "hvm and paravirtual are known",
		"tiny --virtualization-type hvm --kernel eki-1": "boots by what is on its own disk",
		"tiny --ramdisk eri-1":                          "name the kernel too",
		"tiny --digest sha256:00":                       "tiny is no address",
		"./nothing.img":                                 "no cloud is running",
		"https://h.example/x.img":                       "no cloud is running",
		"https://h.example/x.img --output xml":          "text and json are known",
	} {
		_, _, err := run(t, "", append(strings.Fields("image install "+line), "--data", dir)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

// bootable is a disk of 2 MiB whose first sector has boot code and a partition.
func bootable(t *testing.T) string {
	t.Helper()
	disk := make([]byte, 2<<20)
	copy(disk, "\xeb\x63\x90 boot code")
	copy(disk[446:], "\x80\xfe\xff\xff\x83\xfe\xff\xff\x00\x08\x00\x00\x00\x08\x00\x00")
	disk[510], disk[511] = 0x55, 0xaa
	file := filepath.Join(t.TempDir(), "some disk.img")
	if err := os.WriteFile(file, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (w wanted) bringer(t *testing.T) bringer {
	return bringer{wanted: &w, dir: t.TempDir(), client: http.DefaultClient, show: newProgress(&bytes.Buffer{})}
}

func TestBringFile(t *testing.T) {
	file := bootable(t)
	b := wanted{source: file, description: "mine", public: true}.bringer(t)
	p, done, err := b.bring(t.Context(), image.Listed{})
	if err != nil {
		t.Fatal(err)
	}
	if p.name != "some-disk" || p.virtualization != "hvm" || p.arch != "x86_64" || p.description != "mine" || !p.public || len(p.version) != versionDigits {
		t.Errorf("brought %+v", p)
	}
	got, err := os.ReadFile(p.files.Disk)
	want, _ := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the disk came with %d bytes of %d, %v", len(got), len(want), err)
	}
	done()
	if left, _ := filepath.Glob(filepath.Join(b.dir, ".prepare-*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	for _, w := range []wanted{{source: file, kernel: "eki-1"}, {source: file + "x"}, {source: "/etc/passwd"}, {source: file, virtualization: "paravirtual", kernel: "eki-1"}} {
		b := w.bringer(t)
		if p, _, err := b.bring(t.Context(), image.Listed{}); err == nil {
			t.Errorf("%+v brought %+v", w, p)
		}
		if left, _ := os.ReadDir(b.dir); len(left) > 0 {
			t.Errorf("%+v left %v", w, left)
		}
	}
}

// A download is verified, is not repeated, and isn't taken where it is something else.
func TestBringDownload(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("no qemu-img: apt-get install qemu-utils")
	}
	qcow2 := filepath.Join(t.TempDir(), "disk.qcow2")
	if out, err := exec.Command("qemu-img", "convert", "-O", "qcow2", bootable(t), qcow2).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	data, err := os.ReadFile(qcow2)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	var asked atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/SUMS":
			fmt.Fprintf(w, "%s  disk.qcow2\n", digest)
		case "/LIES":
			fmt.Fprintf(w, "%064x  disk.qcow2\n", 1)
		case "/disk.qcow2":
			asked.Add(1)
			w.Write(data)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	entry := func(sums, format string) image.Listed {
		return image.Listed{Catalog: "acme", Entry: image.Entry{Name: "host", Version: "1", Description: "a host", Architecture: "x86_64", Virtualization: "hvm",
			Download: &image.Download{URL: server.URL + "/disk.qcow2", Format: format, Sums: server.URL + sums, Hash: "sha256"}}}
	}
	b := wanted{source: "host"}.bringer(t)
	b.client, b.fetch.Transport = server.Client(), server.Client().Transport.(*http.Transport)
	for range 2 {
		p, done, err := b.bring(t.Context(), entry("/SUMS", "qcow2"))
		if err != nil {
			t.Fatal(err)
		}
		if p.name != "host" || p.description != "a host" || p.version != digest[:versionDigits] || p.format != "QCOW2" {
			t.Errorf("brought %+v", p)
		}
		if info, err := os.Stat(p.files.Disk); err != nil || info.Size() != 2<<20 {
			t.Errorf("the disk: %v, %v", info, err)
		}
		done()
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("downloaded %d times", n)
	}
	for want, l := range map[string]image.Listed{
		"digest":                     entry("/LIES", "qcow2"),
		"404":                        entry("/gone", "qcow2"),
		"and its catalogue says raw": entry("/SUMS", "raw"),
	} {
		if p, _, err := b.bring(t.Context(), l); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", want, p, err)
		}
	}
	plain := wanted{source: "http://h.example/x.img"}.bringer(t)
	if _, _, err := plain.bring(t.Context(), image.Listed{}); err == nil || !strings.Contains(err.Error(), "--digest") {
		t.Errorf("by http, without a digest: %v", err)
	}
}
