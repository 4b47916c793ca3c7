package bundle

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRoundTrip(t *testing.T) {
	for _, size := range []int{1, 511, 512, 513, 8192, chunkSize - tarBlock, chunkSize, chunkSize + 1, 3<<20 + 17} {
		for _, partSize := range []int64{7777, 64 << 10, DefaultPartSize} {
			t.Run(fmt.Sprintf("%d bytes in parts of %d", size, partSize), func(t *testing.T) {
				image, options := testImage(size), testOptions()
				options.PartSize = partSize
				m, xml, parts := bundled(t, image, options)
				if err := m.Verify(RequireSignature, &userID().key.PublicKey); err != nil {
					t.Error(err)
				}
				if len(m.Parts) != len(parts) || bytes.Contains(xml, []byte("\n")) {
					t.Errorf("%d parts listed, %d written; manifest %s", len(m.Parts), len(parts), xml)
				}
				got, err := unpacked(t.Context(), m, parts.open)
				if err != nil || !bytes.Equal(got, image) {
					t.Errorf("unpacked %d bytes, equal %v, error %v", len(got), bytes.Equal(got, image), err)
				}
			})
		}
	}
}

func TestWriteKeys(t *testing.T) {
	options := testOptions()
	options.EncKey, options.EncIV, options.Rand = nil, nil, bytes.NewReader(append(bytes.Clone(testKey), testIV...))
	m, _, _ := bundled(t, testImage(1000), options)
	for who, open := range map[string]func() ([]byte, []byte, error){
		"cloud": func() ([]byte, []byte, error) { return m.Keys(cloudID().key) },
		"user":  func() ([]byte, []byte, error) { return m.UserKeys(userID().key) },
	} {
		key, iv, err := open()
		if err != nil || !bytes.Equal(key, testKey) || !bytes.Equal(iv, testIV) {
			t.Errorf("%s gets key %q, IV %q, error %v", who, key, iv, err)
		}
	}
	if _, _, err := m.Keys(strangerID().key); err != ErrKey {
		t.Errorf("another cloud gets %v, want ErrKey", err)
	}
	options.Rand = strings.NewReader("too short")
	if _, _, err := Write(t.Context(), strings.NewReader("x"), 1, options, make(store).sink); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short randomness: %v", err)
	}
}

// The same key and IV make the same parts, however many cores there are.
func TestReproducible(t *testing.T) {
	image := testImage(5 << 20)
	first, _, want := bundled(t, image, testOptions())
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, cores := range []int{1, 3} {
		runtime.GOMAXPROCS(cores)
		m, _, parts := bundled(t, image, testOptions())
		if !maps.EqualFunc(parts, want, bytes.Equal) || m.Digest != first.Digest || !slices.Equal(m.Parts, first.Parts) {
			t.Errorf("parts differ on %d cores", cores)
		}
	}
}

// A tar is padded to whole records of 10240 bytes.
func TestTarStream(t *testing.T) {
	for size, want := range map[int64]int64{1: 10240, 8192: 10240, 8193: 10240, 8704: 10240, 8705: 20480, 10240: 20480, 9 << 30: 9663682560} {
		header, err := tarHeader("img", size)
		if err != nil || len(header) != tarBlock {
			t.Fatalf("header of %d bytes: %v", len(header), err)
		}
		if got := tarBlock + size + tarTrailer(tarBlock, size); got != want {
			t.Errorf("a tar of %d bytes has %d, want %d", size, got, want)
		}
	}
}

func TestTarHeaderLikePython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 isn't installed")
	}
	const script = `import sys, tarfile
for name in sys.argv[1::2]:
    t = tarfile.TarInfo(name); t.size = int(sys.argv[sys.argv.index(name) + 1])
    sys.stdout.buffer.write(t.tobuf(tarfile.GNU_FORMAT))`
	args, ours := []string{"-c", script}, []byte(nil)
	for name, size := range map[string]int64{
		"img": 1, "octal": 1<<33 - 1, "binary": 1 << 33, "huge": 9 << 40, strings.Repeat("long", 30): 512, "übergröße": 513,
	} {
		header, err := tarHeader(name, size)
		if err != nil {
			t.Fatal(err)
		}
		args, ours = append(args, name, fmt.Sprint(size)), append(ours, header...)
	}
	theirs, err := exec.CommandContext(t.Context(), python, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(blankDevices(ours), blankDevices(theirs)) {
		t.Errorf("%q:\nours   %q\ntheirs %q", args[2:], ours, theirs)
	}
}

