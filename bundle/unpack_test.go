package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// Every class of damage to a part, at every class of offset, is that part's error.
func TestDamagedPart(t *testing.T) {
	image := testImage(600000)
	m, _, good := bundled(t, image, testOptions())
	last := len(m.Parts) - 1
	if last < 2 {
		t.Fatalf("only %d parts", len(m.Parts))
	}
	type damage struct {
		name string
		do   func([]byte) []byte
		want error
		// first is what is wrong with part 0, whose length isn't known well in parts of this size; nil means want
		first error
	}
	flip := func(at int) func([]byte) []byte {
		return func(p []byte) []byte { p[(at+len(p))%len(p)] ^= 1; return p }
	}
	damages := []damage{
		{"cut to nothing", func(p []byte) []byte { return nil }, ErrShortPart, nil},
		{"cut by one", func(p []byte) []byte { return p[:len(p)-1] }, ErrShortPart, ErrPartDigest},
		{"cut by a block", func(p []byte) []byte { return p[:len(p)-16] }, ErrShortPart, ErrPartDigest},
		{"cut in the middle", func(p []byte) []byte { return p[:len(p)/2] }, ErrShortPart, nil},
		{"a byte too long", func(p []byte) []byte { return append(p, 0) }, ErrLongPart, ErrPartDigest},
		{"a block too long", func(p []byte) []byte { return append(p, p[:16]...) }, ErrLongPart, ErrPartDigest},
		{"far too long", func(p []byte) []byte { return bytes.Repeat(p, 100) }, ErrLongPart, nil},
		{"all zeros", func(p []byte) []byte { return make([]byte, len(p)) }, ErrPartDigest, nil},
	}
	for _, at := range []int{0, 1, 15, 16, 17, 511, 4096, -1, -15, -16, -17} {
		damages = append(damages, damage{fmt.Sprintf("bit flipped at %d", at), flip(at), ErrPartDigest, nil})
	}
	for _, index := range []int{0, 1, last - 1, last} {
		for _, d := range damages {
			t.Run(fmt.Sprintf("part %d %s", index, d.name), func(t *testing.T) {
				parts, name := good.clone(), m.Parts[index].Name
				parts[name] = d.do(parts[name])
				want := d.want
				if index == 0 && d.first != nil {
					want = d.first
				}
				_, err := unpacked(t.Context(), m, parts.open)
				var part *PartError
				if !errors.As(err, &part) || part.Index != index || part.Name != name || !errors.Is(err, want) {
					t.Errorf("want part %d: %v, have %v", index, want, err)
				}
			})
		}
	}
}

// In parts of the usual size the length tells even part 0's damage apart.
func TestDamagedFirstPart(t *testing.T) {
	ciphertext := make([]byte, DefaultPartSize+1600)
	m, good := split(ciphertext, [sha1.Size]byte{}, 1, DefaultPartSize)
	for cut, want := range map[int]error{DefaultPartSize - 1: ErrShortPart, DefaultPartSize + 1: ErrLongPart} {
		parts := good.clone()
		parts["img.part.00"] = make([]byte, cut)
		var part *PartError
		if _, err := unpacked(t.Context(), m, parts.open); !errors.As(err, &part) || part.Index != 0 || !errors.Is(err, want) {
			t.Errorf("%d bytes: want %v, have %v", cut, want, err)
		}
	}
}

// Parts in the wrong order, missing, or unreadable.
func TestWrongParts(t *testing.T) {
	m, _, good := bundled(t, testImage(600000), testOptions())
	name := func(i int) string { return m.Parts[i].Name }
	broken := errors.New("connection reset")
	tests := []struct {
		name  string
		open  func(store) Opener
		index int
		want  error
	}{
		{"missing", func(s store) Opener { delete(s, name(1)); return s.open }, 1, fs.ErrNotExist},
		{"swapped", func(s store) Opener { s[name(0)], s[name(1)] = s[name(1)], s[name(0)]; return s.open }, 0, ErrPartDigest},
		{"breaks off", func(s store) Opener {
			return func(ctx context.Context, part Part) (io.ReadCloser, error) {
				if part.Index != 1 {
					return s.open(ctx, part)
				}
				return io.NopCloser(io.MultiReader(bytes.NewReader(s[part.Name][:1000]), brokenReader{broken})), nil
			}
		}, 1, broken},
		{"never yields", func(s store) Opener {
			return func(context.Context, Part) (io.ReadCloser, error) {
				return io.NopCloser(brokenReader{nil}), nil
			}
		}, 0, io.ErrNoProgress},
	}
	for _, test := range tests {
		_, err := unpacked(t.Context(), m, test.open(good.clone()))
		var part *PartError
		if !errors.As(err, &part) || part.Index != test.index || !errors.Is(err, test.want) {
			t.Errorf("%s: want part %d: %v, have %v", test.name, test.index, test.want, err)
		}
	}
}

