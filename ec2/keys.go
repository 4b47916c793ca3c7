package ec2

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/md5"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Kinds of keys.
const (
	keyRSA     = "rsa"
	keyED25519 = "ed25519"
)

// publicKey is one that instances can be launched with.
type publicKey struct {
	kind        string
	key         ssh.PublicKey
	fingerprint string // as AWS makes it, by what the key is and where it is from
}

// line of authorized_keys.
func (k publicKey) line(comment string) string {
	text := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(k.key)), "\n")
	return text + " " + strings.ReplaceAll(comment, " ", "-")
}

// freshKey is a pair that the cloud made; the private half goes to the user and
// is forgotten.
type freshKey struct {
	publicKey
	privatePEM string
}

// newKey makes a pair: 2048 bits of RSA, or Ed25519.
func newKey(kind string, random io.Reader) (*freshKey, error) {
	if kind == keyED25519 {
		return newED25519(random)
	}
	private, err := rsa.GenerateKey(random, 2048)
	if err != nil {
		return nil, fmt.Errorf("make an RSA key: %w", err)
	}
	public, err := ssh.NewPublicKey(&private.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("make an RSA key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("make an RSA key: %w", err)
	}
	sum := sha1.Sum(der)
	block := pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}
	return &freshKey{publicKey{keyRSA, public, colons(sum[:])}, string(pem.EncodeToMemory(&block))}, nil
}

func newED25519(random io.Reader) (*freshKey, error) {
	_, private, err := ed25519.GenerateKey(random)
	if err != nil {
		return nil, fmt.Errorf("make an Ed25519 key: %w", err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return nil, fmt.Errorf("make an Ed25519 key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(crypto.PrivateKey(private), "")
	if err != nil {
		return nil, fmt.Errorf("make an Ed25519 key: %w", err)
	}
	return &freshKey{publicKey{keyED25519, public, digestOf(public)}, string(pem.EncodeToMemory(block))}, nil
}

// parsePublicKey reads a key that a user brings: OpenSSH's line, PEM, RFC 4716,
// or DER, any of which may be in base64 once more.
func parsePublicKey(material []byte) (publicKey, error) {
	text := bytes.TrimSpace(material)
	if plain, err := base64.StdEncoding.DecodeString(string(text)); err == nil {
		text = plain
	}
	key, err := sshKey(text)
	if err != nil {
		return publicKey{}, err
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519:
		return publicKey{keyED25519, key, digestOf(key)}, nil
	case ssh.KeyAlgoRSA:
		return importedRSA(key)
	}
	return publicKey{}, fmt.Errorf("keys of type %s are not supported, rsa and ed25519 are", key.Type())
}

func sshKey(text []byte) (ssh.PublicKey, error) {
	switch {
	case bytes.HasPrefix(text, []byte("---- BEGIN SSH2 PUBLIC KEY")):
		return parseRFC4716(text)
	case bytes.HasPrefix(text, []byte("-----BEGIN")):
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, errors.New("the PEM text is damaged")
		}
		return parseDER(block.Bytes)
	case bytes.HasPrefix(text, []byte("ssh-")), bytes.HasPrefix(text, []byte("ecdsa-")):
		key, _, _, rest, err := ssh.ParseAuthorizedKey(text)
		if err == nil && len(bytes.TrimSpace(rest)) > 0 {
			return nil, errors.New("it holds more than one key")
		}
		return key, err
	}
	return parseDER(text)
}

// parseDER reads what PEM or base64 hold: a SubjectPublicKeyInfo, a PKCS #1 key,
// or an SSH key's own bytes.
func parseDER(der []byte) (ssh.PublicKey, error) {
	if key, err := x509.ParsePKIXPublicKey(der); err == nil {
		return ssh.NewPublicKey(key)
	}
	if key, err := x509.ParsePKCS1PublicKey(der); err == nil {
		return ssh.NewPublicKey(key)
	}
	if key, err := ssh.ParsePublicKey(der); err == nil {
		return key, nil
	}
	return nil, errors.New("it is neither an OpenSSH line nor PEM, DER or RFC 4716")
}

// parseRFC4716 reads the form that ssh-keygen -e writes: header lines, which
// may go on after a backslash, then base64.
func parseRFC4716(text []byte) (ssh.PublicKey, error) {
	var body strings.Builder
	more, ended := false, false
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case n == 0:
		case strings.HasPrefix(line, "---- END SSH2 PUBLIC KEY"):
			ended = true
		case more || strings.Contains(line, ":"):
			more = strings.HasSuffix(line, `\`)
		default:
			body.WriteString(line)
		}
	}
	raw, err := base64.StdEncoding.DecodeString(body.String())
	if err != nil || !ended {
		return nil, errors.New("the RFC 4716 text is damaged")
	}
	return ssh.ParsePublicKey(raw)
}

// importedRSA checks the size and makes AWS's fingerprint of imported RSA keys:
// MD5 of the DER form.
func importedRSA(key ssh.PublicKey) (publicKey, error) {
	inner, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return publicKey{}, errors.New("the RSA key can't be read")
	}
	public, ok := inner.CryptoPublicKey().(*rsa.PublicKey)
	if !ok {
		return publicKey{}, errors.New("the RSA key can't be read")
	}
	switch bits := public.N.BitLen(); bits {
	case 1024, 2048, 3072, 4096:
	default:
		return publicKey{}, fmt.Errorf("RSA keys have 1024, 2048, 3072 or 4096 bits, this one %d", bits)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return publicKey{}, err
	}
	sum := md5.Sum(der)
	return publicKey{keyRSA, key, colons(sum[:])}, nil
}

// digestOf an Ed25519 key: OpenSSH's fingerprint without its prefix, padded as
// AWS pads it.
func digestOf(key ssh.PublicKey) string {
	sum := sha256.Sum256(key.Marshal())
	return base64.StdEncoding.EncodeToString(sum[:])
}

// colons writes hexadecimal digits in pairs.
func colons(sum []byte) string {
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = hex.EncodeToString([]byte{b})
	}
	return strings.Join(pairs, ":")
}
