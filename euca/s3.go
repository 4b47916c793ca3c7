package euca

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"mallee/wire/sigv4"
)

// objectURL is where an object lies; each part of its key is escaped.
func (c *Client) objectURL(bucket, key string) string {
	to := url.URL{Path: "/" + bucket + "/" + key}
	return c.S3 + to.EscapedPath()
}

// store says that there is an object store to speak to.
func (c *Client) store() error {
	if c.S3 == "" {
		return errors.New("the endpoint of the object store is not known: set S3_URL, or name it by --url")
	}
	return nil
}

// s3 does a request and drops the answer.
func (c *Client) s3(ctx context.Context, what, method, to string, header http.Header, body []byte) error {
	err := c.store()
	if err == nil {
		_, err = c.do(ctx, method, to, "s3", header, body)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// code of what the cloud refused; "" of other errors.
func code(err error) string {
	var known *ServiceError
	if errors.As(err, &known) {
		return known.Code
	}
	return ""
}

// CreateBucket that the caller owns; one that he has already is fine.
func (c *Client) CreateBucket(ctx context.Context, bucket string) error {
	return c.CreateBucketIn(ctx, bucket, "")
}

// CreateBucketIn is CreateBucket with a location constraint; "" is none.
func (c *Client) CreateBucketIn(ctx context.Context, bucket, location string) error {
	var body []byte
	if location != "" {
		body, _ = xml.Marshal(struct {
			XMLName  xml.Name `xml:"CreateBucketConfiguration"`
			Location string   `xml:"LocationConstraint"`
		}{Location: location}) // strings can't fail
	}
	err := c.s3(ctx, "create bucket "+bucket, http.MethodPut, c.S3+"/"+bucket, nil, body)
	if code(err) == "BucketAlreadyOwnedByYou" {
		return nil
	}
	return err
}

// DeleteBucket, which has to be empty.
func (c *Client) DeleteBucket(ctx context.Context, bucket string) error {
	return c.s3(ctx, "delete bucket "+bucket, http.MethodDelete, c.S3+"/"+bucket, nil, nil)
}

// HeadBucket says whether the caller may see the bucket.
func (c *Client) HeadBucket(ctx context.Context, bucket string) (bool, error) {
	err := c.s3(ctx, "look for bucket "+bucket, http.MethodHead, c.S3+"/"+bucket, nil, nil)
	if absent(err) {
		return false, nil
	}
	return err == nil, err
}

// PutObject under a canned ACL; "" is the bucket's own.
func (c *Client) PutObject(ctx context.Context, bucket, key, acl string, body []byte) error {
	header := http.Header{}
	if acl != "" {
		header.Set("X-Amz-Acl", acl)
	}
	return c.s3(ctx, "upload "+bucket+"/"+key, http.MethodPut, c.objectURL(bucket, key), header, body)
}

// PutStream is PutObject for what isn't in memory: size bytes, whose SHA-256 in
// hexadecimal digits is sum. It may take as long as a slow network needs for them.
func (c *Client) PutStream(ctx context.Context, bucket, key, acl string, body io.Reader, size int64, sum string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout+time.Duration(size)*time.Second/slowNetwork)
	defer cancel()
	err := c.store()
	if err == nil {
		err = c.putStream(ctx, c.objectURL(bucket, key), acl, body, size, sum)
	}
	if err != nil {
		return fmt.Errorf("upload %s/%s: %w", bucket, key, err)
	}
	return nil
}

// slowNetwork is one that is still waited for, in bytes a second.
const slowNetwork = 64 << 10

func (c *Client) putStream(ctx context.Context, to, acl string, body io.Reader, size int64, sum string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, to, io.NopCloser(body))
	if err != nil {
		return err
	}
	if r.ContentLength = size; size == 0 {
		r.Body = http.NoBody
	}
	if acl != "" {
		r.Header.Set("X-Amz-Acl", acl)
	}
	if err := sigv4.SignHash(r, sum, c.Credentials, c.Region, "s3", time.Now()); err != nil {
		return err
	}
	patient := c.http
	patient.Timeout = 0 // the context has one
	resp, err := c.exchange(&patient, r, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// DeleteObject; one that isn't there is fine, as in S3.
func (c *Client) DeleteObject(ctx context.Context, bucket, key string) error {
	return c.s3(ctx, "delete "+bucket+"/"+key, http.MethodDelete, c.objectURL(bucket, key), nil, nil)
}

// GetObject streams an object, of size bytes. The caller closes it; it may take
// as long as ctx lets it.
func (c *Client) GetObject(ctx context.Context, bucket, key string) (body io.ReadCloser, size int64, err error) {
	resp, err := c.object(ctx, "download", http.MethodGet, bucket, key)
	if err != nil {
		return nil, 0, err
	}
	return resp.Body, resp.ContentLength, nil
}

// ObjectInfo is what S3 says of an object.
type ObjectInfo struct {
	Key      string    `xml:"Key"`
	Size     int64     `xml:"Size"` // bytes
	ETag     string    `xml:"ETag"` // without quotes
	Modified time.Time `xml:"LastModified"`
}

// HeadObject describes an object; ok is false where there is none.
func (c *Client) HeadObject(ctx context.Context, bucket, key string) (info ObjectInfo, ok bool, err error) {
	resp, err := c.object(ctx, "look for", http.MethodHead, bucket, key)
	if absent(err) {
		return info, false, nil
	}
	if err != nil {
		return info, false, err
	}
	defer resp.Body.Close()
	info = ObjectInfo{Key: key, ETag: strings.Trim(resp.Header.Get("ETag"), `"`)}
	info.Size, _ = strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64)
	info.Modified, _ = http.ParseTime(resp.Header.Get("Last-Modified"))
	return info, true, nil
}

func (c *Client) object(ctx context.Context, doing, method, bucket, key string) (*http.Response, error) {
	patient := c.http
	patient.Timeout = 0 // of the whole answer; its beginning still has one
	err := c.store()
	var resp *http.Response
	if err == nil {
		resp, err = c.send(ctx, &patient, method, c.objectURL(bucket, key), "s3", nil, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s/%s: %w", doing, bucket, key, err)
	}
	return resp, nil
}

// absent tells that there is no such thing. The answer to HEAD has no body that
// could say so: it is its status.
func absent(err error) bool {
	c := code(err)
	return c == "NoSuchKey" || c == "NoSuchBucket" || strings.HasPrefix(c, "404")
}

// Objects of a bucket whose keys begin with a prefix, in the keys' order; an
// error is the last that is yielded.
func (c *Client) Objects(ctx context.Context, bucket, prefix string) iter.Seq2[ObjectInfo, error] {
	return func(yield func(ObjectInfo, error) bool) {
		for after := ""; ; {
			found, more, err := c.listPage(ctx, bucket, prefix, after)
			if err != nil {
				yield(ObjectInfo{}, fmt.Errorf("list bucket %s: %w", bucket, err))
				return
			}
			for _, o := range found {
				if after = o.Key; !yield(o, nil) {
					return
				}
			}
			if !more || len(found) == 0 {
				return
			}
		}
	}
}

// listPage is one page of a list, of the keys after one.
func (c *Client) listPage(ctx context.Context, bucket, prefix, after string) (found []ObjectInfo, more bool, err error) {
	if err := c.store(); err != nil {
		return nil, false, err
	}
	query := url.Values{"list-type": {"2"}, "prefix": {prefix}}
	if after != "" {
		query.Set("start-after", after)
	}
	text, err := c.do(ctx, http.MethodGet, c.S3+"/"+bucket+"?"+query.Encode(), "s3", nil, nil)
	if err != nil {
		return nil, false, err
	}
	var page struct {
		IsTruncated bool
		Contents    []ObjectInfo
	}
	if err := xml.Unmarshal(text, &page); err != nil {
		return nil, false, fmt.Errorf("the reply can't be read: %w", err)
	}
	for i := range page.Contents {
		page.Contents[i].ETag = strings.Trim(page.Contents[i].ETag, `"`)
	}
	return page.Contents, page.IsTruncated, nil
}