type brokenReader struct{ err error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.err }

// tarOf is a tar of these members, each with the data of its own size.
func tarOf(t testing.TB, members ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, header := range members {
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			if _, err := w.Write(testImage(int(header.Size))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func regular(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}
}

// Bundles whose parts are what the manifest lists, but hold something else than one image.
func TestWrongContents(t *testing.T) {
	const size = 5000
	good := tarOf(t, regular("img", size))
	link := func(kind byte) []byte {
		return tarOf(t, &tar.Header{Typeflag: kind, Name: "img", Linkname: "/etc/passwd"})
	}
	cut := func(p []byte, n int) []byte { return slices.Clone(p[:n]) }
	change := func(p []byte, at int, b byte) []byte { p = slices.Clone(p); p[at] ^= b; return p }
	zip := gzipped(good)
	whole := func(plain []byte) func() (*Manifest, store) {
		return func() (*Manifest, store) { return encrypted(plain, sha1.Sum(good), size, 1024) }
	}
	tarred := func(stream []byte) func() (*Manifest, store) {
		return func() (*Manifest, store) { return sealed(stream, size, 1024) }
	}
	tests := []struct {
		name string
		make func() (*Manifest, store)
		want error
	}{
		{"good", tarred(good), nil},
		{"good without padding", tarred(cut(good, 512+5120+1024)), nil},
		{"good with GNU blocking", tarred(append(slices.Clone(good), make([]byte, 10240)...)), nil},
		{"two members", tarred(tarOf(t, regular("img", size), regular("more", 1))), ErrTar},
		{"a symbolic link", tarred(link(tar.TypeSymlink)), ErrTar},
		{"a hard link", tarred(link(tar.TypeLink)), ErrTar},
		{"a folder", tarred(tarOf(t, &tar.Header{Typeflag: tar.TypeDir, Name: "img/"})), ErrTar},
		{"a device", tarred(tarOf(t, &tar.Header{Typeflag: tar.TypeBlock, Name: "img"})), ErrTar},
		{"image and link", tarred(tarOf(t, regular("img", size), &tar.Header{Typeflag: tar.TypeSymlink, Name: "b", Linkname: "/"})), ErrTar},
		{"no member", tarred(make([]byte, 10240)), ErrTar},
		{"nothing", tarred(nil), ErrTar},
		{"noise", tarred(testImage(10240)), ErrTar},
		{"bad header sum", tarred(change(good, 0, 1)), ErrTar},
		{"cut header", tarred(cut(good, 100)), ErrTar},
		{"cut data", tarred(cut(good, 3000)), ErrTar},
		{"good without an end", tarred(cut(good, 512+5000)), nil},
		{"something after the end", tarred(append(slices.Clone(good), []byte("hidden")...)), ErrTar},
		{"smaller image", tarred(tarOf(t, regular("img", size-1))), ErrImageSize},
		{"larger image", tarred(tarOf(t, regular("img", size+1))), ErrImageSize},
		{"bomb of zeros", tarred(append(slices.Clone(good), make([]byte, 8<<20)...)), ErrBomb},
		{"other tar", func() (*Manifest, store) {
			return encrypted(gzipped(change(good, 600, 1)), sha1.Sum(good), size, 1024)
		}, ErrDigest},
		{"not gzip", whole(good), ErrGzip},
		{"empty gzip", whole(nil), ErrGzip},
		{"cut gzip", whole(cut(zip, len(zip)-1)), ErrGzip},
		{"half a gzip", whole(cut(zip, len(zip)/2)), ErrGzip},
		{"gzip with wrong sum", whole(change(zip, len(zip)-8, 1)), ErrGzip},
		{"gzip with wrong length", whole(change(zip, len(zip)-1, 1)), ErrGzip},
		{"garbage after gzip", whole(append(slices.Clone(zip), "garbage"...)), ErrGzip},
		{"two gzip members", whole(append(gzipped(good[:777]), gzipped(good[777:])...)), nil},
		{"half a block", func() (*Manifest, store) {
			return split(append(cbc(make([]byte, 1600)), 1), sha1.Sum(good), size, 1024)
		}, ErrPadding},
		{"no padding", func() (*Manifest, store) { return split(unpadded(zip, 0), sha1.Sum(good), size, 1024) }, ErrPadding},
		{"padding of 17", func() (*Manifest, store) { return split(unpadded(zip, 17), sha1.Sum(good), size, 1024) }, ErrPadding},
		{"uneven padding", func() (*Manifest, store) { return split(unpadded(zip, 2), sha1.Sum(good), size, 1024) }, ErrPadding},
		{"cut block", func() (*Manifest, store) {
			return split(append(unpadded(zip, 1), 0), sha1.Sum(good), size, 1024)
		}, ErrPadding},
		{"bundled_size too large", func() (*Manifest, store) {
			m, parts := sealed(good, size, 1024)
			m.BundledSize += 16
			return m, parts
		}, ErrBundledSize},
		{"bundled_size too small", func() (*Manifest, store) {
			m, parts := sealed(good, size, 1024)
			m.BundledSize -= 16
			return m, parts
		}, ErrLongPart},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, parts := test.make()
			checkContents(t, m, parts, test.want)
		})
	}
}

