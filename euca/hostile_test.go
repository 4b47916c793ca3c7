package euca

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// damaged parts, each of a class of its own: where in the bundle, and how. All
// ways to read a bundle refuse them, and leave nothing.
func TestDamagedBundles(t *testing.T) {
	r := newWorkshop(t)
	r.do("euca-bundle-image -i image.raw -r x86_64 -d good -p one --part-size 16k")
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte {
			b = bytes.Clone(b)
			b[(at+len(b))%len(b)] ^= 4
			return b
		}
	}
	for _, c := range []struct {
		name, part string
		damage     func([]byte) []byte // nil: the part is missing
		word       string
	}{
		{"the first byte, of gzip's header", "one.part.00", flip(0), "SHA-1"},
		{"the tar's header", "one.part.00", flip(40), "SHA-1"},
		{"the middle of a part", "one.part.01", flip(8000), "SHA-1"},
		{"the last byte of a part", "one.part.01", flip(-1), "SHA-1"},
		{"gzip's checksum", "one.part.03", flip(-20), "SHA-1"},
		{"the padding", "one.part.03", flip(-1), "SHA-1"},
		{"a part cut short by a byte", "one.part.01", func(b []byte) []byte { return b[:len(b)-1] }, "shorter"},
		{"a part cut short by a block", "one.part.01", func(b []byte) []byte { return b[:len(b)-16] }, "shorter"},
		{"an empty part", "one.part.02", func([]byte) []byte { return nil }, "shorter"},
		{"the last part cut short", "one.part.03", func(b []byte) []byte { return b[:len(b)-16] }, "shorter"},
		{"a part that goes on", "one.part.01", func(b []byte) []byte { return append(bytes.Clone(b), 0) }, "longer"},
		{"a missing part", "one.part.02", nil, "one.part.02"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.t = t
			defer func() { os.RemoveAll("bad") }()
			r.objects = map[string]string{"mine": ""}
			for _, name := range []string{"one.part.00", "one.part.01", "one.part.02", "one.part.03", "one.manifest.xml"} {
				data := r.read("good/" + name)
				if name == c.part && c.damage == nil {
					continue
				}
				if name == c.part {
					data = c.damage(data)
				}
				if err := os.MkdirAll("bad", 0o700); err != nil {
					t.Fatal(err)
				}
				r.file("bad/"+name, data)
				r.objects["mine/"+name] = string(data)
			}
			r.refused("euca-unbundle -m bad/one.manifest.xml -s bad", c.part, c.word)
			r.refused("euca-download-and-unbundle -b mine -p one", c.part, c.word)
			r.refused("euca-download-bundle -b mine -p one", c.part)
			before := len(r.objects)
			r.refused("euca-upload-bundle -b other -m bad/one.manifest.xml", c.part)
			for key := range r.objects {
				if strings.HasSuffix(key, ".manifest.xml") && strings.HasPrefix(key, "other") {
					t.Errorf("a manifest of what isn't whole: %s (%d objects before)", key, before)
				}
			}
		})
	}
}

// Manifests that lie.
func TestLyingManifests(t *testing.T) {
	r := newWorkshop(t)
	r.do("euca-bundle-and-upload-image -i image.raw -r x86_64 -b mine -p one --part-size 16k")
	r.do("euca-download-bundle -b mine -p one")
	honest := string(r.read("one.manifest.xml"))
	swap := func(old, new string) func(string) string {
		return func(text string) string { return strings.ReplaceAll(text, old, new) }
	}
	sub := func(pattern, new string) func(string) string {
		return func(text string) string { return regexp.MustCompile(pattern).ReplaceAllString(text, new) }
	}
	r.file("secret", []byte("secret"))
	for _, c := range []struct {
		name string
		lie  func(string) string
		word string
	}{
		{"a part above", swap("<filename>one.part.01<", "<filename>../one.part.01<"), "path separator"},
		{"a part elsewhere", swap("<filename>one.part.01<", "<filename>/etc/passwd<"), "path separator"},
		{"an image above", swap("<name>one<", "<name>../one<"), "path separator"},
		{"a part that is none", swap("<filename>one.part.01<", "<filename>secret<"), "secret"},
		{"more parts than there are", swap(`<parts count="4"`, `<parts count="5"`), "count"},
		{"fewer parts", sub(`<part index="3">.*?</part>`, ""), "count"},
		{"fewer parts, and their number", func(s string) string { return sub(`<part index="3">.*?</part>`, "")(swap(`count="4"`, `count="3"`)(s)) }, "bundled_size"},
		{"a part twice", sub(`<part index="3">.*?</part>`, `<part index="3"><filename>one.part.00</filename><digest algorithm="SHA1">`+strings.Repeat("0", 40)+`</digest></part>`), "one.part.00"},
		{"a larger bundle", sub(`<bundled_size>\d+`, "<bundled_size>99999999"), "bundled_size"},
		{"a smaller bundle", sub(`<bundled_size>\d+`, "<bundled_size>40000"), "longer"},
		{"a larger image", sub(`<size>\d+`, "<size>150001"), "image has another size"},
		{"a smaller image", sub(`<size>\d+`, "<size>149999"), "image has another size"},
		{"another digest", sub(`</type><digest algorithm="SHA1">....`, `</type><digest algorithm="SHA1">0000`), "tar's digest"},
		{"an entity", func(s string) string { return `<!DOCTYPE m [<!ENTITY a SYSTEM "file:///etc/passwd">]>` + s }, "document type"},
		{"an element twice", sub(`(<user>\d+</user>)`, "$1$1"), "twice"},
		{"another's key", sub(`(<(?:ec2|user)_encrypted_key[^>]*>)....`, "${1}0000"), "decrypted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.t = t
			lie := c.lie(honest)
			if lie == honest {
				t.Fatal("that is no lie")
			}
			r.file("one.manifest.xml", []byte(lie))
			r.objects["mine/one.manifest.xml"] = lie
			r.refused("euca-unbundle -m one.manifest.xml", c.word)
			r.refused("euca-download-and-unbundle -b mine -p one", c.word)
			r.refused("euca-download-and-unbundle -b mine --local-manifest one.manifest.xml -d /dev/null", c.word)
		})
	}
	r.t = t
	r.objects["mine/one.manifest.xml"] = strings.Repeat("<manifest>", 1<<20)
	r.refused("euca-download-bundle -b mine -p one", "more than the")
	r.refused("euca-delete-bundle -b mine -p one", "more than the")
}

