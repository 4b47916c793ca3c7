package euca

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"strings"
	"testing"
)

func TestDecryptPassword(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 Windows's agent on EC2 encrypts so
	sealed, err := rsa.EncryptPKCS1v15(rand.Reader, &key.PublicKey, []byte("Tr0ub4dor&3"))
	if err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString(sealed)
	if got, err := decryptPassword("\n"+text[:76]+"\n"+text[76:]+"\n", key); err != nil || got != "Tr0ub4dor&3" {
		t.Errorf("the password is %q, %v", got, err)
	}
	sealed[0] ^= 1
	for data, want := range map[string]string{
		"":    "no password yet",
		"%%%": "not base64",
		base64.StdEncoding.EncodeToString(sealed): "is the private key that of",
	} {
		if _, err := decryptPassword(data, key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.10q: %v, want %q", data, err, want)
		}
	}
}