// blankDevices makes the headers of Pythons before and after 3.9 alike: the later leave a regular file's device numbers
// empty, the earlier and the euca2ools that ran on them write zeros.
func blankDevices(header []byte) []byte {
	header = bytes.Clone(header)
	for block := range slices.Chunk(header, tarBlock) {
		if string(block[257:262]) == "ustar" {
			clear(block[148:156])
			clear(block[329:345])
		}
	}
	return header
}

func TestWriteKinds(t *testing.T) {
	tests := []struct {
		kind    Kind
		change  func(*Options)
		has     []string
		without []string
	}{
		{Machine, func(o *Options) { o.KernelID, o.RamdiskID = "eki-12345678", "eri-12345678" },
			[]string{"<type>machine</type>", "<kernel_id>eki-12345678</kernel_id><ramdisk_id>eri-12345678</ramdisk_id>"}, []string{"block_device", "product_code"}},
		{Machine, func(o *Options) {
			o.BlockDeviceMappings = []Mapping{{"root", "/dev/sda1"}, {"ami", "sda"}}
			o.ProductCodes = []string{"b", "a"}
		}, []string{"<block_device_mapping><mapping><virtual>ami</virtual><device>sda</device></mapping><mapping><virtual>root</virtual><device>/dev/sda1</device></mapping></block_device_mapping>",
			"<product_codes><product_code>b</product_code><product_code>a</product_code></product_codes>"}, []string{"kernel_id"}},
		{Kernel, func(*Options) {}, []string{"<type>kernel</type>", "<kernel_id>true</kernel_id>"}, []string{"ramdisk_id"}},
		{Ramdisk, func(o *Options) { o.RamdiskID = "yes" }, []string{"<type>ramdisk</type>", "<ramdisk_id>true</ramdisk_id>"}, []string{"kernel_id"}},
		{Machine, func(o *Options) { o.UserKey, o.UserCert = nil, nil },
			[]string{"<signature>UNSIGNED</signature>", `<user_encrypted_key algorithm="AES-128-CBC"></user_encrypted_key>`, "<user_encrypted_iv></user_encrypted_iv>"}, nil},
	}
	for _, test := range tests {
		options := testOptions()
		options.Kind = test.kind
		test.change(&options)
		m, xml, _ := bundled(t, testImage(100), options)
		if kind, err := m.Kind("img" + ManifestSuffix); kind != test.kind || err != nil {
			t.Errorf("%s: reads back as %s, %v", test.kind, kind, err)
		}
		for _, want := range test.has {
			if !bytes.Contains(xml, []byte(want)) {
				t.Errorf("%s: manifest lacks %s:\n%s", test.kind, want, xml)
			}
		}
		for _, bad := range test.without {
			if bytes.Contains(xml, []byte(bad)) {
				t.Errorf("%s: manifest has %s:\n%s", test.kind, bad, xml)
			}
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(*Options){
		"is not a file name":     func(o *Options) { o.Prefix = ".." },
		"path separator":         func(o *Options) { o.Prefix = "../img" },
		"control or invalid":     func(o *Options) { o.Prefix = "a\x00b" },
		"longer than 240":        func(o *Options) { o.Prefix = strings.Repeat("a", 241) },
		"12-digit":               func(o *Options) { o.Account = "12345678901x" },
		"not machine, kernel":    func(o *Options) { o.Kind = "floppy" },
		"no architecture":        func(o *Options) { o.Architecture = "" },
		"architecture \"<x>\"":   func(o *Options) { o.Architecture = "<x>" },
		"part size -1":           func(o *Options) { o.PartSize = -1 },
		"key has 3 bytes":        func(o *Options) { o.EncKey = []byte("abc") },
		"IV has 3 bytes":         func(o *Options) { o.EncIV = []byte("abc") },
		"no cloud certificate":   func(o *Options) { o.CloudCert = nil },
		"bundles need RSA":       func(o *Options) { o.CloudCert = &x509.Certificate{PublicKey: ec.Public()} },
		"makes the image a":      func(o *Options) { o.KernelID = "true" },
		"has no kernel":          func(o *Options) { o.Kind, o.KernelID = Kernel, "eki-12345678" },
		"has no block device":    func(o *Options) { o.Kind, o.ProductCodes = Ramdisk, []string{"x"} },
		"that fit a manifest":    func(o *Options) { o.PartSize = 1 },
		`device "a\nb" holds`:    func(o *Options) { o.BlockDeviceMappings = []Mapping{{"ami", "a\nb"}} },
		`product code "&" holds`: func(o *Options) { o.ProductCodes = []string{"&"} },
	}
	image := testImage(1 << 20)
	for want, change := range tests {
		options := testOptions()
		change(&options)
		_, _, err := Write(t.Context(), bytes.NewReader(image), int64(len(image)), options, make(store).sink)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, have %v", want, err)
		}
	}
	for _, size := range []int64{-1, 0, maxImageSize + 1} {
		if _, _, err := Write(t.Context(), bytes.NewReader(nil), size, testOptions(), make(store).sink); err == nil {
			t.Errorf("an image of %d bytes is bundled", size)
		}
	}
}

func TestWriteWrongSource(t *testing.T) {
	broken := errors.New("bad sector")
	image := testImage(100000)
	tests := []struct {
		src  io.Reader
		want string
	}{
		{bytes.NewReader(image[:99999]), "the image ends after 99999 bytes, not 100000"},
		{bytes.NewReader(append(bytes.Clone(image), 0)), "the image goes on after 100000 bytes"},
		{io.MultiReader(bytes.NewReader(image[:5000]), iotest.ErrReader(broken)), broken.Error()},
		{io.MultiReader(bytes.NewReader(image), iotest.ErrReader(broken)), broken.Error()},
	}
	for _, test := range tests {
		_, _, err := Write(t.Context(), test.src, 100000, testOptions(), make(store).sink)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("want %q, have %v", test.want, err)
		}
	}
	for _, src := range []io.Reader{iotest.OneByteReader(bytes.NewReader(image)), iotest.DataErrReader(bytes.NewReader(image))} {
		if _, _, err := Write(t.Context(), src, 100000, testOptions(), make(store).sink); err != nil {
			t.Errorf("%T: %v", src, err)
		}
	}
}

