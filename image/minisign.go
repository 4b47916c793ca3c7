package image

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/blake2b"
)

// Signatures are minisign's (https://jedisct1.github.io/minisign/): Ed25519 over a file, or over the
// file's BLAKE2b-512 digest, and a second signature over the first and a comment of one line, which may
// so be trusted as well. A public key and a signature each name their key by eight bytes.

const (
	minisignPlain  = "Ed" // over the file itself; of a public key the only form
	minisignHashed = "ED" // over the file's BLAKE2b-512

	keyIDSize         = 8
	maxSignatureBytes = 8 << 10 // a signature file has some 350 bytes

	untrustedPrefix = "untrusted comment: "
	trustedPrefix   = "trusted comment: "
)

// ErrSignature reports that something isn't signed by the key that should have.
var ErrSignature = errors.New("bad signature")

// A PublicKey is minisign's: it verifies what the owner of the secret key signed.
type PublicKey struct {
	id  [keyIDSize]byte
	key [ed25519.PublicKeySize]byte
}

// ParsePublicKey reads a key as minisign prints it: the line of base64, or the file of that line below
// a comment.
func ParsePublicKey(text string) (PublicKey, error) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) == 2 && strings.HasPrefix(lines[0], untrustedPrefix) {
		lines = lines[1:]
	}
	var k PublicKey
	if len(lines) != 1 {
		return k, fmt.Errorf("a minisign public key is one line of base64, with a comment above it or without; this has %d lines", len(lines))
	}
	data, err := decode64(lines[0], len(minisignPlain)+keyIDSize+ed25519.PublicKeySize)
	if err != nil {
		return k, fmt.Errorf("minisign public key: %w", err)
	}
	if got := string(data[:2]); got != minisignPlain {
		return k, fmt.Errorf("minisign public key: algorithm %q, want %q", got, minisignPlain)
	}
	copy(k.id[:], data[2:])
	copy(k.key[:], data[2+keyIDSize:])
	return k, nil
}

// String is the key as ParsePublicKey reads it.
func (k PublicKey) String() string {
	return base64.StdEncoding.EncodeToString(append(append([]byte(minisignPlain), k.id[:]...), k.key[:]...))
}

// ID is the key's name as minisign shows it: 16 hexadecimal digits.
func (k PublicKey) ID() string { return fmt.Sprintf("%016X", binary.LittleEndian.Uint64(k.id[:])) }

// Verify returns the trusted comment of a signature file over the message. An error that is
// ErrSignature says that this key didn't sign these bytes; others, that there is no signature to read.
func (k PublicKey) Verify(message, signature []byte) (comment string, err error) {
	s, err := parseSignature(signature)
	if err != nil {
		return "", err
	}
	if s.id != k.id {
		return "", fmt.Errorf("%w: made by key %s, want key %s", ErrSignature, PublicKey{id: s.id}.ID(), k.ID())
	}
	if s.hashed {
		digest := blake2b.Sum512(message)
		message = digest[:]
	}
	if !ed25519.Verify(k.key[:], message, s.signature[:]) {
		return "", fmt.Errorf("%w: key %s did not sign these bytes", ErrSignature, k.ID())
	}
	if !ed25519.Verify(k.key[:], append(s.signature[:], s.comment...), s.global[:]) {
		return "", fmt.Errorf("%w: key %s did not sign the comment %q", ErrSignature, k.ID(), s.comment)
	}
	return s.comment, nil
}

// minisignature is the content of a signature file.
type minisignature struct {
	hashed    bool
	id        [keyIDSize]byte
	signature [ed25519.SignatureSize]byte // over the message
	comment   string
	global    [ed25519.SignatureSize]byte // over the signature and the comment
}

// parseSignature reads the four lines of a signature file.
func parseSignature(text []byte) (s minisignature, err error) {
	if len(text) > maxSignatureBytes {
		return s, fmt.Errorf("minisign signature of %d bytes; none has more than %d", len(text), maxSignatureBytes)
	}
	lines := strings.Split(string(bytes.TrimRight(text, "\r\n")), "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	if len(lines) != 4 || !strings.HasPrefix(lines[0], untrustedPrefix) || !strings.HasPrefix(lines[2], trustedPrefix) {
		return s, errors.New("no minisign signature: want a comment, a signature, a trusted comment and its signature, a line each")
	}
	data, err := decode64(lines[1], 2+keyIDSize+ed25519.SignatureSize)
	if err != nil {
		return s, fmt.Errorf("minisign signature: %w", err)
	}
	switch algorithm := string(data[:2]); algorithm {
	case minisignPlain:
	case minisignHashed:
		s.hashed = true
	default:
		return s, fmt.Errorf("minisign signature: algorithm %q, want %q or %q", algorithm, minisignPlain, minisignHashed)
	}
	copy(s.id[:], data[2:])
	copy(s.signature[:], data[2+keyIDSize:])
	s.comment = strings.TrimPrefix(lines[2], trustedPrefix)
	if data, err = decode64(lines[3], ed25519.SignatureSize); err != nil {
		return s, fmt.Errorf("minisign signature of the trusted comment: %w", err)
	}
	copy(s.global[:], data)
	return s, nil
}

// decode64 reads exactly size bytes of base64, in its one canonical form.
func decode64(text string, size int) ([]byte, error) {
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("reading base64: %w", err)
	}
	if len(data) != size {
		return nil, fmt.Errorf("%d bytes of base64, want %d", len(data), size)
	}
	return data, nil
}
