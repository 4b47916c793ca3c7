package iam

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

type aCertificate struct {
	UserName      string
	CertificateID string `xml:"CertificateId"`
	Body          string `xml:"CertificateBody"`
	Status        string
	UploadDate    *wire.Time
	PrivateKey    string `xml:",omitempty"` // Eucalyptus's CreateSigningCertificate tells it once
}

func certificateReply(s *cloud.SigningCertificate) aCertificate {
	return aCertificate{s.User, s.ID, s.PEM, status(s.Active), wire.At(s.CreatedAt), ""}
}

type oneCertificate struct{ Certificate aCertificate }

type uploadCertificateInput struct {
	aboutUser
	CertificateBody string `wire:"CertificateBody,required,max=16384"`
}

func uploadCertificate(c *call, in *uploadCertificateInput) (*oneCertificate, error) {
	parsed, err := certificate("CertificateBody", in.CertificateBody)
	if err != nil {
		return nil, err
	}
	return addCertificate(c, &in.aboutUser, parsed.Raw)
}

// certificate in PEM, of a parameter.
func certificate(name, text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, wire.Errorf("MalformedCertificate", "The parameter %s is not a certificate in PEM", name)
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, wire.Errorf("MalformedCertificate", "The certificate of the parameter %s can't be read: %v", name, err)
	}
	return parsed, nil
}

// addCertificate writes the user's count too, so that two at once don't exceed it.
func addCertificate(c *call, of *aboutUser, der []byte) (*oneCertificate, error) {
	u, err := of.find(c)
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum(der)
	id := strings.ToUpper(hex.EncodeToString(sum[:16]))
	if _, _, there := state.Certificates.Get(c.tx, id); there {
		return nil, wire.Errorf("DuplicateCertificate", "The certificate %s is already there", id)
	}
	if len(certificatesOf(c.tx, u)) >= maxKeys {
		return nil, tooMany("SigningCertificatesPerUser", maxKeys)
	}
	s := cloud.SigningCertificate{
		ID: id, Account: u.Account, User: u.Name, Active: true, CreatedAt: c.Now(),
		PEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	}
	c.counted(u)
	state.Certificates.Put(c.tx, s)
	return &oneCertificate{certificateReply(&s)}, nil
}

// createCertificateInput keeps the pair that is made before the transaction.
type createCertificateInput struct {
	aboutUser
	key *rsa.PrivateKey
	der []byte
}

func makeSigningPair(c *call, in *createCertificateInput) error {
	u, err := in.find(c)
	if err != nil {
		return err
	}
	if in.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return err
	}
	in.der, err = selfSigned(in.key, string(u.Account)+"/"+u.Name, c.Rand, c.Now())
	return err
}

func createCertificate(c *call, in *createCertificateInput) (*oneCertificate, error) {
	out, err := addCertificate(c, &in.aboutUser, in.der)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(in.key)
	out.Certificate.PrivateKey = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return out, err
}

type listCertificatesInput struct {
	aboutUser
	paged
}

type listCertificatesReply struct {
	Certificates []aCertificate `xml:"Certificates>member"`
	page
}

func listCertificates(c *call, in *listCertificatesInput) (*listCertificatesReply, error) {
	u, err := in.find(c)
	if err != nil {
		return nil, err
	}
	list, p, err := cut(in.paged, certificatesOf(c.read, u), func(s *cloud.SigningCertificate) string { return s.ID })
	return &listCertificatesReply{each(list, certificateReply), p}, err
}

// ofCertificate is embedded by the inputs that name a signing certificate.
type ofCertificate struct {
	aboutUser
	CertificateID string `wire:"CertificateId,required"`
}

func (o *ofCertificate) signing(c *call) (*cloud.SigningCertificate, error) {
	u, err := o.find(c)
	if err != nil {
		return nil, err
	}
	s, _, ok := state.Certificates.Get(c.tx, o.CertificateID)
	if !ok || s.Account != u.Account || s.User != u.Name {
		return nil, wire.Errorf("NoSuchEntity", "The Certificate with id %s cannot be found.", wire.Shorten(o.CertificateID))
	}
	return s, nil
}

type updateCertificateInput struct {
	ofCertificate
	Status string `wire:"Status,required,enum=Active|Inactive"`
}

func updateCertificate(c *call, in *updateCertificateInput) (*none, error) {
	s, err := in.signing(c)
	if err != nil {
		return nil, err
	}
	state.Certificates.Edit(c.tx, s.ID, func(s *cloud.SigningCertificate) { s.Active = in.Status == "Active" })
	return &none{}, nil
}

type deleteCertificateInput struct{ ofCertificate }

func deleteCertificate(c *call, in *deleteCertificateInput) (*none, error) {
	s, err := in.signing(c)
	if err != nil {
		return nil, err
	}
	state.Certificates.Delete(c.tx, s.ID)
	return &none{}, nil
}
