package iam

import (
	"context"
	"crypto/sha1"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"path/filepath"
	"strings"

	"mallee/cloud"
	"mallee/state"
)

// bootstrap makes the system account with its admin where there is none. The
// guard of the alias lets one of many who start at once do it.
func (s *IAM) bootstrap(ctx context.Context) error {
	if s.bootstrapped() {
		return nil
	}
	pair, err := ensureKeyPair(s.Dir, AdminUser, cloud.SystemAccount+"/"+AdminUser, s.Rand, s.Now())
	if err != nil {
		return err
	}
	id, err := s.newAccountID()
	if err != nil {
		return err
	}
	key, err := s.newAccessKey(id, AdminUser)
	if err != nil {
		return err
	}
	return s.Store.Update(ctx, func(tx *state.Tx) error {
		if state.Owner(tx, guardAlias, cloud.SystemAccount) != "" {
			return nil
		}
		if err := tx.Claim(guardAlias, cloud.SystemAccount, string(id)); err != nil {
			return err
		}
		state.Accounts.Put(tx, cloud.Account{ID: id, Alias: cloud.SystemAccount, CreatedAt: s.Now()})
		state.Users.Put(tx, cloud.User{ID: "AID" + key.ID[3:], Account: id, Name: AdminUser, Path: "/", CreatedAt: s.Now()})
		state.AccessKeys.Put(tx, key)
		state.Certificates.Put(tx, cloud.SigningCertificate{
			ID: certificateID(pair), Account: id, User: AdminUser,
			PEM: string(pair.certPEM), Active: true, CreatedAt: s.Now(),
		})
		return nil
	})
}

func (s *IAM) bootstrapped() bool {
	return state.Owner(s.Store.View(), guardAlias, cloud.SystemAccount) != ""
}

// guardAlias is the kind of the guards that make account aliases unique.
const guardAlias = "account-alias"

// Credentials are all that a user needs to use the cloud, as eucarc holds them.
type Credentials struct {
	Account   cloud.AccountID
	AccessKey string
	Secret    string
	CertPath  string // of the signing certificate, EC2_CERT
	KeyPath   string // and its private key, EC2_PRIVATE_KEY
	CloudPath string // of the cloud's certificate, EUCALYPTUS_CERT
}

// SystemAdmin returns the credentials of the system account's administrator.
func (s *IAM) SystemAdmin() (Credentials, error) {
	view := s.Store.View()
	id := cloud.AccountID(state.Owner(view, guardAlias, cloud.SystemAccount))
	for k := range state.AccessKeysByAccount.By(view, id) {
		if k.User == AdminUser && k.Active {
			return Credentials{
				Account: id, AccessKey: k.ID, Secret: k.Secret,
				CertPath:  filepath.Join(s.Dir, AdminUser+"-cert.pem"),
				KeyPath:   filepath.Join(s.Dir, AdminUser+"-pk.pem"),
				CloudPath: s.cloud.certPath,
			}, nil
		}
	}
	return Credentials{}, fmt.Errorf("the system account's administrator has no active access key")
}

// newAccountID draws 12 digits that don't begin with 0, which spreadsheets and
// YAML would lose.
func (s *IAM) newAccountID() (cloud.AccountID, error) {
	var raw [8]byte
	if _, err := io.ReadFull(s.Rand, raw[:]); err != nil {
		return "", fmt.Errorf("draw an account number: %w", err)
	}
	const low, span = 100_000_000_000, 900_000_000_000
	n := new(big.Int).SetBytes(raw[:])
	n.Mod(n, big.NewInt(span))
	return cloud.AccountID(fmt.Sprint(n.Int64() + low)), nil
}

// newAccessKey draws a key in AWS's form: AKI and 17 characters, and a secret
// of 30 random bytes in 40 characters.
func (s *IAM) newAccessKey(account cloud.AccountID, user string) (cloud.AccessKey, error) {
	var raw [11 + 30]byte
	if _, err := io.ReadFull(s.Rand, raw[:]); err != nil {
		return cloud.AccessKey{}, fmt.Errorf("draw an access key: %w", err)
	}
	id := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw[:11])
	// Without + and /, which people lose when they copy a secret into a URL.
	secret := strings.NewReplacer("+", "A", "/", "B").Replace(base64.StdEncoding.EncodeToString(raw[11:]))
	return cloud.AccessKey{
		ID: "AKI" + id[:17], Secret: secret, Account: account, User: user, Active: true, CreatedAt: s.Now(),
	}, nil
}

func certificateID(p keyPair) string {
	sum := sha1.Sum(p.cert.Raw)
	return strings.ToUpper(hex.EncodeToString(sum[:16]))
}
