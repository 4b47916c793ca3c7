package walrus

import (
	"cmp"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3err"
)

// aclXML is an ACL as S3 sends and takes it.
type aclXML struct {
	XMLName xml.Name `xml:"AccessControlPolicy"`
	Space   string   `xml:"xmlns,attr,omitempty"`
	Owner   *struct {
		ID string `xml:"ID"`
	} `xml:"Owner"`
	List *struct {
		Grants []grantXML `xml:"Grant"`
	} `xml:"AccessControlList"`
}

type grantXML struct {
	Grantee granteeXML      `xml:"Grantee"`
	May     auth.Permission `xml:"Permission"`
}

type granteeXML struct {
	Instance string
	Type     string
	ID       string
	URI      string
	Email    string
}

const schemaInstance = "http://www.w3.org/2001/XMLSchema-instance"

// UnmarshalXML reads whom a grant names; xsi:type says by what.
func (g *granteeXML) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	for _, a := range start.Attr {
		if a.Name.Local == "type" {
			g.Type = a.Value
		}
	}
	var inner struct {
		ID    string `xml:"ID"`
		URI   string `xml:"URI"`
		Email string `xml:"EmailAddress"`
	}
	err := d.DecodeElement(&inner, &start)
	g.ID, g.URI, g.Email = inner.ID, inner.URI, inner.Email
	return err
}

// MarshalXML writes whom a grant names.
func (g granteeXML) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	return e.Encode(struct {
		XMLName  xml.Name `xml:"Grantee"`
		Instance string   `xml:"xmlns:xsi,attr"`
		Type     string   `xml:"xsi:type,attr"`
		ID       string   `xml:"ID,omitempty"`
		URI      string   `xml:"URI,omitempty"`
	}{Instance: schemaInstance, Type: g.Type, ID: g.ID, URI: g.URI})
}

// noteWish leaves the ACL that a request's headers ask for where the store finds it.
func (w *Walrus) noteWish(ctx fiber.Ctx) error {
	if ctx.Method() != http.MethodPut && ctx.Method() != http.MethodPost {
		return nil
	}
	asked, err := w.readWish(ctx)
	if err == nil && asked.said() {
		ctx.Locals(wishName, asked)
	}
	return err
}

// acl answers for the ACL of a bucket, or of an object where key is not empty.
func (w *Walrus) acl(ctx fiber.Ctx, bucket, key string) error {
	get, put := auth.GetBucketAclAction, auth.PutBucketAclAction
	if key != "" {
		get, put = auth.GetObjectAclAction, auth.PutObjectAclAction
	}
	switch ctx.Method() {
	case http.MethodGet:
		d, err := w.admitObject(ctx, bucket, key, get)
		if err != nil {
			return err
		}
		return d.showACL()
	case http.MethodPut:
		d, err := w.admitObject(ctx, bucket, key, put)
		if err != nil {
			return err
		}
		return d.putACL()
	}
	return s3err.GetMethodNotAllowedErr(ctx.Method(), s3err.ResourceTypeObject, nil)
}

func (d *desk) version() string { return d.ctx.Query("versionId") }

// current is the ACL that holds now.
func (d *desk) current() (grants, error) {
	if d.walrus.store.enforced(d.ctx.RequestCtx(), d.bucket) && d.key == "" {
		return privately(d.owner), nil
	}
	if d.key == "" {
		return d.walrus.store.bucketGrants(d.bucket, d.owner)
	}
	g, err := d.walrus.store.objectGrants(d.bucket, d.key, d.version(), d.owner)
	if errors.Is(err, fs.ErrNotExist) {
		return g, s3err.GetAPIError(s3err.ErrNoSuchKey)
	}
	return g, err
}

func (d *desk) showACL() error {
	g, err := d.current()
	if err != nil {
		return err
	}
	out := aclXML{Space: namespace}
	out.Owner = &struct {
		ID string `xml:"ID"`
	}{g.Owner}
	out.List = &struct {
		Grants []grantXML `xml:"Grant"`
	}{}
	for _, one := range g.List {
		to := granteeXML{Type: "CanonicalUser", ID: one.To}
		if one.To == everybody || one.To == accounts || one.To == delivery {
			to = granteeXML{Type: "Group", URI: one.To}
		}
		out.List.Grants = append(out.List.Grants, grantXML{to, one.May})
	}
	return sendXML(d.ctx, out)
}

