package metadata

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/smallstep/pkcs7"

	"mallee/cloud"
)

// Signer is the cloud's key, which says that what an instance says of itself is
// true, and the certificate by which others can tell.
type Signer struct {
	Key         *rsa.PrivateKey
	Certificate *x509.Certificate
}

// lazy is a leaf that is made when it is asked for.
type lazy func() (string, error)

// identity is who the instance is, and the cloud's word for it in EC2's forms: a
// bare signature, and PKCS #7 with the document in it. EC2's pkcs7 is by a key of
// its own with DSA and SHA-1, which nothing should trust any more; here it is as
// rsa2048.
func (s Signer) identity(i Instance) folder {
	text := document(i)
	enclosed := lazy(func() (string, error) { return s.enclose(text) })
	return folder{
		"document":  text,
		"signature": lazy(func() (string, error) { return s.sign(text) }),
		"pkcs7":     enclosed,
		"rsa2048":   enclosed,
	}
}

func (s Signer) sign(text string) (string, error) {
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.Key, crypto.SHA256, digest[:])
	if err != nil {
		return "", fmt.Errorf("sign an identity: %w", err)
	}
	return lines(signature), nil
}

func (s Signer) enclose(text string) (string, error) {
	signed, err := pkcs7.NewSignedData([]byte(text))
	if err != nil {
		return "", fmt.Errorf("sign an identity: %w", err)
	}
	signed.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := signed.AddSigner(s.Certificate, s.Key, pkcs7.SignerInfoConfig{}); err != nil {
		return "", fmt.Errorf("sign an identity: %w", err)
	}
	der, err := signed.Finish()
	if err != nil {
		return "", fmt.Errorf("sign an identity: %w", err)
	}
	return lines(der), nil
}

// lines of base64, as EC2 breaks them.
func lines(data []byte) string {
	const width = 76
	text := base64.StdEncoding.EncodeToString(data)
	var out []string
	for len(text) > width {
		out, text = append(out, text[:width]), text[width:]
	}
	return strings.Join(append(out, text), "\n")
}

// document is the instance's identity, with EC2's fields.
func document(i Instance) string {
	orNull := func(r *cloud.ImageRef) *cloud.ImageID {
		if r == nil {
			return nil
		}
		return &r.ID
	}
	data, err := json.MarshalIndent(struct {
		AccountID        cloud.AccountID  `json:"accountId"`
		Architecture     string           `json:"architecture"`
		AvailabilityZone string           `json:"availabilityZone"`
		Billing          []string         `json:"billingProducts"`
		Devpay           []string         `json:"devpayProductCodes"`
		Marketplace      []string         `json:"marketplaceProductCodes"`
		ImageID          cloud.ImageID    `json:"imageId"`
		InstanceID       cloud.InstanceID `json:"instanceId"`
		InstanceType     cloud.TypeName   `json:"instanceType"`
		KernelID         *cloud.ImageID   `json:"kernelId"`
		PendingTime      string           `json:"pendingTime"`
		PrivateIP        string           `json:"privateIp"`
		RamdiskID        *cloud.ImageID   `json:"ramdiskId"`
		Region           string           `json:"region"`
		Version          string           `json:"version"`
	}{
		AccountID: i.Account, Architecture: i.Architecture, AvailabilityZone: i.Zone, ImageID: i.Image.ID, InstanceID: i.ID,
		InstanceType: i.Type, KernelID: orNull(i.Kernel), PendingTime: i.LaunchedAt.UTC().Format(time.RFC3339),
		PrivateIP: i.Local.String(), RamdiskID: orNull(i.Ramdisk), Region: i.Region, Version: "2017-09-30",
	}, "", "  ")
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(data)
}
