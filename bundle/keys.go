package bundle

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Policy says what Verify takes for a manifest without a signature.
type Policy int

const (
	// RequireSignature refuses manifests that say UNSIGNED.
	RequireSignature Policy = iota
	// AllowUnsigned lets them pass; a signature that is there must still be right.
	AllowUnsigned
)

// RSAKey returns the RSA public key of a certificate, the only kind the format knows. Validity dates are
// the caller's business: a bundle outlives the certificate that signed it.
func RSAKey(cert *x509.Certificate) (*rsa.PublicKey, error) {
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("certificate of %q holds a key of type %T, bundles need RSA", cert.Subject.CommonName, cert.PublicKey)
	}
	return key, nil
}

// Verify checks that one of the keys made the manifest's signature: ErrSignature if none did, ErrUnsigned for
// UNSIGNED where the policy requires a signature. Which keys may sign (Eucalyptus: the active certificates of
// the account's users, and the cloud's own) is the caller's decision.
func (m *Manifest) Verify(policy Policy, keys ...*rsa.PublicKey) error {
	if m.Signature == nil {
		if policy == AllowUnsigned {
			return nil
		}
		return ErrUnsigned
	}
	sum := sha1.Sum(m.signed)
	for _, key := range keys {
		if rsa.VerifyPKCS1v15(key, crypto.SHA1, sum[:], m.Signature) == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: by none of the %d keys that may sign", ErrSignature, len(keys))
}

// Keys decrypts the bundle's AES key and IV, 16 bytes each, with the cloud's key. Any failure is ErrKey.
func (m *Manifest) Keys(cloud *rsa.PrivateKey) (key, iv []byte, err error) {
	return m.ForCloud.unwrap(cloud)
}

// UserKeys does as Keys, with the key of the user who bundled.
func (m *Manifest) UserKeys(user *rsa.PrivateKey) (key, iv []byte, err error) {
	return m.ForUser.unwrap(user)
}

// unwrap always does the same work and fails with the same error, whatever is wrong with either ciphertext: PKCS#1 v1.5
// tells an attacker who can distinguish kinds of failure the plaintext, bit by bit.
func (w Wrapped) unwrap(key *rsa.PrivateKey) ([]byte, []byte, error) {
	aesKey, errKey := unwrapHex(key, w.Key)
	iv, errIV := unwrapHex(key, w.IV)
	if errKey != nil || errIV != nil {
		return nil, nil, ErrKey
	}
	return aesKey, iv, nil
}

// unwrapHex decrypts one of the two: 32 hexadecimal digits. After bad RSA padding the text stays all zero bytes, which
// isn't hexadecimal, so that this failure and the other take the same path.
func unwrapHex(key *rsa.PrivateKey, ciphertext []byte) ([]byte, error) {
	text := make([]byte, 2*keySize)
	//lint:ignore SA1019 the bundle format is PKCS#1 v1.5; this variant decrypts in constant time
	if err := rsa.DecryptPKCS1v15SessionKey(nil, key, ciphertext, text); err != nil {
		return nil, err
	}
	out := make([]byte, keySize)
	_, err := hex.Decode(out, text)
	return out, err
}

// wrap encrypts key and IV for one reader.
func wrap(random io.Reader, to *rsa.PublicKey, key, iv []byte) (w Wrapped, err error) {
	if w.Key, err = wrapHex(random, to, key); err != nil {
		return w, err
	}
	w.IV, err = wrapHex(random, to, iv)
	return w, err
}

func wrapHex(random io.Reader, to *rsa.PublicKey, secret []byte) ([]byte, error) {
	//lint:ignore SA1019 the bundle format is PKCS#1 v1.5
	return rsa.EncryptPKCS1v15(random, to, []byte(hex.EncodeToString(secret)))
}

// signer returns the function marshal signs with.
func signer(key *rsa.PrivateKey) func([]byte) (string, error) {
	return func(signed []byte) (string, error) {
		if key == nil {
			return unsigned, nil
		}
		sum := sha1.Sum(signed)
		signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA1, sum[:])
		return hex.EncodeToString(signature), err
	}
}

func checkSecret(what string, secret []byte) error {
	if len(secret) != keySize {
		return fmt.Errorf("%s has %d bytes, not %d", what, len(secret), keySize)
	}
	return nil
}

var errNoCloudCert = errors.New("no cloud certificate: the cloud couldn't read the bundle")
