// Package front is the cloud's one door: it tells from a request which service
// is meant, and who is there.
//
//	path                                      service
//	/healthz                                  the door itself
//	/services/compute, /services/Eucalyptus   ec2
//	/services/Euare                           iam
//	/services/Tokens                          sts
//	/services/objectstorage, /services/Walrus s3
//	anything else                             as the signature's scope says;
//	                                          without a signature s3, or, for a
//	                                          query POST to /, ec2's refusal
//
// EC2, EBS, IAM and STS are authenticated here, before anything of the request is
// believed; but AssumeRoleWithWebIdentity, which goes to STS by its name, brings
// another issuer's token instead of a signature. Walrus authenticates its own, whose bodies are streams.
//
// Every reply carries a request id, which the log has too.
package front

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"mallee/ebs"
	"mallee/ec2"
	"mallee/iam"
	"mallee/walrus"
	"mallee/wire"
	"mallee/wire/sigv4"
)

const (
	serviceEC2 = "ec2"
	serviceS3  = "s3"
)

// paths are Eucalyptus's, and the service that answers there.
var paths = map[string]string{
	"/services/compute":    serviceEC2,
	"/services/Eucalyptus": serviceEC2,
	"/services/Euare":      iam.ServiceIAM,
	"/services/Tokens":     iam.ServiceSTS,
}

// Front is an http.Handler. All fields are required.
type Front struct {
	EC2   *ec2.EC2
	EBS   *ebs.EBS
	IAM   *iam.IAM
	S3    http.Handler
	Ready func() error // nil when the cloud can serve
	Now   func() time.Time
	Log   *slog.Logger
}

func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch service := serviceOf(r); service {
	case "healthz":
		f.health(w)
	case serviceS3:
		f.S3.ServeHTTP(w, r)
	case ebs.Service:
		f.direct(w, r)
	default:
		f.query(w, r, service)
	}
}

func serviceOf(r *http.Request) string {
	path := strings.TrimSuffix(r.URL.Path, "/")
	if path == "/healthz" {
		return "healthz"
	}
	if service, ok := paths[path]; ok {
		return service
	}
	if walrus.Owns(r.URL.Path) {
		return serviceS3
	}
	if service := sigv4.ServiceOf(r); service != "" {
		return service
	}
	if path == "" && (r.URL.Query().Has("Action") || isForm(r)) {
		return serviceEC2
	}
	return serviceS3
}

func isForm(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
}

func (f *Front) health(w http.ResponseWriter) {
	if err := f.Ready(); err != nil {
		f.Log.Error("not healthy", "err", err)
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ok\n")
}

// query serves the services of the query protocol.
func (f *Front) query(w http.ResponseWriter, r *http.Request, service string) {
	id := newRequestID()
	open, err := f.unsigned(r)
	if open != nil {
		f.IAM.Handle(w, r, iam.ServiceSTS, open, iam.Principal{Around: iam.AroundOf(r)}, id)
		return
	}
	if err != nil {
		f.refuse(w, service, id, err)
		return
	}
	form, who, err := f.authenticate(r, service)
	if err != nil {
		f.refuse(w, service, id, err)
		return
	}
	switch service {
	case serviceEC2:
		f.EC2.Handle(w, r, form, who, id)
	case iam.ServiceIAM, iam.ServiceSTS:
		f.IAM.Handle(w, r, service, form, who, id)
	}
}

// direct serves the EBS direct API, which speaks JSON, and of which blocks come
// unsigned with a digest of their own.
func (f *Front) direct(w http.ResponseWriter, r *http.Request) {
	id := newRequestID()
	body, who, err := f.prove(r, ebs.Service, ebs.BodyLimit, true)
	if err != nil {
		if wire.AsError(err).Status >= http.StatusInternalServerError {
			f.Log.Error("request failed", "request", id, "service", ebs.Service, "err", err)
		}
		ebs.Refuse(w, id, err)
		return
	}
	f.EBS.Handle(w, r, body, who, id)
}

// authenticate proves who sent the request, and takes its parameters out.
func (f *Front) authenticate(r *http.Request, service string) (wire.Form, iam.Principal, error) {
	if service != serviceEC2 && service != iam.ServiceIAM && service != iam.ServiceSTS {
		return nil, iam.Principal{}, wire.Errorf("SignatureDoesNotMatch", "The request is signed for the service %s, which this cloud does not have", wire.Shorten(service))
	}
	body, who, err := f.prove(r, service, wire.DefaultLimit, false)
	if err != nil {
		return nil, iam.Principal{}, err
	}
	form, err := wire.Parse(r, body)
	return form, who, err
}

// unsigned takes the form of a request that needs no signature, because it proves
// who asks by other means, such as another issuer's token; nil of others, whose
// body it puts back.
func (f *Front) unsigned(r *http.Request) (wire.Form, error) {
	if r.Header.Get("Authorization") != "" || r.Method != http.MethodPost {
		return nil, nil
	}
	body, err := wire.ReadBody(r, wire.DefaultLimit)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, err := wire.Parse(r, body)
	if err != nil || !iam.Unsigned(iam.ServiceSTS, form.Get("Action")) {
		return nil, nil // proving says what is wrong with it
	}
	return form, nil
}

// prove who sent the request, whose body has at most limit bytes.
func (f *Front) prove(r *http.Request, service string, limit int64, unsigned bool) ([]byte, iam.Principal, error) {
	var who iam.Principal
	body, err := wire.ReadBody(r, limit)
	if err != nil {
		return nil, who, err
	}
	lookup := func(accessKey, token string) (secret string, ok bool) {
		var own string
		who, secret, own, ok = f.IAM.Holder(accessKey)
		return secret, subtle.ConstantTimeCompare([]byte(token), []byte(own)) == 1 && ok
	}
	proof, err := sigv4.Verify(r, body, lookup, f.Now(), sigv4.Options{Services: []string{service}, UnsignedPayload: unsigned})
	if err != nil {
		return nil, iam.Principal{}, err
	}
	who.Around = iam.AroundOf(r)
	f.IAM.Used(who, service, proof.Region)
	return body, who, nil
}

func (f *Front) refuse(w http.ResponseWriter, service, id string, err error) {
	if wire.AsError(err).Status >= http.StatusInternalServerError {
		f.Log.Error("request failed", "request", id, "service", service, "err", err)
	}
	switch service {
	case iam.ServiceIAM:
		wire.WriteQueryError(w, wire.IAMNamespace, id, err)
	case iam.ServiceSTS:
		wire.WriteQueryError(w, wire.STSNamespace, id, err)
	default:
		wire.WriteEC2Error(w, id, err)
	}
}

// newRequestID is a random UUID (RFC 9562, version 4).
func newRequestID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
