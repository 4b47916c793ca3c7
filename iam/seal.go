package iam

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"mallee/cloud"
	"mallee/durable"
	"mallee/state"
)

// sealKey is the file of the key that secrets in the state are encrypted with.
// It lies beside the state and never in it, so that a copy of the state alone,
// a backup say, gives nobody's secrets away.
const sealKey = "secrets.key"

// vault encrypts what the state must not tell.
type vault struct {
	aead   cipher.AEAD
	tokens []byte // the key that session tokens are made with
	random io.Reader
}

// openVault reads the key, or makes it. Where used says that something was
// encrypted with it already, a lost key is not replaced.
func openVault(dir string, random io.Reader, used bool) (*vault, error) {
	path := filepath.Join(dir, sealKey)
	key, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && used:
		return nil, fmt.Errorf("the key of the users' secrets %s is gone: put it back from a backup; no request can be verified without it", path)
	case errors.Is(err, fs.ErrNotExist):
		key = make([]byte, 32)
		if _, err = io.ReadFull(random, key); err == nil {
			err = durable.WriteFile(path, key)
		}
	case err == nil && len(key) != 32:
		err = fmt.Errorf("%s has %d bytes, and a key 32: put it back from a backup", path, len(key))
	}
	if err != nil {
		return nil, fmt.Errorf("the key of the users' secrets: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("session tokens"))
	return &vault{aead, mac.Sum(nil), random}, err
}

// seal a secret of the record of that id: moved to another record it can't be
// opened.
func (v *vault) seal(secret, id string) ([]byte, error) {
	nonce := make([]byte, v.aead.NonceSize())
	if _, err := io.ReadFull(v.random, nonce); err != nil {
		return nil, fmt.Errorf("draw a nonce: %w", err)
	}
	return v.aead.Seal(nonce, nonce, []byte(secret), []byte(id)), nil
}

func (v *vault) open(sealed []byte, id string) (string, error) {
	n := v.aead.NonceSize()
	if len(sealed) < n {
		return "", fmt.Errorf("the secret of %s is not whole", id)
	}
	secret, err := v.aead.Open(nil, sealed[:n], sealed[n:], []byte(id))
	if err != nil {
		return "", fmt.Errorf("the secret of %s was not encrypted with this cloud's key: %w", id, err)
	}
	return string(secret), nil
}

// token of a session: nobody can make one from the session's id.
func (v *vault) token(id string) string {
	mac := hmac.New(sha256.New, v.tokens)
	mac.Write([]byte(id))
	return base64.StdEncoding.EncodeToString(append([]byte("mallee session "), mac.Sum(nil)...))
}

// sealed says whether the state has a secret that is encrypted.
func (s *IAM) sealed() bool {
	for k := range state.AccessKeys.All(s.Store.View()) {
		if len(k.Sealed) > 0 {
			return true
		}
	}
	return false
}

// sealAll encrypts the secrets that an older mallee kept as they are.
func (s *IAM) sealAll(ctx context.Context) error {
	var plain []string
	for k := range state.AccessKeys.All(s.Store.View()) {
		if k.Secret != "" {
			plain = append(plain, k.ID)
		}
	}
	for _, id := range plain {
		err := s.Store.Update(ctx, func(tx *state.Tx) (err error) {
			state.AccessKeys.Edit(tx, id, func(k *cloud.AccessKey) {
				if k.Secret != "" {
					k.Sealed, err = s.vault.seal(k.Secret, k.ID)
					k.Secret = ""
				}
			})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