func checkContents(t *testing.T, m *Manifest, parts store, want error) {
	t.Helper()
	image, err := unpacked(t.Context(), m, parts.open)
	if want == nil && (err != nil || !bytes.Equal(image, testImage(int(m.Size)))) {
		t.Errorf("%d bytes, %v", len(image), err)
	}
	if !errors.Is(err, want) {
		t.Errorf("want %v, have %v", want, err)
	}
	if int64(len(image)) > m.Size {
		t.Errorf("%d bytes came out", len(image))
	}
}

// unpadded encrypts a gzip stream whose last block ends in a zero byte and then last, in place of PKCS#7.
func unpadded(zip []byte, last byte) []byte {
	plain := append(slices.Clone(zip), make([]byte, 32-len(zip)%16)...)
	plain[len(plain)-1] = last
	return cbc(plain)
}

func TestWrongKey(t *testing.T) {
	m, _, parts := bundled(t, testImage(3<<20), testOptions())
	err := Unpack(t.Context(), m, testIV, testKey, parts.open, io.Discard, nil)
	if !errors.Is(err, ErrGzip) || !strings.Contains(err.Error(), "another key") {
		t.Errorf("have %v", err)
	}
	err = Unpack(t.Context(), m, testKey[:15], testIV, parts.open, io.Discard, nil)
	if err == nil || !strings.Contains(err.Error(), "key has 15 bytes") {
		t.Errorf("have %v", err)
	}
}

// Bundlers cut an empty last part where the ciphertext ends with a full one.
func TestEmptyLastPart(t *testing.T) {
	image := testImage(100000)
	m, _, parts := bundled(t, image, testOptions())
	empty := Part{Index: len(m.Parts), Name: PartName("img", len(m.Parts)), Digest: sha1.Sum(nil)}
	m.Parts, parts[empty.Name] = append(m.Parts, empty), nil
	if got, err := unpacked(t.Context(), m, parts.open); err != nil || !bytes.Equal(got, image) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	parts[empty.Name] = []byte{0}
	if _, err := unpacked(t.Context(), m, parts.open); !errors.Is(err, ErrLongPart) {
		t.Errorf("a byte in the empty part: %v", err)
	}
}