// bomb makes a bundle of what unpacks to more than it says, truthful in all else.
func (r *workshop) bomb(plain []byte, size int64) {
	r.t.Helper()
	r.do("euca-bundle-image -i image.raw -r x86_64 -d . -p bomb --enc-key 1 --enc-iv 2")
	key, iv := make([]byte, 16), make([]byte, 16)
	key[15], iv[15] = 1, 2
	block, err := aes.NewCipher(key)
	if err != nil {
		r.t.Fatal(err)
	}
	pad := 16 - len(plain)%16
	plain = append(plain, bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(plain, plain)
	sum := sha1.Sum(plain)
	text := string(r.read("bomb.manifest.xml"))
	text = regexp.MustCompile(`(<filename>bomb.part.00</filename><digest algorithm="SHA1">)[0-9a-f]+`).ReplaceAllString(text, "${1}"+hex.EncodeToString(sum[:]))
	text = regexp.MustCompile(`<bundled_size>\d+`).ReplaceAllString(text, fmt.Sprintf("<bundled_size>%d", len(plain)))
	text = regexp.MustCompile(`<size>\d+`).ReplaceAllString(text, fmt.Sprintf("<size>%d", size))
	r.file("bomb.manifest.xml", []byte(text))
	r.file("bomb.part.00", plain)
}

// A gzip bomb costs neither disk nor memory.
func TestBomb(t *testing.T) {
	r := newWorkshop(t)
	var packed bytes.Buffer
	gzipZeros(t, &packed, 1<<30)
	r.bomb(packed.Bytes(), 150_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r.refused("euca-unbundle -m bomb.manifest.xml", "tar")
	r.refused("euca-unbundle-stream -i bomb.part.00 -o out --enc-key 1 --enc-iv 2", "tar")
	runtime.ReadMemStats(&after)
	if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > 64<<20 {
		t.Errorf("%d MiB of memory for a bomb", grown>>20)
	}
}

// A folder, a pipe or a link that leads elsewhere is no part.
func TestOddParts(t *testing.T) {
	r := newWorkshop(t)
	r.do("euca-bundle-image -i image.raw -r x86_64 -d . -p one")
	part := r.read("one.part.00")
	outside := filepath.Join(t.TempDir(), "part")
	if err := os.WriteFile(outside, part, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(string) error{
		"a folder": func(p string) error { return os.Mkdir(p, 0o700) },
		"a pipe":   mkfifo,
		"a link":   func(p string) error { return os.Symlink(outside, p) },
	} {
		if err := os.Remove("one.part.00"); err != nil {
			t.Fatal(err)
		}
		if err := make("one.part.00"); err != nil {
			t.Fatal(name, err)
		}
		r.refused("euca-unbundle -m one.manifest.xml", "one.part.00")
		r.refused("euca-upload-bundle -m one.manifest.xml -b mine", "one.part.00")
	}
}

// What fails for a moment is tried again where that is asked for; where it fails
// for good nothing of the bundle stays.
func TestUploadFails(t *testing.T) {
	r := newWorkshop(t)
	r.fail = 2
	r.do("euca-bundle-and-upload-image -i image.raw -r x86_64 -b mine -p one --part-size 16k --retry")
	if len(r.objects) != 6 {
		t.Errorf("%d objects", len(r.objects))
	}
	clear(r.objects)
	r.fail = 1
	r.refused("euca-bundle-and-upload-image -i image.raw -r x86_64 -b mine -p one --part-size 16k", "(SlowDown): later (upload mine/one.part.0")
	if len(r.objects) != 1 {
		t.Errorf("left: %d objects", len(r.objects))
	}
	r.do("euca-bundle-image -i image.raw -r x86_64 -d . -p one --part-size 16k")
	r.fail = 1
	r.refused("euca-upload-bundle -m one.manifest.xml -b mine", "go on with it by --part 0")
	r.fail = 1
	r.do("euca-upload-bundle -m one.manifest.xml -b mine --retry")
}

// newFile writes what is zero as holes, and its size right.
func TestNewFile(t *testing.T) {
	dir := t.TempDir()
	want := append(append(make([]byte, 5*grain+17), picture(100_000)...), make([]byte, 3*grain+5)...)
	for _, piece := range []int{1, 511, grain, 3*grain + 1, len(want)} {
		f, err := createFile(filepath.Join(dir, "image"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{f}, iotest.DataErrReader(bytes.NewReader(want)), make([]byte, piece)); err != nil {
			t.Fatal(err)
		}
		if err := f.commit(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "image")); !bytes.Equal(got, want) || err != nil {
			t.Errorf("in pieces of %d: %d bytes, %v", piece, len(got), err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}
