package cloud

import "time"

// SystemAccount is the alias of the account whose administrators run the cloud.
const SystemAccount = "eucalyptus"

// Account owns resources. Its number is what manifests and ARNs carry.
type Account struct {
	ID        AccountID `json:"id"`
	Alias     string    `json:"alias"`
	CreatedAt time.Time `json:"created_at"`
}

// User belongs to one account; the user named admin has every right in it.
type User struct {
	ID        string    `json:"id"` // AID…, as IAM prints it
	Account   AccountID `json:"account"`
	Name      string    `json:"name"`
	Path      string    `json:"path"`
	CreatedAt time.Time `json:"created_at"`
}

// AccessKey signs requests for a user.
type AccessKey struct {
	ID        string    `json:"id"` // AKI…, 20 characters
	Secret    string    `json:"secret"`
	Account   AccountID `json:"account"`
	User      string    `json:"user"`
	Active    bool      `json:"active"`
	CreatedAt time.Time `json:"created_at"`
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
