package euca

import (
	"crypto/ed25519"
	"crypto/md5"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
)

// keyCommands make and keep the pairs that one logs in with.
func keyCommands() []command {
	return []command{
		{
			name: "create-keypair", short: "Make a key pair, of which the cloud keeps the public half",
			takes: "KEYPAIR", as: "KeyName",
			options: []option{text("f,filename", "FILE", "where the private key goes (default standard output)")},
			run:     createKeyPair,
		},
		{
			name: "describe-keypairs", short: "Show key pairs",
			takes: "[KEYPAIR...]", as: "KeyName", filters: true,
			run: calling("DescribeKeyPairs", func(s *session, reply *element) {
				for key := range reply.each("keySet") {
					s.line("KEYPAIR", key.get("keyName"), key.get("keyFingerprint"))
				}
			}),
		},
		{
			name: "delete-keypair", short: "Delete a key pair",
			takes: "KEYPAIR", as: "KeyName",
			run: calling("DeleteKeyPair", func(s *session, _ *element) { s.line("KEYPAIR", s.args[0]) }),
		},
		{
			name: "import-keypair", short: "Make a public key known to the cloud",
			takes: "KEYPAIR", as: "KeyName",
			options: []option{text("f,public-key-file", "FILE", "file that holds the public key; - is standard input").required()},
			run: asking(func(s *session) error {
				key, err := s.fileOrInput(s.text("public-key-file"), maxKeyFile)
				if err != nil {
					return fmt.Errorf("argument -f/--public-key-file: %w", err)
				}
				s.params.Set("PublicKeyMaterial", base64.StdEncoding.EncodeToString(key))
				return nil
			}, "ImportKeyPair", func(s *session, reply *element) {
				s.line("KEYPAIR", reply.get("keyName"), reply.get("keyFingerprint"))
			}),
		},
		{
			name: "fingerprint-key", short: "Show the fingerprint that the cloud has of a key: of a private key that it made, of a public key that it was given",
			takes: "FILE",
			run:   fingerprintKey,
		},
	}
}

// maxKeyFile bounds a file that holds a key, in bytes.
const maxKeyFile = 64 << 10

// createKeyPair opens the private key's file first, so that none is made that
// can't be kept, and takes away a file that was made for nothing.
func createKeyPair(s *session) (err error) {
	var file *os.File
	if name := s.text("filename"); name != "" {
		_, found := os.Lstat(name)
		if file, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600); err != nil {
			return fmt.Errorf("argument -f/--filename: %w", err)
		}
		defer func() {
			err = errors.Join(err, file.Close())
			if err != nil && errors.Is(found, fs.ErrNotExist) {
				err = errors.Join(err, os.Remove(name))
			}
		}()
	}
	reply, err := s.call("CreateKeyPair")
	if err != nil {
		return err
	}
	private := reply.get("keyMaterial")
	if file != nil {
		if err := writeKey(file, private); err != nil {
			return fmt.Errorf("keep the private key: %w", err)
		}
	}
	return s.show(reply, func() {
		s.line("KEYPAIR", reply.get("keyName"), reply.get("keyFingerprint"))
		if file == nil {
			s.out.WriteString(strings.TrimSuffix(private, "\n") + "\n")
		}
	})
}

// writeKey into a file that was there perhaps, and was readable by others.
func writeKey(file *os.File, private string) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	if info, err := file.Stat(); err != nil {
		return err
	} else if info.Mode().IsRegular() {
		if err := file.Chmod(0o600); err != nil {
			return err
		}
	}
	_, err := file.WriteString(private)
	return err
}

func fingerprintKey(s *session) error {
	text, err := s.fileOrInput(s.args[0], maxKeyFile)
	if err != nil {
		return err
	}
	print, err := fingerprint(text)
	if err != nil {
		return fmt.Errorf("%s: %w", s.args[0], err)
	}
	return s.show(map[string]string{"fingerprint": print}, func() { s.line(print) })
}

// fingerprint as EC2 makes it: of an RSA key that the cloud made, SHA-1 of the
// private key in PKCS #8; of one that was imported, MD5 of the public key in
// PKIX; of Ed25519, SHA-256 of the public key as SSH has it.
func fingerprint(text []byte) (string, error) {
	if public, _, _, _, err := ssh.ParseAuthorizedKey(text); err == nil {
		return publicFingerprint(public)
	}
	parsed, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		return "", fmt.Errorf("neither a public nor a private key: %w", err)
	}
	switch private := parsed.(type) {
	case *rsa.PrivateKey:
		der, err := x509.MarshalPKCS8PrivateKey(private)
		sum := sha1.Sum(der)
		return colons(sum[:]), err
	case *ed25519.PrivateKey:
		public, err := ssh.NewPublicKey(private.Public())
		if err != nil {
			return "", err
		}
		return publicFingerprint(public)
	}
	return "", fmt.Errorf("a key of type %T, and instances take RSA and Ed25519", parsed)
}

func publicFingerprint(key ssh.PublicKey) (string, error) {
	if key.Type() == ssh.KeyAlgoED25519 {
		sum := sha256.Sum256(key.Marshal())
		return base64.StdEncoding.EncodeToString(sum[:]), nil
	}
	wrapped, ok := key.(ssh.CryptoPublicKey)
	if !ok || key.Type() != ssh.KeyAlgoRSA {
		return "", fmt.Errorf("a key of type %s, and instances take RSA and Ed25519", key.Type())
	}
	der, err := x509.MarshalPKIXPublicKey(wrapped.CryptoPublicKey())
	sum := md5.Sum(der)
	return colons(sum[:]), err
}

// colons between the bytes in hex.
func colons(sum []byte) string {
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = hex.EncodeToString([]byte{b})
	}
	return strings.Join(parts, ":")
}
