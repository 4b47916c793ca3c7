// Package bundle reads and writes EMI bundles: the form in which an image lies in the object store.
//
// A bundle is a row of parts and a manifest. From the inside out:
//
//	image           size bytes, as the instance will see them
//	  tar           one regular member named by the prefix, 10240-byte blocking; its SHA-1 is image/digest
//	    gzip
//	      AES-128-CBC, PKCS#7 padding, raw key and IV, no salt header
//	        parts   prefix.part.00, .01, … of 10 MiB each, the last shorter; each has its SHA-1
//
// The manifest (prefix.manifest.xml) lists the parts, carries key and IV twice, once for the cloud and
// once for the user who bundled (RSA PKCS#1 v1.5 over their hexadecimal text), and is signed by that user with
// SHA1withRSA over the exact bytes of its machine_configuration element followed by its image element.
//
// Write goes from image to parts, Unpack from parts to image, both in memory that doesn't grow with the
// image; ParseManifest, Verify and Keys are what the cloud does at registration. Who writes what: a bundler
// (euca-bundle-image, BundleInstance) is the only writer of a bundle; the cloud and its nodes only read.
//
// What can go wrong on the way back, and its error, from the outside in: a part is missing, short, long or has another
// digest (a *PartError names it); the padding, the gzip stream or the tar are broken (ErrPadding, ErrGzip, ErrTar); more
// comes out than was announced (ErrBomb); the image has another size (ErrImageSize) or the tar another
// digest (ErrDigest). The outermost cause is the one reported: a flipped bit in a part is
// always that part's digest, never the gzip error it happens to cause downstream.
//
// The cryptography is the format's, not a choice; docs/adr/0002-bundle-crypto.md says what it does and doesn't protect.
package bundle

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

const (
	// MaxManifestSize bounds a manifest in bytes (Eucalyptus: cloud.images.maxmanifestsizebytes).
	MaxManifestSize = 5 << 20
	// DefaultPartSize is the length in bytes of every part but the last, unless Options says otherwise.
	DefaultPartSize = 10 << 20
	// ManifestSuffix follows the prefix in a manifest's file name.
	ManifestSuffix = ".manifest.xml"

	manifestVersion = "2007-10-10"
	digestAlgorithm = "SHA1"
	cipherAlgorithm = "AES-128-CBC"
	unsigned        = "UNSIGNED"
	keySize         = 16
	maxImageSize    = 1 << 50
)

// Kind says what an image is for.
type Kind string

// The three kinds of image: what a bundle registers as, EMI, EKI or ERI.
const (
	Machine Kind = "machine"
	Kernel  Kind = "kernel"
	Ramdisk Kind = "ramdisk"
)

// Errors of the manifest and its keys.
var (
	// ErrManifest is wrapped by everything ParseManifest refuses.
	ErrManifest = errors.New("bad manifest")
	// ErrUnsigned means that the manifest says UNSIGNED where the policy requires a signature.
	ErrUnsigned = errors.New("manifest is not signed")
	// ErrSignature means that none of the keys given made the manifest's signature.
	ErrSignature = errors.New("invalid manifest signature")
	// ErrKey means that the bundle's key can't be decrypted; why exactly is withheld on purpose.
	ErrKey = errors.New("the bundle's key can't be decrypted: it was encrypted for another cloud or user, or is damaged")
)

// Errors of the parts; a PartError around them names the part.
var (
	ErrShortPart  = errors.New("part is shorter than the manifest implies")
	ErrLongPart   = errors.New("part is longer than the manifest implies")
	ErrPartDigest = errors.New("part's digest differs from the manifest's")
)

// Errors of what the parts hold, once they were found to be what the manifest lists.
var (
	ErrBundledSize = errors.New("parts add up to another size than the manifest's bundled_size")
	ErrPadding     = errors.New("bad padding: the bundle was encrypted for another cloud or is damaged")
	ErrGzip        = errors.New("bad gzip stream: the bundle was encrypted with another key or is damaged")
	ErrTar         = errors.New("bad tar")
	ErrBomb        = errors.New("bundle unpacks to more than the manifest's size")
	ErrImageSize   = errors.New("image has another size than the manifest says")
	ErrDigest      = errors.New("tar's digest differs from the manifest's")
)

// PartError says which part of a bundle is at fault.
type PartError struct {
	Index int
	Name  string
	Err   error
}

func (e *PartError) Error() string {
	return fmt.Sprintf("part %d (%s): %v", e.Index, e.Name, e.Err)
}

func (e *PartError) Unwrap() error { return e.Err }

// Pin is the digest by which a registered image holds on to its manifest: base64 of the SHA-256 of the
// manifest's bytes, as Eucalyptus stores it.
func Pin(manifest []byte) string {
	sum := sha256.Sum256(manifest)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// PartName is the name of part index under a prefix: two digits at least.
func PartName(prefix string, index int) string {
	return fmt.Sprintf("%s.part.%02d", prefix, index)
}

// checkName refuses what isn't a plain file name, for names become object keys and files.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("name %q is not a file name", name)
	case len(name) > 255:
		return fmt.Errorf("name of %d bytes is longer than 255", len(name))
	case strings.ContainsAny(name, `/\`):
		return fmt.Errorf("name %q holds a path separator", name)
	case strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) >= 0:
		return fmt.Errorf("name %q holds a control or invalid character", name)
	}
	return nil
}

// checkAccount wants the 12 digits of an account number.
func checkAccount(account string) error {
	if len(account) != 12 || strings.Trim(account, "0123456789") != "" {
		return fmt.Errorf("account %q is not a 12-digit number", account)
	}
	return nil
}

// checkToken wants a short word of letters, digits and .:_/- as ids, architectures and device names are.
func checkToken(what, s string) error {
	if len(s) > 128 {
		return fmt.Errorf("%s of %d bytes is longer than 128", what, len(s))
	}
	for _, r := range s {
		word := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !word && !strings.ContainsRune(".:_/-", r) {
			return fmt.Errorf("%s %q holds %q", what, s, r)
		}
	}
	return nil
}
