package walrus

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3err"
)

// Identity says who holds an access key. It is asked at every request and its
// answers are never kept, so what it changes holds at once. Its methods are
// called from many goroutines.
type Identity interface {
	// Lookup returns the account that the key signs for, false if there is no
	// such key or it is disabled.
	Lookup(accessKey string) (Account, bool)
	// Exists reports whether an account with this number may be granted access.
	Exists(accountID string) bool
}

// Account is a key's holder, as the object store needs to know it.
type Account struct {
	// ID is the 12-digit account number: the owner that ACLs name.
	ID string
	// Secret is the secret half of the key.
	Secret string
	// SessionToken must come with the request where it isn't empty: the key is
	// a temporary one.
	SessionToken string
	// Admin marks an administrator of the whole cloud, who may use every bucket.
	Admin bool
}

// gatekeeper gives an Identity the shape that the library asks for. The
// library knows an account by one string, called Access there: here that is
// the account's number and never the access key, so that all keys of an
// account share what it owns.
type gatekeeper struct {
	identity Identity
	bound    func(accessKey string) bool // nil binds nobody
}

var (
	_ auth.IAMService         = gatekeeper{}
	_ auth.SigningKeyProvider = gatekeeper{}
)

// DeriveSigningKey looks the key up and derives Signature Version 4's signing
// key for the scope.
func (g gatekeeper) DeriveSigningKey(access, sessionToken, date, region, service string) ([]byte, auth.Account, error) {
	account, ok := g.identity.Lookup(access)
	if !ok {
		return nil, auth.Account{}, auth.ErrNoSuchUser
	}
	if subtle.ConstantTimeCompare([]byte(sessionToken), []byte(account.SessionToken)) != 1 {
		return nil, auth.Account{}, auth.ErrInvalidSessionToken
	}
	known := libraryAccount(account)
	if g.bound != nil && g.bound(access) {
		known.Secret = limited
	}
	return signingKey(account.Secret, date, region, service), known, nil
}

// signingKey is Signature Version 4's kSigning.
func signingKey(secret, date, region, service string) []byte {
	key := []byte("AWS4" + secret)
	for _, part := range []string{date, region, service, "aws4_request"} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return key
}

func libraryAccount(a Account) auth.Account {
	role := auth.RoleUserPlus // may create buckets
	if a.Admin {
		role = auth.RoleAdmin
	}
	return auth.Account{Access: a.ID, Role: role}
}

// GetUserAccount finds an account by its number: the library's name for it.
func (g gatekeeper) GetUserAccount(id string) (auth.Account, error) {
	if !g.identity.Exists(id) {
		return auth.Account{}, auth.ErrNoSuchUser
	}
	return auth.Account{Access: id, Role: auth.RoleUserPlus}, nil
}

// accountIn is the account's number in the ARN of a user or role.
func accountIn(name string) string {
	parts := strings.Split(name, ":")
	if len(parts) < 6 || parts[0] != "arn" {
		return ""
	}
	return parts[4]
}

// ResolveAccounts returns those of the account numbers that don't exist.
func (g gatekeeper) ResolveAccounts(ids []string) ([]string, error) {
	missing := []string{}
	for _, id := range ids {
		if !g.identity.Exists(accountOf(id)) && !g.identity.Exists(accountIn(id)) {
			missing = append(missing, id)
		}
	}
	return missing, nil
}

var errAccountsElsewhere = s3err.GetAPIError(s3err.ErrAdminMethodNotSupported)

// CreateAccount is refused: accounts are made in iam.
func (gatekeeper) CreateAccount(auth.Account) error { return errAccountsElsewhere }

// UpdateUserAccount is refused: accounts are changed in iam.
func (gatekeeper) UpdateUserAccount(string, auth.MutableProps) error { return errAccountsElsewhere }

// DeleteUserAccount is refused: accounts are deleted in iam.
func (gatekeeper) DeleteUserAccount(string) error { return errAccountsElsewhere }

// ListUserAccounts is refused: accounts are listed in iam.
func (gatekeeper) ListUserAccounts() ([]auth.Account, error) { return nil, errAccountsElsewhere }

// Shutdown has nothing to end.
func (gatekeeper) Shutdown() error { return nil }
