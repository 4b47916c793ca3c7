package euca

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"time"

	"mallee/wire/sigv4"
)

// uploadForm is what lets objects be uploaded by a policy that somebody else
// has signed: the fields of a form that S3 takes from browsers.
type uploadForm struct {
	fields map[string]string
}

// uploadForm of the options; nil where there is no policy.
func (s *session) uploadForm() (*uploadForm, error) {
	policy := []byte(s.text("upload-policy"))
	if s.given("upload-policy-file") {
		var err error
		if policy, err = s.fileOrInput(s.text("upload-policy-file"), maxUserData); err != nil {
			return nil, fmt.Errorf("argument --upload-policy-file: %w", err)
		}
	}
	if len(policy) == 0 {
		return nil, nil
	}
	switch {
	case !s.given("access-key-id"):
		return nil, errors.New("argument -I/--access-key-id is required with an upload policy: the key of who has signed it")
	case !s.given("upload-policy-signature"):
		return nil, errors.New("argument --upload-policy-signature is required with an upload policy")
	}
	return newUploadForm(policy, s.text("upload-policy-signature"), s.access.Credentials)
}

// newUploadForm of a policy in JSON. Its own conditions tell which version it is
// signed by: Version 4 has its credential and date among them.
func newUploadForm(policy []byte, signature string, by sigv4.Credentials) (*uploadForm, error) {
	var read struct {
		Conditions []json.RawMessage `json:"conditions"`
	}
	if err := json.Unmarshal(policy, &read); err != nil {
		return nil, fmt.Errorf("the upload policy is no JSON: %w", err)
	}
	f := &uploadForm{map[string]string{"policy": base64.StdEncoding.EncodeToString(policy)}}
	for _, c := range read.Conditions {
		var exact map[string]string
		if json.Unmarshal(c, &exact) != nil {
			continue // such as ["starts-with", …]
		}
		for name, value := range exact {
			if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") {
				f.fields[name] = value
			}
		}
	}
	if f.fields["x-amz-credential"] != "" {
		f.fields["x-amz-signature"] = signature
	} else {
		f.fields["AWSAccessKeyId"], f.fields["signature"] = by.AccessKey, signature
	}
	if by.Token != "" {
		f.fields["x-amz-security-token"] = by.Token
	}
	return f, nil
}

// post an object of size bytes.
func (f *uploadForm) post(ctx context.Context, c *Client, bucket, key, acl string, body io.Reader, size int64) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout+time.Duration(size)*time.Second/slowNetwork)
	defer cancel()
	err := c.store()
	if err == nil {
		err = f.send(ctx, c, bucket, key, acl, body, size)
	}
	if err != nil {
		return fmt.Errorf("upload %s/%s by a policy: %w", bucket, key, err)
	}
	return nil
}

func (f *uploadForm) send(ctx context.Context, c *Client, bucket, key, acl string, body io.Reader, size int64) error {
	var around bytes.Buffer // what goes before and after the body
	w := multipart.NewWriter(&around)
	fields := map[string]string{"key": key, "acl": acl}
	for name, value := range f.fields {
		fields[name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if err := w.WriteField(name, fields[name]); err != nil {
			return err
		}
	}
	if _, err := w.CreateFormFile("file", key[strings.LastIndex(key, "/")+1:]); err != nil {
		return err
	}
	before := bytes.Clone(around.Bytes())
	around.Reset()
	if err := w.Close(); err != nil {
		return err
	}
	whole := io.MultiReader(bytes.NewReader(before), body, &around)
	length := int64(len(before)) + size + int64(around.Len())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.S3+"/"+bucket, io.NopCloser(whole))
	if err != nil {
		return err
	}
	r.ContentLength = length
	r.Header.Set("Content-Type", w.FormDataContentType())
	patient := c.http
	patient.Timeout = 0 // the context has one
	resp, err := c.exchange(&patient, r, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
