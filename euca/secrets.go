package euca

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

// secrets are what bundles are encrypted for and signed with.
type secrets struct {
	cloud, user *x509.Certificate
	key         *rsa.PrivateKey
}

// readSecrets from the files that eucarc names.
func readSecrets(vars map[string]string) (s secrets, err error) {
	if s.cloud, err = readCertificate(vars["EUCALYPTUS_CERT"]); err != nil {
		return s, err
	}
	if s.user, err = readCertificate(vars["EC2_CERT"]); err != nil {
		return s, err
	}
	s.key, err = readPrivateKey(vars["EC2_PRIVATE_KEY"])
	return s, err
}

// readPrivateKey in PKCS#8, or in PKCS#1 as older tools write it.
func readPrivateKey(path string) (*rsa.PrivateKey, error) {
	block, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	if key, err := x509.ParsePKCS1PrivateKey(block); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block)
	if err != nil {
		return nil, fmt.Errorf("%s holds no private key, in PKCS#1 or PKCS#8", path)
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("private key %s is not an RSA key", path)
	}
	return private, nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	block, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(block)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", path, err)
	}
	return c, nil
}

func readPEM(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is not a PEM file", path)
	}
	return block.Bytes, nil
}
