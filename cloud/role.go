package cloud

import "time"

// Role is taken on by those whom it trusts, for a while.
type Role struct {
	Entity
	Grants
	Trust       string `json:"trust"` // policy document
	Description string `json:"description,omitempty"`
	MaxSession  int    `json:"max_session"` // seconds
}

// InstanceProfile gives a role to instances.
type InstanceProfile struct {
	Entity
	Role string `json:"role,omitempty"` // id
}

// ManagedPolicy is a policy of its own, attached to users, groups and roles.
type ManagedPolicy struct {
	Entity
	Description string          `json:"description,omitempty"`
	Versions    []PolicyVersion `json:"versions"` // oldest first; one at least
	Default     int             `json:"default"`  // number of the one that counts
	Last        int             `json:"last"`     // number given last; none is given again
	UpdatedAt   time.Time       `json:"updated_at"`
}

// PolicyVersion is one text of a managed policy; none is ever changed.
type PolicyVersion struct {
	Number    int       `json:"number"` // v1, v2, …
	Document  string    `json:"document"`
	CreatedAt time.Time `json:"created_at"`
}

// ServerCertificate is kept with its private key, for services that speak TLS.
type ServerCertificate struct {
	Entity
	PEM      string    `json:"pem"`
	Chain    string    `json:"chain,omitempty"`
	Sealed   []byte    `json:"sealed"` // the private key, encrypted
	NotAfter time.Time `json:"not_after"`
}

// Provider is an OpenID Connect issuer whose tokens roles may trust.
type Provider struct {
	ARN         string            `json:"arn"`
	Account     AccountID         `json:"account"`
	URL         string            `json:"url"`     // without https://
	Clients     []string          `json:"clients"` // audiences
	Thumbprints []string          `json:"thumbprints"`
	Tags        map[string]string `json:"tags,omitempty"`
	CreatedAt   time.Time         `json:"created_at"`
}

// Session is a set of temporary credentials.
type Session struct {
	ID        string            `json:"id"`     // ASIA…, the access key
	Sealed    []byte            `json:"sealed"` // the secret, encrypted
	Account   AccountID         `json:"account"`
	User      string            `json:"user,omitempty"` // whose session it is; empty for a role's
	Role      string            `json:"role,omitempty"` // id, of a role's
	Key       string            `json:"key,omitempty"`  // access key that it was asked for with, of a user's
	Name      string            `json:"name,omitempty"` // of a role's session or a federated user
	Federated bool              `json:"federated,omitempty"`
	Policies  []string          `json:"policies,omitempty"` // documents that bound it
	Bounded   bool              `json:"bounded,omitempty"`  // whether they do, even none
	Tags      map[string]string `json:"tags,omitempty"`
	IssuedAt  time.Time         `json:"issued_at"`
	Expires   time.Time         `json:"expires"`
}
