// Package iam says who somebody is and what they may do.
//
// # Terms
//
//	account    owns resources; 12 digits and an alias
//	user       a person or program of an account; the one named admin has every right in it
//	access key what a user signs requests with: an id that is public, a secret that is not
//	signing certificate  what a user's bundles are verified with
//	cloud certificate    what bundles are encrypted for; its private key never leaves the cloud
//	principal  who a request turned out to come from
//	system administrator  a user of the system account, eucalyptus, who runs the cloud
//
// # The first start
//
// Bootstrap makes the system account, its admin, an access key and a signing
// certificate in one transaction; the cloud's own key pair lies in a folder
// beside the state, as files that only their owner can read. A crash anywhere
// in it is mended by the next start: files first, then the transaction.
//
// # What can go wrong
//
// A request that isn't signed, or wrongly, is one error of the AuthFailure
// family, in a time that doesn't tell which part was wrong. An action that is
// not allowed is UnauthorizedOperation (EC2) or AccessDenied (IAM, STS).
package iam

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"mallee/cloud"
	"mallee/state"
)

// AdminUser is the user of an account that can't be removed and may do everything in it.
const AdminUser = "admin"

// cloudKeys is the name of the cloud's own pair of files.
const cloudKeys = "cloud"

// Options of IAM. All are required.
type Options struct {
	Store *state.Store
	Dir   string // where the cloud's keys lie; made 0700
	Now   func() time.Time
	Rand  io.Reader // unpredictable
	Log   *slog.Logger
}

// IAM answers from the state; it keeps nothing of its own but the cloud's keys.
type IAM struct {
	Options
	cloud keyPair
}

// Principal is who a request came from.
type Principal struct {
	Account   cloud.AccountID
	User      string // name
	UserID    string
	AccessKey string
	System    bool // of the system account: may act for the whole cloud
}

// ARN names the principal: arn:aws:iam::123456789012:user/admin.
func (p Principal) ARN() string {
	return fmt.Sprintf("arn:aws:iam::%s:user/%s", p.Account, p.User)
}

// ErrDenied tells that a principal may not do what it asked.
var ErrDenied = errors.New("not allowed")

// DeniedError names what was not allowed.
type DeniedError struct {
	Principal        Principal
	Action, Resource string
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("%s is not authorized to perform %s on %s", e.Principal.ARN(), e.Action, e.Resource)
}

func (e *DeniedError) Unwrap() error { return ErrDenied }

// Authorize says whether the principal may do action (ec2:RunInstances) on the
// resource of that ARN: nil, or a *DeniedError. An account's admin may do
// everything on the account's own; that a resource is another's is for the
// caller to hide, who doesn't find it. Users beside admin have no policies yet
// and so no rights.
func (s *IAM) Authorize(p Principal, action, resource string) error {
	if p.User == AdminUser {
		return nil
	}
	return &DeniedError{p, action, resource}
}

// Principal finds who an active access key belongs to, and the secret that its
// signatures are made with.
func (s *IAM) Principal(accessKey string) (p Principal, secret string, ok bool) {
	view := s.Store.View()
	key, _, found := state.AccessKeys.Get(view, accessKey)
	if !found || !key.Active {
		return Principal{}, "", false
	}
	account, _, found := state.Accounts.Get(view, key.Account)
	if !found {
		return Principal{}, "", false
	}
	return Principal{
		Account: key.Account, User: key.User, UserID: userID(view, key.Account, key.User),
		AccessKey: key.ID, System: account.Alias == cloud.SystemAccount,
	}, key.Secret, true
}

// SigningCertificates are the active ones of an account's users.
func (s *IAM) SigningCertificates(account cloud.AccountID) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for c := range state.CertificatesByAccount.By(s.Store.View(), account) {
		if !c.Active {
			continue
		}
		block, _ := pem.Decode([]byte(c.PEM))
		if block == nil {
			return nil, fmt.Errorf("signing certificate %s is not PEM", c.ID)
		}
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("signing certificate %s: %w", c.ID, err)
		}
		list = append(list, parsed)
	}
	return list, nil
}

// CloudCertificate is what bundles for this cloud are encrypted for.
func (s *IAM) CloudCertificate() *x509.Certificate { return s.cloud.cert }

// CloudKey decrypts them.
func (s *IAM) CloudKey() *rsa.PrivateKey { return s.cloud.key }

// userID finds an account's user by name; "" where there is none.
func userID(r state.Reader, account cloud.AccountID, name string) string {
	for u := range state.UsersByAccount.By(r, account) {
		if u.Name == name {
			return u.ID
		}
	}
	return ""
}

// Open reads the cloud's keys, or makes them, and makes the system account
// where there is none. A cloud that has accounts and has lost its key is not
// given another, with which it could read none of its bundles.
func Open(ctx context.Context, o Options) (*IAM, error) {
	s := &IAM{Options: o}
	path := filepath.Join(o.Dir, cloudKeys+"-pk.pem")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && s.bootstrapped() {
		return nil, fmt.Errorf("the cloud's private key %s is gone: put it back from a backup; no image can be read without it", path)
	}
	var err error
	if s.cloud, err = ensureKeyPair(o.Dir, cloudKeys, "Mallee cloud", o.Rand, o.Now()); err != nil {
		return nil, fmt.Errorf("the cloud's certificate: %w", err)
	}
	if err := s.bootstrap(ctx); err != nil {
		return nil, fmt.Errorf("make the system account: %w", err)
	}
	return s, nil
}
