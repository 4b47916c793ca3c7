package ec2

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Keys in testdata/keys were made by ssh-keygen, their fingerprints by openssl
// and ssh-keygen.
const (
	rsaFingerprint     = "83:8a:b6:52:74:e5:ec:a9:3e:ce:cf:e3:cf:7d:d4:39"
	ed25519Fingerprint = "xLeHXa7MIgssAfnJo4ilsLqjloJjub+aSDdkwFSZlqM="
)

// opensshBase64 is a key as clients send it.
const opensshBase64 = "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="

func keyFile(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "keys", name))
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func TestParsePublicKey(t *testing.T) {
	for name, want := range map[string]string{
		"rsa.openssh": rsaFingerprint, "rsa.rfc4716": rsaFingerprint, "rsa.pem": rsaFingerprint,
		"rsa.pkcs1.pem": rsaFingerprint, "rsa.der": rsaFingerprint,
		"ed25519.openssh": ed25519Fingerprint, "ed25519.rfc4716": ed25519Fingerprint,
	} {
		data := keyFile(t, name)
		for _, material := range [][]byte{data, []byte(base64.StdEncoding.EncodeToString(data))} {
			key, err := parsePublicKey(material)
			if err != nil || key.fingerprint != want {
				t.Errorf("%s: fingerprint %s, %v", name, key.fingerprint, err)
				continue
			}
			if line := key.line("my key"); !strings.HasSuffix(line, " my-key") || !strings.HasPrefix(line, "ssh-"+key.kind+" ") {
				t.Errorf("%s: line %s", name, line)
			}
		}
	}
}

func TestParsePublicKeyRefuses(t *testing.T) {
	rsaLine := string(keyFile(t, "rsa.openssh"))
	for name, test := range map[string]struct{ material, because string }{
		"nothing":          {"", "neither"},
		"text":             {"hello", "neither"},
		"ECDSA":            {string(keyFile(t, "ecdsa.openssh")), "ecdsa-sha2-nistp256 are not supported"},
		"1536 bits":        {string(keyFile(t, "rsa1536.openssh")), "1536"},
		"half a line":      {rsaLine[:100], ""},
		"two keys":         {rsaLine + rsaLine, "more than one"},
		"torn PEM":         {string(keyFile(t, "rsa.pem"))[:200], "damaged"},
		"torn RFC 4716":    {string(keyFile(t, "rsa.rfc4716"))[:200], "damaged"},
		"a private key":    {"-----BEGIN RSA PRIVATE KEY-----\nMAA=\n-----END RSA PRIVATE KEY-----", "neither"},
		"options and line": {`command="rm -rf /" ` + rsaLine, "neither"},
	} {
		if key, err := parsePublicKey([]byte(test.material)); err == nil || !strings.Contains(err.Error(), test.because) {
			t.Errorf("%s: %v, %v", name, key.kind, err)
		}
	}
}

func TestNewKeyFingerprints(t *testing.T) {
	k, err := newKey(keyRSA, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(k.privatePEM))
	private, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if bits := private.N.BitLen(); bits != 2048 {
		t.Errorf("%d bits", bits)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha1.Sum(der); k.fingerprint != colons(sum[:]) || len(k.fingerprint) != 59 {
		t.Errorf("the fingerprint is %s", k.fingerprint)
	}
	if _, ok := k.key.(ssh.CryptoPublicKey).CryptoPublicKey().(*rsa.PublicKey); !ok {
		t.Error("the public half isn't RSA")
	}
	e, err := newKey(keyED25519, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey([]byte(e.privatePEM))
	if err != nil || "SHA256:"+strings.TrimRight(e.fingerprint, "=") != ssh.FingerprintSHA256(signer.PublicKey()) {
		t.Errorf("the fingerprint is %s, %v", e.fingerprint, err)
	}
}

func FuzzParsePublicKey(f *testing.F) {
	for _, name := range []string{"rsa.openssh", "rsa.rfc4716", "rsa.pem", "rsa.der", "ed25519.openssh", "ecdsa.openssh"} {
		f.Add(keyFile(f, name))
	}
	f.Fuzz(func(t *testing.T, material []byte) {
		key, err := parsePublicKey(material)
		if err != nil {
			return
		}
		again, err := parsePublicKey([]byte(key.line("comment")))
		if err != nil || again.fingerprint != key.fingerprint {
			t.Errorf("read back as %s, %v", again.fingerprint, err)
		}
	})
}
