package iam

import (
	"crypto/tls"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// ofServer is embedded by the inputs that name a server certificate.
type ofServer struct {
	common
	ServerCertificateName string `wire:"ServerCertificateName,required"`
}

func (o *ofServer) arn(c *call) string {
	return servers.arn(c.read, c.account, o.ServerCertificateName)
}

func (o *ofServer) find(c *call) (*cloud.ServerCertificate, error) {
	return servers.find(c.read, c.account, o.ServerCertificateName)
}

func (o *ofServer) tagsOf(c *call) (map[string]string, func(map[string]string), error) {
	s, err := o.find(c)
	return bear(servers, c, s, err)
}

type serverMetadata struct {
	Path, ServerCertificateName string
	ServerCertificateID         string `xml:"ServerCertificateId"`
	Arn                         string
	UploadDate                  *wire.Time
	Expiration                  *wire.Time
}

func serverReply(s *cloud.ServerCertificate) serverMetadata {
	return serverMetadata{s.Path, s.Name, s.ID, servers.arnOf(s), wire.At(s.CreatedAt), wire.At(s.NotAfter)}
}

type uploadServerInput struct {
	ofServer
	tagged
	Path             string
	CertificateBody  string `wire:"CertificateBody,required,max=16384"`
	PrivateKey       string `wire:"PrivateKey,required,max=16384"`
	CertificateChain string `wire:"CertificateChain,max=2097152"`
}

type uploadServerReply struct {
	Metadata serverMetadata `xml:"ServerCertificateMetadata"`
	Tags     []tag          `xml:"Tags>member"`
}

func uploadServer(c *call, in *uploadServerInput) (*uploadServerReply, error) {
	parsed, err := certificate("CertificateBody", in.CertificateBody)
	if err != nil {
		return nil, err
	}
	if in.CertificateChain != "" {
		if _, err := certificate("CertificateChain", in.CertificateChain); err != nil {
			return nil, err
		}
	}
	if _, err := tls.X509KeyPair([]byte(in.CertificateBody), []byte(in.PrivateKey)); err != nil {
		return nil, wire.Errorf("KeyPairMismatch", "The private key of the parameter PrivateKey is not that of the certificate, or can't be read")
	}
	e, err := servers.entity(c, in.ServerCertificateName, in.Path, in.Tags)
	if err != nil {
		return nil, err
	}
	s := cloud.ServerCertificate{Entity: e, PEM: in.CertificateBody, Chain: in.CertificateChain, NotAfter: parsed.NotAfter}
	if s.Sealed, err = c.vault.seal(in.PrivateKey, e.ID); err != nil {
		return nil, err
	}
	state.ServerCertificates.Put(c.tx, s)
	return &uploadServerReply{serverReply(&s), tagList(s.Tags)}, c.within("iam:quota-servercertificatenumber", len(servers.under(c.tx, c.account, "/")))
}

type getServerInput struct{ ofServer }

type aServer struct {
	Metadata serverMetadata `xml:"ServerCertificateMetadata"`
	Body     string         `xml:"CertificateBody"`
	Chain    string         `xml:"CertificateChain,omitempty"`
	Tags     []tag          `xml:"Tags>member"`
}

type getServerReply struct{ ServerCertificate aServer }

func getServer(c *call, in *getServerInput) (*getServerReply, error) {
	s, err := in.find(c)
	if err != nil {
		return nil, err
	}
	return &getServerReply{aServer{serverReply(s), s.PEM, s.Chain, tagList(s.Tags)}}, nil
}

type listServersInput struct{ underPath }

type listServersReply struct {
	List []serverMetadata `xml:"ServerCertificateMetadataList>member"`
	page
}

func listServers(c *call, in *listServersInput) (*listServersReply, error) {
	list, p, err := cut(in.paged, servers.under(c.read, c.account, in.prefix()), servers.key)
	return &listServersReply{each(list, serverReply), p}, err
}

type updateServerInput struct {
	ofServer
	NewServerCertificateName, NewPath string
}

func updateServer(c *call, in *updateServerInput) (*none, error) {
	s, err := in.find(c)
	if err != nil {
		return nil, err
	}
	return &none{}, servers.rename(c, s, in.NewServerCertificateName, in.NewPath)
}

type deleteServerInput struct{ ofServer }

func deleteServer(c *call, in *deleteServerInput) (*none, error) {
	s, err := in.find(c)
	if err != nil {
		return nil, err
	}
	servers.remove(c, s)
	return &none{}, nil
}
