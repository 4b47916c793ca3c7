// Package iam says who somebody is and what they may do.
//
// # Terms
//
//	account    owns resources; 12 digits and an alias
//	user       a person or program of an account; the one named admin has every right in it
//	group      users who share policies
//	role       rights that others take on for a while; its trust policy says who
//	policy     says what may be done (package policy); inline, managed, or an account's
//	boundary   a managed policy that a user's or role's rights stay within
//	access key what a user signs requests with: an id that is public, a secret that is not
//	session    an access key that expires, and the token that goes with it
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
// # The way of a request
//
//	Handle ─▶ table (actions.go) ─▶ decode ─▶ may the principal? ─▶ handler ─▶ reply
//	                                               │
//	ec2, ebs, Walrus ──────── Authorize ───────────┘
//	    the policies of user, groups, role, boundary, session and account, as the
//	    state has them now, decided by package policy; nothing is remembered, so
//	    that a key, a policy or a user that is taken away stops at once
//
// # Secrets
//
// The state has secrets encrypted (AES-256-GCM) with a key in the folder of keys.
// Passwords are there as PBKDF2. Session tokens are nowhere: they are made from
// the session's id with that key.
//
// # Quotas
//
// A statement of effect Limit, in a policy of the account, bounds how many
// users, roles and so on there may be; it is held in the transaction that would
// exceed it, which therefore comes to nothing.
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
	"net/http"
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

// Options of IAM. All are required but Issuers.
type Options struct {
	Store   *state.Store
	Dir     string // where the cloud's keys lie; made 0700
	Now     func() time.Time
	Rand    io.Reader // unpredictable
	Log     *slog.Logger
	Issuers *http.Client // asks OpenID Connect issuers for their keys, at addresses that users name: where it may go is its affair; none are asked by default
}

// IAM answers from the state; it keeps nothing of its own but the cloud's keys,
// and policies compiled.
type IAM struct {
	Options
	compiler
	ctx   context.Context // of what no request waits for
	cloud keyPair
	vault *vault
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

// Open reads the cloud's keys, or makes them, and makes the system account
// where there is none. A cloud that has accounts and has lost its key is not
// given another, with which it could read none of its bundles.
func Open(ctx context.Context, o Options) (*IAM, error) {
	s := &IAM{Options: o, ctx: context.WithoutCancel(ctx)}
	path := filepath.Join(o.Dir, cloudKeys+"-pk.pem")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && s.bootstrapped() {
		return nil, fmt.Errorf("the cloud's private key %s is gone: put it back from a backup; no image can be read without it", path)
	}
	var err error
	if s.cloud, err = ensureKeyPair(o.Dir, cloudKeys, "Mallee cloud", o.Rand, o.Now()); err != nil {
		return nil, fmt.Errorf("the cloud's certificate: %w", err)
	}
	if s.vault, err = openVault(o.Dir, o.Rand, s.sealed()); err != nil {
		return nil, err
	}
	if err := s.bootstrap(ctx); err != nil {
		return nil, fmt.Errorf("make the system account: %w", err)
	}
	if err := s.sealAll(ctx); err != nil {
		return nil, fmt.Errorf("encrypt the users' secrets: %w", err)
	}
	return s, nil
}
