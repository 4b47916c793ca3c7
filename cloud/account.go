package cloud

import "time"

// SystemAccount is the alias of the account whose administrators run the cloud.
const SystemAccount = "eucalyptus"

// Account owns resources. Its number is what manifests and ARNs carry.
type Account struct {
	ID        AccountID         `json:"id"`
	Alias     string            `json:"alias"`
	Policies  map[string]string `json:"policies,omitempty"` // documents by name; they deny and limit
	CreatedAt time.Time         `json:"created_at"`
}

// Entity is what all that IAM keeps of an account has in common.
type Entity struct {
	ID        string            `json:"id"` // AIDA…, AGPA…, AROA…, AIPA…, ANPA…, ASCA…, as IAM prints it
	Account   AccountID         `json:"account"`
	Name      string            `json:"name"` // unique among its kind in the account, whatever its case
	Path      string            `json:"path"` // begins and ends with /
	Tags      map[string]string `json:"tags,omitempty"`
	CreatedAt time.Time         `json:"created_at"`
}

// Grants are the policies of a user, a group or a role.
type Grants struct {
	Inline   map[string]string `json:"inline,omitempty"`   // documents by name
	Attached []string          `json:"attached,omitempty"` // ARNs of managed policies, sorted
	Boundary string            `json:"boundary,omitempty"` // ARN of the managed policy that bounds the others
}

// User belongs to one account; the user named admin has every right in it.
type User struct {
	Entity
	Grants
	Groups []string          `json:"groups,omitempty"` // ids
	Login  *Login            `json:"login,omitempty"`
	Info   map[string]string `json:"info,omitempty"` // Eucalyptus's: what people note about a user
}

// Login is a user's password.
type Login struct {
	Salt      []byte    `json:"salt"`
	Hash      []byte    `json:"hash"` // PBKDF2 of the password
	Reset     bool      `json:"reset,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// UserGroup is a group of users, who have its policies too.
type UserGroup struct {
	Entity
	Grants
}

// AccessKey signs requests for a user.
type AccessKey struct {
	ID        string    `json:"id"`               // AKIA…, 20 characters
	Secret    string    `json:"secret,omitempty"` // as it was kept before secrets were sealed; iam seals it at its start
	Sealed    []byte    `json:"sealed,omitempty"` // the secret, encrypted with a key that isn't in the state
	Account   AccountID `json:"account"`
	User      string    `json:"user"`
	Active    bool      `json:"active"`
	CreatedAt time.Time `json:"created_at"`
}

// KeyUse is when an access key was last seen in use, give or take some minutes.
type KeyUse struct {
	Key     string    `json:"key"`
	Service string    `json:"service"`
	Region  string    `json:"region"`
	At      time.Time `json:"at"`
}

// SigningCertificate is what a user's bundles are verified with.
type SigningCertificate struct {
	ID        string    `json:"id"`
	Account   AccountID `json:"account"`
	User      string    `json:"user"`
	PEM       string    `json:"pem"`
	Active    bool      `json:"active"`
	CreatedAt time.Time `json:"created_at"`
}
