package iam

import (
	"context"
	"crypto/sha1"
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
	key, _, err := s.newAccessKey(id, AdminUser)
	if err != nil {
		return err
	}
	userID, err := s.newID(users.prefix)
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
		state.Users.Put(tx, cloud.User{Entity: cloud.Entity{ID: userID, Account: id, Name: AdminUser, Path: "/", CreatedAt: s.Now()}})
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
			secret, err := s.vault.open(k.Sealed, k.ID)
			if err != nil {
				return Credentials{}, err
			}
			return Credentials{
				Account: id, AccessKey: k.ID, Secret: secret,
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

func certificateID(p keyPair) string {
	sum := sha1.Sum(p.cert.Raw)
	return strings.ToUpper(hex.EncodeToString(sum[:16]))
}
