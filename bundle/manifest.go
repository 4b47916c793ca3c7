package bundle

import (
	"crypto/sha1"
	"fmt"
	"slices"
	"strings"
)

// Manifest is everything a bundle's manifest says. A Manifest from ParseManifest or Write keeps the bytes its
// signature covers; changing its fields afterwards doesn't change what Verify verifies.
type Manifest struct {
	Bundler             Bundler
	Architecture        string    // as written; "" when the manifest has none
	BlockDeviceMappings []Mapping // in the manifest's order
	ProductCodes        []string
	KernelID, RamdiskID string // an id, "true" where the image itself is a kernel or ramdisk, or ""

	Name        string // the prefix it was bundled under
	Account     string // 12 digits: who bundled it
	Type        Kind   // as written, "" in old manifests; ask Kind for what the image is
	Digest      [sha1.Size]byte
	Size        int64 // bytes of the image
	BundledSize int64 // bytes of all parts together
	ForCloud    Wrapped
	ForUser     Wrapped // empty when bundled without a user certificate
	Ancestors   []string
	Parts       []Part

	Signature []byte // nil when the manifest says UNSIGNED

	signed []byte // <machine_configuration>…</machine_configuration><image>…</image>, as read or written
}

// Bundler names the program that made a bundle.
type Bundler struct {
	Name, Version, Release string
}

// Mapping is one pair of a manifest's block device mapping, such as root and /dev/sda1.
type Mapping struct {
	Virtual, Device string
}

// Wrapped is a bundle's AES key and IV, each as RSA PKCS#1 v1.5 ciphertext of its 32 hexadecimal digits.
type Wrapped struct {
	Key, IV []byte
}

// Part is one part of a bundle. A manifest doesn't say how long a part is, only all of them together.
type Part struct {
	Index  int
	Name   string // a plain file name, beside the manifest
	Digest [sha1.Size]byte
}

// Signed returns the bytes the signature covers.
func (m *Manifest) Signed() []byte { return slices.Clone(m.signed) }

// Kind deduces what the image is, as Eucalyptus does: by image/type when that says kernel or ramdisk; by a
// kernel_id or ramdisk_id of "true" or "yes", which old bundlers wrote beside type machine or without any
// type; by image/type machine; and for manifests without a type by their file name, vmlinuz… or initrd….
// Whatever else is a machine image. A manifest that claims to be two things is refused.
func (m *Manifest) Kind(manifestName string) (Kind, error) {
	legacy, err := m.legacyKind()
	if err != nil {
		return "", err
	}
	base := manifestName[strings.LastIndexByte(manifestName, '/')+1:]
	switch {
	case legacy != "" && m.Type != "" && m.Type != Machine && m.Type != legacy:
		return "", fmt.Errorf("%w: image/type is %s, but %s_id makes it a %s", ErrManifest, m.Type, legacy, legacy)
	case legacy != "":
		return legacy, nil
	case m.Type != "":
		return m.Type, nil
	case strings.HasPrefix(base, "vmlinuz"):
		return Kernel, nil
	case strings.HasPrefix(base, "initrd"):
		return Ramdisk, nil
	}
	return Machine, nil
}

// legacyKind is the kind by the magic words in place of ids, or "".
func (m *Manifest) legacyKind() (Kind, error) {
	kernel, ramdisk := isTrue(m.KernelID), isTrue(m.RamdiskID)
	switch {
	case kernel && ramdisk:
		return "", fmt.Errorf("%w: kernel_id and ramdisk_id both say that the image is one", ErrManifest)
	case kernel:
		return Kernel, nil
	case ramdisk:
		return Ramdisk, nil
	}
	return "", nil
}

func isTrue(id string) bool { return id == "true" || id == "yes" }
