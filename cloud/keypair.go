package cloud

import "time"

// KeyPair is a public key that instances can be launched with. The private
// half is never stored.
type KeyPair struct {
	ID          KeyPairID `json:"id"`
	Account     AccountID `json:"account"`
	Name        string    `json:"name"`
	Type        string    `json:"type"`       // rsa or ed25519
	PublicKey   string    `json:"public_key"` // OpenSSH authorized_keys form
	Fingerprint string    `json:"fingerprint"`
	CreatedAt   time.Time `json:"created_at"`
}