// AWS's bundler makes its tar with --sparse.
func TestSparseMember(t *testing.T) {
	const size = 1 << 20
	var stream bytes.Buffer
	header := make([]byte, tarBlock)
	copy(header, "img")
	copy(header[100:], "0000644\x000000000\x000000000\x0000000001000\x0000000000000\x00        S")
	copy(header[257:], "ustar  \x00")
	copy(header[386:], "00000200000\x0000000001000\x0000004000000\x0000000000000\x00") // 512 bytes at 64 KiB, and the end
	copy(header[483:], "00004000000\x00")
	sum := 0
	for _, b := range header {
		sum += int(b)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
	stream.Write(header)
	stream.Write(bytes.Repeat([]byte{7}, 512))
	stream.Write(make([]byte, 9216))
	m, parts := sealed(stream.Bytes(), size, 1024)
	image, err := unpacked(t.Context(), m, parts.open)
	want := make([]byte, size)
	copy(want[64<<10:], bytes.Repeat([]byte{7}, 512))
	if err != nil || !bytes.Equal(image, want) {
		t.Errorf("%d bytes, %v", len(image), err)
	}
}

func TestFullDisk(t *testing.T) {
	full := errors.New("no space left on device")
	m, _, parts := bundled(t, testImage(3<<20), testOptions())
	err := Unpack(t.Context(), m, testKey, testIV, parts.open, fullWriter{full}, nil)
	if !errors.Is(err, full) || !strings.Contains(err.Error(), "write image at byte 0") {
		t.Errorf("have %v", err)
	}
}

type fullWriter struct{ err error }

func (w fullWriter) Write([]byte) (int, error) { return 0, w.err }

// A damaged part is blamed even if the image's disk is full as well, and parts far ahead aren't read any more.
func TestUnpackStopsReading(t *testing.T) {
	image := testImage(16 << 20)
	m, _, parts := bundled(t, image, testOptions())
	opened := 0
	open := func(ctx context.Context, part Part) (io.ReadCloser, error) {
		opened++ // one opening at a time, each before the next
		return parts.open(ctx, part)
	}
	if err := Unpack(t.Context(), m, testKey, testIV, open, fullWriter{io.ErrShortWrite}, nil); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("have %v", err)
	}
	if opened > len(m.Parts)/2 {
		t.Errorf("%d of %d parts were opened after the first write had failed", opened, len(m.Parts))
	}
}

func TestUnpackProgress(t *testing.T) {
	image := testImage(3 << 20)
	m, _, parts := bundled(t, image, testOptions())
	last := int64(-1)
	err := Unpack(t.Context(), m, testKey, testIV, parts.open, io.Discard, func(done, total int64) {
		if done < last || total != m.Size {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || last != m.Size {
		t.Errorf("ended at %d: %v", last, err)
	}
}

// body counts what is open.
type body struct {
	io.Reader
	close func() error
}

func (b body) Close() error { return b.close() }

// Cancelling ends a read that would never end, and closes what was opened.
func TestUnpackCancel(t *testing.T) {
	m, _, parts := bundled(t, testImage(1<<20), testOptions())
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("the launch was given up")
		ctx, cancel := context.WithCancelCause(t.Context())
		open, closed := 0, make(chan int, len(m.Parts))
		opener := func(ctx context.Context, part Part) (io.ReadCloser, error) {
			if part.Index == 2 { // opened ahead, and hangs as an HTTP request would
				<-ctx.Done()
				return nil, ctx.Err()
			}
			open++
			r, w := io.Pipe()
			go func() {
				if _, err := w.Write(parts[part.Name][:1000]); err == nil && part.Index == 0 {
					_, _ = w.Write(parts[part.Name][1000:])
					w.Close()
				}
			}()
			return body{r, func() error { closed <- part.Index; return r.Close() }}, nil
		}
		result := make(chan error, 1)
		go func() { result <- Unpack(ctx, m, testKey, testIV, opener, io.Discard, nil) }()
		synctest.Wait() // part 1 hangs after 1000 bytes
		cancel(stop)
		if err := <-result; !errors.Is(err, stop) {
			t.Errorf("want %v, have %v", stop, err)
		}
		if len(closed) != open || open != 2 {
			t.Errorf("%d opened, %d closed", open, len(closed))
		}
	})
}
