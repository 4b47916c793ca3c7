package iam

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"mallee/durable"
)

// certificateYears is how long a certificate holds. Bundles must stay readable,
// and nothing checks the date of one.
const certificateYears = 20

// keyPair is an RSA key and its self-signed certificate, as files
// DIR/NAME-pk.pem and DIR/NAME-cert.pem.
type keyPair struct {
	key      *rsa.PrivateKey
	cert     *x509.Certificate
	certPEM  []byte
	keyPath  string
	certPath string
}

// ensureKeyPair reads the pair, or makes it. The key is written first and the
// certificate can be made from it anew, so that a crash between leaves no key
// without its owner.
func ensureKeyPair(dir, name, subject string, random io.Reader, now time.Time) (keyPair, error) {
	p := keyPair{keyPath: filepath.Join(dir, name+"-pk.pem"), certPath: filepath.Join(dir, name+"-cert.pem")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return p, err
	}
	var err error
	if p.key, err = readKey(p.keyPath); errors.Is(err, fs.ErrNotExist) {
		p.key, err = makeKey(p.keyPath, random)
	}
	if err != nil {
		return p, err
	}
	if p.certPEM, err = os.ReadFile(p.certPath); errors.Is(err, fs.ErrNotExist) {
		p.certPEM, err = makeCertificate(p.certPath, p.key, subject, random, now)
	}
	if err != nil {
		return p, err
	}
	block, _ := pem.Decode(p.certPEM)
	if block == nil {
		return p, fmt.Errorf("%s is not a PEM file", p.certPath)
	}
	if p.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return p, fmt.Errorf("%s: %w", p.certPath, err)
	}
	if !p.key.PublicKey.Equal(p.cert.PublicKey) {
		return p, fmt.Errorf("%s is not the certificate of %s", p.certPath, p.keyPath)
	}
	return p, nil
}

func readKey(path string) (*rsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is not a PEM file", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if k, ok := key.(*rsa.PrivateKey); ok {
		return k, nil
	}
	return nil, fmt.Errorf("%s holds no RSA key", path)
}

func makeKey(path string, random io.Reader) (*rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(random, 2048)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func makeCertificate(path string, key *rsa.PrivateKey, subject string, random io.Reader, now time.Time) ([]byte, error) {
	der, err := selfSigned(key, subject, random, now)
	if err != nil {
		return nil, err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return data, durable.WriteFile(path, data)
}

// selfSigned makes a certificate of a key for its subject.
func selfSigned(key *rsa.PrivateKey, subject string, random io.Reader, now time.Time) ([]byte, error) {
	serial := make([]byte, 16)
	if _, err := io.ReadFull(random, serial); err != nil {
		return nil, err
	}
	serial[0] &= 0x7f // RFC 5280: positive
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		Subject:      pkix.Name{CommonName: subject, Organization: []string{"Mallee"}},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(certificateYears, 0, 0),
		KeyUsage:     x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
	}
	return x509.CreateCertificate(random, template, template, &key.PublicKey, key)
}
