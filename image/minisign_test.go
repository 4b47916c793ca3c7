package image

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/blake2b"
)

// golden reads a file that minisign 0.11 itself wrote.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "minisign", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func goldenKey(t testing.TB) PublicKey {
	t.Helper()
	k, err := ParsePublicKey(string(golden(t, "key.pub")))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestVerifyReadsMinisign(t *testing.T) {
	k := goldenKey(t)
	if k.ID() != "63C866D3E18CE3C7" {
		t.Errorf("key id %s; minisign's comment says 63C866D3E18CE3C7", k.ID())
	}
	if again, err := ParsePublicKey(k.String()); err != nil || again != k {
		t.Errorf("the key read again from its own line: %v, %v", again, err)
	}
	for file, want := range map[string]string{"ed.minisig": "serial 3", "legacy.minisig": "legacy"} {
		comment, err := k.Verify(golden(t, "message"), golden(t, file))
		if err != nil || comment != want {
			t.Errorf("%s: comment %q, %v; want %q", file, comment, err, want)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	k := goldenKey(t)
	message := golden(t, "message")
	for _, file := range []string{"ed.minisig", "legacy.minisig"} {
		good := golden(t, file)
		if _, err := k.Verify(append(message, ' '), good); !errors.Is(err, ErrSignature) {
			t.Errorf("%s over other bytes: %v", file, err)
		}
		lied := bytes.Replace(good, []byte("trusted comment: serial 3"), []byte("trusted comment: serial 4"), 1)
		lied = bytes.Replace(lied, []byte("trusted comment: legacy"), []byte("trusted comment: modern"), 1)
		if _, err := k.Verify(message, lied); !errors.Is(err, ErrSignature) {
			t.Errorf("%s with another comment: %v", file, err)
		}
		// Every bit of what is signed or signs matters; the first line is nobody's.
		lines := bytes.SplitAfter(good, []byte("\n"))
		for i := range good {
			if i < len(lines[0]) {
				continue
			}
			bad := bytes.Clone(good)
			bad[i] ^= 1
			if _, err := k.Verify(message, bad); err == nil {
				t.Errorf("%s verifies with byte %d changed", file, i)
			}
		}
		for end := range len(good) - 1 {
			if _, err := k.Verify(message, good[:end]); err == nil {
				t.Errorf("%s verifies with %d of its %d bytes", file, end, len(good))
			}
		}
	}
	other := k
	other.id[0] ^= 1
	if _, err := other.Verify(message, golden(t, "ed.minisig")); !errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), k.ID()) {
		t.Errorf("another key's signature: %v, want both keys' names", err)
	}
	if _, err := k.Verify(message, bytes.Repeat([]byte("a"), maxSignatureBytes+1)); err == nil {
		t.Error("an endless signature was read")
	}
}

func TestParsePublicKeyRefuses(t *testing.T) {
	good := strings.TrimSpace(strings.Split(string(golden(t, "key.pub")), "\n")[1])
	for name, bad := range map[string]string{
		"nothing":        "",
		"no base64":      "%%%",
		"short":          good[:40],
		"another kind":   base64.StdEncoding.EncodeToString(append([]byte("XX"), make([]byte, 40)...)),
		"two keys":       good + "\n" + good,
		"a secret key":   "untrusted comment: minisign encrypted secret key\n" + base64.StdEncoding.EncodeToString(make([]byte, 158)),
		"other comments": "comment\n" + good,
	} {
		if k, err := ParsePublicKey(bad); err == nil {
			t.Errorf("%s: read as %v", name, k)
		}
	}
}

// signer signs as minisign does, for tests that need a signature over bytes of their own.
type signer struct {
	secret ed25519.PrivateKey
	public PublicKey
}

func newSigner(t testing.TB, seed byte) signer {
	t.Helper()
	secret := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	s := signer{secret: secret, public: PublicKey{id: [8]byte{seed, 1, 2, 3}}}
	copy(s.public.key[:], secret.Public().(ed25519.PublicKey))
	return s
}

func (s signer) sign(message []byte, comment string) []byte {
	digest := blake2b.Sum512(message)
	signature := ed25519.Sign(s.secret, digest[:])
	global := ed25519.Sign(s.secret, append(bytes.Clone(signature), comment...))
	line := append(append([]byte(minisignHashed), s.public.id[:]...), signature...)
	return []byte(untrustedPrefix + "signed by a test\n" + base64.StdEncoding.EncodeToString(line) + "\n" +
		trustedPrefix + comment + "\n" + base64.StdEncoding.EncodeToString(global) + "\n")
}

func FuzzMinisign(f *testing.F) {
	f.Add(string(golden(f, "key.pub")), golden(f, "ed.minisig"))
	f.Add(goldenKey(f).String(), golden(f, "legacy.minisig"))
	f.Add("", []byte("\n\n\n"))
	message := golden(f, "message")
	want := goldenKey(f)
	f.Fuzz(func(t *testing.T, key string, signature []byte) {
		if k, err := ParsePublicKey(key); err == nil {
			if again, err := ParsePublicKey(k.String()); err != nil || again != k {
				t.Errorf("key %q reads as %v, then as %v, %v", key, k, again, err)
			}
		}
		comment, err := want.Verify(message, signature)
		if err == nil && comment != "serial 3" && comment != "legacy" {
			t.Errorf("forged: comment %q", comment)
		}
	})
}
