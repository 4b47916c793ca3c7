package euca

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
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
	debug       io.Writer // told of each request; nil is nobody
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
	reply, err := c.query(ctx, action, params)
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	if err := xml.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("%s: the reply can't be read: %w", action, err)
	}
	return nil
}

// Call an action of EC2. Where its answer comes in pages, these are one.
func (c *Client) Call(ctx context.Context, action string, params url.Values) (*element, error) {
	var all *element
	params = maps.Clone(params)
	for range maxPages {
		reply, err := c.query(ctx, action, params)
		if err != nil {
			return nil, err
		}
		page, err := parseReply(reply)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", action, err)
		}
		if all == nil {
			all = page
		} else {
			all.append(page)
		}
		next := page.get("nextToken")
		if next == "" {
			return all, nil
		}
		params.Set("NextToken", next)
	}
	return nil, fmt.Errorf("%s: the answer has more than %d pages", action, maxPages)
}

// maxPages bounds how many pages of an answer are read.
const maxPages = 10000

func (c *Client) query(ctx context.Context, action string, params url.Values) ([]byte, error) {
	form := url.Values{"Action": {action}, "Version": {"2016-11-15"}}
	maps.Copy(form, params)
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}
	return c.do(ctx, http.MethodPost, c.EC2, "ec2", header, []byte(form.Encode()))
}

// do a request, and return the whole answer.
func (c *Client) do(ctx context.Context, method, to, service string, header http.Header, body []byte) ([]byte, error) {
	resp, err := c.send(ctx, &c.http, method, to, service, header, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxReply))
}

// send a request, signed. The answer is one of success, whose body the caller
// closes; every other one is a *ServiceError.
func (c *Client) send(ctx context.Context, by *http.Client, method, to, service string, header http.Header, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	maps.Copy(r.Header, header)
	if err := sigv4.Sign(r, body, c.Credentials, c.Region, service, time.Now()); err != nil {
		return nil, err
	}
	return c.exchange(by, r, body)
}

// exchange a signed request for its answer; body is what can be told of.
func (c *Client) exchange(by *http.Client, r *http.Request, body []byte) (*http.Response, error) {
	resp, err := by.Do(r)
	if err != nil {
		return nil, err
	}
	c.tell(r, body, resp)
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return nil, err
	}
	return nil, serviceError(resp.Status, reply)
}

// tell who debugs what was asked, and how it went.
func (c *Client) tell(r *http.Request, body []byte, resp *http.Response) {
	if c.debug == nil {
		return
	}
	fmt.Fprintf(c.debug, "%s %s: %s\n", r.Method, r.URL, resp.Status)
	if r.Method == http.MethodPost {
		fmt.Fprintf(c.debug, "  %s\n", body[:min(len(body), 4096)])
	}
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
