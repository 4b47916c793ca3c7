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
	block, err := readPEM(vars["EC2_PRIVATE_KEY"])
	if err != nil {
		return s, err
	}
	key, err := x509.ParsePKCS8PrivateKey(block)
	if err != nil {
		return s, fmt.Errorf("private key %s: %w", vars["EC2_PRIVATE_KEY"], err)
	}
	var ok bool
	if s.key, ok = key.(*rsa.PrivateKey); !ok {
		return s, fmt.Errorf("private key %s is not an RSA key", vars["EC2_PRIVATE_KEY"])
	}
	return s, nil
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
