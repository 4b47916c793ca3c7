package euca

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mallee/wire/sigv4"
)

// Client speaks to a running cloud.
type Client struct {
	Credentials sigv4.Credentials
	Region      string
	EC2, S3     string // endpoints
	Account     string
	http        http.Client
}

// requestTimeout bounds one request; a bundle's part is 10 MiB.
const requestTimeout = 2 * time.Minute

// maxReply bounds what is read of a reply, in bytes.
const maxReply = 64 << 20

// Connect to the cloud that runs on the folder.
func Connect(f Folder) (*Client, map[string]string, error) {
	if _, err := f.Holder(); err != nil {
		return nil, nil, err
	}
	vars, err := f.Eucarc()
	if err != nil {
		return nil, nil, err
	}
	return &Client{
		Credentials: sigv4.Credentials{AccessKey: vars["AWS_ACCESS_KEY_ID"], Secret: vars["AWS_SECRET_ACCESS_KEY"]},
		Region:      vars["AWS_DEFAULT_REGION"],
		EC2:         vars["EC2_URL"], S3: vars["S3_URL"],
		Account: vars["EC2_USER_ID"],
		http:    http.Client{Timeout: requestTimeout},
	}, vars, nil
}

// ServiceError is what the cloud answered instead of a result.
type ServiceError struct{ Code, Message string }

func (e *ServiceError) Error() string { return fmt.Sprintf("error (%s): %s", e.Code, e.Message) }

// Query calls an action of EC2 and decodes its reply into out.
func (c *Client) Query(ctx context.Context, action string, params url.Values, out any) error {
	form := url.Values{"Action": {action}, "Version": {"2016-11-15"}}
	for k, v := range params {
		form[k] = v
	}
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}
	reply, err := c.do(ctx, http.MethodPost, c.EC2, "ec2", header, []byte(form.Encode()))
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	if err := xml.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("%s: the reply can't be read: %w", action, err)
	}
	return nil
}

// CreateBucket that the caller owns; one that he has already is fine.
func (c *Client) CreateBucket(ctx context.Context, bucket string) error {
	_, err := c.do(ctx, http.MethodPut, c.S3+"/"+bucket, "s3", nil, nil)
	var known *ServiceError
	if errors.As(err, &known) && known.Code == "BucketAlreadyOwnedByYou" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create bucket %s: %w", bucket, err)
	}
	return nil
}

// PutObject under a canned ACL.
func (c *Client) PutObject(ctx context.Context, bucket, key, acl string, body []byte) error {
	header := http.Header{"X-Amz-Acl": {acl}}
	if _, err := c.do(ctx, http.MethodPut, c.S3+"/"+bucket+"/"+key, "s3", header, body); err != nil {
		return fmt.Errorf("upload %s/%s: %w", bucket, key, err)
	}
	return nil
}

// DeleteObject; one that isn't there is fine, as in S3.
func (c *Client) DeleteObject(ctx context.Context, bucket, key string) error {
	if _, err := c.do(ctx, http.MethodDelete, c.S3+"/"+bucket+"/"+key, "s3", nil, nil); err != nil {
		return fmt.Errorf("delete %s/%s: %w", bucket, key, err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, to, service string, header http.Header, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		r.Header[k] = v
	}
	if err := sigv4.Sign(r, body, c.Credentials, c.Region, service, time.Now()); err != nil {
		return nil, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, serviceError(resp.Status, reply)
	}
	return reply, nil
}

// serviceError reads EC2's form of an error (Response/Errors/Error), IAM's
// (ErrorResponse/Error) or S3's (Error). Whoever answers otherwise is no cloud,
// and is quoted.
func serviceError(status string, body []byte) error {
	var e struct {
		ServiceError
		Wrapped ServiceError `xml:"Error"`
		EC2     ServiceError `xml:"Errors>Error"`
	}
	if xml.Unmarshal(body, &e) == nil {
		for _, found := range []ServiceError{e.ServiceError, e.Wrapped, e.EC2} {
			if found.Code != "" {
				return &found
			}
		}
	}
	said := strings.Join(strings.Fields(string(body[:min(len(body), maxQuote)])), " ")
	return &ServiceError{status, strings.ToValidUTF8(said, "\uFFFD")}
}

// maxQuote is how much of an unreadable reply is shown, in bytes.
const maxQuote = 200
