package cloud

import (
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Typed ids. Each prints as PREFIX-xxxxxxxx, 8 lower-case hex digits; 17 are
// accepted too, in any case (EC2's long ids, Eucalyptus's upper-case ones).
type (
	ImageID       string // emi-, eki-, eri-
	InstanceID    string // i-
	ReservationID string // r-
	KeyPairID     string // key-
	GroupID       string // sg-
	InterfaceID   string // eni-
	AllocationID  string // eipalloc-
	AssociationID string // eipassoc-
	RuleID        string // sgr-, of a security group
	VolumeID      string // vol-
	SnapshotID    string // snap-
	TaskID        string // bun-, import-ami-, import-snap-, import-vol-, import-i-, export-ami-, copy-
	NodeID        string // a host's name for itself
	AccountID     string // 12 decimal digits
)

// Prefixes of the ids, as Eucalyptus prints them.
const (
	PrefixMachineImage = "emi"
	PrefixKernelImage  = "eki"
	PrefixRamdiskImage = "eri"
	PrefixInstance     = "i"
	PrefixReservation  = "r"
	PrefixKeyPair      = "key"
	PrefixGroup        = "sg"
	PrefixRule         = "sgr"
	PrefixVPC          = "vpc"
	PrefixAllocation   = "eipalloc"
	PrefixAssociation  = "eipassoc"
	PrefixInterface    = "eni"
	PrefixSubnet       = "subnet"
	PrefixGateway      = "igw"
	PrefixRoutes       = "rtb"
	PrefixACL          = "acl"
	PrefixOptions      = "dopt"
	PrefixVolume       = "vol"
	PrefixSnapshot     = "snap"
)

// NewID draws a fresh id from random, which has to be unpredictable in
// production and may be seeded in a simulation.
func NewID(random io.Reader, prefix string) (string, error) {
	var raw [4]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", fmt.Errorf("draw an id: %w", err)
	}
	return prefix + "-" + hex.EncodeToString(raw[:]), nil
}

var idForm = regexp.MustCompile(`^([a-z]+)-([0-9a-f]{8}|[0-9a-f]{17})$`)

// ParseID brings s to the form ids are stored in and checks that it is one of
// the prefixes. ok is false where it is malformed, which EC2 tells apart from
// an id that is well formed and unknown.
func ParseID(s string, prefixes ...string) (id string, ok bool) {
	s = strings.ToLower(s)
	m := idForm.FindStringSubmatch(s)
	if m == nil {
		return "", false
	}
	for _, p := range prefixes {
		if canonicalPrefix(m[1]) == p {
			return p + "-" + m[2], true
		}
	}
	return "", false
}

// canonicalPrefix accepts Amazon's names of the image kinds for Eucalyptus's.
func canonicalPrefix(p string) string {
	switch p {
	case "ami":
		return PrefixMachineImage
	case "aki":
		return PrefixKernelImage
	case "ari":
		return PrefixRamdiskImage
	}
	return p
}