// brokenPart fails at one of a part's three moments.
type brokenPart struct {
	PartWriter
	write, close error
	aborted      *error
}

func (b brokenPart) Write(p []byte) (int, error) {
	if b.write != nil {
		return 0, b.write
	}
	return b.PartWriter.Write(p)
}

func (b brokenPart) Close() error { return errors.Join(b.close, b.PartWriter.Close()) }

func (b brokenPart) CloseWithError(err error) error {
	*b.aborted = err
	return nil
}

func TestWriteBrokenSink(t *testing.T) {
	full := errors.New("no space left")
	image := testImage(1 << 20)
	var aborted error
	tests := []struct {
		name    string
		part    func(PartWriter) (PartWriter, error)
		aborted bool
	}{
		{"open", func(PartWriter) (PartWriter, error) { return nil, full }, false},
		{"write", func(p PartWriter) (PartWriter, error) { return brokenPart{p, full, nil, &aborted}, nil }, true},
		{"close", func(p PartWriter) (PartWriter, error) { return brokenPart{p, nil, full, &aborted}, nil }, false},
	}
	for _, test := range tests {
		aborted = nil
		parts := make(store)
		sink := func(ctx context.Context, name string) (PartWriter, error) {
			part, err := parts.sink(ctx, name)
			if name == "img.part.02" {
				return test.part(part)
			}
			return part, err
		}
		_, _, err := Write(t.Context(), bytes.NewReader(image), int64(len(image)), testOptions(), sink)
		if !errors.Is(err, full) || !strings.Contains(err.Error(), test.name+" img.part.02") {
			t.Errorf("%s: %v", test.name, err)
		}
		if errors.Is(aborted, full) != test.aborted {
			t.Errorf("%s: part was aborted with %v", test.name, aborted)
		}
	}
}

// endless is an image that never ends and cancels once it has been read for a while.
type endless struct {
	cancel context.CancelCauseFunc
	left   int
	cause  error
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left -= len(p); e.left < 0 {
		e.cancel(e.cause)
	}
	return len(p), nil
}

func TestWriteCancel(t *testing.T) {
	stop := errors.New("the user pressed ^C")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, _, err := Write(ctx, &endless{cancel, 20 << 20, stop}, 1<<40, testOptions(), make(store).sink)
	if !errors.Is(err, stop) {
		t.Errorf("want %v, have %v", stop, err)
	}
}

func TestWriteProgress(t *testing.T) {
	image, options := testImage(5<<20), testOptions()
	var last int64
	options.Progress = func(done, total int64) {
		if done <= last || done > total || total != int64(len(image)) {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
	}
	bundled(t, image, options)
	if last != int64(len(image)) {
		t.Errorf("ended at %d", last)
	}
}

// Where the ciphertext fills its last part, no empty one follows.
func TestExactLastPart(t *testing.T) {
	m, _, _ := bundled(t, testImage(100000), testOptions())
	options := testOptions()
	options.PartSize = m.BundledSize
	whole, _, parts := bundled(t, testImage(100000), options)
	if len(whole.Parts) != 1 || int64(len(parts["img.part.00"])) != m.BundledSize {
		t.Errorf("%d parts", len(whole.Parts))
	}
	if whole.Parts[0].Digest != sha1.Sum(parts["img.part.00"]) {
		t.Error("digest differs")
	}
}
