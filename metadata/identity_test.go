package metadata

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// signer is one cloud's, made once.
var signer = sync.OnceValue(func() Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	wish := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a cloud"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, wish, wish, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return Signer{key, cert}
})

func identityOf(t *testing.T, w *world, i Instance, name string) string {
	t.Helper()
	reply := w.do(i.ID, "GET", "/latest/dynamic/instance-identity/"+name)
	if reply.Code != 200 {
		t.Fatalf("%s: %d", name, reply.Code)
	}
	return reply.Body.String()
}

func TestSignature(t *testing.T) {
	i := hvm()
	w := newWorld(i)
	signature, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(identityOf(t, w, i, "signature"), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(identityOf(t, w, i, "document")))
	if err := rsa.VerifyPKCS1v15(&signer().Key.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
		t.Error(err)
	}
}

// TestPKCS7 has OpenSSL judge, by the command of EC2's documentation.
func TestPKCS7(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not here to judge (apt-get install openssl)")
	}
	i := hvm()
	w := newWorld(i)
	dir := t.TempDir()
	write := func(name string, data string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert := write("cert", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signer().Certificate.Raw})))
	document := identityOf(t, w, i, "document")
	for _, name := range []string{"pkcs7", "rsa2048"} {
		sealed := write(name, "-----BEGIN PKCS7-----\n"+identityOf(t, w, i, name)+"\n-----END PKCS7-----\n")
		out, err := exec.Command("openssl", "smime", "-verify", "-in", sealed, "-inform", "PEM", "-certfile", cert, "-noverify", "-nointern").Output()
		if err != nil || strings.ReplaceAll(string(out), "\r", "") != document {
			t.Errorf("%s: %v, and openssl reads %q", name, err, out)
		}
	}
}
