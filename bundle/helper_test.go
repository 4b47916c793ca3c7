package bundle

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"io/fs"
	"maps"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// identity is an RSA key with its certificate.
type identity struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

var identities = sync.OnceValue(func() [3]identity {
	var ids [3]identity
	for i, name := range []string{"cloud", "user", "stranger"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			panic(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			panic(err)
		}
		ids[i] = identity{key, cert}
	}
	return ids
})

func cloudID() identity    { return identities()[0] }
func userID() identity     { return identities()[1] }
func strangerID() identity { return identities()[2] }

// files writes the identity as PEM files and returns their paths.
func (id identity) files(t testing.TB, dir, name string) (key, cert string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(id.key)
	if err != nil {
		t.Fatal(err)
	}
	key, cert = filepath.Join(dir, name+"-key.pem"), filepath.Join(dir, name+"-cert.pem")
	writeFile(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	writeFile(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.cert.Raw}))
	return key, cert
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

var (
	testKey = []byte("0123456789abcdef")
	testIV  = []byte("fedcba9876543210")
)

func testOptions() Options {
	return Options{
		Prefix: "img", Account: "123456789012", Kind: Machine, Architecture: "x86_64",
		PartSize: 64 << 10, EncKey: testKey, EncIV: testIV,
		UserKey: userID().key, UserCert: userID().cert, CloudCert: cloudID().cert,
	}
}

// testImage is bytes of three kinds: noise, text that compresses, and zeros.
func testImage(size int) []byte {
	image := make([]byte, size)
	random := mathrand.NewChaCha8([32]byte{1})
	for at := 0; at < size; at += 30000 {
		stretch := image[at:min(at+30000, size)]
		switch at / 30000 % 3 {
		case 0:
			_, _ = random.Read(stretch)
		case 1:
			copy(stretch, bytes.Repeat([]byte("many stems from one root. "), 1200))
		}
	}
	return image
}

// store is a bundle's parts in memory; as a Sink it keeps only parts that were closed well.
type store map[string][]byte

type storePart struct {
	bytes.Buffer
	store store
	name  string
}

func (s store) sink(_ context.Context, name string) (PartWriter, error) {
	return &storePart{store: s, name: name}, nil
}

func (p *storePart) Close() error {
	p.store[p.name] = bytes.Clone(p.Bytes())
	return nil
}

func (p *storePart) CloseWithError(error) error { return nil }

func (s store) open(_ context.Context, part Part) (io.ReadCloser, error) {
	data, ok := s[part.Name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (s store) clone() store {
	copied := maps.Clone(s)
	for name, data := range copied {
		copied[name] = bytes.Clone(data)
	}
	return copied
}

// bundled writes a bundle into memory.
func bundled(t testing.TB, image []byte, options Options) (*Manifest, []byte, store) {
	t.Helper()
	parts := make(store)
	m, xml, err := Write(t.Context(), bytes.NewReader(image), int64(len(image)), options, parts.sink)
	if err != nil {
		t.Fatal(err)
	}
	return m, xml, parts
}

// unpacked unpacks with the test key.
func unpacked(ctx context.Context, m *Manifest, open Opener) ([]byte, error) {
	var image bytes.Buffer
	err := Unpack(ctx, m, testKey, testIV, open, &image, nil)
	return image.Bytes(), err
}

// sealed makes a bundle out of any tar-like stream, truthful in everything but what the stream holds: the way to
// reach the inner stages with broken input.
func sealed(tarStream []byte, size int64, partSize int) (*Manifest, store) {
	return encrypted(gzipped(tarStream), sha1.Sum(tarStream), size, partSize)
}

func gzipped(p []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(p)
	_ = w.Close()
	return b.Bytes()
}

func encrypted(plain []byte, digest [sha1.Size]byte, size int64, partSize int) (*Manifest, store) {
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	return split(cbc(append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)), digest, size, partSize)
}

// cbc encrypts whole blocks.
func cbc(blocks []byte) []byte {
	block, err := aes.NewCipher(testKey)
	if err != nil {
		panic(err)
	}
	cipher.NewCBCEncrypter(block, testIV).CryptBlocks(blocks, blocks)
	return blocks
}

func split(ciphertext []byte, digest [sha1.Size]byte, size int64, partSize int) (*Manifest, store) {
	m := &Manifest{Name: "img", Digest: digest, Size: size, BundledSize: int64(len(ciphertext))}
	parts := make(store)
	for data := range slices.Chunk(ciphertext, partSize) {
		part := Part{Index: len(m.Parts), Name: PartName("img", len(m.Parts)), Digest: sha1.Sum(data)}
		parts[part.Name], m.Parts = data, append(m.Parts, part)
	}
	return m, parts
}

type rsaPublicKey = rsa.PublicKey

func encryptText(t testing.TB, s string) []byte {
	t.Helper()
	//lint:ignore SA1019 the bundle format is PKCS#1 v1.5
	out, err := rsa.EncryptPKCS1v15(rand.Reader, &cloudID().key.PublicKey, []byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return out
}