// putACL replaces the ACL by that of the headers or of the body.
func (d *desk) putACL() error {
	now, err := d.current()
	if err != nil {
		return err
	}
	wished, err := d.wished(now)
	if err != nil {
		return err
	}
	if d.walrus.store.enforced(d.ctx.RequestCtx(), d.bucket) && (len(wished.List) != 1 || wished.List[0] != privately(d.owner).List[0]) {
		return errACLsOff
	}
	if wished.public() {
		if err := d.walrus.store.mayBePublic(d.bucket); err != nil {
			return err
		}
	}
	if d.key == "" {
		return d.walrus.store.keepBucketGrants(d.bucket, wished)
	}
	return d.walrus.store.keepObjectGrants(d, wished)
}

// wished is the ACL that the request asks for.
func (d *desk) wished(now grants) (grants, error) {
	asked := wishOf(d.ctx.RequestCtx())
	body := d.ctx.BodyRaw()
	switch {
	case asked.said() && len(body) > 0:
		return grants{}, s3err.GetAPIError(s3err.ErrUnexpectedContent)
	case asked.said():
		return asked.grants(now.Owner, d.owner)
	case len(body) == 0:
		return grants{}, refusal(http.StatusBadRequest, "MissingSecurityHeader", "Your request was missing a required header")
	}
	var sent aclXML
	if err := readXML(d.ctx, &sent); err != nil {
		return grants{}, s3err.GetAPIError(s3err.ErrMalformedACL)
	}
	if sent.Owner == nil || sent.Owner.ID == "" || sent.List == nil || len(sent.List.Grants) > mostGrants {
		return grants{}, s3err.GetAPIError(s3err.ErrMalformedACL)
	}
	out := grants{Owner: now.Owner, List: []grant{}}
	for _, one := range sent.List.Grants {
		to, err := d.walrus.granteeXML(one)
		if err != nil {
			return grants{}, err
		}
		out.List = append(out.List, grant{to, one.May})
	}
	if sent.Owner.ID != now.Owner {
		return grants{}, s3err.GetAPIError(s3err.ErrAccessDenied)
	}
	return out, nil
}

func (w *Walrus) granteeXML(one grantXML) (string, error) {
	switch one.May {
	case auth.PermissionFullControl, auth.PermissionRead, auth.PermissionReadAcp, auth.PermissionWrite, auth.PermissionWriteAcp:
	default:
		return "", s3err.GetAPIError(s3err.ErrMalformedACL)
	}
	switch one.Grantee.Type {
	case "CanonicalUser":
		if one.Grantee.ID == "" {
			return "", s3err.GetAPIError(s3err.ErrMalformedACL)
		}
		return w.grantee("id", one.Grantee.ID)
	case "Group":
		return w.grantee("uri", one.Grantee.URI)
	case "AmazonCustomerByEmail":
		return w.grantee("emailAddress", one.Grantee.Email)
	}
	return "", s3err.GetAPIError(s3err.ErrMalformedACL)
}

// keepBucketGrants replaces a bucket's ACL, durably.
func (s *store) keepBucketGrants(bucket string, g grants) error {
	data, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("write the ACL of bucket %s: %w", bucket, err)
	}
	return s.keepFile(bucket, "acl", data)
}

// keepObjectGrants replaces an object's or version's ACL, durably.
func (s *store) keepObjectGrants(d *desk, g grants) error {
	name := s.objectPath(d.bucket, d.key, d.version())
	acl := cmp.Or(cannedFrom(d.ctx.RequestCtx()), "private") // what was for the cloud before is so no more
	err := errors.Join(storeCanned(nil, name, "", acl), storeGrants(nil, name, "", d.owner, g))
	return s.settle("PutObjectAcl", err, name)
}
