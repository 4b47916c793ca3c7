package node

import (
	"crypto/hkdf"
	"crypto/sha256"

	"mallee/block"
	"mallee/cloud"
)

// DerivedKeys are keys of volumes that one secret gives rise to (HKDF with
// SHA-256, RFC 5869), by the volume's id: whoever has the secret and an encrypted
// volume can read it, and without the secret nobody can.
type DerivedKeys struct{ Secret []byte }

// VolumeKey of a volume.
func (k DerivedKeys) VolumeKey(id cloud.VolumeID) ([]byte, error) {
	return hkdf.Key(sha256.New, k.Secret, nil, "mallee volume "+string(id), block.KeySize)
}
